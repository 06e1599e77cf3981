"""Bringing a corpus to what a table says: staged in temporary tables, applied in statements over whole tables.

The store's import. However long the table, memory stays small, and the order of the rows does not
matter where they pass phrasings on to each other: conflicts are judged against the state after the import.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from faqsearch.model import EntryDraft, ImportMode, Progress, RowError
from faqsearch.text import normalise

CHUNK = 2_000
"""Rows that are written or read at once; below SQLite's limit of bound parameters."""

_STAGING = """
CREATE TEMPORARY TABLE staged (
    line INTEGER PRIMARY KEY, key TEXT, answer TEXT NOT NULL, category TEXT NOT NULL, enabled INTEGER NOT NULL,
    valid_from TEXT, valid_to TEXT, entry_id INTEGER, is_new INTEGER NOT NULL DEFAULT 0);
CREATE TEMPORARY TABLE staged_questions (
    line INTEGER NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL, folded TEXT NOT NULL,
    carried INTEGER NOT NULL DEFAULT 0);
CREATE TEMPORARY TABLE kept (entry_id INTEGER PRIMARY KEY);
CREATE TEMPORARY TABLE touched (entry_id INTEGER PRIMARY KEY);
"""
UNSTAGING = "".join(f"DROP TABLE IF EXISTS temp.{name};" for name in ("staged", "staged_questions", "kept", "touched"))
_STAGING_INDEXES = """
CREATE INDEX temp.staged_by_key ON staged (key);
CREATE INDEX temp.staged_by_entry ON staged (entry_id);
CREATE INDEX temp.staged_questions_by_folded ON staged_questions (folded, line);
CREATE INDEX temp.staged_questions_by_line ON staged_questions (line, position);
"""


def stage(
    connection: sa.Connection, rows: Iterable[EntryDraft | RowError], progress: Progress | None
) -> list[RowError]:
    """Write the entries to temporary tables; the errors among the rows."""
    unstage(connection)  # of an import that failed
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
            connection.exec_driver_sql(
                "INSERT INTO staged_questions (line, position, text, folded) VALUES (?, ?, ?, ?)", questions
            )
        staged.clear()
        questions.clear()
        if progress:
            progress("saving", total, None)

    for row in rows:
        if isinstance(row, RowError):
            errors.append(row)
            continue
        staged.append(
            (
                row.line,
                row.key,
                row.answer,
                row.category,
                row.enabled,
                _stamp(row.valid_from),
                _stamp(row.valid_to),
            )
        )
        for position, text in enumerate((row.question, *row.similar)):
            questions.append((row.line, position, text, normalise(text)))
        if len(staged) >= CHUNK:
            flush()
    flush()
    _script(connection, _STAGING_INDEXES)
    return errors


def unstage(connection: sa.Connection) -> None:
    """Give back what the temporary tables hold."""
    _script(connection, UNSTAGING)


