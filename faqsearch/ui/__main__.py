"""The script that `faqsearch ui` hands to Streamlit; app.py does the same for a clone."""

from faqsearch.ui.app import main

main()
