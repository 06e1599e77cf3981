"""Short ways to write entries, import them into a store, and say what is in it then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from faqsearch.model import Corpus, EntryDraft, RowError
from faqsearch.store import Imported, Store

ALL = frozenset(("key", "question", "similar", "answer", "category", "enabled", "valid_from", "valid_to"))
NO_SIMILAR = ALL - {"similar"}
CORPUS = Corpus(
    id=0, name="bank", title="Bank", encoder="embedded", answer_threshold=0.9, suggest_threshold=0.8, revision=0
)
Load = Callable[..., Imported]


def import_rows(store: Store, *rows: EntryDraft | RowError, corpus: Corpus = CORPUS, **options: object) -> Imported:
    """Import these as lines 2, 3, …, with all columns unless told otherwise."""
    numbered = [replace(row, line=line) for line, row in enumerate(rows, start=2)]
    return store.import_entries(corpus, numbered, **{"fields": ALL, **options})  # type: ignore[arg-type]


def row(key: str | None, question: str, *similar: str, answer: str = "x") -> EntryDraft:
    return EntryDraft(key=key, question=question, similar=similar, answer=answer)


def done(added: int = 0, updated: int = 0, unchanged: int = 0, removed: int = 0, *, created: bool = False) -> Imported:
    """An import without rejected rows."""
    return Imported(created, added, updated, unchanged, removed, ())


def content(store: Store, corpus: str = "bank") -> list[tuple[str | None, tuple[str, ...], str]]:
    return [(item.key, (item.question, *item.similar), item.answer) for item in store.entries(corpus)]


def ids(store: Store) -> dict[str, int]:
    return {question.text: question.id for entry in store.entries("bank") for question in entry.questions}


def problems(result: Imported) -> list[tuple[int, str, str]]:
    return [(error.line, error.column, error.reason) for error in result.errors]
