"""FaqSearch: the one object that command line, web pages and programs call.

Joins the parts: tables are read and stored, indexes built from what is stored, queries searched
(`search`), encoders and checkpoints looked up. Each of its methods is one job, whole.
"""

from __future__ import annotations

import re
import time
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from faqsearch import evaluate, measure, registry, tables
from faqsearch.errors import (
    CorpusNotFoundError,
    EncoderError,
    EntryInvalidError,
    EntryNotFoundError,
    FaqSearchError,
    ImportRejectedError,
    IndexFileError,
    QueryError,
    StoreError,
    TableError,
)
from faqsearch.measure import Retrieval, RetrievalScores
from faqsearch.model import (
    LABEL_LIMIT,
    Change,
    Corpus,
    CorpusCounts,
    CorpusStatus,
    Decision,
    EncoderInfo,
    Entry,
    EntryDraft,
    EntryPage,
    EntryState,
    Feedback,
    Hit,
    HitTest,
    HitTestReport,
    ImportMode,
    ImportReport,
    IndexKind,
    IndexVersion,
    Miss,
    Progress,
    QueryGroup,
    RebuildReport,
    ScoredTest,
    SearchResult,
    Statistics,
    Status,
    TablePreview,
    VerifyReport,
)
from faqsearch.pairs import Pairs
from faqsearch.search import Encoders, EncoderSource, Searcher
from faqsearch.settings import Settings, system_user
from faqsearch.store import Store
from faqsearch.text import NORMALISATION, normalise

if TYPE_CHECKING:
    from faqsearch.encoder import Encoder
    from faqsearch.index import IndexFolder, QuestionIndex

SYNC_WAIT_SECONDS = 60.0
"""How long an import waits for another rebuild before it leaves the sync to the next one."""

_NAME = re.compile(r"\w[\w-]{0,63}")
_ENCODED_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class _Registry:
    """The registry, with the settings that loading needs."""

    settings: Settings

    def fingerprint(self, ref: str) -> str:
        return registry.fingerprint(ref)

    def load(self, ref: str) -> Encoder:
        used = self.settings
        return registry.load_encoder(ref, device=used.device, precision=used.precision, batch_size=used.batch_size)


