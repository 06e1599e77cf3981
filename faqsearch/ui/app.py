"""The frame of the web UI: navigation, language, and the one handler of errors around each page."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import pandas  # noqa: F401 - charts import it when first drawn, which several sessions at once must not do together
import streamlit as st

from faqsearch.ui.common import LANGUAGES, errors_shown, language, service, show_notices, t

PAGES = {
    "ask": ":material/search:",
    "entries_page": ":material/list_alt:",
    "import_export": ":material/upload_file:",
    "unanswered": ":material/contact_support:",
    "overview": ":material/monitoring:",
    "settings": ":material/tune:",
}
"""Pages in their order, with their icons; each is the function `page` of the module of its name."""


def main() -> None:
    """Draw the page that the address names."""
    _frame()
    pages = [
        st.Page(_runner(name), title=t(f"common.{name}"), icon=icon, url_path=name, default=name == "ask")
        for name, icon in PAGES.items()
    ]
    chosen = st.navigation(pages)
    chosen.run()


def show(name: str) -> None:
    """Draw one page without the navigation, as tests do."""
    _frame()
    _runner(name)()


def _frame() -> None:
    st.set_page_config(page_title=t("common.title"), page_icon=":material/search:", layout="wide")
    st.session_state.setdefault("language", st.query_params.get("lang", "zh"))
    if language() not in LANGUAGES:
        st.session_state["language"] = "zh"
    st.session_state.setdefault("person", st.query_params.get("person", ""))
    st.html("<style>[data-testid='InputInstructions'] { display: none; }</style>")  # Streamlit's own English
    service()
    show_notices()


def _runner(name: str) -> Callable[[], None]:
    def run() -> None:
        with errors_shown():
            import_module(f"faqsearch.ui.{name}").page()
        with st.sidebar:
            st.segmented_control(
                t("common.language"),
                list(LANGUAGES),
                format_func=LANGUAGES.__getitem__,
                key="language",
                persist_state="session",  # else it is forgotten when another page is opened
                required=True,
                label_visibility="collapsed",
            )

    run.__name__ = name  # Streamlit tells pages apart by the name of their function
    return run
