"""Old databases: one that an earlier program wrote opens with all that it holds, and does what a new one does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from fakes import FakeSource

import faqsearch
from faqsearch import EntryDraft, FaqSearch, Settings
from faqsearch.store import SCHEMA, Store
from faqsearch.text import normalise

LONG_AGO = "2025-03-04 05:06:07.000000"
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "corpora": [(1, "bank", "银行", "embedded", 0.9, 0.8, 7)],
    "entries": [
        (1, 1, "B1", "打开“贷款”。\n点提前还款。", "贷款", 1, None, "2999-01-31 23:59:59.000000", LONG_AGO, LONG_AGO),
        (4, 1, None, "在 App 申请。", "", 0, "2026-01-01 00:00:00.000000", None, LONG_AGO, LONG_AGO),
    ],
    "questions": [
        (1, 1, 1, 0, "怎么提前还款", normalise("怎么提前还款")),
        (9, 1, 1, 1, "提前結清", normalise("提前結清")),
        (5, 1, 4, 0, "临时额度怎么申请", normalise("临时额度怎么申请")),
    ],
    "index_builds": [("b" * 32, 1, LONG_AGO)],
    "query_log": [
        (1, 1, LONG_AGO, "下雨吗", "none", 1, 1, 0.4, None, 1.0, 2.0, 3.0, 6.0),
        (2, 1, LONG_AGO, "提前结清", "answer", 1, 9, 1.0, "000001-20250304T050607Z", 1.0, 2.0, 3.0, 6.0),
    ],
}
FIRST = EntryDraft(
    key="B1",
    question="怎么提前还款",
    similar=("提前結清",),
    answer="打开“贷款”。\n点提前还款。",
    category="贷款",
    valid_to=datetime(2999, 1, 31, 23, 59, 59),
)


def alembic(path: Path, revision: str, *, down: bool = False) -> None:
    """Bring a database to a revision, as the program of that time did."""
    config = Config()
    config.set_main_option("script_location", str(Path(faqsearch.__file__).parent / "migrations"))
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
    engine.dispose()


@pytest.fixture
def old(settings: Settings) -> Path:
    """A database of schema 0001 with two entries and two logged queries."""
    path = settings.database_path
    path.parent.mkdir(parents=True)
    alembic(path, "0001")
    with closing(sqlite3.connect(path)) as raw, raw:
        for table, rows in ROWS.items():
            raw.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    return path


@pytest.fixture
def faq(old: Path, settings: Settings, source: FakeSource) -> Iterator[FaqSearch]:
    """The service over the old database."""
    with FaqSearch.open(settings, encoders=source) as service:
        yield service


def schema(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Columns by table, and the indexes."""
    with closing(sqlite3.connect(path)) as raw:
        names = [row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        found = {name: [row[1:4] for row in raw.execute(f"PRAGMA table_info({name})")] for name in names}
        found["indexes"] = sorted(raw.execute("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index'"))
        return found


def test_all_that_the_old_database_held_is_there(faq: FaqSearch, old: Path) -> None:
    with closing(sqlite3.connect(old)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        for table, rows in ROWS.items():
            kept = raw.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall()
            assert [row[: len(rows[0])] for row in kept] == sorted(rows), table
    (corpus,) = faq.corpora()
    assert (corpus.title, corpus.revision, faq.counts("bank").questions) == ("银行", 7, 3)
    first, second = faq.entries("bank")
    assert (first.version, first.valid_to, second.version, second.enabled) == (1, FIRST.valid_to, 1, False)
    assert faq.search("提前結清", corpus="bank").hits[0].entry_id == 1


def test_ids_go_on_where_they_were(faq: FaqSearch) -> None:
    added = faq.add_entry("bank", EntryDraft(question="neu", answer="x"))
    assert (added.id, added.questions[0].id) == (5, 10)


def test_history_begins_with_the_first_change(faq: FaqSearch) -> None:
    assert faq.history(1) == []
    faq.edit_entry(1, key=None, similar=(), valid_to=None, who="Anna")
    (change,) = faq.history(1)
    after = replace(FIRST, key=None, similar=(), valid_to=None)
    assert (change.action, change.who, change.before, change.after) == ("edit", "Anna", FIRST, after)
    assert faq.restore_entry(1, change.id).valid_to == FIRST.valid_to
    faq.delete_entry(4)
    before = faq.history(4)[0].before
    assert before is not None
    assert (before.enabled, before.valid_from) == (False, datetime(2026, 1, 1))


def test_old_queries_count_in_the_figures_but_wait_for_nobody(faq: FaqSearch) -> None:
    """They have no id, so that nobody could take them out of the queue."""
    assert faq.unanswered("bank") == ()
    assert faq.statistics("bank", days=36_500).queries == 2
    asked = faq.search("下雨吗", corpus="bank")
    assert [query.query_id for group in faq.unanswered("bank") for query in group.queries] == [asked.query_id]


def test_a_migrated_database_has_the_schema_of_a_new_one(faq: FaqSearch, old: Path, tmp_path: Path) -> None:
    Store(tmp_path / "new.sqlite3").close()
    assert schema(old) == schema(tmp_path / "new.sqlite3")


def test_a_migration_that_fails_leaves_the_old_database_as_it_was(
    old: Path, settings: Settings, source: FakeSource
) -> None:
    with closing(sqlite3.connect(old)) as raw, raw:
        raw.execute("CREATE TABLE changes (id INTEGER)")  # in the way of the new one
    before = schema(old)
    with pytest.raises(faqsearch.FaqSearchError, match="changes"):
        FaqSearch.open(settings, encoders=source)
    assert schema(old) == before
    with closing(sqlite3.connect(old)) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        raw.execute("DROP TABLE changes")
    with FaqSearch.open(settings, encoders=source) as faq:
        assert faq.entry(1).version == 1


def test_the_step_can_be_taken_back(old: Path, settings: Settings, source: FakeSource) -> None:
    before = schema(old)
    FaqSearch.open(settings, encoders=source).close()
    assert schema(old) != before
    alembic(old, "0001", down=True)
    assert schema(old) == before
    with closing(sqlite3.connect(old)) as raw:
        for table, rows in ROWS.items():
            assert raw.execute(f"SELECT * FROM {table} ORDER BY rowid").fetchall() == sorted(rows), table


def test_what_the_history_holds_is_plain_json(faq: FaqSearch, old: Path) -> None:
    faq.set_enabled(1, False)
    with closing(sqlite3.connect(old)) as raw:
        (text,) = raw.execute("SELECT before FROM changes").fetchone()
    assert json.loads(text) == {
        "key": "B1",
        "questions": ["怎么提前还款", "提前結清"],
        "answer": "打开“贷款”。\n点提前还款。",
        "category": "贷款",
        "enabled": 1,
        "valid_from": None,
        "valid_to": "2999-01-31 23:59:59.000000",
    }
