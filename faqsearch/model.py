"""The nouns, as frozen dataclasses: what the modules hand to each other and to callers.

Plain data only: no database rows, no vectors, no behaviour beyond small derived values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

Decision = Literal["answer", "suggest", "none"]
Feedback = Literal["right", "wrong", "instead"]
"""What a person says of an answer; `instead` names the entry that would have been right."""
EntryState = Literal["on", "off", "expired", "upcoming"]
"""on: shown now; off: switched off; expired, upcoming: outside its validity period."""
Precision = Literal["auto", "float32", "bfloat16"]
IndexKind = Literal["auto", "flat", "ivf"]

ImportMode = Literal["merge", "replace"]

Progress = Callable[[str, int, "int | None"], None]
"""Called as progress(stage, done, total); total is None while it is unknown."""

QUERY_LIMIT = 10_000
"""Longest query, in characters; an encoder reads the first few hundred of them."""
QUESTION_LIMIT = 1_000
"""Longest question, in characters."""
ANSWER_LIMIT = 50_000
"""Longest answer, in characters."""
LABEL_LIMIT = 200
"""Longest key, category or title, in characters."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A named collection of entries with one encoder and one pair of thresholds."""

    id: int
    name: str
    title: str
    encoder: str
    answer_threshold: float
    suggest_threshold: float
    revision: int
    """Grows with every change to the corpus's entries."""
    index_kind: IndexKind = "auto"
    """How its index is searched: exactly (flat), in the nearest lists (ivf), or whichever suits its size."""


@dataclass(frozen=True, slots=True)
class CorpusCounts:
    """How much a corpus holds."""

    entries: int
    enabled: int
    questions: int


@dataclass(frozen=True, slots=True)
class EntryDraft:
    """An entry as it is written, before the store gives it an id.

    `similar`, `category`, `enabled`, `valid_from` and `valid_to` count only where the table
    that they come from has such a column (see `Store.import_entries`).
    """

    question: str
    answer: str
    similar: tuple[str, ...] = ()
    key: str | None = None
    category: str = ""
    enabled: bool = True
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    line: int = 0
    """Line of the table that it was read from; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class Question:
    """One phrasing that leads to an entry. Its text never changes; its id is never reused."""

    id: int
    text: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer with the questions it answers; `questions[0]` is the primary one."""

    id: int
    corpus: str
    key: str | None
    questions: tuple[Question, ...]
    answer: str
    category: str
    enabled: bool
    valid_from: datetime | None
    valid_to: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int
    """Grows with every change to the entry."""

    @property
    def question(self) -> str:
        """The primary question's text."""
        return self.questions[0].text

    @property
    def similar(self) -> tuple[str, ...]:
        """The texts of the similar questions, in their order."""
        return tuple(question.text for question in self.questions[1:])

    @property
    def draft(self) -> EntryDraft:
        """Its content, without what the store gives it."""
        return EntryDraft(
            key=self.key,
            question=self.question,
            similar=self.similar,
            answer=self.answer,
            category=self.category,
            enabled=self.enabled,
            valid_from=self.valid_from,
            valid_to=self.valid_to,
        )

    def state_at(self, moment: datetime) -> EntryState:
        """What it is at a moment (in local time, as validity periods are)."""
        if not self.enabled:
            return "off"
        if self.valid_to and self.valid_to < moment:
            return "expired"
        return "upcoming" if self.valid_from and self.valid_from > moment else "on"


