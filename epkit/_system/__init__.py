"""Ask the operating system: files, processes, libraries, locks, and text for people."""
