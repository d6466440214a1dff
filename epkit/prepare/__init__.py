"""Prepare models for serving: export them from PyTorch, make them smaller or faster, and prove that they are still right."""