@dataclass(frozen=True, slots=True)
class LiveQuestion:
    """A question that may be shown now, with what a hit needs of its entry."""

    id: int
    text: str
    entry_id: int
    key: str | None
    primary: str
    answer: str
    category: str


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that was found, by the best of its questions."""

    rank: int
    score: float
    """Cosine in [-1, 1]; exactly 1.0 for an exact match."""
    entry_id: int
    key: str | None
    question: str
    matched_question: str
    answer: str
    category: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds that a search took, by stage; loading encoder and index, once a process, is not counted."""

    encode: float
    search: float
    fetch: float
    total: float


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a query found: at most k hits, best first, and what they amount to."""

    query: str
    corpus: str
    decision: Decision
    hits: tuple[Hit, ...]
    index_version: str | None
    """None where no index has been built yet and every question was compared directly."""
    took_ms: Timing
    query_id: str = ""
    """Names the query in the log, for feedback; "" where it was not logged."""


@dataclass(frozen=True, slots=True)
class RowError:
    """A row of a table that was not taken, and why."""

    line: int
    column: str
    """The table's own header of the column at fault, or "" where it is the row as a whole."""
    reason: str
    key: str | None = None
    question: str | None = None


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What was understood of a table before its rows were read."""

    path: str
    format: Literal["csv", "xlsx"]
    encoding: str
    delimiter: str
    columns: Mapping[str, tuple[str, ...]]
    """Field → the headers that fill it, e.g. {"question": ("标准问",)}."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TablePreview:
    """What was understood of a table, with its header and first rows as they are."""

    info: TableInfo
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, or would do (`dry_run`)."""

    corpus: str
    created: bool
    """Whether the import made the corpus."""
    dry_run: bool
    added: int
    updated: int
    unchanged: int
    removed: int
    rejected: int
    errors: tuple[RowError, ...] = field(repr=False, default=())
    """One error for each rejected row, by line."""
    notes: tuple[str, ...] = ()
    index_version: str | None = None
    """The index version after the sync; None where there was no sync."""


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One immutable folder of a built index, as its manifest describes it."""

    version: str
    corpus: str
    encoder: str
    fingerprint: str
    normalisation: int
    dim: int
    count: int
    sha256: str
    revision: int
    last_question_id: int
    build: str
    """Random; the database that an index was built from knows it (see `Store.record_build`)."""
    created_at: datetime
    factory: str = "IDMap2,Flat"
    """FAISS's name for its kind of index."""
    current: bool = False


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild did to one corpus's index."""

    corpus: str
    version: str
    changed: bool
    """False where the current version already held exactly the live questions."""
    full: bool
    kept: int
    encoded: int
    dropped: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Whether an index version is whole and agrees with the database."""

    corpus: str
    version: str
    count: int
    pending: int
    """Live questions younger than the index; searched beside it until the next rebuild."""
    stale: int
    """Questions in the index that were deleted since; never shown, dropped by the next rebuild."""
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some of the entries that a filter leaves, and how many it leaves in all."""

    total: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One change to an entry: who, when, and the entry before it; None where there was none yet."""

    id: int
    entry_id: int
    at: datetime
    who: str
    action: str
    """add, edit, import, enable, disable, category, restore or delete."""
    before: EntryDraft | None
    after: EntryDraft | None
    """None where the entry was deleted."""


@dataclass(frozen=True, slots=True)
class LoggedQuery:
    """A query of the log that is waiting to be dealt with."""

    query_id: str
    query: str
    at: datetime
    decision: Decision
    feedback: Feedback | None


@dataclass(frozen=True, slots=True)
class QueryGroup:
    """Unanswered queries that ask nearly the same."""

    queries: tuple[LoggedQuery, ...]
    """Newest first; the first one stands for the group."""
    nearest: tuple[Hit, ...]
    """The entries that are nearest to it."""

    @property
    def count(self) -> int:
        """How often it was asked."""
        return len(self.queries)


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many of a kind on a day."""

    day: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class AskedEntry:
    """An entry with how often it was the first hit of an answer or suggestion."""

    entry_id: int
    question: str
    count: int


