"""The store: opening, ids, what is live, the query log, and what several users may do at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rows import ALL, CORPUS, Load, content, done, ids, row

from faqsearch.errors import CorpusExistsError, CorpusNotFoundError, EntryInvalidError, EntryNotFoundError, StoreError
from faqsearch.model import Corpus, EntryDraft, Hit, LiveQuestion, SearchResult, Timing
from faqsearch.store import SCHEMA, LogLine, Store

ZERO = Timing(0.0, 0.0, 0.0, 0.0)


def switch(store: Store, entry_id: int, enabled: bool) -> int:
    return store.set_many([entry_id], {"enabled": enabled}, who="", action="enable" if enabled else "disable")


# --- opening


@pytest.mark.parametrize("empty_file", [False, True])
def test_a_new_database_gets_the_newest_schema_and_is_kept(tmp_path: Path, empty_file: bool) -> None:
    path = tmp_path / "新 folder" / "faq.sqlite3"
    if empty_file:
        path.parent.mkdir()
        path.touch()
    store = Store(path)
    created = store.create_corpus(CORPUS)
    store.close()
    with sqlite3.connect(path) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)]
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    store = Store(path)
    assert store.corpora() == [created] == [replace(CORPUS, id=1)]
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faq.sqlite3"
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(StoreError) as refused:
        Store(path)
    assert str(refused.value) == (
        f"{path} was written by a newer faqsearch (schema 9999, this program knows {SCHEMA}); update the program"
    )


def test_a_database_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE entries (name TEXT)")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is a database of another program; name a new file"):
        Store(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["other.sqlite3"]


def test_what_is_no_database_is_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database at all, but long enough to have a header\n" * 100, encoding="utf-8")
    for path, reason in (
        (text, "is no SQLite database"),
        (tmp_path, "cannot be opened"),
        (text / "faq.sqlite3", "cannot be made"),
    ):
        with pytest.raises(StoreError, match=reason) as refused:
            Store(path)
        assert "\n" not in str(refused.value)


def test_processes_that_open_a_new_database_at_once_all_succeed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, alembic.command; from faqsearch.store import Store\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(5):\n"
        "    store = Store(pathlib.Path(sys.argv[1]) / f'{n}.sqlite3'); print(store.corpora()); store.close()"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [(*child.communicate(timeout=60), child.returncode) for child in children] == [("[]\n" * 5, "", 0)] * 3


def test_threads_that_open_new_databases_at_once_all_succeed(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def open_one(name: str) -> list[Corpus]:
        together.wait()
        store = Store(tmp_path / name)
        try:
            return store.corpora()
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        for n in range(5):
            # Two for one file, two for files of their own.
            assert list(pool.map(open_one, [f"{n}", f"{n}", f"{n}b", f"{n}c"])) == [[], [], [], []]


def test_opening_waits_for_a_writer_that_has_begun_a_new_database(tmp_path: Path) -> None:
    path = tmp_path / "faq.sqlite3"
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def end_soon() -> None:
        time.sleep(0.2)
        writer.rollback()

    with closing(writer), ThreadPoolExecutor(1) as pool:
        writer.execute("BEGIN IMMEDIATE")
        pool.submit(end_soon)
        store = Store(path)
        assert store.corpora() == []
        store.close()


# --- ids


def test_ids_of_what_was_deleted_are_never_given_again(store: Store, load: Load) -> None:
    load(row("a", "one"), row("b", "two", "three"))
    newest = store.entry_by_key("bank", "b")
    assert (newest.id, [question.id for question in newest.questions]) == (2, [2, 3])
    store.delete_entry(2)
    added = store.add_entry("bank", row("c", "four"))
    assert (added.id, added.questions[0].id) == (3, 4)
    load(row("d", "five"), mode="replace")
    assert (store.entry_by_key("bank", "d").id, ids(store)) == (4, {"five": 5})
    store.delete_corpus("bank")
    load(row("a", "one"))
    assert (store.corpus("bank").id, [entry.id for entry in store.entries("bank")], ids(store)) == (2, [5], {"one": 6})


@pytest.mark.parametrize("entry_id", [0, -1, 2, 2**70])
def test_an_id_that_no_entry_has_is_not_found(store: Store, load: Load, entry_id: int) -> None:
    load(row("a", "one"))
    with pytest.raises(EntryNotFoundError, match=f"no entry {entry_id};"):
        store.entry(entry_id)


def test_a_question_keeps_its_id_for_as_long_as_its_text_stays(store: Store, load: Load) -> None:
    load(row("a", "one", "two", "three"))
    assert ids(store) == {"one": 1, "two": 2, "three": 3}
    # Another answer, another order, one phrasing gone: what stays keeps its id.
    assert load(row("a", "two", "one", answer="y")) == done(updated=1)
    assert ids(store) == {"two": 2, "one": 1}
    # The same letters in another case fold alike, but the text is another one.
    assert load(row("a", "two", "One", answer="y")) == done(updated=1)
    assert ids(store) == {"two": 2, "One": 4}
    assert store.edit_entry(1, lambda _: row("a", "Two", "One")).questions[0].id == 5
    assert store.edit_entry(1, lambda _: row("a", "Two", "One", answer="z")).questions[1].id == 4
    assert content(store) == [("a", ("Two", "One"), "z")]


# --- what is live


def test_only_what_is_enabled_and_valid_now_is_live(store: Store, load: Load) -> None:
    moment = datetime.now().replace(microsecond=0)
    hour = timedelta(hours=1)
    drafts = [
        replace(row("on", "q on", "s on"), category="c", valid_from=moment - hour, valid_to=moment + hour),
        replace(row("off", "q off"), enabled=False),
        replace(row("later", "q later"), valid_from=moment + hour),
        replace(row("over", "q over"), valid_to=moment - hour),
        row("gone", "q gone"),
    ]
    load(*drafts)
    corpus = store.corpus("bank").id
    store.delete_entry(store.entry_by_key("bank", "gone").id)
    on = LiveQuestion(2, "s on", 1, "on", "q on", "x", "c")
    assert store.live(corpus, range(1, 10)) == {1: replace(on, id=1, text="q on"), 2: on}
    assert store.exact(corpus, ["s on", "q off", "q later", "q over", "q gone"]) == {"s on": on}
    assert (store.live(corpus + 1, [1, 2]), store.exact(corpus + 1, ["s on"])) == ({}, {})
    switch(store, 1, False)
    switch(store, 2, True)
    assert list(store.live(corpus, range(1, 10))) == [3]
    assert switch(store, 2, True) == 0


def test_every_change_raises_the_revision_once_and_no_change_does_not(store: Store, load: Load) -> None:
    revisions = []
    for change in (
        lambda: load(row("a", "one"), row("b", "two")),
        lambda: load(row("a", "one"), row("b", "two")),
        lambda: switch(store, 1, True),
        lambda: switch(store, 1, False),
        lambda: store.edit_entry(2, lambda _: row("b", "two", "three")),
        lambda: store.add_entry("bank", row("c", "four")),
        lambda: store.delete_entry(3),
    ):
        change()
        revisions.append(store.corpus("bank").revision)
    assert revisions == [1, 1, 1, 2, 3, 4, 5]


def test_names_keys_and_phrasings_that_are_taken_are_refused(store: Store, load: Load) -> None:
    load(row("a", "one"), row("b", "two"))
    with pytest.raises(CorpusExistsError, match="corpus 'bank' exists already"):
        store.create_corpus(CORPUS)
    with pytest.raises(CorpusNotFoundError, match="no corpus 'bnak'; there are bank"):
        store.corpus("bnak")
    with pytest.raises(EntryInvalidError, match="key: 'a' belongs to entry 1 of this corpus already"):
        store.add_entry("bank", row("a", "three"))
    with pytest.raises(EntryInvalidError, match="question: 'ONE' leads to another entry already: entry 1"):
        store.add_entry("bank", row(None, "ONE"))
    before = list(store.entries("bank"))
    with pytest.raises(EntryInvalidError, match="similar: 'one' leads to another entry already: entry 1"):
        store.edit_entry(2, lambda _: row("changed", "two", "one"))
    assert list(store.entries("bank")) == before
    assert store.entry_ids(store.corpus("bank").id, ["a", "TWO", "three"]) == {"a": 1, "TWO": 2}


# --- several at once


def test_the_query_log_keeps_what_was_found_and_outlives_the_entry(store: Store, load: Load) -> None:
    load(row("a", "one"))
    corpus = store.corpus("bank").id
    at = datetime(2026, 1, 2, 3, 4, 5)
    hit = Hit(1, 0.75, 1, "a", "one", "one", "x", "")
    found = SearchResult("uno", "bank", "suggest", (hit,), "000001-20260101T000000Z", Timing(1.0, 2.0, 3.0, 6.5))
    nothing = SearchResult("zzz", "bank", "none", (), None, ZERO)
    assert store.log_queries([LogLine(corpus, at, 1, found), LogLine(corpus, at, None, nothing)])
    assert store.log_queries([LogLine(99, at, None, nothing)])  # its corpus was deleted meanwhile
    store.delete_entry(1)
    first, second = store.query_log(corpus)
    assert (first["query"], first["decision"], first["entry_id"], first["question_id"]) == ("uno", "suggest", 1, 1)
    assert (first["at"], first["score"], first["index_version"], first["total_ms"]) == (
        at,
        0.75,
        found.index_version,
        6.5,
    )
    assert (second["query"], second["entry_id"], second["score"], second["index_version"]) == ("zzz", None, None, None)


def test_others_read_and_write_while_a_long_import_is_being_read(store: Store, load: Load, tmp_path: Path) -> None:
    load(row("a", "one"), row("b", "two"))
    other = Store(tmp_path / "faq.sqlite3")
    seen: list[list[str]] = []

    def rows() -> Iterator[EntryDraft]:
        for n in range(5_000):
            yield replace(row(f"N{n}", f"new {n}"), line=n + 2)
            if n == 4_500:  # two batches are staged by now
                seen.append([entry.question for entry in other.entries("bank")])
                other.edit_entry(1, lambda _: row("a", "uno"))

    result = store.import_entries(CORPUS, rows(), fields=ALL)
    assert (result.added, seen) == (5_000, [["one", "two"]])
    # A reader that has begun goes on with what there was, even when a replace comes between.
    reading = other.entries("bank")
    assert next(reading).question == "uno"
    assert load(row("b", "two"), mode="replace") == done(unchanged=1, removed=5_001)
    assert sum(1 for _ in reading) == 5_001
    assert [entry.question for entry in other.entries("bank")] == ["two"]
    other.close()


def test_the_query_log_gives_way_to_a_writer(store: Store, load: Load, tmp_path: Path) -> None:
    load(row("a", "one"))
    corpus = store.corpus("bank").id
    lines = [LogLine(corpus, datetime(2026, 1, 1), None, SearchResult("q", "bank", "none", (), None, ZERO))]
    writer = sqlite3.connect(tmp_path / "faq.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert store.log_queries(lines) is False
    writer.execute("ROLLBACK")
    writer.close()
    assert store.log_queries(lines) is True
    assert [line["query"] for line in store.query_log(corpus)] == ["q"]
