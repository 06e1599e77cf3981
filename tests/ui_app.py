"""What the tests of the pages share: one page of the app in this process, over fake encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from streamlit.testing.v1 import AppTest

TIMEOUT = 30


class OpenPage(Protocol):
    """Opens a page: open_page("ask", lang="en", corpus="bank")."""

    def __call__(self, name: str, **query: str) -> AppTest: ...


def open_page(name: str, **query: str) -> AppTest:
    """Run one page as a first visit with these query parameters."""
    script = f"from faqsearch.ui.app import show\nshow({name!r})\n"
    app = AppTest.from_string(script, default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def texts_of(app: AppTest) -> str:
    """Everything that the page says, for looking a word up in it."""
    kinds: tuple[Callable[[], object], ...] = (
        lambda: app.title,
        lambda: app.header,
        lambda: app.subheader,
        lambda: app.markdown,
        lambda: app.caption,
        lambda: app.text,
        lambda: app.info,
        lambda: app.success,
        lambda: app.warning,
        lambda: app.error,
    )
    return "\n".join(str(element.value) for kind in kinds for element in kind())  # type: ignore[attr-defined] # each is a list of elements
