"""Searching a corpus: candidates from the index and beside it, the best question per entry, the decision.

The database is the truth and the index only makes it fast: ids only grow, so the questions that an
index lacks are those younger than its last one. They are encoded once, compared directly and
merged; whatever is found is shown only if the database says, at that moment, that it is live.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from faqsearch.errors import IndexFileError, QueryError
from faqsearch.model import (
    QUERY_LIMIT,
    Corpus,
    Decision,
    Hit,
    IndexVersion,
    LiveQuestion,
    LoggedQuery,
    Progress,
    SearchResult,
    Timing,
)
from faqsearch.store import HURRIED_MS, LogLine, Store
from faqsearch.text import NORMALISATION, normalise

if TYPE_CHECKING:
    from faqsearch.encoder import Encoder
    from faqsearch.index import IndexFolder, QuestionIndex

FLUSH_MS = 2_000
SCORE_DIGITS = 6
"""Decimals of a score; float32 has no more to say."""

_FIRST_FETCH = 50
_QUERIES_AT_ONCE = 256
_LOG_BUFFER = 10_000


class EncoderSource(Protocol):
    """Where encoders come from; the registry, unless a test brings its own."""

    def fingerprint(self, ref: str) -> str:
        """Names the exact weights behind a reference; raises EncoderError where there are none."""
        ...

    def load(self, ref: str) -> Encoder:
        """Load the encoder of a reference."""
        ...


class Encoders:
    """Encoders by reference, each loaded once for all threads."""

    def __init__(self, source: EncoderSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[str, Encoder]] = {}

    def fingerprint(self, ref: str) -> str:
        """Names the exact weights that a reference stands for now; loads nothing."""
        return self._source.fingerprint(ref)

    def get(self, ref: str, expected: str | None = None) -> Encoder:
        """The encoder of a reference, which must have this fingerprint if one is given.

        Raises:
            EncoderError: there is no such encoder, or it cannot be loaded.
            IndexFileError: its files are not those that an index was built with.
        """
        with self._lock:
            fingerprint, encoder = self._loaded.get(ref, (None, None))
            if encoder is None or (expected is not None and fingerprint != expected):
                fingerprint = self._source.fingerprint(ref)
                if expected is not None and fingerprint != expected:
                    raise IndexFileError(
                        f"encoder {ref!r} is not the one that built the index (its files have changed);"
                        " run `faqsearch rebuild --all`"
                    )
                encoder = self._source.load(ref)
                self._loaded[ref] = (fingerprint, encoder)
            return encoder


@dataclass(frozen=True, slots=True)
class _State:
    """What searching a corpus needs, as of one revision; replaced as a whole, never changed."""

    revision: int
    pointer: str | None
    """The current version's name when this was made."""
    version: IndexVersion | None
    """None where there is no index, or none of this database: then every question is pending."""
    index: QuestionIndex | None
    encoder: Encoder
    encoder_ref: str
    pending_ids: npt.NDArray[np.int64]
    pending_vectors: npt.NDArray[np.float32]


@dataclass(slots=True, eq=False)
class _Asked:
    """A query that a thread waits for."""

    query: str
    corpus: Corpus
    state: _State
    k: int
    log: bool
    result: SearchResult | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def goes_with(self, other: _Asked) -> bool:
        """Whether one search serves both: of the same content, in the same way."""
        return self.state is other.state and (self.corpus, self.k, self.log) == (other.corpus, other.k, other.log)


