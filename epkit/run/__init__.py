"""One run: arrays in, arrays out."""
