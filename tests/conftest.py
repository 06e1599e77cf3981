"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from fakes import FakeEncoder, FakeSource
from rows import Load, import_rows

from faqsearch import FaqSearch, Settings, cli
from faqsearch.store import Store

ROOT = Path(__file__).parent.parent
SAMPLES = {"general": "general", "open-domain": "open_domain", "finance": "finance"}

Run = Callable[..., tuple[int, str, str]]
"""Runs a command line: (exit code, stdout, stderr)."""

# No test may reach a network: a missing checkpoint must be told, not fetched.
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _float32_unless_asked() -> Iterator[None]:
    """Embeddings in full precision, whatever this machine's hardware is fast at: tests compare them closely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faqsearch.encoder.has_fast_bf16", lambda _device: False)
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of whoever runs the tests do not count."""
    for name in list(os.environ):
        if name.startswith("FAQSEARCH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FAQSEARCH_PRECISION", "float32")  # also of programs that a test starts


@pytest.fixture
def source() -> FakeSource:
    """Fake encoders: `embedded` (every corpus's default) and `other`."""
    return FakeSource()


@pytest.fixture
def encoder(source: FakeSource) -> FakeEncoder:
    """The fake encoder of the corpora."""
    return source.encoders["embedded"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with everything under a new folder."""
    return Settings.load(tmp_path / "home")


@pytest.fixture
def faq(settings: Settings, source: FakeSource) -> Iterator[FaqSearch]:
    """A service over a new database, with the fake encoders."""
    with FaqSearch.open(settings, encoders=source) as service:
        yield service


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of cells as a CSV file: write_table(["question", "answer"], ["q", "a"], name="x.csv")."""
    import csv

    def write(*rows: Sequence[str], name: str = "table.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        with path.open("w", encoding=encoding, newline="") as handle:
            csv.writer(handle).writerows(rows)
        return path

    return write


@pytest.fixture
def ui(settings: Settings, source: FakeSource, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaqSearch]:
    """The service that the pages of the app use in this test, over a new database and fake encoders."""
    import streamlit as st

    from faqsearch import service
    from faqsearch.ui import common

    monkeypatch.setattr(service, "_Registry", lambda settings: source)
    monkeypatch.setenv("FAQSEARCH_HOME", str(settings.index_dir.parent))
    st.cache_resource.clear()
    shared = common.service()
    yield shared
    shared.close()
    st.cache_resource.clear()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new database by itself."""
    opened = Store(tmp_path / "faq.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def load(store: Store) -> Load:
    """Import drafts as lines 2, 3, …, with all columns unless told otherwise."""
    return partial(import_rows, store)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, which is quicker than in one of its own."""
    monkeypatch.setattr(cli, "_prepare_streams", lambda: None)  # the captured streams are not the real ones

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["faqsearch", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run
