"""`python -m workers`: the command line, where the `namefree` script is not on the path."""

from workers.cli import main

main()
