"""The answer store: corpora, entries, questions and the query log in SQLite. The one user of SQLAlchemy.

What goes in and comes out are the dataclasses of `model`, never rows. Each public method is one
transaction. Ids only grow and are never reused (AUTOINCREMENT), and a question's text never
changes: an edit deletes the question and makes a new one. The index relies on both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa
from sqlalchemy import event, exc

from faqsearch.errors import (
    CorpusExistsError,
    CorpusNotFoundError,
    EntryInvalidError,
    EntryNotFoundError,
    StoreError,
)
from faqsearch.model import (
    Corpus,
    CorpusCounts,
    Entry,
    EntryDraft,
    ImportMode,
    LiveQuestion,
    Progress,
    Question,
    RowError,
    SearchResult,
)
from faqsearch.text import normalise

SCHEMA = "0001"
"""The newest migration; a test holds it to the migrations folder."""
BUSY_TIMEOUT_MS = 30_000
CHUNK = 2_000
"""Rows that are written or read at once; below SQLite's limit of bound parameters."""

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
    *(sa.Column(f"{stage}_ms", sa.Float) for stage in ("encode", "search", "fetch", "total")),
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
class LoggedQuery:
    """A search as the query log keeps it."""

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
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)
        try:
            with self._transaction() as connection:
                current = self._schema_of(connection)
            if current != SCHEMA:
                self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
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
        """Change title, encoder or thresholds."""
        with self._transaction(write=True) as connection:
            corpus = self._corpus(connection, name)
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
                sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_entries.c.enabled), 0)).where(
                    _entries.c.corpus_id == corpus_id
                )
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
                folded = {normalise(name): name for name in chunk if name not in found}
                by_question = sa.select(_questions.c.folded, _questions.c.entry_id).where(
                    _questions.c.corpus_id == corpus_id, _questions.c.position == 0, _questions.c.folded.in_(folded)
                )
                found.update((folded[row[0]], row[1]) for row in connection.execute(by_question))
        return found

    def add_entry(self, corpus: str, draft: EntryDraft) -> Entry:
        """Add one entry.

        Raises:
            EntryInvalidError: the key or a phrasing is taken.
        """
        return self._save(corpus, draft, None)

    def edit_entry(self, entry_id: int, draft: EntryDraft) -> Entry:
        """Give an entry another content; questions that stay the same keep their ids."""
        return self._save(self.entry(entry_id).corpus, draft, entry_id)

    def set_enabled(self, entry_id: int, enabled: bool) -> Entry:
        """Switch an entry on or off."""
        with self._transaction(write=True) as connection:
            entry = self._entry(connection, entry_id)
            if entry.enabled != enabled:
                connection.execute(
                    _entries.update().where(_entries.c.id == entry_id).values(enabled=enabled, updated_at=_now())
                )
                self._touch(connection, self._corpus(connection, entry.corpus).id)
            return self._entry(connection, entry_id)

    def delete_entry(self, entry_id: int) -> Entry:
        """Delete an entry with its questions; what it was."""
        with self._transaction(write=True) as connection:
            entry = self._entry(connection, entry_id)
            connection.execute(_entries.delete().where(_entries.c.id == entry_id))
            self._touch(connection, self._corpus(connection, entry.corpus).id)
            return entry

    # --- questions, for index and search

    def question_ids(self, corpus_id: int) -> tuple[int, npt.NDArray[np.int64]]:
        """(revision, ids of all its questions in rising order), as of one moment."""
        with self._transaction() as connection:
            revision = connection.scalar(sa.select(_corpora.c.revision).where(_corpora.c.id == corpus_id))
            query = sa.select(_questions.c.id).where(_questions.c.corpus_id == corpus_id).order_by(_questions.c.id)
            rows = connection.execution_options(yield_per=50_000).scalars(query)
            return revision or 0, np.fromiter(rows, dtype=np.int64)

    def pending(self, corpus_id: int, last_question_id: int) -> list[tuple[int, str]]:
        """(id, folded text) of the questions that are younger than an index."""
        query = (
            sa.select(_questions.c.id, _questions.c.folded)
            .where(_questions.c.corpus_id == corpus_id, _questions.c.id > last_question_id)
            .order_by(_questions.c.id)
        )
        with self._transaction() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

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
                rows = connection.execute(_live(corpus_id).where(_questions.c.id.in_(chunk)))
                found.update((row[0], LiveQuestion(*row)) for row in rows)
        return found

    def exact(self, corpus_id: int, folded: str) -> LiveQuestion | None:
        """The live question with this folded text."""
        with self._transaction() as connection:
            row = connection.execute(_live(corpus_id).where(_questions.c.folded == folded)).first()
            return LiveQuestion(*row) if row else None

    def log_queries(self, queries: Sequence[LoggedQuery], *, patient: bool = False) -> bool:
        """Write to the query log; False where another process is writing and `patient` is not set."""
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
                }
            )
        try:
            with self._transaction(write=True, timeout_ms=None if patient else 50) as connection:
                # A corpus that was deleted meanwhile takes its log with it.
                known = set(connection.scalars(sa.select(_corpora.c.id)))
                if rows := [row for row in rows if row["corpus_id"] in known]:
                    connection.execute(_query_log.insert(), rows)
        except StoreError:
            if patient:
                raise
            return False
        return True

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
            progress: told ("saving", rows staged, None).
        """
        with self._connection() as connection:
            with self._begun(connection):
                # Only temporary tables are written here: other writers go on while the file is read.
                errors = _stage(connection, rows, progress)
            with self._begun(connection, write=True) as transaction:
                found = connection.execute(_corpora.select().where(_corpora.c.name == corpus.name)).mappings().first()
                target = Corpus(**found) if found else self._create_corpus(connection, corpus)
                result = _Apply(connection, target.id, mode, fields).run(errors)
                if dry_run or (strict and result.errors):
                    transaction.rollback()
                return Imported(found is None, *result.counts, tuple(result.errors))

    def _save(self, corpus: str, draft: EntryDraft, entry_id: int | None) -> Entry:
        """Add or edit one entry by the same rules as an import's rows."""
        fields = frozenset(("key", "similar", "category", "enabled", "valid_from", "valid_to"))
        with self._connection() as connection, self._begun(connection, write=True):
            corpus_id = self._corpus(connection, corpus).id
            taken = connection.scalar(
                sa.select(_entries.c.id).where(
                    _entries.c.corpus_id == corpus_id, _entries.c.key == draft.key, _entries.c.id != (entry_id or 0)
                )
            )
            if taken is not None:
                raise EntryInvalidError(f"key: {draft.key!r} belongs to entry {taken} of corpus {corpus!r} already")
            _stage(connection, [draft], None)
            if entry_id:
                connection.execute(sa.text("UPDATE staged SET entry_id = :id"), {"id": entry_id})
                connection.execute(_entries.update().where(_entries.c.id == entry_id).values(key=draft.key))
            apply = _Apply(connection, corpus_id, "merge", fields)
            result = apply.run([], match=False)
            for error in result.errors:
                raise EntryInvalidError(f"{error.column}: {error.reason}")
            saved = connection.scalar(sa.text("SELECT entry_id FROM staged"))
            return self._entry(connection, int(saved))

    # --- inside

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        """A connection whose database errors come out as StoreError."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except exc.DatabaseError as error:
            raise StoreError(_explain(self.path, error)) from error

    @contextmanager
    def _begun(self, connection: sa.Connection, *, write: bool = False) -> Iterator[sa.Transaction]:
        """A transaction on it; a writing one takes the write lock at once instead of failing half way."""
        connection.execution_options(faqsearch_write=write)
        with connection.begin() as transaction:
            yield transaction

    @contextmanager
    def _transaction(self, *, write: bool = False, timeout_ms: int | None = None) -> Iterator[sa.Connection]:
        with self._connection() as connection:
            if timeout_ms is not None:
                _set_timeout(connection, timeout_ms)
            try:
                with self._begun(connection, write=write):
                    yield connection
            finally:
                if timeout_ms is not None:
                    _set_timeout(connection, BUSY_TIMEOUT_MS)

    def _schema_of(self, connection: sa.Connection) -> str | None:
        """The schema version of the database, None for an empty one."""
        names = set(connection.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'")))
        if "alembic_version" in names:
            return connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if names - {"sqlite_sequence"}:
            raise StoreError(
                f"{self.path} is a database of another program; name a new file in FAQSEARCH_DATABASE_URL"
            )
        return None

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
        connection.execute(
            _corpora.update().where(_corpora.c.id == corpus_id).values(revision=_corpora.c.revision + 1)
        )

    def _entry(self, connection: sa.Connection, entry_id: int) -> Entry:
        found = self._load_entries(connection, _entries.c.id == entry_id, limit=1)
        if not found:
            raise EntryNotFoundError(f"no entry {entry_id}; `faqsearch search` and `export` show the entries' ids")
        return found[0]

    def _load_entries(self, connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int) -> list[Entry]:
        query = (
            sa.select(_entries, _corpora.c.name.label("corpus"))
            .join(_corpora, _corpora.c.id == _entries.c.corpus_id)
            .where(*where)
            .order_by(_entries.c.id)
            .limit(limit)
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


# --- staging -------------------------------------------------------------------------------------

_STAGING = """
DROP TABLE IF EXISTS temp.staged;
DROP TABLE IF EXISTS temp.staged_questions;
DROP TABLE IF EXISTS temp.kept;
DROP TABLE IF EXISTS temp.touched;
CREATE TEMPORARY TABLE staged (
    line INTEGER PRIMARY KEY, key TEXT, answer TEXT NOT NULL, category TEXT NOT NULL, enabled INTEGER NOT NULL,
    valid_from TEXT, valid_to TEXT, entry_id INTEGER, is_new INTEGER NOT NULL DEFAULT 0);
