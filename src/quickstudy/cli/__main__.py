"""`python -m quickstudy.cli`."""

from quickstudy.cli.app import main

main()
