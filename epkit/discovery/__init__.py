"""Find the installed providers, and prove what this machine can run."""
