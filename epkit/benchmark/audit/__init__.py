"""Check a benchmark's document: warnings, recomputation, comparison with another."""