CREATE TEMPORARY TABLE staged_questions (
    line INTEGER NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL, folded TEXT NOT NULL);
CREATE TEMPORARY TABLE kept (entry_id INTEGER PRIMARY KEY);
CREATE TEMPORARY TABLE touched (entry_id INTEGER PRIMARY KEY);
"""
_STAGING_INDEXES = """
CREATE INDEX temp.staged_by_key ON staged (key);
CREATE INDEX temp.staged_by_entry ON staged (entry_id);
CREATE INDEX temp.staged_questions_by_folded ON staged_questions (folded, line);
CREATE INDEX temp.staged_questions_by_line ON staged_questions (line, position);
"""


def _stage(
    connection: sa.Connection, rows: Iterable[EntryDraft | RowError], progress: Progress | None
) -> list[RowError]:
    """Write the entries to temporary tables; the errors among the rows."""
    _script(connection, _STAGING)
    errors: list[RowError] = []
    staged: list[tuple[Any, ...]] = []
    questions: list[tuple[Any, ...]] = []
    total = 0

    def flush() -> None:
        nonlocal total
        total += len(staged)
        if staged:
            connection.exec_driver_sql(
                "INSERT INTO staged (line, key, answer, category, enabled, valid_from, valid_to)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                staged,
            )
            connection.exec_driver_sql("INSERT INTO staged_questions VALUES (?, ?, ?, ?)", questions)
        staged.clear()
        questions.clear()
        if progress:
            progress("saving", total, None)

    for row in rows:
        if isinstance(row, RowError):
            errors.append(row)
            continue
        staged.append(
            (row.line, row.key, row.answer, row.category, row.enabled, _stamp(row.valid_from), _stamp(row.valid_to))
        )
        for position, text in enumerate((row.question, *row.similar)):
            questions.append((row.line, position, text, normalise(text)))
        if len(staged) >= CHUNK:
            flush()
    flush()
    _script(connection, _STAGING_INDEXES)
    return errors


class _Apply:
    """Brings a corpus to what is staged, in statements over whole tables."""

    def __init__(
        self, connection: sa.Connection, corpus_id: int, mode: ImportMode, fields: frozenset[str]
    ) -> None:
        self._connection, self._corpus_id, self._mode, self._fields = connection, corpus_id, mode, fields
        self._now = _stamp(_now())
        self.errors: list[RowError] = []
        self.counts = (0, 0, 0, 0)

    def run(self, errors: list[RowError], *, match: bool = True) -> _Apply:
        """Match, reject, save; `errors` are the rows that were rejected while reading."""
        self.errors = list(errors)
        if match:
            self._match()
        self._keep_absent_fields()
        self._reject_conflicts_in_file()
        self._keep_rejected(errors)
        self._reject_conflicts_with_store()
        removed = self._remove_unnamed() if self._mode == "replace" else 0
        added, updated, unchanged = self._write()
        self.counts = (added, updated, unchanged, removed)
        self.errors.sort(key=lambda error: error.line)
        if added or updated or removed:
            self._run("UPDATE corpora SET revision = revision + 1 WHERE id = :corpus")
        return self

    def _run(self, sql: str, **values: object) -> sa.CursorResult[Any]:
        return self._connection.execute(sa.text(sql), {"corpus": self._corpus_id, "now": self._now, **values})

    def _match(self) -> None:
        """Find the entry of each row: by key, else by primary question."""
        for error in self._run(
            "SELECT s.line, s.key, first.line FROM staged s JOIN (SELECT key, MIN(line) AS line FROM staged"
            " WHERE key IS NOT NULL GROUP BY key HAVING COUNT(*) > 1) first ON first.key = s.key"
            " WHERE s.line > first.line ORDER BY s.line"
        ).all():
            self._reject(error[0], "key", f"the key {error[1]!r} is on line {error[2]} of this file already")
        self._run(
            "UPDATE staged SET entry_id = (SELECT id FROM entries e WHERE e.corpus_id = :corpus AND e.key = staged.key)"
            " WHERE key IS NOT NULL"
        )
        # An entry that a row names by its key is that row's. A row with a key of its own may still
        # adopt an entry that has none, but never one that has another.
        self._run(
            "UPDATE staged SET entry_id = found.entry_id FROM ("
            "  SELECT sq.line, MIN(e.id) AS entry_id FROM staged s JOIN staged_questions sq ON sq.line = s.line"
            "  JOIN questions q ON q.corpus_id = :corpus AND q.folded = sq.folded AND q.position = 0"
            "  JOIN entries e ON e.id = q.entry_id"
            "  WHERE s.entry_id IS NULL AND sq.position = 0 AND (s.key IS NULL OR e.key IS NULL)"
            "  AND e.id NOT IN (SELECT entry_id FROM staged WHERE entry_id IS NOT NULL)"
            "  GROUP BY sq.line) found WHERE found.line = staged.line"
        )

    def _keep_absent_fields(self) -> None:
        """When merging, a field that the table has no column for stays as it is."""
        if self._mode == "replace":
            return
        for name in ("category", "enabled", "valid_from", "valid_to"):
            if name not in self._fields:
                self._run(
                    f"UPDATE staged SET {name} = (SELECT {name} FROM entries WHERE id = staged.entry_id)"
                    " WHERE entry_id IS NOT NULL"
                )
        if "similar" not in self._fields:
            self._run(
                "INSERT INTO staged_questions (line, position, text, folded)"
                " SELECT s.line, q.position, q.text, q.folded FROM staged s JOIN questions q ON q.entry_id = s.entry_id"
                " WHERE q.position > 0 AND NOT EXISTS (SELECT 1 FROM staged_questions sq"
                "  WHERE sq.line = s.line AND sq.folded = q.folded)"
            )

    def _reject_conflicts_in_file(self) -> None:
        """Reject a row that shares a phrasing with a row above it."""
        for line, position, text, first in self._run(
            "SELECT sq.line, MIN(sq.position), sq.text, first.line FROM staged_questions sq JOIN staged s"
            " ON s.line = sq.line JOIN (SELECT q.folded, MIN(q.line) AS line FROM staged_questions q JOIN staged"
            " ON staged.line = q.line GROUP BY q.folded HAVING COUNT(*) > 1) first ON first.folded = sq.folded"
            " WHERE sq.line > first.line GROUP BY sq.line ORDER BY sq.line"
        ).all():
            name = self._run("SELECT key FROM staged WHERE line = :line", line=first).scalar()
            other = f"line {first}" + (f" (key {name!r})" if name else "")
            self._reject(line, _field(position), f"{_short(text)} leads to another entry already: {other} of this file")

    def _keep_rejected(self, errors: list[RowError]) -> None:
        """An entry that a rejected row names is not removed for that."""
        if self._mode != "replace":
            return
        for error in errors:
            if error.key:
                self._run(
                    "INSERT OR IGNORE INTO kept SELECT id FROM entries WHERE corpus_id = :corpus AND key = :key",
                    key=error.key,
                )
            if error.question:
                self._run(
                    "INSERT OR IGNORE INTO kept SELECT entry_id FROM questions"
                    " WHERE corpus_id = :corpus AND folded = :folded AND position = 0",
                    folded=normalise(error.question),
                )

    def _reject_conflicts_with_store(self) -> None:
        """Reject a row with a phrasing of an entry that keeps it.

        An entry that another row rewrites gives up what that row does not list. Each rejection keeps
        one more entry as it is, which may bring up more conflicts: repeated until there are none.
        """
        keeps = "q.entry_id NOT IN (SELECT entry_id FROM staged WHERE entry_id IS NOT NULL)"
        if self._mode == "replace":
            keeps += " AND q.entry_id IN (SELECT entry_id FROM kept)"
        while conflicts := self._run(
            "SELECT sq.line, MIN(sq.position), sq.text, q.entry_id, e.key FROM staged s"
            " JOIN staged_questions sq ON sq.line = s.line"
            " JOIN questions q ON q.corpus_id = :corpus AND q.folded = sq.folded JOIN entries e ON e.id = q.entry_id"
            f" WHERE q.entry_id IS NOT s.entry_id AND {keeps} GROUP BY sq.line ORDER BY sq.line"
        ).all():
            for line, position, text, entry_id, key in conflicts:
                other = f"entry {entry_id}" + (f" (key {key!r})" if key else "")
                self._reject(line, _field(position), f"{_short(text)} leads to another entry already: {other}")

    def _reject(self, line: int, field: str, reason: str) -> None:
        row = self._run(
            "SELECT s.key, sq.text, s.entry_id FROM staged s JOIN staged_questions sq"
            " ON sq.line = s.line AND sq.position = 0 WHERE s.line = :line",
            line=line,
        ).one()
        self.errors.append(RowError(line, field, reason, row[0], row[1]))
        if row[2] is not None:
            self._run("INSERT OR IGNORE INTO kept VALUES (:id)", id=row[2])
        self._run("DELETE FROM staged WHERE line = :line", line=line)

    def _remove_unnamed(self) -> int:
        return self._run(
            "DELETE FROM entries WHERE corpus_id = :corpus AND id NOT IN (SELECT entry_id FROM kept)"
            " AND id NOT IN (SELECT entry_id FROM staged WHERE entry_id IS NOT NULL)"
        ).rowcount

    def _write(self) -> tuple[int, int, int]:
        """Save what is staged: (added, updated, unchanged)."""
        matched = self._run("SELECT COUNT(*) FROM staged WHERE entry_id IS NOT NULL").scalar_one()
        same = "e.id = s.entry_id AND (s.key IS NULL OR e.key IS s.key) AND e.answer = s.answer AND" + " AND".join(
            f" e.{name} IS s.{name}" for name in ("category", "enabled", "valid_from", "valid_to")
        )
        self._run(
            "INSERT OR IGNORE INTO touched SELECT s.entry_id FROM staged s WHERE s.entry_id IS NOT NULL"
            f" AND NOT EXISTS (SELECT 1 FROM entries e WHERE {same})"
        )
        # Questions that are gone, or written otherwise (a text never changes: it gets a new id).
        gone = (
            "SELECT q.id, q.entry_id FROM staged s JOIN questions q ON q.entry_id = s.entry_id"
            " LEFT JOIN staged_questions sq ON sq.line = s.line AND sq.folded = q.folded AND sq.text = q.text"
            " WHERE sq.line IS NULL"
        )
        self._run(f"INSERT OR IGNORE INTO touched SELECT entry_id FROM ({gone})")
        self._run(f"DELETE FROM questions WHERE id IN (SELECT id FROM ({gone}))")
        self._run(
            "UPDATE staged SET is_new = 1, entry_id = fresh.id FROM (SELECT line, ROW_NUMBER() OVER (ORDER BY line)"
            " + COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'entries'), 0) AS id"
            " FROM staged WHERE entry_id IS NULL) fresh WHERE fresh.line = staged.line"
        )
        added = self._run(
            "INSERT INTO entries (id, corpus_id, key, answer, category, enabled, valid_from, valid_to, created_at,"
            " updated_at) SELECT entry_id, :corpus, key, answer, category, enabled, valid_from, valid_to, :now, :now"
            " FROM staged WHERE is_new ORDER BY entry_id"
        ).rowcount
        moved = (
            "SELECT q.id, q.entry_id, sq.position FROM staged s JOIN staged_questions sq ON sq.line = s.line"
            " JOIN questions q ON q.corpus_id = :corpus AND q.folded = sq.folded WHERE q.position <> sq.position"
        )
        if "similar" in self._fields or self._mode == "replace":
            self._run(f"INSERT OR IGNORE INTO touched SELECT entry_id FROM ({moved})")
        self._run(f"UPDATE questions SET position = moved.position FROM ({moved}) moved WHERE moved.id = questions.id")
        missing = (
            "FROM staged s JOIN staged_questions sq ON sq.line = s.line WHERE NOT EXISTS (SELECT 1 FROM questions q"
            " WHERE q.corpus_id = :corpus AND q.folded = sq.folded)"
        )
        self._run(f"INSERT OR IGNORE INTO touched SELECT DISTINCT s.entry_id {missing} AND NOT s.is_new")
        self._run(
            "INSERT INTO questions (corpus_id, entry_id, position, text, folded)"
            f" SELECT :corpus, s.entry_id, sq.position, sq.text, sq.folded {missing} ORDER BY s.line, sq.position"
        )
        self._run(
            "UPDATE entries SET key = COALESCE(s.key, entries.key), answer = s.answer, category = s.category,"
            " enabled = s.enabled, valid_from = s.valid_from, valid_to = s.valid_to, updated_at = :now"
            " FROM staged s WHERE s.entry_id = entries.id AND entries.id IN (SELECT entry_id FROM touched)"
        )
        updated = self._run("SELECT COUNT(*) FROM touched").scalar_one()
        return added, updated, matched - updated


# --- helpers -------------------------------------------------------------------------------------


def _live(corpus_id: int) -> sa.Select[Any]:
    """Columns in the order of `LiveQuestion`."""
    now = _now()
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
            _questions.c.corpus_id == corpus_id,
            _entries.c.enabled,
            sa.or_(_entries.c.valid_from.is_(None), _entries.c.valid_from <= now),
            sa.or_(_entries.c.valid_to.is_(None), _entries.c.valid_to >= now),
        )
    )


def _prepare_connection(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection
    connection.isolation_level = None  # transactions are begun by _begin, not by the driver's guesses
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",  # what was committed survives a power cut
        "foreign_keys = ON",
        "cache_size = -65536",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    write = connection.get_execution_options().get("faqsearch_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _set_timeout(connection: sa.Connection, milliseconds: int) -> None:
    driver: Any = connection.connection.dbapi_connection  # outside any transaction, so not through SQLAlchemy
    driver.execute(f"PRAGMA busy_timeout = {milliseconds}")


def _explain(path: Path, error: exc.DatabaseError) -> str:
    what = str(error.orig)
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


def _script(connection: sa.Connection, sql: str) -> None:
    for statement in filter(str.strip, sql.split(";")):
        connection.exec_driver_sql(statement)


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


def _count(table: sa.Table) -> sa.Select[tuple[int]]:
    return sa.select(sa.func.count()).select_from(table)


def _now() -> datetime:
    """Local time without a zone, to the second, as editors write validity periods."""
    return datetime.now().replace(microsecond=0)


def _stamp(when: datetime | None) -> str | None:
    """The form in which SQLAlchemy keeps a moment in SQLite."""
    return when.strftime("%Y-%m-%d %H:%M:%S.%f") if when else None


def _field(position: int) -> str:
    return "question" if position == 0 else "similar"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