class _Queue:
    """The queries that wait for a corpus, and whether a thread searches it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: list[_Asked] = []
        self.busy = False


class Searcher:
    """Searches corpora, keeping what that needs in memory and up to date. Safe to use from several threads."""

    def __init__(self, store: Store, encoders: Encoders, index_dir: Path, device: str) -> None:
        self._store, self._encoders, self._index_dir, self._device = store, encoders, index_dir, device
        self._lock = threading.Lock()
        self._writing_log = threading.Lock()
        self._corpus_locks: dict[int, threading.Lock] = {}
        self._states: dict[int, _State] = {}
        self._unlogged: list[LogLine] = []
        self._queues: dict[int, _Queue] = {}

    def search(
        self, texts: Sequence[str], corpus: Corpus, k: int, *, log: bool, progress: Progress | None = None
    ) -> list[SearchResult]:
        """Search for each text; see `FaqSearch.search`."""
        if k < 1:
            raise QueryError(f"k is {k}; expected 1 or more")
        if isinstance(texts, str):
            raise QueryError("expected several queries, got one text; use `search` for that")
        queries = [_check_query(text) for text in texts]
        state = self._state(corpus, progress)
        if len(queries) == 1:
            return [self._search_beside_others(_Asked(queries[0], corpus, state, k, log))]
        results: list[SearchResult] = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            results += self._search(corpus, state, queries[start : start + _QUERIES_AT_ONCE], k, log)
            self._write_waiting()
            if progress:
                progress("searching", len(results), len(queries))
        return results

    def group(self, corpus: Corpus, queries: Sequence[LoggedQuery]) -> list[list[LoggedQuery]]:
        """Put queries that ask nearly the same together: the largest group first, then the newest.

        Args:
            corpus: whose encoder compares them; the answer threshold says what is nearly the same.
            queries: newest first; they stay so within a group.
        """
        if not queries:
            return []
        by_text: dict[str, list[LoggedQuery]] = {}
        for query in queries:
            by_text.setdefault(normalise(query.query), []).append(query)
        texts = sorted(by_text, key=lambda text: -len(by_text[text]))  # stable: equally frequent ones stay newest first
        vectors = self._state(corpus).encoder.encode(texts, query=True)
        leaders = np.empty_like(vectors)  # (n, dim); one row for each group so far
        groups: list[list[LoggedQuery]] = []
        for vector, text in zip(vectors, texts, strict=True):
            scores = leaders[: len(groups)] @ vector
            if len(scores) and scores.max() >= corpus.answer_threshold:
                groups[int(scores.argmax())] += by_text[text]
            else:
                leaders[len(groups)] = vector
                groups.append(list(by_text[text]))
        for group in groups:
            group.sort(key=lambda query: query.at, reverse=True)
        return sorted(groups, key=lambda group: (len(group), group[0].at), reverse=True)

    def flush_log(self) -> None:
        """Write what is left of the query log; what another writer holds up for seconds stays for the next time."""
        with self._writing_log:
            self._write_log(wait_ms=FLUSH_MS)

    def _search_beside_others(self, asked: _Asked) -> SearchResult:
        """Search for one query, at once if no other thread does, else with all that wait by then.

        The vectors are read once for all of them, which is what a search of a large corpus takes most time for.
        """
        queue = self._queues.setdefault(asked.corpus.id, _Queue())
        with queue.changed:
            queue.waiting.append(asked)
        while True:
            with queue.changed:
                queue.changed.wait_for(lambda: asked.done or not queue.busy)
                if asked.done:
                    break
                batch = [other for other in queue.waiting if other.goes_with(asked)][:_QUERIES_AT_ONCE]
                queue.waiting = [other for other in queue.waiting if other not in batch]
                queue.busy = True
            try:
                results = self._search(asked.corpus, asked.state, [other.query for other in batch], asked.k, asked.log)
                for other, result in zip(batch, results, strict=True):
                    other.result = result
            except BaseException as exc:
                for other in batch:
                    other.error = exc
            finally:
                with queue.changed:
                    queue.busy = False
                    queue.changed.notify_all()
            self._write_waiting()  # nobody waits for this
        if asked.error is not None:
            raise asked.error
        assert asked.result is not None
        return asked.result

    def _search(self, corpus: Corpus, state: _State, queries: Sequence[str], k: int, log: bool) -> list[SearchResult]:
        """Search for a handful of queries at once; their lines wait for the query log."""
        started = time.perf_counter()
        folded = [normalise(query) for query in queries]
        vectors = state.encoder.encode(folded, query=True)
        encoded = time.perf_counter()
        exact = self._store.exact(corpus.id, folded)
        fetch_seconds = time.perf_counter() - encoded
        search_seconds = 0.0
        best: dict[int, list[tuple[float, LiveQuestion]]] = {}
        todo = list(range(len(queries)))
        limit = max(_FIRST_FETCH, 4 * k)
        while todo:
            before = time.perf_counter()
            candidates, floors = _candidates(state, vectors[todo], limit)
            searched = time.perf_counter()
            ids = np.unique(np.concatenate([ids for ids, _ in candidates])) if candidates else ()
            live = self._store.live(corpus.id, [int(question_id) for question_id in ids])
            again = []
            for row, (question_ids, scores), floor in zip(todo, candidates, floors, strict=True):
                best[row] = _best_by_entry(question_ids, scores, live, exact.get(folded[row]))[:k]
                # What was not fetched scores the floor at most: the list is final once it stands above that.
                if floor is not None and (len(best[row]) < k or best[row][-1][0] <= floor):
                    again.append(row)
            search_seconds += searched - before
            fetch_seconds += time.perf_counter() - searched
            todo, limit = again, limit * 4
        total = time.perf_counter() - started
        share = 1000 / len(queries)
        took = Timing(
            encode=round((encoded - started) * share, 3),
            search=round(search_seconds * share, 3),
            fetch=round(fetch_seconds * share, 3),
            total=round(total * share, 3),
        )
        results = [_result(query, corpus, state, best[row], took) for row, query in enumerate(queries)]
        if log:
            results = [replace(result, query_id=uuid.uuid4().hex) for result in results]
            now = datetime.now()
            tops = [best[row][0][1].id if best[row] else None for row in range(len(queries))]
            lines = [LogLine(corpus.id, now, top, result) for top, result in zip(tops, results, strict=True)]
            with self._lock:
                self._unlogged = (self._unlogged + lines)[-_LOG_BUFFER:]
        return results

    def _write_waiting(self) -> None:
        """Write to the query log what waits for it; while another process writes, keep the lines for the next time."""
        written = True
        # One thread at a time writes, and takes with it what others leave meanwhile: no search waits for another's.
        while written and self._unlogged and self._writing_log.acquire(blocking=False):
            try:
                written = self._write_log(wait_ms=HURRIED_MS)
            finally:
                self._writing_log.release()

    def _write_log(self, *, wait_ms: int) -> bool:
        """Write the lines that are waiting, or keep them; whether they are written."""
        with self._lock:
            waiting, self._unlogged = self._unlogged, []
        written = False
        try:
            written = not waiting or self._store.log_queries(waiting, wait_ms=wait_ms)
        finally:
            if not written:
                with self._lock:
                    self._unlogged = (waiting + self._unlogged)[-_LOG_BUFFER:]
        return written

    def _state(self, corpus: Corpus, progress: Progress | None = None) -> _State:
        """The state for searching, brought up to date if the corpus or its index version has changed."""
        folder = self._folder(corpus.name)
        state = self._states.get(corpus.id)
        if state is not None and _fits(state, corpus, folder.current()):
            return state
        with self._lock:
            lock = self._corpus_locks.setdefault(corpus.id, threading.Lock())
        with lock:
            state = self._states.get(corpus.id)
            while True:
                name = folder.current()
                if state is not None and _fits(state, corpus, name):
                    return state
                try:
                    loaded = self._load_state(corpus, folder, name, state, progress)
                except IndexFileError:
                    if folder.current() == name:
                        raise
                    continue  # replaced and pruned while it was read: read its successor
                self._states[corpus.id] = loaded
                return loaded

    def _folder(self, corpus: str) -> IndexFolder:
        from faqsearch.index import IndexFolder  # not at the top: it loads faiss

        return IndexFolder(self._index_dir, corpus)

    def _load_state(
        self,
        corpus: Corpus,
        folder: IndexFolder,
        name: str | None,
        old: _State | None,
        progress: Progress | None,
    ) -> _State:
        version, index = None, None
        if name is not None:
            if old is not None and old.pointer == name:
                version, index = old.version, old.index
            else:
                version, index = self._load_version(corpus, folder, name)
        # Queries use the encoder that built the index; without an index, the corpus's own.
        ref = version.encoder if version else corpus.encoder
        encoder = self._encoders.get(ref, version.fingerprint if version else None)
        pending = self._store.pending(corpus.id, version.last_question_id if version else 0)
        known: dict[int, npt.NDArray[np.float32]] = {}
        if old is not None and old.encoder is encoder:
            known = dict(zip(old.pending_ids.tolist(), old.pending_vectors, strict=True))
        new = [(question_id, text) for question_id, text in pending if question_id not in known]
        if new:
            vectors = encoder.encode([text for _, text in new], progress=progress)
            known.update(zip((question_id for question_id, _ in new), vectors, strict=True))
        ids = np.array([question_id for question_id, _ in pending], dtype=np.int64)
        rows = [known[question_id] for question_id, _ in pending]
        matrix = np.stack(rows) if rows else np.empty((0, encoder.dim), dtype=np.float32)
        return _State(corpus.revision, name, version, index, encoder, ref, ids, matrix)

    def _load_version(
        self, corpus: Corpus, folder: IndexFolder, name: str
    ) -> tuple[IndexVersion | None, QuestionIndex | None]:
        version = folder.manifest(name)
        if not self._store.has_build(corpus.id, version.build):
            return None, None  # its ids may mean other questions here
        if version.normalisation != NORMALISATION:
            raise IndexFileError(
                f"index version {name} was built with text normalisation {version.normalisation}, this program has"
                f" {NORMALISATION}; run `faqsearch rebuild {folder.corpus}`"
            )
        return version, folder.load(version, self._device)


def _check_query(text: str) -> str:
    if not isinstance(text, str):
        raise QueryError(f"a query is a text, this is {type(text).__name__}")
    query = text.strip()
    if len(query) > QUERY_LIMIT:
        raise QueryError(f"the query has {len(query):,} characters; at most {QUERY_LIMIT:,} are allowed")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in query):
        raise QueryError("the query holds bytes that are no text; expected UTF-8")
    if not normalise(query):
        raise QueryError("the query is empty; expected a question")
    return query


def _fits(state: _State, corpus: Corpus, version: str | None) -> bool:
    """Whether a state still is that of its corpus and of the current index version."""
    if (state.revision, state.pointer) != (corpus.revision, version):
        return False
    return state.version is not None or state.encoder_ref == corpus.encoder


def _candidates(
    state: _State, vectors: npt.NDArray[np.float32], limit: int
) -> tuple[list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]], list[float | None]]:
    """For each query: (question ids, scores) from index and pending questions, best first, and its floor.

    The floor is the score that no question left out can exceed; None where none was left out.
    """
    if state.index is not None:
        indexed = state.index.search(vectors, limit)
        everything = limit >= len(state.index)
    else:
        indexed = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in vectors]
        everything = True
    pending = np.clip(vectors @ state.pending_vectors.T, -1.0, 1.0)  # (n, pending)
    candidates = []
    floors: list[float | None] = []
    for (ids, scores), row in zip(indexed, pending, strict=True):
        all_ids = np.concatenate([ids, state.pending_ids])
        # Rounded before they are compared: the last bits differ with the batch and with the index version.
        all_scores = np.concatenate([scores, row]).astype(np.float64).round(SCORE_DIGITS)
        # Fewer than asked for: a longer list would hold no more.
        floor = None if everything or len(ids) < limit else float(all_scores[len(ids) - 1])
        order = np.lexsort((all_ids, -all_scores))
        if len(order) > 2 * limit:
            order = order[: 2 * limit]
            cut = float(all_scores[order[-1]])
            floor = cut if floor is None else max(floor, cut)
        candidates.append((all_ids[order], all_scores[order]))
        floors.append(floor)
    return candidates, floors


def _best_by_entry(
    question_ids: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    live: Mapping[int, LiveQuestion],
    exact: LiveQuestion | None,
) -> list[tuple[float, LiveQuestion]]:
    """The best live question of each entry, best first; equal scores in the order of question ids."""
    best: dict[int, tuple[float, LiveQuestion]] = {}
    if exact is not None:
        best[exact.entry_id] = (1.0, exact)
    for question_id, score in zip(question_ids.tolist(), scores.tolist(), strict=True):
        question = live.get(question_id)
        if question is not None and question.entry_id not in best:
            best[question.entry_id] = (score, question)
    return sorted(best.values(), key=lambda item: (-item[0], item[1] is not exact, item[1].id))


def _result(
    query: str, corpus: Corpus, state: _State, best: list[tuple[float, LiveQuestion]], took: Timing
) -> SearchResult:
    hits = tuple(
        Hit(
            rank=rank,
            score=score,
            entry_id=question.entry_id,
            key=question.key,
            question=question.primary,
            matched_question=question.text,
            answer=question.answer,
            category=question.category,
        )
        for rank, (score, question) in enumerate(best, start=1)
    )
    version = state.version.version if state.version else None
    return SearchResult(query, corpus.name, _decide(corpus, hits), hits, version, took)


def _decide(corpus: Corpus, hits: Sequence[Hit]) -> Decision:
    if hits and hits[0].score >= corpus.answer_threshold:
        return "answer"
    if hits and hits[0].score >= corpus.suggest_threshold:
        return "suggest"
    return "none"
