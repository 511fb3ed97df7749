"""`python -m disstream` is the command line."""

from .cli import main

main(prog_name="disstream")
