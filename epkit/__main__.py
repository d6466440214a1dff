"""`python -m epkit` is the command `epkit`."""

from epkit.cli import main

main()
