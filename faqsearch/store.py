"""The answer store: corpora, entries, questions and the query log in SQLite. The one user of SQLAlchemy.

What goes in and comes out are the dataclasses of `model`, never rows. Each public method is one
transaction. Ids only grow and are never reused (AUTOINCREMENT), and a question's text never
changes: an edit deletes the question and makes a new one. The index relies on both.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import event, exc

from faqsearch.errors import (
    CorpusExistsError,
    CorpusNotFoundError,
    EntryConflictError,
    EntryInvalidError,
    EntryNotFoundError,
    QueryNotFoundError,
    StoreError,
)
from faqsearch.model import (
    AskedEntry,
    Change,
    Corpus,
    CorpusCounts,
    DayCount,
    Entry,
    EntryDraft,
    EntryPage,
    EntryState,
    Feedback,
    ImportMode,
    LiveQuestion,
    LoggedQuery,
    Progress,
    Question,
    RowError,
    SearchResult,
    StageTime,
    Statistics,
)
from faqsearch.staging import CHUNK, Apply, now, record_changes, stage, unstage
from faqsearch.text import normalise

SCHEMA = "0003"
"""The newest migration; a test holds it to the migrations folder."""
BUSY_TIMEOUT_MS = 30_000
HURRIED_MS = 50
"""How long the query log waits for another writer before the line is kept for later."""
MAX_ID = 2**63 - 1

STAGES = ("encode", "search", "fetch", "total")
QUEUE_LIMIT = 5_000
"""Newest unanswered queries that are looked at."""

_migrating = threading.Lock()  # Alembic keeps its state in module globals

_tables = sa.MetaData()
_corpora = sa.Table(
    "corpora",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("title", sa.Text),
    sa.Column("encoder", sa.Text),
    sa.Column("answer_threshold", sa.Float),
    sa.Column("suggest_threshold", sa.Float),
    sa.Column("revision", sa.Integer),
    sa.Column("index_kind", sa.Text),
)
_entries = sa.Table(
    "entries",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("corpus_id", sa.Integer),
    sa.Column("key", sa.Text),
    sa.Column("answer", sa.Text),
    sa.Column("category", sa.Text),
    sa.Column("enabled", sa.Boolean),
    sa.Column("valid_from", sa.DateTime),
    sa.Column("valid_to", sa.DateTime),
    sa.Column("created_at", sa.DateTime),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("version", sa.Integer),
)
_changes = sa.Table(
    "changes",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("corpus_id", sa.Integer),
    sa.Column("entry_id", sa.Integer),
    sa.Column("at", sa.DateTime),
    sa.Column("who", sa.Text),
    sa.Column("action", sa.Text),
    sa.Column("before", sa.Text),
)
_questions = sa.Table(
    "questions",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("corpus_id", sa.Integer),
    sa.Column("entry_id", sa.Integer),
    sa.Column("position", sa.Integer),
    sa.Column("text", sa.Text),
    sa.Column("folded", sa.Text),
)
_index_builds = sa.Table(
    "index_builds",
    _tables,
    sa.Column("build", sa.Text, primary_key=True),
    sa.Column("corpus_id", sa.Integer),
    sa.Column("at", sa.DateTime),
)
_query_log = sa.Table(
    "query_log",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("corpus_id", sa.Integer),
    sa.Column("at", sa.DateTime),
    sa.Column("query", sa.Text),
    sa.Column("decision", sa.Text),
    sa.Column("entry_id", sa.Integer),
    sa.Column("question_id", sa.Integer),
    sa.Column("score", sa.Float),
    sa.Column("index_version", sa.Text),
    *(sa.Column(f"{stage}_ms", sa.Float) for stage in STAGES),
    sa.Column("ref", sa.Text),
    sa.Column("queued", sa.Boolean, default=False),
    sa.Column("feedback", sa.Text),
    sa.Column("feedback_entry_id", sa.Integer),
    sa.Column("feedback_who", sa.Text),
    sa.Column("feedback_at", sa.DateTime),
    sa.Column("handled", sa.Text),
    sa.Column("handled_who", sa.Text),
    sa.Column("handled_at", sa.DateTime),
)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did to the database. Errors name fields, not headers."""

    created: bool
    added: int
    updated: int
    unchanged: int
    removed: int
    errors: tuple[RowError, ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A search as it is written to the query log."""

    corpus_id: int
    at: datetime
    question_id: int | None
    result: SearchResult


class Store:
    """The database behind a SQLite file; migrated to the newest schema when it is opened.

    Safe to use from several threads and several processes (WAL, one writer at a time).

    Raises:
        StoreError: the file cannot be opened, is no faqsearch database, or a newer program wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
        self._closed = False
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
            max_overflow=-1,  # a reader that is left half way must not hold up others
        )
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)
        try:
            with self._transaction() as connection:
                current = self._schema_of(connection)
            self._use_wal()  # only now: another program's database stays as it is
            if current != SCHEMA:
                with _migrating:
                    self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections; what is asked of it afterwards raises StoreError."""
        self._closed = True
        self._engine.dispose()

    # --- corpora

    def corpora(self) -> list[Corpus]:
        """All corpora, by name."""
        with self._transaction() as connection:
            return [Corpus(**row) for row in connection.execute(_corpora.select().order_by("name")).mappings()]

    def corpus(self, name: str) -> Corpus:
        """The corpus of this name.

        Raises:
            CorpusNotFoundError: there is none.
        """
        with self._transaction() as connection:
            return self._corpus(connection, name)

    def create_corpus(self, corpus: Corpus) -> Corpus:
        """Make a corpus; the id and revision given do not count.

        Raises:
            CorpusExistsError: the name is taken.
        """
        with self._transaction(write=True) as connection:
            if connection.execute(sa.select(_corpora.c.id).where(_corpora.c.name == corpus.name)).first():
                raise CorpusExistsError(f"corpus {corpus.name!r} exists already")
            return self._create_corpus(connection, corpus)

    def set_corpus(self, name: str, changes: Mapping[str, Any]) -> Corpus:
        """Change title, encoder, thresholds or kind of index.

        Raises:
            StoreError: thresholds outside -1 ≤ suggest ≤ answer ≤ 1.
        """
        with self._transaction(write=True) as connection:
            corpus = self._corpus(connection, name)
            corpus = replace(corpus, **changes)
            if not -1 <= corpus.suggest_threshold <= corpus.answer_threshold <= 1:
                raise StoreError(
                    "thresholds: expected -1 ≤ suggest ≤ answer ≤ 1,"
                    f" got suggest {corpus.suggest_threshold}, answer {corpus.answer_threshold}"
                )
            if changes:
                connection.execute(_corpora.update().where(_corpora.c.id == corpus.id).values(**changes))
            return self._corpus(connection, name)

    def delete_corpus(self, name: str) -> int:
        """Delete a corpus with all that it holds; how many entries that were."""
        with self._transaction(write=True) as connection:
            corpus = self._corpus(connection, name)
            entries = connection.scalar(_count(_entries).where(_entries.c.corpus_id == corpus.id))
            connection.execute(_corpora.delete().where(_corpora.c.id == corpus.id))
            return entries or 0

    def counts(self, corpus_id: int) -> CorpusCounts:
        """How many entries and questions a corpus holds."""
        with self._transaction() as connection:
            entries, enabled = connection.execute(
                sa.select(
                    sa.func.count(), sa.func.coalesce(sa.func.sum(sa.cast(_entries.c.enabled, sa.Integer)), 0)
                ).where(_entries.c.corpus_id == corpus_id)
            ).one()
            questions = connection.scalar(_count(_questions).where(_questions.c.corpus_id == corpus_id))
            return CorpusCounts(entries, int(enabled), questions or 0)

    # --- entries

    def entry(self, entry_id: int) -> Entry:
        """The entry of this id.

        Raises:
            EntryNotFoundError: there is none.
        """
        with self._transaction() as connection:
            return self._entry(connection, entry_id)

    def entry_by_key(self, corpus: str, key: str) -> Entry:
        """The entry of this key in a corpus."""
        with self._transaction() as connection:
            corpus_id = self._corpus(connection, corpus).id
            entry_id = connection.scalar(
                sa.select(_entries.c.id).where(_entries.c.corpus_id == corpus_id, _entries.c.key == key)
            )
            if entry_id is None:
                raise EntryNotFoundError(f"corpus {corpus!r} has no entry with the key {key!r}")
            return self._entry(connection, entry_id)

    def entries(self, corpus: str) -> Iterator[Entry]:
        """All entries of a corpus by id, as of one moment, without holding them all at once."""
        with self._transaction() as connection:
            corpus_id = self._corpus(connection, corpus).id
            last = 0
            while True:
                where = (_entries.c.corpus_id == corpus_id, _entries.c.id > last)
                chunk = self._load_entries(connection, *where, limit=CHUNK)
                if not chunk:
                    return
                yield from chunk
                last = chunk[-1].id

    def entry_ids(self, corpus_id: int, names: Iterable[str]) -> dict[str, int]:
        """Entry ids by key, else by primary question; names that nothing answers to are left out."""
        found: dict[str, int] = {}
        with self._transaction() as connection:
            for chunk in _chunks(list(set(names))):
                by_key = sa.select(_entries.c.key, _entries.c.id).where(
                    _entries.c.corpus_id == corpus_id, _entries.c.key.in_(chunk)
                )
                found.update((row[0], row[1]) for row in connection.execute(by_key))
                folded: dict[str, list[str]] = {}
                for name in chunk:
                    if name not in found:
                        folded.setdefault(normalise(name), []).append(name)
                by_question = sa.select(_questions.c.folded, _questions.c.entry_id).where(
                    _questions.c.corpus_id == corpus_id,
                    _questions.c.position == 0,
                    _questions.c.folded.in_(folded),
                )
                for text, entry_id in connection.execute(by_question):
                    found.update(dict.fromkeys(folded[text], entry_id))
        return found

    def entry_page(
        self,
        corpus_id: int,
        *,
        text: str = "",
        category: str | None = None,
        state: EntryState | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> EntryPage:
        """The entries of a corpus that a filter leaves, newest change first.

        Args:
            corpus_id: which corpus.
            text: stands in a question, in the answer, or is the key; folded as for matching.
            category: exactly this one.
            state: on, off, expired or upcoming.
            offset: how many to pass over.
            limit: how many at most.
        """
        where = [_entries.c.corpus_id == corpus_id, *_state_is(state)]
        if category is not None:
            where.append(_entries.c.category == category)
        if text.strip():
            asked = sa.select(_questions.c.entry_id).where(
                _questions.c.corpus_id == corpus_id, _questions.c.folded.contains(normalise(text), autoescape=True)
            )
            said = _entries.c.answer.contains(text.strip(), autoescape=True)
            where.append(sa.or_(_entries.c.id.in_(asked), said, _entries.c.key == text.strip()))
        with self._transaction() as connection:
            total = connection.scalar(_count(_entries).where(*where)) or 0
            newest = (_entries.c.updated_at.desc(), _entries.c.id.desc())
            entries = self._load_entries(connection, *where, limit=limit, offset=offset, order=newest)
            return EntryPage(total, tuple(entries))

    def categories(self, corpus_id: int) -> dict[str, int]:
        """How many entries each category has."""
        query = (
            sa.select(_entries.c.category, sa.func.count())
            .where(_entries.c.corpus_id == corpus_id)
            .group_by(_entries.c.category)
            .order_by(_entries.c.category)
        )
        with self._transaction() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def add_entry(self, corpus: str, draft: EntryDraft, *, who: str = "") -> Entry:
        """Add one entry.

        Raises:
            EntryInvalidError: the key or a phrasing is taken.
        """
        return self._save(corpus, None, lambda _: draft, who=who)

    def edit_entry(
        self,
        entry_id: int,
        change: Callable[[EntryDraft], EntryDraft],
        *,
        version: int | None = None,
        who: str = "",
        action: str = "edit",
    ) -> Entry:
        """Give an entry another content, made from what it is now; questions that stay the same keep their ids.

        Raises:
            EntryConflictError: it is not of this version any more.
            EntryInvalidError: the key or a phrasing is taken.
        """
        corpus = self.entry(entry_id).corpus
        return self._save(corpus, entry_id, change, version=version, who=who, action=action)

    def set_many(self, entry_ids: Sequence[int], values: Mapping[str, Any], *, who: str, action: str) -> int:
        """Give several entries the same switch or category; how many that changed."""
        changed = 0
        with self._transaction(write=True) as connection:
            for chunk in _chunks(list(entry_ids)):
                other = sa.or_(*(_entries.c[name] != value for name, value in values.items()))
                query = sa.select(_entries.c.id, _entries.c.corpus_id).where(_entries.c.id.in_(chunk), other)
                found = connection.execute(query).all()
                ids = [row[0] for row in found]
                named = f"id IN ({', '.join(map(str, ids))})"
                record_changes(connection, named, who=who, action=action)
                connection.execute(
                    _entries.update()
                    .where(_entries.c.id.in_(ids))
                    .values(**values, updated_at=now(), version=_entries.c.version + 1)
                )
                for corpus_id in {row[1] for row in found}:
                    self._touch(connection, corpus_id)
                changed += len(ids)
        return changed

    def delete_entry(self, entry_id: int, *, who: str = "") -> Entry:
        """Delete an entry with its questions; what it was. Its history stays."""
        with self._transaction(write=True) as connection:
            entry = self._entry(connection, entry_id)
            record_changes(connection, "id = :id", who=who, action="delete", id=entry_id)
            connection.execute(_entries.delete().where(_entries.c.id == entry_id))
            self._touch(connection, self._corpus(connection, entry.corpus).id)
            return entry

    def changes(self, entry_id: int) -> list[Change]:
        """The history of an entry, newest change first; also of one that was deleted."""
        if not 0 < entry_id <= MAX_ID:
            return []
        with self._transaction() as connection:
            query = _changes.select().where(_changes.c.entry_id == entry_id).order_by(_changes.c.id.desc())
            rows = list(connection.execute(query).mappings())
            current = self._load_entries(connection, _entries.c.id == entry_id, limit=1)
        after = draft_of(current[0]) if current else None
        found = []
        for row in rows:
            before = _draft_from_json(row["before"]) if row["before"] else None
            found.append(Change(row["id"], entry_id, row["at"], row["who"], row["action"], before, after))
            after = before
        return found

    # --- questions, for index and search

    def question_ids(self, corpus_id: int) -> tuple[int, npt.NDArray[np.int64]]:
        """(revision, ids of all its questions in rising order), as of one moment."""
        with self._transaction() as connection:
            revision = connection.scalar(sa.select(_corpora.c.revision).where(_corpora.c.id == corpus_id))
            # As one text: five times as fast as row by row.
            query = sa.select(sa.func.group_concat(_questions.c.id)).where(_questions.c.corpus_id == corpus_id)
            ids = np.fromstring(connection.scalar(query) or "", dtype=np.int64, sep=",")
            return revision or 0, np.sort(ids)

    def pending(self, corpus_id: int, last_question_id: int) -> list[tuple[int, str]]:
        """(id, folded text) of the questions that are younger than an index."""
        query = (
            sa.select(_questions.c.id, _questions.c.folded)
            .where(_questions.c.corpus_id == corpus_id, _questions.c.id > last_question_id)
            .order_by(_questions.c.id)
        )
        with self._transaction() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def record_build(self, corpus_id: int, build: str) -> None:
        """Remember that an index is built from this database, before it is published.

        Ids are never reused within a database. One that is made anew, or comes back from a backup, gives them
        out again: an index from before then must not be used, and is known by its build not being here.
        """
        with self._transaction(write=True) as connection:
            connection.execute(_index_builds.insert().values(build=build, corpus_id=corpus_id, at=now()))

    def has_build(self, corpus_id: int, build: str) -> bool:
        """Whether an index was built from this database, for this corpus."""
        query = sa.select(_index_builds.c.build).where(
            _index_builds.c.build == build, _index_builds.c.corpus_id == corpus_id
        )
        with self._transaction() as connection:
            return connection.scalar(query) is not None

    def count_pending(self, corpus_id: int, last_question_id: int) -> int:
        """How many questions are younger than an index."""
        query = _count(_questions).where(_questions.c.corpus_id == corpus_id, _questions.c.id > last_question_id)
        with self._transaction() as connection:
            return connection.scalar(query) or 0

    def folded(self, question_ids: Sequence[int]) -> list[tuple[int, str]]:
        """(id, folded text) of those of these questions that still exist."""
        found: list[tuple[int, str]] = []
        with self._transaction() as connection:
            for chunk in _chunks(question_ids):
                query = sa.select(_questions.c.id, _questions.c.folded).where(_questions.c.id.in_(chunk))
                found += [(row[0], row[1]) for row in connection.execute(query)]
        return found

    def live(self, corpus_id: int, question_ids: Sequence[int]) -> dict[int, LiveQuestion]:
        """Those of these questions that may be shown now, by id.

        Live is what exists, is enabled and lies in its validity period.
        """
        found: dict[int, LiveQuestion] = {}
        with self._transaction() as connection:
            for chunk in _chunks(question_ids):
                rows = connection.execute(_LIVE_BY_ID, {"corpus": corpus_id, "moment": now(), "wanted": chunk})
                found.update((row[0], LiveQuestion(*row)) for row in rows)
        return found

    def exact(self, corpus_id: int, folded: Sequence[str]) -> dict[str, LiveQuestion]:
        """The live questions with one of these folded texts, by that text."""
        found: dict[str, LiveQuestion] = {}
        with self._transaction() as connection:
            for chunk in _chunks(folded):
                rows = connection.execute(_LIVE_BY_TEXT, {"corpus": corpus_id, "moment": now(), "wanted": chunk})
                found.update((row[-1], LiveQuestion(*row[:-1])) for row in rows)
        return found

    def log_queries(self, queries: Sequence[LogLine], *, wait_ms: int = HURRIED_MS) -> bool:
        """Write to the query log; False where another process is still writing after that time."""
        rows = []
        for item in queries:
            top = item.result.hits[0] if item.result.hits else None
            took = item.result.took_ms
            rows.append(
                {
                    "corpus_id": item.corpus_id,
                    "at": item.at,
                    "query": item.result.query,
                    "decision": item.result.decision,
                    "entry_id": top.entry_id if top else None,
                    "question_id": item.question_id,
                    "score": top.score if top else None,
                    "index_version": item.result.index_version,
                    "encode_ms": took.encode,
                    "search_ms": took.search,
                    "fetch_ms": took.fetch,
                    "total_ms": took.total,
                    "ref": item.result.query_id or None,
                }
            )
        try:
            with self._transaction(write=True, hurried_ms=wait_ms) as connection:
                # A corpus that was deleted meanwhile takes its log with it.
                known = set(connection.scalars(sa.select(_corpora.c.id)))
                if rows := [row for row in rows if row["corpus_id"] in known]:
                    connection.execute(_query_log.insert(), rows)
        except StoreError:
            return False
        return True

    def give_feedback(self, query_id: str, feedback: Feedback, entry_id: int | None, who: str) -> None:
        """Keep what a person says of an answer; a later word takes the place of an earlier one.

        A query that was dealt with comes back into the queue for `wrong` and `instead` alone.

        Raises:
            QueryNotFoundError: no such query in the log.
        """
        word = {"feedback": feedback, "feedback_entry_id": entry_id, "feedback_who": who, "feedback_at": datetime.now()}
        self._mark([query_id], **word, **({} if feedback == "right" else {"handled": None}))

    def enqueue(self, query_id: str) -> None:
        """Put a logged query into the queue of unanswered ones."""
        self._mark([query_id], queued=True, handled=None)

    def handle(self, query_ids: Sequence[str], how: str, who: str) -> None:
        """Take queries out of the queue: attached, added or dismissed."""
        self._mark(query_ids, handled=how, handled_who=who, handled_at=now())

    def check_queries(self, query_ids: Sequence[str]) -> None:
        """Do nothing, unless one of these queries is not in the log.

        Raises:
            QueryNotFoundError: one is not.
        """
        with self._transaction() as connection:
            found = 0
            for chunk in _chunks(list(set(query_ids))):
                found += connection.scalar(_count(_query_log).where(_query_log.c.ref.in_(chunk))) or 0
        _all_found(found, query_ids)

    def _mark(self, query_ids: Sequence[str], **values: object) -> None:
        with self._transaction(write=True) as connection:
            done = 0
            for chunk in _chunks(list(set(query_ids))):
                statement = _query_log.update().where(_query_log.c.ref.in_(chunk)).values(**values)
                done += connection.execute(statement).rowcount
            _all_found(done, query_ids)

    def unanswered(self, corpus_id: int) -> list[LoggedQuery]:
        """The queue: queries that got none, were marked wrong, or were put there; newest first."""
        log = _query_log.c
        wanted = sa.or_(log.decision == "none", log.feedback.in_(("wrong", "instead")), log.queued)
        query = (
            sa.select(log.ref, log.query, log.at, log.decision, log.feedback)
            .where(log.corpus_id == corpus_id, log.handled.is_(None), log.ref.is_not(None), wanted)
            .order_by(log.id.desc())
            .limit(QUEUE_LIMIT)
        )
        with self._transaction() as connection:
            return [LoggedQuery(*row) for row in connection.execute(query)]

    def statistics(self, corpus: Corpus, days: int, *, top: int, sample: int) -> Statistics:
        """What the query log says of the last days; see `FaqSearch.statistics`."""
        log = _query_log.c
        since = (now() - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0)
        recent = (log.corpus_id == corpus.id, log.at >= since)
        answered = (*recent, log.decision != "none", log.entry_id.is_not(None))
        primary = sa.and_(_questions.c.entry_id == _entries.c.id, _questions.c.position == 0)
        never = (
            _entries.c.corpus_id == corpus.id,
            _entries.c.enabled,
            _entries.c.id.not_in(sa.select(log.entry_id).where(*answered)),
        )
        most = (
            sa.select(_entries.c.id, _questions.c.text, sa.func.count())
            .join(_query_log, log.entry_id == _entries.c.id)
            .join(_questions, primary)
            .where(*answered)
            .group_by(_entries.c.id, _questions.c.text)
            .order_by(sa.func.count().desc(), _entries.c.id)
            .limit(top)
        )
        unasked = (
            sa.select(_entries.c.id, _questions.c.text, sa.literal(0))
            .join(_questions, primary)
            .where(*never)
            .order_by(_entries.c.id)
            .limit(top)
        )
        newest = sa.select(log.score, *(log[f"{stage}_ms"] for stage in STAGES)).where(*recent)
        with self._transaction() as connection:
            rows = connection.execute(newest.order_by(log.id.desc()).limit(sample)).all()
            times = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, len(STAGES))
            return Statistics(
                corpus=corpus.name,
                days=days,
                queries=connection.scalar(_count(_query_log).where(*recent)) or 0,
                decisions=_by_day(connection, log.at, log.decision, recent),
                feedback=_by_day(
                    connection,
                    log.feedback_at,
                    log.feedback,
                    (log.corpus_id == corpus.id, log.feedback_at >= since, log.feedback.is_not(None)),
                ),
                most_asked=tuple(AskedEntry(*row) for row in connection.execute(most)),
                never_asked=tuple(AskedEntry(*row) for row in connection.execute(unasked)),
                never_asked_total=connection.scalar(_count(_entries).where(*never)) or 0,
                scores=tuple(row[0] for row in rows if row[0] is not None),
                stages=tuple(
                    StageTime(stage, *(round(float(value), 3) for value in np.percentile(times[:, column], (50, 95))))
                    for column, stage in enumerate(STAGES)
                    if len(times)
                ),
            )

    def query_log(self, corpus_id: int) -> list[dict[str, Any]]:
        """The logged queries of a corpus, oldest first."""
        query = _query_log.select().where(_query_log.c.corpus_id == corpus_id).order_by(_query_log.c.id)
        with self._transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    # --- import

    def import_entries(
        self,
        corpus: Corpus,
        rows: Iterable[EntryDraft | RowError],
        *,
        fields: frozenset[str],
        mode: ImportMode = "merge",
        dry_run: bool = False,
        strict: bool = False,
        who: str = "",
        progress: Progress | None = None,
    ) -> Imported:
        """Import a table's rows in one transaction.

        A row is matched to an entry by its key, else by its primary question. `merge` leaves entries
        that the table does not name, `replace` removes them (but not one whose own row was rejected).

        Args:
            corpus: where to; made from these values where no corpus has its name.
            rows: entries and errors in line order; streamed to a temporary table first.
            fields: the entry fields that the table has columns for. When merging, the others stay as they are.
            mode: merge or replace.
            dry_run: report what would happen, and save nothing.
            strict: save nothing if any row is rejected.
            who: whom the history names.
            progress: told ("saving", rows staged, None).
        """
        with self._connection() as connection:
            with self._begun(connection):
                # Only temporary tables are written here: other writers go on while the file is read.
                errors = stage(connection, rows, progress)
            with self._begun(connection, write=True) as transaction:
                found = connection.execute(_corpora.select().where(_corpora.c.name == corpus.name)).mappings().first()
                target = Corpus(**found) if found else self._create_corpus(connection, corpus)
                result = Apply(connection, target.id, mode, fields, who=who).run(errors)
                if dry_run or (strict and result.errors):
                    transaction.rollback()
            with self._begun(connection):
                unstage(connection)
            return Imported(found is None, *result.counts, tuple(result.errors))

    def _save(
        self,
        corpus: str,
        entry_id: int | None,
        change: Callable[[EntryDraft], EntryDraft],
        *,
        version: int | None = None,
        who: str = "",
        action: str = "edit",
    ) -> Entry:
        """Add or edit one entry by the same rules as an import's rows."""
        fields = frozenset(("key", "similar", "category", "enabled", "valid_from", "valid_to"))
        with self._connection() as connection, self._begun(connection, write=True):
            corpus_id = self._corpus(connection, corpus).id
            draft = EntryDraft(question="", answer="")
            if entry_id is not None:
                current = self._entry(connection, entry_id)  # it may have been deleted meanwhile
                draft = draft_of(current)
                if version is not None and current.version != version:
                    raise EntryConflictError(
                        f"entry {entry_id} was changed meanwhile (it is version {current.version}, not {version});"
                        " look at both and save again",
                        current,
                    )
            draft = change(draft)
            if draft.key is not None:
                self._check_key(connection, corpus_id, draft.key, entry_id)
            stage(connection, [draft], None)
            if entry_id:
                connection.execute(sa.text("UPDATE staged SET entry_id = :id"), {"id": entry_id})
            apply = Apply(connection, corpus_id, "merge", fields, who=who, action=action)
            result = apply.run([], match=False)
            for error in result.errors:
                other, phrasing = self._holder(connection, corpus_id, draft, entry_id)
                message = f"{error.column}: {error.reason}"
                raise EntryInvalidError(message, field=error.column, entry_id=other, phrasing=phrasing)
            saved = connection.scalar(sa.text("SELECT entry_id FROM staged"))
            unstage(connection)
            return self._entry(connection, int(saved))

    # --- inside

    def _check_key(self, connection: sa.Connection, corpus_id: int, key: str, entry_id: int | None) -> None:
        taken = connection.scalar(
            sa.select(_entries.c.id).where(
                _entries.c.corpus_id == corpus_id, _entries.c.key == key, _entries.c.id != (entry_id or 0)
            )
        )
        if taken is not None:
            message = f"key: {key!r} belongs to entry {taken} of this corpus already"
            raise EntryInvalidError(message, field="key", entry_id=taken)

    def _holder(
        self, connection: sa.Connection, corpus_id: int, draft: EntryDraft, entry_id: int | None
    ) -> tuple[int | None, str]:
        """The first phrasing of a draft that another entry has, with that entry's id."""
        for text in (draft.question, *draft.similar):
            query = sa.select(_questions.c.entry_id).where(
                _questions.c.corpus_id == corpus_id,
                _questions.c.folded == normalise(text),
                _questions.c.entry_id != (entry_id or 0),
            )
            if (other := connection.scalar(query)) is not None:
                return int(other), text
        return None, ""

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """A connection whose database errors come out as StoreError."""
        if self._closed:
            raise StoreError(f"{self.path} was closed; open FaqSearch again")
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.SQLAlchemyError as error:
            raise StoreError(_explain(self.path, str(getattr(error, "orig", error)))) from error

    @contextmanager
    def _begun(self, connection: sa.Connection, *, write: bool = False) -> Iterator[sa.Transaction]:
        """A transaction on it; a writing one takes the write lock at once instead of failing half way."""
        connection.execution_options(faqsearch_write=write)
        with connection.begin() as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, *, write: bool = False, hurried_ms: int | None = None) -> Iterator[sa.Connection]:
        """A connection in a transaction; a hurried one waits little for other writers, and not for the disk."""
        with self._connection() as connection:
            if hurried_ms is not None:
                _set_pragmas(connection, busy_timeout=hurried_ms, synchronous="NORMAL")
            try:
                with self._begun(connection, write=write):
                    yield connection
            finally:
                if hurried_ms is not None:
                    _set_pragmas(connection, busy_timeout=BUSY_TIMEOUT_MS, synchronous="FULL")

    def _schema_of(self, connection: sa.Connection) -> str | None:
        """The schema version of the database, None for an empty one."""
        names = set(connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")))
        if "alembic_version" in names:
            version: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return version
        if names - {"sqlite_sequence"}:
            raise StoreError(f"{self.path} is a database of another program; name a new file in FAQSEARCH_DATABASE_URL")
        return None

    def _use_wal(self) -> None:
        """Write-ahead logging, so that readers and a writer do not block each other; kept in the file."""
        with self._connection() as connection:
            driver: Any = connection.connection.dbapi_connection  # outside any transaction
            end = time.monotonic() + BUSY_TIMEOUT_MS / 1000
            while True:
                try:
                    driver.execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.DatabaseError as error:
                    # The busy timeout does not hold here: SQLite refuses at once to turn a read lock into a write lock.
                    if "locked" not in str(error) or time.monotonic() > end:
                        raise StoreError(_explain(self.path, str(error))) from error
                time.sleep(0.01)

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        with self._transaction(write=True) as connection:
            current = self._schema_of(connection)  # another process may have been first
            if current is not None and current not in known:
                raise StoreError(
                    f"{self.path} was written by a newer faqsearch (schema {current}, this program knows {SCHEMA});"
                    " update the program"
                )
            if current != SCHEMA:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def _corpus(self, connection: sa.Connection, name: str) -> Corpus:
        row = connection.execute(_corpora.select().where(_corpora.c.name == name)).mappings().first()
        if row is None:
            names = ", ".join(connection.scalars(sa.select(_corpora.c.name).order_by("name")))
            cure = f"there are {names}" if names else "there is none yet; import a table first"
            raise CorpusNotFoundError(f"no corpus {name!r}; {cure}")
        return Corpus(**row)

    def _create_corpus(self, connection: sa.Connection, corpus: Corpus) -> Corpus:
        values = {
            "name": corpus.name,
            "title": corpus.title,
            "encoder": corpus.encoder,
            "answer_threshold": corpus.answer_threshold,
            "suggest_threshold": corpus.suggest_threshold,
        }
        connection.execute(_corpora.insert().values(**values, revision=0))
        return self._corpus(connection, corpus.name)

    def _touch(self, connection: sa.Connection, corpus_id: int) -> None:
        connection.execute(_corpora.update().where(_corpora.c.id == corpus_id).values(revision=_corpora.c.revision + 1))

    def _entry(self, connection: sa.Connection, entry_id: int) -> Entry:
        known = 0 < entry_id <= MAX_ID
        found = self._load_entries(connection, _entries.c.id == entry_id, limit=1) if known else []
        if not found:
            raise EntryNotFoundError(f"no entry {entry_id}; `faqsearch search` and `export` show the entries' ids")
        return found[0]

    def _load_entries(
        self,
        connection: sa.Connection,
        *where: sa.ColumnElement[bool],
        limit: int,
        offset: int = 0,
        order: Sequence[sa.ColumnElement[Any]] = (_entries.c.id,),
    ) -> list[Entry]:
        query = (
            sa.select(_entries, _corpora.c.name.label("corpus"))
            .join(_corpora, _corpora.c.id == _entries.c.corpus_id)
            .where(*where)
            .order_by(*order)
            .limit(limit)
            .offset(offset)
        )
        rows = [dict(row) for row in connection.execute(query).mappings()]
        questions: dict[int, list[Question]] = {row["id"]: [] for row in rows}
        phrasings = (
            sa.select(_questions.c.entry_id, _questions.c.id, _questions.c.text)
            .where(_questions.c.entry_id.in_(questions))
            .order_by(_questions.c.entry_id, _questions.c.position)
        )
        for entry_id, question_id, text in connection.execute(phrasings):
            questions[entry_id].append(Question(question_id, text))
        for row in rows:
            del row["corpus_id"]
        return [Entry(**row, questions=tuple(questions[row["id"]])) for row in rows]


# --- helpers -------------------------------------------------------------------------------------


def draft_of(entry: Entry) -> EntryDraft:
    """The content of an entry, without what the store gives it."""
    return entry.draft


def _draft_from_json(text: str) -> EntryDraft:
    """What `staging.record_changes` wrote."""
    values = json.loads(text)
    question, *similar = values.pop("questions")
    for name in ("valid_from", "valid_to"):
        values[name] = datetime.fromisoformat(values[name]) if values[name] else None
    values["enabled"] = bool(values["enabled"])
    return EntryDraft(question=question, similar=tuple(similar), **values)


def _all_found(found: int, query_ids: Sequence[str]) -> None:
    if found != len(set(query_ids)):
        raise QueryNotFoundError("this query is not in the log; was its corpus deleted, or logging off?")


def _state_is(state: EntryState | None) -> list[sa.ColumnElement[bool]]:
    moment = now()
    started = sa.or_(_entries.c.valid_from.is_(None), _entries.c.valid_from <= moment)
    ended = _entries.c.valid_to < moment
    if state == "on":
        return [_entries.c.enabled, started, sa.or_(_entries.c.valid_to.is_(None), sa.not_(ended))]
    if state == "off":
        return [sa.not_(_entries.c.enabled)]
    if state == "expired":
        return [_entries.c.enabled, ended]
    return [_entries.c.enabled, sa.not_(started)] if state == "upcoming" else []


def _by_day(
    connection: sa.Connection, at: sa.ColumnElement[Any], kind: sa.ColumnElement[Any], where: Sequence[Any]
) -> tuple[DayCount, ...]:
    day = sa.func.date(at)
    query = sa.select(day, kind, sa.func.count()).where(*where).group_by(day, kind).order_by(day, kind)
    return tuple(DayCount(*row) for row in connection.execute(query))


def _live() -> sa.Select[Any]:
    """Columns in the order of `LiveQuestion`, for a `corpus` at a `moment`."""
    moment = sa.bindparam("moment", type_=sa.DateTime)
    primary = _questions.alias("p")
    return (
        sa.select(
            _questions.c.id,
            _questions.c.text,
            _questions.c.entry_id,
            _entries.c.key,
            primary.c.text,
            _entries.c.answer,
            _entries.c.category,
        )
        .join(_entries, _entries.c.id == _questions.c.entry_id)
        .join(primary, sa.and_(primary.c.entry_id == _questions.c.entry_id, primary.c.position == 0))
        .where(
            _questions.c.corpus_id == sa.bindparam("corpus"),
            _entries.c.enabled,
            sa.or_(_entries.c.valid_from.is_(None), _entries.c.valid_from <= moment),
            sa.or_(_entries.c.valid_to.is_(None), _entries.c.valid_to >= moment),
        )
    )


# Built once: putting them together takes longer than running them, and every search runs both.
_LIVE_BY_ID = _live().where(_questions.c.id.in_(sa.bindparam("wanted", expanding=True)))
_LIVE_BY_TEXT = (
    _live().add_columns(_questions.c.folded).where(_questions.c.folded.in_(sa.bindparam("wanted", expanding=True)))
)


def _prepare_connection(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None  # transactions are begun by _begin, not by the driver's guesses
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "synchronous = FULL",  # what was committed survives a power cut
        "foreign_keys = ON",
        "cache_size = -65536",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("faqsearch_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _set_pragmas(connection: sa.Connection, **values: object) -> None:
    driver: Any = connection.connection.dbapi_connection  # outside any transaction, so not through SQLAlchemy
    for name, value in values.items():
        driver.execute(f"PRAGMA {name} = {value}")


def _explain(path: Path, what: str) -> str:
    if "locked" in what:
        return f"{path} stayed locked by another process for {BUSY_TIMEOUT_MS // 1000} s; try again when it is done"
    if "not a database" in what or "malformed" in what:
        return f"{path} is no SQLite database, or a damaged one ({what}); restore it from a backup"
    if "unable to open" in what:
        return f"{path} cannot be opened; check the folder's permissions"
    if "readonly" in what:
        return f"{path} cannot be written; check the file's permissions"
    if "full" in what:
        return f"{path}: the disk is full; nothing of this change was saved"
    return f"{path}: {what}"


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _count(table: sa.Table) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(table)
