"""Describe the machine that a benchmark ran on."""
