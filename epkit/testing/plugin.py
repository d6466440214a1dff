"""What does epkit add to pytest? Loaded at every start of pytest where epkit is installed, so it imports little."""
