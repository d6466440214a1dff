"""Render a benchmark's document: sentences, tables, Markdown, pages, other formats."""
