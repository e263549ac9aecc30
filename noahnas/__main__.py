"""`python -m noahnas`."""

from noahnas.cli import main

main()