@dataclass(frozen=True, slots=True)
class StageTime:
    """Milliseconds of one stage of a search, over the logged queries."""

    stage: str
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the query log of a corpus says of the last days."""

    corpus: str
    days: int
    queries: int
    decisions: tuple[DayCount, ...]
    feedback: tuple[DayCount, ...]
    most_asked: tuple[AskedEntry, ...]
    never_asked: tuple[AskedEntry, ...]
    never_asked_total: int
    scores: tuple[float, ...]
    stages: tuple[StageTime, ...]


@dataclass(frozen=True, slots=True)
class HitTest:
    """A query with the key (or primary question) of the entry that it should find, or with none."""

    line: int
    query: str
    expected: str | None


@dataclass(frozen=True, slots=True)
class Miss:
    """A hit test that did not go as it should."""

    line: int
    query: str
    expected: str | None
    """None where no entry should be shown as the answer."""
    expected_rank: int | None
    """Where the expected entry came, if it came at all."""
    decision: Decision
    score: float
    found: str | None
    """Key of the first hit, or its question where it has no key."""
    matched_question: str


@dataclass(frozen=True, slots=True)
class ScoredTest:
    """A hit test's score, for choosing thresholds."""

    score: float
    """Of the first hit; -1 where there was none."""
    answerable: bool
    right: bool
    """Whether the first hit is the expected entry."""


@dataclass(frozen=True, slots=True)
class HitTestReport:
    """How well a corpus answers its hit tests. All rates are in [0, 1]."""

    corpus: str
    queries: int
    answerable: int
    accuracy_at_1: float
    accuracy_at_5: float
    mrr_at_10: float
    auc: float | None
    """ROC AUC of the first hit's score, answerable queries against the others; None without both."""
    answer_threshold: float
    suggest_threshold: float
    right: int
    """Answerable queries decided `answer`, with the expected entry first."""
    wrong: int
    """Answerable queries decided `answer`, with another entry first."""
    suggested: int
    """Answerable queries decided `suggest`."""
    refused: int
    """Answerable queries decided `none`."""
    false_answers: int
    """Queries without an entry decided `answer`."""
    false_suggestions: int
    """Queries without an entry decided `suggest`."""
    true_nones: int
    """Queries without an entry decided `none`."""
    misses: tuple[Miss, ...] = field(repr=False, default=())
    scored: tuple[ScoredTest, ...] = field(repr=False, default=())
    """Every query, in the file's order."""


@dataclass(frozen=True, slots=True)
class CorpusStatus:
    """One corpus in the health report."""

    name: str
    title: str
    encoder: str
    serving: str | None
    """The encoder that searches go by until the next rebuild; None without an index."""
    counts: CorpusCounts
    index_version: str | None
    index_age_seconds: float | None
    indexed: int
    pending: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """The health report."""

    version: str
    database: str
    index_dir: str
    device: str
    faiss: str
    corpora: tuple[CorpusStatus, ...]

    @property
    def ok(self) -> bool:
        """Whether no corpus has a problem."""
        return not any(corpus.problems for corpus in self.corpora)


EncoderPlace = Literal["embedded", "downloaded", "folder", "incomplete", "unusable", "missing"]
"""embedded: ships with the package; downloaded: in the Hugging Face cache; incomplete: files of it are missing there;
unusable: of a kind that cannot be loaded."""


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """A checkpoint that the registry knows, or that a corpus uses."""

    name: str
    """The reference that `corpus set --encoder` takes."""
    source: str
    """owner/name on the Hugging Face hub; "ours" ships with the package, "own" is a folder."""
    role: str
    parameters: int | None
    dim: int | None
    where: EncoderPlace
    folder: Path | None
    licence: str
    corpora: tuple[str, ...]
    """The corpora that use it."""


@dataclass(frozen=True, slots=True)
class EncoderCheck:
    """What checking a checkpoint found."""

    name: str
    folder: Path
    layers: int
    dim: int
    vocabulary: int
    parameters: int
    pooling: str
    max_length: int
    query_prefix: str
    stored_prefix: str
    fingerprint: str
    weights: str
    """The file that they are loaded from."""
    converted: bool
    """Whether this check converted pickled weights to safetensors."""
    sentences: tuple[str, str]
    """The two sentences of the model card."""
    norms: tuple[float, ...]
    """Lengths of their embeddings; 1 each."""
    similarity: float
    """Their cosine."""
    notes: tuple[str, ...]
    """What a person should know; empty if all is as published."""