class Apply:
    """Brings a corpus to what is staged, in statements over whole tables."""

    def __init__(
        self,
        connection: sa.Connection,
        corpus_id: int,
        mode: ImportMode,
        fields: frozenset[str],
        *,
        who: str,
        action: str = "import",
    ) -> None:
        self._connection, self._corpus_id, self._mode, self._fields = connection, corpus_id, mode, fields
        self._who, self._action = who, action
        self._now = _stamp(now())
        self.errors: list[RowError] = []
        self.counts = (0, 0, 0, 0)

    def run(self, errors: list[RowError], *, match: bool = True) -> Apply:
        """Match, reject, save; `errors` are the rows that were rejected while reading."""
        self.errors = list(errors)
        if match:
            self._match()
        self._keep_absent_fields()
        self._keep_rejected(self.errors)
        self._reject_conflicts_in_file()
        self._reject_conflicts_with_store()
        removed = self._remove_unnamed() if self._mode == "replace" else 0
        added, updated, unchanged = self._write()
        self.counts = (added, updated, unchanged, removed)
        self.errors.sort(key=lambda error: error.line)
        if added or updated or removed:
            self._run("UPDATE corpora SET revision = revision + 1 WHERE id = :corpus")
        return self

    def _run(self, sql: str, **values: object) -> Any:  # noqa: ANN401 - a cursor result, of any columns
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
        """When merging, a field that the table has no column for stays as it is.

        Similar questions that stay are carried over into the staging, so that what follows need not know.
        """
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
                "INSERT INTO staged_questions (line, position, text, folded, carried)"
                " SELECT s.line, ROW_NUMBER() OVER (PARTITION BY s.line ORDER BY q.position), q.text, q.folded, 1"
                " FROM staged s JOIN questions q ON q.entry_id = s.entry_id"
                " WHERE q.position > 0 AND NOT EXISTS (SELECT 1 FROM staged_questions sq"
                "  WHERE sq.line = s.line AND sq.folded = q.folded)"
            )

    def _reject_conflicts_in_file(self) -> None:
        """Reject a row that shares a phrasing with a row above it that is not rejected itself."""
        claimed: dict[str, int] = {}
        shared = self._run(
            "SELECT line, position, text, folded FROM staged_questions WHERE NOT carried AND folded IN"
            " (SELECT folded FROM staged_questions GROUP BY folded HAVING COUNT(*) > 1)"  # an index alone answers this
            " AND line IN (SELECT line FROM staged) ORDER BY line, position"
        ).all()
        for line, phrasings in groupby(shared, key=lambda row: int(row[0])):
            rows = list(phrasings)
            clash = next((row for row in rows if row[3] in claimed), None)
            if clash is None:
                claimed.update((row[3], line) for row in rows)
                continue
            first = claimed[clash[3]]
            name = self._run("SELECT key FROM staged WHERE line = :line", line=first).scalar()
            other = f"line {first}" + (f" (key {name!r})" if name else "")
            reason = f"{_short(clash[2])} leads to another entry already: {other} of this file"
            self._reject(line, _field(clash[1]), reason)

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
        carried = (
            "EXISTS (SELECT 1 FROM staged_questions c JOIN staged USING (line) WHERE c.carried AND c.folded = q.folded)"
        )
        while conflicts := self._run(
            "SELECT sq.line, MIN(sq.position), sq.text, q.entry_id, e.key FROM staged s"
            " JOIN staged_questions sq ON sq.line = s.line"
            " JOIN questions q ON q.corpus_id = :corpus AND q.folded = sq.folded JOIN entries e ON e.id = q.entry_id"
            f" WHERE q.entry_id IS NOT s.entry_id AND NOT sq.carried AND ({keeps} OR {carried})"
            " GROUP BY sq.line ORDER BY sq.line"
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
        unnamed = (
            "corpus_id = :corpus AND id NOT IN (SELECT entry_id FROM kept)"
            " AND id NOT IN (SELECT entry_id FROM staged WHERE entry_id IS NOT NULL)"
        )
        record_changes(self._connection, unnamed, who=self._who, action="delete", corpus=self._corpus_id)
        return int(self._run(f"DELETE FROM entries WHERE {unnamed}").rowcount)

    def _find_touched(self) -> None:
        """Note the stored entries that change: in a field, or in their questions or the order of these."""
        key = "e.key IS s.key" if self._action != "import" else "(s.key IS NULL OR e.key IS s.key)"
        fields = ("answer", "category", "enabled", "valid_from", "valid_to")
        same = " AND ".join((key, *(f"e.{name} IS s.{name}" for name in fields)))
        self._run(
            "INSERT OR IGNORE INTO touched SELECT e.id FROM staged s JOIN entries e ON e.id = s.entry_id"
            f" WHERE NOT ({same})"
        )
        position = "" if "similar" in self._fields or self._mode == "replace" else " AND q.position = 0"
        self._run(
            "INSERT OR IGNORE INTO touched SELECT s.entry_id FROM staged s JOIN questions q ON q.entry_id = s.entry_id"
            " LEFT JOIN staged_questions sq ON sq.line = s.line AND sq.folded = q.folded AND sq.text = q.text"
            f" WHERE sq.line IS NULL OR (sq.position <> q.position{position})"
        )
        self._run(
            "INSERT OR IGNORE INTO touched SELECT s.entry_id FROM staged s JOIN staged_questions sq ON sq.line = s.line"
            " WHERE s.entry_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM questions q"
            "  WHERE q.entry_id = s.entry_id AND q.folded = sq.folded AND q.text = sq.text)"
        )

    def _write(self) -> tuple[int, int, int]:
        """Save what is staged: (added, updated, unchanged)."""
        matched = self._run("SELECT COUNT(*) FROM staged WHERE entry_id IS NOT NULL").scalar_one()
        self._find_touched()
        record_changes(self._connection, "id IN (SELECT entry_id FROM touched)", who=self._who, action=self._action)
        # Questions that are gone, or written otherwise (a text never changes: it gets a new id).
        self._run(
            "DELETE FROM questions WHERE id IN (SELECT q.id FROM touched t JOIN staged s ON s.entry_id = t.entry_id"
            "  JOIN questions q ON q.entry_id = s.entry_id"
            "  LEFT JOIN staged_questions sq ON sq.line = s.line AND sq.folded = q.folded AND sq.text = q.text"
            "  WHERE sq.line IS NULL)"
        )
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
        self._run(
            "INSERT INTO changes (corpus_id, entry_id, at, who, action)"
            " SELECT :corpus, entry_id, :now, :who, :action FROM staged WHERE is_new",
            who=self._who,
            action="add" if self._action == "edit" else self._action,
        )
        self._run(
            "UPDATE questions SET position = moved.position FROM (SELECT q.id, sq.position FROM staged s"
            "  JOIN staged_questions sq ON sq.line = s.line JOIN questions q ON q.entry_id = s.entry_id"
            "  AND q.folded = sq.folded WHERE q.position <> sq.position) moved WHERE moved.id = questions.id"
        )
        self._run(
            "INSERT INTO questions (corpus_id, entry_id, position, text, folded)"
            " SELECT :corpus, s.entry_id, sq.position, sq.text, sq.folded FROM staged s"
            " JOIN staged_questions sq ON sq.line = s.line WHERE NOT EXISTS (SELECT 1 FROM questions q"
            "  WHERE q.corpus_id = :corpus AND q.folded = sq.folded) ORDER BY s.line, sq.position"
        )
        key = "s.key" if self._action != "import" else "COALESCE(s.key, entries.key)"
        self._run(
            f"UPDATE entries SET key = {key}, answer = s.answer, category = s.category, enabled = s.enabled,"
            " valid_from = s.valid_from, valid_to = s.valid_to, updated_at = :now, version = version + 1"
            " FROM staged s WHERE s.entry_id = entries.id AND entries.id IN (SELECT entry_id FROM touched)"
        )
        updated = self._run("SELECT COUNT(*) FROM touched").scalar_one()
        return added, updated, matched - updated


def record_changes(connection: sa.Connection, where: str, *, who: str, action: str, **values: object) -> None:
    """Write the entries that a condition names, as they are now, to the history: call it before they change."""
    connection.execute(
        sa.text(
            "INSERT INTO changes (corpus_id, entry_id, at, who, action, before)"
            " SELECT corpus_id, id, :now, :who, :action, json_object('key', key, 'questions',"
            "  (SELECT json_group_array(text) FROM (SELECT text FROM questions WHERE entry_id = entries.id"
            "   ORDER BY position)), 'answer', answer, 'category', category, 'enabled', enabled,"
            "  'valid_from', valid_from, 'valid_to', valid_to)"
            f" FROM entries WHERE {where}"
        ),
        {"now": _stamp(now()), "who": who, "action": action, **values},
    )


def _script(connection: sa.Connection, sql: str) -> None:
    for statement in filter(str.strip, sql.split(";")):
        connection.exec_driver_sql(statement)


def now() -> datetime:
    """Local time without a zone, to the second, as editors write validity periods."""
    return datetime.now().replace(microsecond=0)


def _stamp(when: datetime | None) -> str | None:
    """The form in which SQLAlchemy keeps a moment in SQLite."""
    return when.isoformat(" ", "microseconds") if when else None


def _field(position: int) -> str:
    return "question" if position == 0 else "similar"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
