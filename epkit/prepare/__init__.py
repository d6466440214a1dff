"""Prepare models for serving: export them from PyTorch, and prove that they still compute the same."""
