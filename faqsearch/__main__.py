"""`python -m faqsearch` is the command line."""

from faqsearch.cli import main

main()