class FaqSearch:
    """FAQ corpora that can be imported, edited, indexed and searched.

        >>> with FaqSearch.open() as faq:
        ...     faq.import_table("data/finance.csv", corpus="finance")
        ...     result = faq.search("怎么提前把贷款还了", corpus="finance")
        ...     print(result.decision, result.hits[0].answer)

    Open it once and share it: searching from several threads is safe, and encoders and indexes are
    loaded once. Every error that it raises on purpose is a `FaqSearchError`.
    """

    def __init__(self, settings: Settings, encoders: EncoderSource | None = None) -> None:
        self.settings = settings
        self._encoders = Encoders(encoders or _Registry(settings))
        self._store = Store(settings.database_path)
        self._searcher = Searcher(self._store, self._encoders, settings.index_dir, settings.device)

    @classmethod
    def open(cls, settings: Settings | None = None, *, encoders: EncoderSource | None = None) -> FaqSearch:
        """Open the database, migrating it to the newest schema; nothing heavy is loaded yet.

        Args:
            settings: where everything is; `Settings.load()` unless given.
            encoders: where encoders come from; the registry unless given.

        Raises:
            SettingsError: settings that cannot be used.
            StoreError: the database cannot be opened.
        """
        return cls(settings or Settings.load(), encoders)

    def close(self) -> None:
        """Write what is left of the query log and close the database."""
        try:
            self._searcher.flush_log()
        finally:
            self._store.close()

    def __enter__(self) -> FaqSearch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- searching

    def search(
        self, text: str, *, corpus: str, k: int = 5, log: bool = True, progress: Progress | None = None
    ) -> SearchResult:
        """Find the stored questions that mean the same as a query.

        Args:
            text: the query, in the person's own words.
            corpus: where to look.
            k: how many entries at most.
            log: whether the query goes to the query log (if that is on in the settings).
            progress: told ("encoding", done, total) if questions are still to be encoded.

        Raises:
            QueryError: an empty query, an over-long one, or no valid text.
            CorpusNotFoundError: no such corpus.
            IndexFileError: a damaged index.
            EncoderError: the encoder that built the index cannot be loaded.
        """
        return self.search_many([text], corpus=corpus, k=k, log=log, progress=progress)[0]

    def search_many(
        self,
        texts: Sequence[str],
        *,
        corpus: str,
        k: int = 5,
        log: bool = True,
        progress: Progress | None = None,
    ) -> list[SearchResult]:
        """Search for many queries: the same results as one by one, in less time. Times are means."""
        return self._searcher.search(
            texts, self._store.corpus(corpus), k, log=log and self.settings.query_log, progress=progress
        )

    def warm_up(self, corpus: str) -> None:
        """Load what searching a corpus needs, so that the first query takes no longer than others.

        Raises:
            CorpusNotFoundError, IndexFileError, EncoderError: as `search`.
        """
        self.search(corpus, corpus=corpus, log=False)

    def search_file(
        self, path: str | Path, out: str | Path, *, corpus: str, k: int = 1, progress: Progress | None = None
    ) -> dict[Decision, int]:
        """Search for each line of a text file and write the hits as a table; how many of each decision."""
        _check_output(out, path)
        queries = tables.read_queries(path)
        results = self.search_many([text for _, text in queries], corpus=corpus, k=k, progress=progress)
        rows = [_BATCH_HEADER]
        for (line, _), result in zip(queries, results, strict=True):
            rows += [_batch_row(line, result, hit) for hit in result.hits or (None,)]
        tables.write_rows(out, rows)
        counts: dict[Decision, int] = {"answer": 0, "suggest": 0, "none": 0}
        for result in results:
            counts[result.decision] += 1
        return counts

    # --- corpora

    def corpora(self) -> list[Corpus]:
        """All corpora, by name."""
        return self._store.corpora()

    def corpus(self, name: str) -> Corpus:
        """The corpus of this name; CorpusNotFoundError where there is none."""
        return self._store.corpus(name)

    def counts(self, corpus: str) -> CorpusCounts:
        """How many entries and questions a corpus holds."""
        return self._store.counts(self._store.corpus(corpus).id)

    def create_corpus(self, name: str, *, title: str | None = None, encoder: str | None = None) -> Corpus:
        """Make an empty corpus.

        Raises:
            StoreError: a name that cannot be used, or that is taken.
            EncoderError: no such encoder on this machine.
        """
        return self._store.create_corpus(self._new_corpus(name, title, encoder))

    def set_corpus(
        self,
        name: str,
        *,
        title: str | None = None,
        encoder: str | None = None,
        answer_threshold: float | None = None,
        suggest_threshold: float | None = None,
        index_kind: IndexKind | None = None,
    ) -> Corpus:
        """Change a corpus. Another encoder or kind of index takes effect when the next rebuild is published.

        Raises:
            StoreError: thresholds outside -1 ≤ suggest ≤ answer ≤ 1, an over-long title, or no such kind of index.
            EncoderError: no such encoder on this machine.
        """
        changes: dict[str, Any] = {}
        if title is not None:
            changes["title"] = _check_title(title)
        if encoder is not None:
            changes["encoder"] = self._check_encoder(encoder)
        if answer_threshold is not None:
            changes["answer_threshold"] = answer_threshold
        if suggest_threshold is not None:
            changes["suggest_threshold"] = suggest_threshold
        if index_kind is not None:
            if index_kind not in get_args(IndexKind):
                raise StoreError(f"index kind is {index_kind!r}; expected one of {', '.join(get_args(IndexKind))}")
            changes["index_kind"] = index_kind
        return self._store.set_corpus(name, changes)

    def delete_corpus(self, name: str) -> int:
        """Delete a corpus with its entries and index versions; how many entries that were."""
        folder = self._folder(self._store.corpus(name).name)
        with folder.lock(0):
            count = self._store.delete_corpus(name)
            folder.delete()
        return count

    def _new_corpus(self, name: str, title: str | None = None, encoder: str | None = None) -> Corpus:
        if not _NAME.fullmatch(name) or name != unicodedata.normalize("NFKC", name).lower():
            raise StoreError(
                f"{name!r} cannot name a corpus; expected up to 64 small letters (of any script), digits, - and _"
            )
        ref = self._check_encoder(encoder or registry.DEFAULT_ENCODER)
        start = registry.CHECKPOINTS.get(ref, registry.CHECKPOINTS[registry.DEFAULT_ENCODER])
        return Corpus(
            id=0,
            name=name,
            title=_check_title(title or name),
            encoder=ref,
            answer_threshold=start.answer_threshold,
            suggest_threshold=start.suggest_threshold,
            revision=0,
        )

    def _check_encoder(self, ref: str) -> str:
        ref = registry.normal_ref(ref)
        self._encoders.fingerprint(ref)
        return ref

    def encoders(self) -> list[EncoderInfo]:
        """The encoders that the registry knows and those that corpora use, with where each lies."""
        return registry.encoders([(corpus.name, corpus.encoder) for corpus in self._store.corpora()])

    # --- entries

    def entry(self, ref: int | str) -> Entry:
        """An entry by its id, or by CORPUS/KEY.

        Raises:
            EntryNotFoundError: there is none.
        """
        text = str(ref).strip()
        if text.isdecimal() and len(text) < 20:
            return self._store.entry(int(text))
        corpus, slash, key = text.partition("/")
        if not slash or not key:
            raise EntryNotFoundError(f"{text!r} names no entry; expected its id, or CORPUS/KEY such as finance/F001")
        return self._store.entry_by_key(corpus, key)

    def entries(self, corpus: str) -> Iterable[Entry]:
        """All entries of a corpus, by id, streamed."""
        return self._store.entries(corpus)

    def entry_page(
        self,
        corpus: str,
        *,
        text: str = "",
        category: str | None = None,
        state: EntryState | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> EntryPage:
        """Some of the entries that a filter leaves, newest change first.

        Args:
            corpus: which corpus.
            text: stands in a question (folded as for matching) or in the answer, or is the key.
            category: exactly this one.
            state: on, off, expired or upcoming.
            offset: how many to pass over.
            limit: how many at most.
        """
        found = self._store.corpus(corpus)
        return self._store.entry_page(found.id, text=text, category=category, state=state, offset=offset, limit=limit)

    def categories(self, corpus: str) -> dict[str, int]:
        """How many entries each category of a corpus has, by its name."""
        return self._store.categories(self._store.corpus(corpus).id)

    def add_entry(self, corpus: str, draft: EntryDraft, *, who: str | None = None) -> Entry:
        """Add an entry; the next search finds it.

        Raises:
            EntryInvalidError: no question, no answer, over length, a key or phrasing that is taken.
        """
        self._store.corpus(corpus)
        return self._store.add_entry(corpus, _checked(draft), who=self._who(who))

    def edit_entry(
        self,
        entry_id: int,
        *,
        version: int | None = None,
        who: str | None = None,
        **changes: Any,  # noqa: ANN401 - EntryDraft's fields
    ) -> Entry:
        """Change fields of an entry (those of `EntryDraft`); the next search goes by them.

        Args:
            entry_id: which entry.
            version: the version that the changes were made to; None overwrites whatever there is.
            who: whom the history names; the setting `person` unless given.
            **changes: the fields that change.

        Raises:
            EntryNotFoundError: no such entry.
            EntryConflictError: the entry is not of that version any more; it holds the entry as it is.
            EntryInvalidError: as for `add_entry`.
        """
        if unknown := set(changes) - {item.name for item in fields(EntryDraft)}:
            raise EntryInvalidError(f"an entry has no field {', '.join(sorted(unknown))}")

        def change(draft: EntryDraft) -> EntryDraft:
            return _checked(replace(draft, **changes))

        return self._store.edit_entry(entry_id, change, version=version, who=self._who(who))

    def set_enabled(self, entry_id: int, enabled: bool, *, who: str | None = None) -> Entry:
        """Switch an entry on or off; one that is off is never shown."""
        self._store.entry(entry_id)
        self.set_enabled_many([entry_id], enabled, who=who)
        return self._store.entry(entry_id)

    def set_enabled_many(self, entry_ids: Sequence[int], enabled: bool, *, who: str | None = None) -> int:
        """Switch several entries on or off; how many that changed."""
        action = "enable" if enabled else "disable"
        return self._store.set_many(entry_ids, {"enabled": enabled}, who=self._who(who), action=action)

    def set_category_many(self, entry_ids: Sequence[int], category: str, *, who: str | None = None) -> int:
        """Give several entries the same category; how many that changed."""
        checked = _checked(EntryDraft(question="?", answer="?", category=category)).category
        return self._store.set_many(entry_ids, {"category": checked}, who=self._who(who), action="category")

    def delete_entry(self, entry_id: int, *, who: str | None = None) -> Entry:
        """Delete an entry with its questions; what it was. Its history stays."""
        return self._store.delete_entry(entry_id, who=self._who(who))

    def history(self, entry_id: int) -> list[Change]:
        """The changes to an entry, newest first; also of one that was deleted."""
        return self._store.changes(entry_id)

    def restore_entry(self, entry_id: int, change_id: int, *, who: str | None = None) -> Entry:
        """Bring back what an entry was before a change.

        Raises:
            EntryNotFoundError: no such entry, or no state before that change.
            EntryInvalidError: a phrasing leads to another entry by now.
        """
        change = next((item for item in self._store.changes(entry_id) if item.id == change_id), None)
        if change is None or change.before is None:
            raise EntryNotFoundError(f"entry {entry_id} has no state before change {change_id}; see its history")
        before = change.before
        return self._store.edit_entry(entry_id, lambda _: before, who=self._who(who), action="restore")

    def neighbours(self, text: str, *, corpus: str, k: int = 5, without: int | None = None) -> tuple[Hit, ...]:
        """The stored questions nearest to one that is being written, by entry.

        Args:
            text: the question as far as it is written; nothing is near an empty one.
            corpus: where to look.
            k: how many entries at most.
            without: an entry to leave out, being the one that is edited.
        """
        if not normalise(text):
            return ()
        hits = self.search(text, corpus=corpus, k=k + 1, log=False).hits
        return tuple(hit for hit in hits if hit.entry_id != without)[:k]

    # --- the query log

    def give_feedback(
        self, query_id: str, feedback: Feedback, *, entry_id: int | None = None, who: str | None = None
    ) -> None:
        """Keep what a person says of the answer to a query; the last word counts.

        Args:
            query_id: `SearchResult.query_id`.
            feedback: right, wrong (it joins the unanswered ones), or instead.
            entry_id: for `instead`, the entry that would have been right.
            who: who says so; the setting `person` unless given.

        Raises:
            QueryNotFoundError: the query is not in the log.
        """
        if (feedback == "instead") != (entry_id is not None):
            raise QueryError("feedback: name an entry for `instead`, and for nothing else")
        if entry_id is not None:
            self._store.entry(entry_id)
        self._searcher.flush_log()
        self._store.give_feedback(query_id, feedback, entry_id, self._who(who))

    def enqueue(self, query_id: str) -> None:
        """Put a logged query into the queue of unanswered ones (those decided `none` are there by themselves)."""
        self._searcher.flush_log()
        self._store.enqueue(query_id)

    def unanswered(self, corpus: str, *, limit: int = 50) -> tuple[QueryGroup, ...]:
        """Queries that got `none`, were marked wrong or were put there, those that ask nearly the same together.

        Groups are made by the corpus's encoder: a query joins the group whose leader it is nearest to, if it scores
        the answer threshold with it. Most frequent first, then newest.
        """
        self._searcher.flush_log()
        found = self._store.corpus(corpus)
        groups = self._searcher.group(found, self._store.unanswered(found.id))[:limit]
        if not groups:
            return ()
        results = self.search_many([group[0].query for group in groups], corpus=corpus, k=3, log=False)
        return tuple(QueryGroup(tuple(group), result.hits) for group, result in zip(groups, results, strict=True))

    def attach_queries(self, query_ids: Sequence[str], entry_id: int, text: str, *, who: str | None = None) -> Entry:
        """Make a query's text a similar question of an entry, and take the queries out of the queue.

        Raises:
            QueryNotFoundError: one of them is not in the log; nothing was changed.
            EntryInvalidError: the text leads to another entry already.
        """
        self._store.check_queries(query_ids)
        entry = self._store.entry(entry_id)
        entry = self.edit_entry(entry_id, version=entry.version, who=who, similar=(*entry.similar, text))
        self._store.handle(query_ids, "attached", self._who(who))
        return entry

    def answer_queries(
        self, query_ids: Sequence[str], corpus: str, draft: EntryDraft, *, who: str | None = None
    ) -> Entry:
        """Add an entry that answers queries, and take these out of the queue."""
        self._store.check_queries(query_ids)
        entry = self.add_entry(corpus, draft, who=who)
        self._store.handle(query_ids, "added", self._who(who))
        return entry

    def dismiss_queries(self, query_ids: Sequence[str], *, who: str | None = None) -> None:
        """Take queries out of the queue without an answer."""
        self._store.handle(query_ids, "dismissed", self._who(who))

    def statistics(self, corpus: str, *, days: int = 30, top: int = 10, sample: int = 20_000) -> Statistics:
        """What the query log says of the last days (today included).

        Args:
            corpus: which corpus.
            days: how many days, from 1.
            top: how many of the most asked and never asked entries.
            sample: newest queries that scores and times are taken from.
        """
        self._searcher.flush_log()
        return self._store.statistics(self._store.corpus(corpus), days, top=top, sample=sample)

    def _who(self, who: str | None) -> str:
        return (self.settings.person or system_user()) if who is None else who.strip()

    # --- tables

    def import_table(
        self,
        path: str | Path,
        *,
        corpus: str,
        mode: ImportMode = "merge",
        dry_run: bool = False,
        strict: bool = False,
        mapping: Mapping[str, Sequence[str]] | None = None,
        encoding: str | None = None,
        rejects: str | Path | None = None,
        sync: bool = True,
        who: str | None = None,
        progress: Progress | None = None,
    ) -> ImportReport:
        """Import a FAQ table in one transaction, then bring the index up to date.

        Importing the same file twice changes nothing the second time. The corpus is made if there is none.

        Args:
            path: CSV, TSV or XLSX.
            corpus: where to.
            mode: merge, or replace (entries that the table does not name are removed).
            dry_run: report what would happen, and save nothing.
            strict: save nothing if any row is rejected.
            mapping: field → headers, over the aliases.
            encoding: over what the bytes suggest.
            rejects: a file for the rejected rows, to mend and import again.
            who: whom the history names; the setting `person` unless given.
            sync: whether to rebuild the index afterwards; the entries are found either way.
            progress: told (stage, done, total).

        Raises:
            TableError: the file is no table. Nothing was saved.
            ImportRejectedError: `strict`, and rows were rejected. Nothing was saved.
            StoreError: the database refused. Nothing was saved.
        """
        if mode not in ("merge", "replace"):
            raise TableError(f"mode is {mode!r}; expected merge or replace")
        if rejects is not None:
            _check_output(rejects, path)
        try:
            target = self._store.corpus(corpus)
        except CorpusNotFoundError:
            target = self._new_corpus(corpus)
        with tables.open_table(path, mapping=mapping, encoding=encoding, progress=progress) as reader:
            done = self._store.import_entries(
                target,
                reader,
                fields=reader.fields,
                mode=mode,
                dry_run=dry_run,
                strict=strict,
                who=self._who(who),
                progress=progress,
            )
            errors = tuple(replace(error, column=reader.title(error.column)) for error in done.errors)
            notes = reader.info.notes
            if rejects is not None:
                try:
                    tables.write_rejects(rejects, reader, errors)
                except TableError as exc:  # what was imported stays imported
                    notes = (*notes, f"the rejected rows were not written: {exc}")
        report = ImportReport(
            corpus=corpus,
            created=done.created,
            dry_run=dry_run,
            added=done.added,
            updated=done.updated,
            unchanged=done.unchanged,
            removed=done.removed,
            rejected=len(errors),
            errors=errors,
            notes=notes,
        )
        if strict and errors:
            raise ImportRejectedError(
                f"{len(errors)} rows of {path} were rejected and nothing was saved; the first is line"
                f" {errors[0].line}: {errors[0].reason}; mend them, or import without --strict",
                report,
            )
        if dry_run or not sync:
            return report
        return self._sync(report, progress)

    def preview_table(
        self,
        path: str | Path,
        *,
        mapping: Mapping[str, Sequence[str]] | None = None,
        encoding: str | None = None,
        rows: int = 5,
    ) -> TablePreview:
        """What would be understood of a table, and its first rows as they are.

        Raises:
            TableError: the file is no table.
        """
        with tables.open_table(path, mapping=mapping, encoding=encoding) as reader:
            return TablePreview(reader.info, reader.header, tuple(reader.sample(rows)))

    def _sync(self, report: ImportReport, progress: Progress | None) -> ImportReport:
        """Rebuild after an import. What fails here does not undo the import: say so instead."""
        try:
            rebuilt = self.rebuild(report.corpus, wait=SYNC_WAIT_SECONDS, progress=progress)
        except FaqSearchError as exc:
            return replace(report, notes=(*report.notes, f"imported, but the index was not synced: {exc}"))
        return replace(report, index_version=rebuilt.version, notes=(*report.notes, *rebuilt.notes))

    def export_table(self, out: str | Path | IO[str], *, corpus: str, lang: str = "zh") -> int:
        """Write a whole corpus as a table that imports to the same corpus; how many entries."""
        if lang not in ("zh", "en"):
            raise TableError(f"lang is {lang!r}; expected zh or en")
        count, numbered = 0, 0
        for entry in self._store.entries(corpus):
            count += 1
            if tables.needs_numbered(entry.similar):
                numbered = max(numbered, len(entry.similar))
        tables.write_entries(out, self._store.entries(corpus), numbered=numbered, lang=lang)
        return count

    # --- index

    def rebuild(
        self, corpus: str, *, full: bool = False, wait: float = 0.0, progress: Progress | None = None
    ) -> RebuildReport:
        """Bring a corpus's index up to date and publish it as a new version.

        A rebuild is a set difference: vectors of questions that are still stored are kept, missing ones are
        encoded, the rest is dropped. Where nothing has changed, nothing is written. A damaged
        version, or one of another encoder or normalisation, is built anew.

        Args:
            corpus: which.
            full: encode every question again.
            wait: seconds to wait for another process that rebuilds this index.
            progress: told ("encoding", questions done, all of them).

        Raises:
            IndexBusyError: another process is at it.
            EncoderError: the corpus's encoder cannot be loaded.
        """
        from faqsearch.index import QuestionIndex

        started = time.perf_counter()
        folder = self._folder(self._store.corpus(corpus).name)
        with folder.lock(wait):
            found = self._store.corpus(corpus)
            fingerprint = self._encoders.fingerprint(found.encoder)
            revision, ids = self._store.question_ids(found.id)
            base, version, problem = self._base(folder, found, full)
            how = f"built on version {version.version}" if version else "built in full"
            notes = (f"{how}: {problem}",) if problem else ()
            dropped = 0
            missing = ids
            if base is not None and version is not None:
                missing = np.setdiff1d(ids, base.ids, assume_unique=True)
                dropped = base.keep(ids)
                unchanged = not len(missing) and not dropped and base.is_of_kind(found.index_kind)
                if unchanged and version.version == folder.current_or_none():
                    return RebuildReport(
                        corpus,
                        version.version,
                        False,
                        False,
                        len(ids),
                        0,
                        0,
                        time.perf_counter() - started,
                        notes,
                    )
            encoder = self._encoders.get(found.encoder, fingerprint)
            index = base if base is not None else QuestionIndex(encoder.dim)
            kept = len(index)
            self._encode_into(index, encoder, missing, progress)
            encoded = len(index) - kept
            index = index.of_kind(found.index_kind)
            build = uuid.uuid4().hex
            self._store.record_build(found.id, build)
            published = folder.publish(
                index,
                IndexVersion(
                    version="",
                    corpus=corpus,
                    encoder=found.encoder,
                    fingerprint=fingerprint,
                    normalisation=NORMALISATION,
                    dim=index.dim,
                    count=len(index),
                    sha256="",
                    revision=revision,
                    last_question_id=int(ids[-1]) if len(ids) else 0,
                    build=build,
                    created_at=datetime.now(timezone.utc),
                ),
            )
            folder.prune(self.settings.keep_versions)
        seconds = time.perf_counter() - started
        return RebuildReport(corpus, published.version, True, base is None, kept, encoded, dropped, seconds, notes)

    def _base(
        self, folder: IndexFolder, corpus: Corpus, full: bool
    ) -> tuple[QuestionIndex | None, IndexVersion | None, str | None]:
        """The newest usable version to build on, and what is wrong with the current one if it is not that.

        A version's vectors stay right however old it is: texts never change, ids are never reused.
        """
        if full:
            return None, None, None
        wrong = None
        try:
            current = folder.current()
        except IndexFileError as exc:
            current, wrong = None, _without_cure(str(exc))
        earlier = [name for name in reversed(folder.names()) if name != current]
        for name in [current, *earlier] if current else earlier:
            try:
                version = folder.manifest(name)
                problem = _without_cure(self._unfit(corpus, version))
                if problem is None and version.encoder != corpus.encoder:
                    problem = f"the encoder is now {corpus.encoder}"
                if problem is None:
                    return folder.load(version), version, wrong
            except IndexFileError as exc:
                problem = _without_cure(str(exc))
            if name == current:
                wrong = problem
        return None, None, wrong

    def _foreign(self, corpus: Corpus, version: IndexVersion) -> str | None:
        """What is wrong with a version that was not built from this database."""
        if self._store.has_build(corpus.id, version.build):
            return None
        return f"index version {version.version} was built from another database, or from a later state of this one"

    def _unfit(self, corpus: Corpus, version: IndexVersion) -> str | None:
        """Why a version does not fit this database, program and machine, with the cure."""
        problem = self._foreign(corpus, version)
        if problem is None and version.normalisation != NORMALISATION:
            problem = f"text normalisation has changed since index version {version.version} was built"
        try:
            if problem is None and self._encoders.fingerprint(version.encoder) != version.fingerprint:
                problem = f"encoder {version.encoder!r} has changed since index version {version.version} was built"
        except EncoderError as exc:
            return str(exc)
        return f"{problem}; run `faqsearch rebuild {corpus.name}`" if problem else None

    def _encode_into(
        self,
        index: QuestionIndex,
        encoder: Encoder,
        missing: npt.NDArray[np.int64],
        progress: Progress | None,
    ) -> None:
        """Encode these questions and add them; those deleted meanwhile are left out."""
        for start in range(0, len(missing), _ENCODED_AT_ONCE):
            rows = self._store.folded(missing[start : start + _ENCODED_AT_ONCE].tolist())

            def report(stage: str, done: int, _total: int | None, start: int = start) -> None:
                if progress:
                    progress(stage, start + done, len(missing))

            vectors = encoder.encode([text for _, text in rows], progress=report)
            index.add(np.array([question_id for question_id, _ in rows], dtype=np.int64), vectors)

    def index_versions(self, corpus: str) -> list[IndexVersion]:
        """The index versions of a corpus, oldest first."""
        return self._folder(self._store.corpus(corpus).name).versions()

    def verify_index(self, corpus: str, version: str | None = None) -> VerifyReport:
        """Check an index version (the current one) against its checksum, its encoder and the database."""
        found = self._store.corpus(corpus)
        folder = self._folder(corpus)
        problems: list[str] = []
        try:
            name = version or folder.current()
            if name is None:
                raise IndexFileError(f"no index is current; run `faqsearch rebuild {corpus}`")
            if version is not None:
                folder.check_name(version)
            manifest = folder.manifest(name)
            ids = folder.load(manifest).ids
        except IndexFileError as exc:
            return VerifyReport(corpus, version or "", 0, self._store.counts(found.id).questions, 0, (str(exc),))
        _, stored = self._store.question_ids(found.id)
        if problem := self._unfit(found, manifest):
            problems.append(problem)
        lost = np.setdiff1d(stored[stored <= manifest.last_question_id], ids)
        if len(lost):
            problems.append(f"{len(lost)} questions are missing from it; run `faqsearch rebuild {corpus}`")
        pending = int((stored > manifest.last_question_id).sum())
        stale = len(np.setdiff1d(ids, stored))
        return VerifyReport(corpus, name, len(ids), pending, stale, tuple(problems))

    def rollback_index(self, corpus: str, version: str | None = None) -> IndexVersion:
        """Make an earlier version (the one before the current one) current again.

        Answers do not go back with it: they come from the database. The next rebuild goes forward again.

        Raises:
            IndexFileError: there is no such version, or it is damaged.
        """
        folder = self._folder(self._store.corpus(corpus).name)
        with folder.lock(SYNC_WAIT_SECONDS):
            current = folder.current()
            if version is None:
                names = folder.names()
                earlier = names[: names.index(current)] if current in names else names
                if not earlier:
                    raise IndexFileError(f"corpus {corpus!r} has no earlier index version to go back to")
                version = earlier[-1]
            folder.check_name(version)
            manifest = folder.manifest(version)
            if problem := _without_cure(self._unfit(self._store.corpus(corpus), manifest)):
                raise IndexFileError(f"{problem}; it cannot be used here")
            folder.check(manifest)
            folder.set_current(version)
            return replace(manifest, current=True)

    def prune_index(self, corpus: str, keep: int) -> list[str]:
        """Delete the oldest index versions beyond the last `keep`; their names. The current one stays."""
        folder = self._folder(self._store.corpus(corpus).name)
        with folder.lock(SYNC_WAIT_SECONDS):
            return folder.prune(keep)

    def _folder(self, corpus: str) -> IndexFolder:
        from faqsearch.index import IndexFolder

        return IndexFolder(self.settings.index_dir, corpus)

    # --- judging

    def hit_test(self, path: str | Path, *, corpus: str, progress: Progress | None = None) -> HitTestReport:
        """Search for every query of a table of hit tests and compare with what it should find.

        Raises:
            TableError: no such table, or a key that the corpus does not have.
        """
        tests = tables.read_hit_tests(path)
        found = self._store.corpus(corpus)
        expected = self._expected(path, found, tests)
        queries = [test.query for test in tests]
        results = self.search_many(queries, corpus=corpus, k=10, log=False, progress=progress)
        ranks: list[int | None] = []
        scored: list[ScoredTest] = []
        misses = []
        tally = dict.fromkeys(
            ("right", "wrong", "suggested", "refused", "false_answers", "false_suggestions", "true_nones"), 0
        )
        for test, result in zip(tests, results, strict=True):
            wanted = expected[test.expected] if test.expected else None
            rank = next((hit.rank for hit in result.hits if hit.entry_id == wanted), None)
            score = result.hits[0].score if result.hits else -1.0
            scored.append(ScoredTest(score, wanted is not None, rank == 1))
            if wanted is not None:
                ranks.append(rank)
            outcome = _outcome(wanted is not None, rank, result.decision)
            tally[outcome] += 1
            if outcome in ("wrong", "refused", "false_answers") or (wanted is not None and rank != 1):
                top = result.hits[0] if result.hits else None
                misses.append(
                    Miss(
                        line=test.line,
                        query=test.query,
                        expected=test.expected,
                        expected_rank=rank,
                        decision=result.decision,
                        score=score,
                        found=(top.key or top.question) if top else None,
                        matched_question=top.matched_question if top else "",
                    )
                )
        return HitTestReport(
            corpus=corpus,
            queries=len(tests),
            answerable=len(ranks),
            accuracy_at_1=evaluate.accuracy_at_k(ranks, 1),
            accuracy_at_5=evaluate.accuracy_at_k(ranks, 5),
            mrr_at_10=evaluate.mrr_at_k(ranks, 10),
            auc=evaluate.roc_auc([test.score for test in scored], [test.answerable for test in scored]),
            answer_threshold=found.answer_threshold,
            suggest_threshold=found.suggest_threshold,
            misses=tuple(misses),
            scored=tuple(scored),
            **tally,
        )

    def labelled_pairs(self, corpus: str) -> Pairs:
        """What a corpus knows of which texts mean the same, as labelled pairs to train an encoder on.

        Each similar question with its entry's primary one (1), queries whose answer was confirmed with the question
        that matched (1), wrong answers (0), and corrected ones with the entry that would have been right (1).
        """
        found = self._store.corpus(corpus)
        live = self._store.live(found.id, [question_id for question_id, _ in self._store.pending(found.id, 0)])
        primary = {question.entry_id: question.primary for question in live.values()}
        entry_of = {question.text: question.entry_id for question in live.values()}
        labels: dict[tuple[str, str], float] = {}
        for question in live.values():
            if question.text != question.primary:
                labels[question.primary, question.text] = 1.0
        said = [row for row in self._store.query_log(found.id) if row["feedback"]]
        for row in sorted(said, key=lambda row: row["feedback_at"]):  # the last word counts
            query, instead = row["query"], row["feedback_entry_id"] if row["feedback"] == "instead" else None
            matched = live[row["question_id"]].text if row["question_id"] in live else primary.get(row["entry_id"])
            if matched and query != matched and (row["decision"] != "none" or instead):
                right = row["feedback"] == "right" or instead == row["entry_id"]
                # What has since become a question of that entry means the same, whatever was said before.
                if right or entry_of.get(query, -1) != entry_of.get(matched):
                    labels[query, matched] = float(right)
            better = primary.get(instead) if instead is not None else None
            if better and query != better:
                labels[query, better] = 1.0
        left, right_side = zip(*labels, strict=True) if labels else ((), ())
        return Pairs(corpus, tuple(left), tuple(right_side), tuple(labels.values()))

    def retrieval(self, path: str | Path, *, corpus: str) -> Retrieval:
        """A table of hit tests and a corpus's live questions, for measuring any encoder on them.

        Raises:
            TableError: no such table, or a key that the corpus does not have.
        """
        tests = tables.read_hit_tests(path)
        found = self._store.corpus(corpus)
        keys = self._expected(path, found, tests)
        live = self._store.live(found.id, [question_id for question_id, _ in self._store.pending(found.id, 0)])
        return measure.retrieval_from_tests(
            [(test.query, keys[test.expected] if test.expected else None) for test in tests],
            [(live[question_id].text, live[question_id].entry_id) for question_id in sorted(live)],
        )

    def evaluate_retrieval(self, path: str | Path, *, corpus: str, progress: Progress | None = None) -> RetrievalScores:
        """Measure how a corpus, as it is in service, finds what a table of hit tests asks for.

        Raises:
            TableError: no such table, or a key that the corpus does not have.
        """
        task = self.retrieval(path, corpus=corpus)
        results = self.search_many(task.queries, corpus=corpus, k=measure.DEPTH, log=False, progress=progress)
        hits = [[(hit.entry_id, hit.score) for hit in result.hits] for result in results]
        found = self._store.corpus(corpus)
        version, _ = self._current_version(found, self._store.counts(found.id))
        serving = version.encoder if version else found.encoder
        return measure.summarise(serving, task.expected, hits, len(task.stored))

    def _expected(self, path: str | Path, corpus: Corpus, tests: Sequence[HitTest]) -> dict[str, int]:
        """Entry ids by the keys that hit tests name."""
        expected = self._store.entry_ids(corpus.id, [test.expected for test in tests if test.expected])
        tables.check_expected(path, tests, expected, f"corpus {corpus.name!r}")
        return expected

    def status(self) -> Status:
        """The health report: quick, without loading encoders or reading index files whole (`verify_index` does)."""
        from faqsearch import __version__
        from faqsearch.encoder import resolve_device
        from faqsearch.index import faiss_build

        return Status(
            version=__version__,
            database=str(self.settings.database_path),
            index_dir=str(self.settings.index_dir),
            device=resolve_device(self.settings.device),
            faiss=faiss_build(),
            corpora=tuple(self._corpus_status(corpus) for corpus in self._store.corpora()),
        )

    def _corpus_status(self, corpus: Corpus) -> CorpusStatus:
        counts = self._store.counts(corpus.id)
        version, problem = self._current_version(corpus, counts)
        problems = [problem] if problem else []
        try:
            self._encoders.fingerprint(corpus.encoder)
        except EncoderError as exc:
            problems.append(str(exc))
        age = (datetime.now(timezone.utc) - version.created_at).total_seconds() if version else None
        return CorpusStatus(
            name=corpus.name,
            title=corpus.title,
            encoder=corpus.encoder,
            serving=version.encoder if version else None,
            counts=counts,
            index_version=version.version if version else None,
            index_age_seconds=age,
            indexed=version.count if version else 0,
            pending=self._store.count_pending(corpus.id, version.last_question_id if version else 0),
            problems=tuple(dict.fromkeys(problems)),
        )

    def _current_version(self, corpus: Corpus, counts: CorpusCounts) -> tuple[IndexVersion | None, str | None]:
        """The index version that searches go by, and what is wrong with it or with there being none."""
        folder = self._folder(corpus.name)
        try:
            name = folder.current()
            if name is None:
                return None, f"no index is current; run `faqsearch rebuild {corpus.name}`" if counts.questions else None
            version = folder.manifest(name)
        except IndexFileError as exc:
            return None, str(exc)
        if problem := self._unfit(corpus, version):
            return None, problem
        return version, None


# --- helpers -------------------------------------------------------------------------------------

_BATCH_HEADER = "line query decision rank score entry_id key question matched_question answer category".split()  # noqa: SIM905 - shorter


def _batch_row(line: int, result: SearchResult, hit: Hit | None) -> list[str]:
    start = [str(line), result.query, result.decision]
    if hit is None:
        return [*start, *[""] * (len(_BATCH_HEADER) - len(start))]
    return [
        *(*start, str(hit.rank), f"{hit.score:.4f}", str(hit.entry_id), hit.key or ""),
        *(hit.question, hit.matched_question, hit.answer, hit.category),
    ]


def _check_output(out: str | Path, source: str | Path) -> None:
    """Refuse to write over what is being read, or where nothing can be written, before any work is done."""
    if Path(out).exists() and Path(source).exists() and Path(out).samefile(source):
        raise TableError(f"{out} is the file that is read; name another one to write")
    if not Path(out).absolute().parent.is_dir():
        raise TableError(f"{out} cannot be written: there is no folder {Path(out).absolute().parent}")


def _without_cure(problem: str | None) -> str | None:
    """What is wrong with an index, without the advice to rebuild it, which is under way."""
    return problem.split("; run ")[0] if problem else None


def _check_title(title: str) -> str:
    title = title.strip()
    if not title or len(title) > LABEL_LIMIT:
        raise StoreError(f"a title has 1 to {LABEL_LIMIT} characters, this one has {len(title)}")
    return title


def _checked(draft: EntryDraft) -> EntryDraft:
    """The entry, tidied; EntryInvalidError for what a program or an editor got wrong."""
    if isinstance(draft.similar, str):
        raise EntryInvalidError("similar: expected several texts, got one")
    texts = {"question": draft.question, "answer": draft.answer, "category": draft.category, "key": draft.key or ""}
    for name, text in [*texts.items(), *(("similar", text) for text in draft.similar)]:
        if not isinstance(text, str):
            raise EntryInvalidError(f"{name}: expected a text, got {type(text).__name__}")
    if not isinstance(draft.enabled, bool):
        raise EntryInvalidError(f"enabled: expected True or False, got {draft.enabled!r}")
    for name, when in (("valid_from", draft.valid_from), ("valid_to", draft.valid_to)):
        if not isinstance(when, (datetime, type(None))):
            raise EntryInvalidError(f"{name}: expected a datetime, got {type(when).__name__}")
    draft = tables.tidy_draft(draft)
    if problem := tables.check_draft(draft):
        raise EntryInvalidError(f"{problem[0]}: {problem[1]}", field=problem[0])
    return draft


def _outcome(answerable: bool, rank: int | None, decision: Decision) -> str:
    """Which of a hit test report's counts a query belongs to."""
    if not answerable:
        return {"answer": "false_answers", "suggest": "false_suggestions", "none": "true_nones"}[decision]
    if decision == "answer":
        return "right" if rank == 1 else "wrong"
    return "suggested" if decision == "suggest" else "refused"
