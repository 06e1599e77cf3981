"""The Streamlit pages: widgets and layout only. What they show and do is `FaqSearch`'s."""
