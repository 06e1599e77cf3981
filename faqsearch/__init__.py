"""Semantic question matching for FAQ answers.

    from faqsearch import FaqSearch

    with FaqSearch.open() as faq:
        result = faq.search("怎么提前还款", corpus="finance")

Importing this package loads neither torch nor faiss nor streamlit: the public names are looked up at
their first use, and heavy libraries where they are first needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faqsearch.errors import FaqSearchError
    from faqsearch.model import (
        Corpus,
        Entry,
        EntryDraft,
        Hit,
        ImportReport,
        IndexVersion,
        Question,
        SearchResult,
    )
    from faqsearch.registry import load_encoder
    from faqsearch.service import FaqSearch
    from faqsearch.settings import Settings
    from faqsearch.text import normalise

__version__ = "0.1.0"

_HOME = {
    "FaqSearch": "service",
    "FaqSearchError": "errors",
    "Settings": "settings",
    "load_encoder": "registry",
    "normalise": "text",
    **dict.fromkeys(
        ("Corpus", "Entry", "EntryDraft", "Hit", "ImportReport", "IndexVersion", "Question", "SearchResult"),
        "model",
    ),
}

__all__ = [
    "Corpus",
    "Entry",
    "EntryDraft",
    "FaqSearch",
    "FaqSearchError",
    "Hit",
    "ImportReport",
    "IndexVersion",
    "Question",
    "SearchResult",
    "Settings",
    "__version__",
    "load_encoder",
    "normalise",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public name
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
