"""Run the command line as `python -m epkit`."""

from epkit.cli import main

main()
