"""The web UI: `streamlit run app.py`, or `faqsearch ui`."""

from faqsearch.ui.app import main

main()
