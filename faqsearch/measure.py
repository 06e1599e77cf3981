"""Measure encoders: on labelled pairs, on retrieval, and for speed.

`evaluate` holds the metrics; here texts are encoded and scored. Pairs are encoded as they are
written, as the published model cards do; for retrieval texts are folded first, as a search folds them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from faqsearch import evaluate, tables
from faqsearch.errors import TableError
from faqsearch.model import Precision, Progress, RowError
from faqsearch.pairs import Pairs, join
from faqsearch.text import normalise

if TYPE_CHECKING:
    from faqsearch.encoder import Encoder, TransformerEncoder

DEPTH = 10
"""How many entries retrieval looks at."""
BATCH_SIZES = (8, 16, 32, 64, 128, 256)
CARD_BATCH_SIZE, CARD_SENTENCES = 16, 10_000
"""The setting in which the published model cards measure speed, at 256 tokens at most."""
_SCORE_DIGITS = 6
_QUERIES_AT_ONCE = 256
_TRIED, _TIMED_BATCHES = 500, 100


# --- labelled pairs ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PairScores:
    """How well cosines tell the labels of one set of pairs. None where a figure has no meaning for such labels."""

    encoder: str
    set: str
    pairs: int
    matching: int | None
    """Pairs labelled 1; None for grades."""
    spearman: float | None
    pearson: float | None
    auc: float | None
    average_precision: float | None
    best_f1: float | None
    threshold: float | None
    """The cosine from which a pair counts as matching for the best F1."""
    cosines: tuple[float, ...] = field(repr=False)
    labels: tuple[float, ...] = field(repr=False)


def score_pairs(name: str, encoder: Encoder, pairs: Pairs, progress: Progress | None = None) -> PairScores:
    """Compare the cosines of a set of pairs with its labels."""
    texts = list(dict.fromkeys((*pairs.left, *pairs.right)))
    vectors = encoder.encode(texts, progress=progress)
    row = {text: index for index, text in enumerate(texts)}
    left, right = (vectors[[row[text] for text in side]] for side in (pairs.left, pairs.right))
    cosines = np.clip(np.einsum("nd,nd->n", left, right).astype(np.float64), -1.0, 1.0).tolist()
    matching = [label == 1 for label in pairs.labels] if pairs.binary else None
    both = matching if matching and any(matching) and not all(matching) else None  # else nothing is told apart
    f1 = evaluate.best_f1(cosines, both) if both else None
    return PairScores(
        encoder=name,
        set=pairs.name,
        pairs=len(pairs),
        matching=sum(matching) if matching is not None else None,
        spearman=evaluate.spearman(cosines, pairs.labels),
        pearson=evaluate.pearson(cosines, pairs.labels),
        auc=evaluate.roc_auc(cosines, both) if both else None,
        average_precision=evaluate.average_precision(cosines, both) if both else None,
        best_f1=f1[0] if f1 else None,
        threshold=f1[1] if f1 else None,
        cosines=tuple(cosines),
        labels=pairs.labels,
    )


def hold_out(pairs: Pairs, *, share: float = 0.1, seed: int = 0) -> tuple[Pairs, Pairs]:
    """(the rest, held out): split pairs so that no text stands on both sides. Texts that pairs join stay together."""
    group = join(zip(pairs.left, pairs.right, strict=True))
    sizes = Counter(group[left] for left in pairs.left)
    groups = list(sizes)
    order = np.random.default_rng(seed).permutation(len(groups))
    held: set[str] = set()
    count = 0
    for index in order:
        if count + sizes[groups[index]] <= share * len(pairs):
            held.add(groups[index])
            count += sizes[groups[index]]

    def part(inside: bool) -> Pairs:
        rows = [
            row for row in zip(pairs.left, pairs.right, pairs.labels, strict=True) if (group[row[0]] in held) == inside
        ]
        left, right, labels = zip(*rows, strict=True) if rows else ((), (), ())
        return Pairs(pairs.name, tuple(left), tuple(right), tuple(labels))

    return part(False), part(True)


# --- retrieval -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries, the stored questions that they are put to, and what each should find."""

    queries: tuple[str, ...]
    expected: tuple[frozenset[int], ...]
    """For each query the entries that are right; empty where there is none."""
    stored: tuple[str, ...]
    entries: tuple[int, ...]
    """For each stored question its entry."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A share with the middle 95% of its bootstrap distribution."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """How well an encoder finds the right entries."""

    encoder: str
    queries: int
    answerable: int
    stored: int
    accuracy_at_1: Figure | None
    accuracy_at_5: Figure | None
    accuracy_at_10: Figure | None
    mrr_at_10: Figure | None
    recall_at_10: Figure | None
    """Share of a query's right entries among the first 10; differs from accuracy@10 where there are several."""
    auc: Figure | None
    """How well the best score tells answerable queries from the others; None where one kind is missing."""


def score_retrieval(name: str, encoder: Encoder, task: Retrieval, progress: Progress | None = None) -> RetrievalScores:
    """Search for every query among the stored questions, exactly."""
    return summarise(name, task.expected, _retrieve(encoder, task, progress), len(task.stored))


def quick_retrieval(encoder: Encoder, task: Retrieval) -> tuple[float, float]:
    """(accuracy@1, AUC of answerable or not) alone, without intervals; 0 where one has no meaning."""
    best = [hits[0] for hits in _retrieve(encoder, task)]
    answerable = [bool(right) for right in task.expected]
    right = [entry in wanted for (entry, _), wanted in zip(best, task.expected, strict=True) if wanted]
    auc = evaluate.roc_auc([score for _, score in best], answerable)
    return sum(right) / len(right) if right else 0.0, auc or 0.0


def summarise(
    name: str, expected: Sequence[frozenset[int]], found: Sequence[Sequence[tuple[int, float]]], stored: int
) -> RetrievalScores:
    """The figures of a retrieval.

    Args:
        name: the encoder's.
        expected: for each query the entries that are right; empty where there is none.
        found: for each query (entry, score) of the first 10 entries, best first.
        stored: how many questions there were to find.
    """
    answerable = [bool(right) for right in expected]
    ranks: list[int | None] = []
    recall = []
    for right, hits in zip(expected, found, strict=True):
        if right:
            places = [rank for rank, (entry, _) in enumerate(hits[:DEPTH], start=1) if entry in right]
            ranks.append(places[0] if places else None)
            recall.append(len(places) / len(right))
    best = [hits[0][1] if hits else -1.0 for hits in found]

    def at(k: int) -> Figure | None:
        return _mean([float(rank is not None and rank <= k) for rank in ranks])

    auc = evaluate.roc_auc(best, answerable)
    scores, labels = np.array(best), np.array(answerable)
    spread = evaluate.confidence_interval(
        lambda drawn: evaluate.roc_auc(scores[drawn].tolist(), labels[drawn].tolist()), len(best)
    )
    return RetrievalScores(
        encoder=name,
        queries=len(expected),
        answerable=sum(answerable),
        stored=stored,
        accuracy_at_1=at(1),
        accuracy_at_5=at(5),
        accuracy_at_10=at(DEPTH),
        mrr_at_10=_mean([1 / rank if rank else 0.0 for rank in ranks]),
        recall_at_10=_mean(recall),
        auc=Figure(auc, *spread) if auc is not None and spread else None,
    )


def retrieval_from_tests(tests: Sequence[tuple[str, int | None]], stored: Sequence[tuple[str, int]]) -> Retrieval:
    """Make a retrieval of hit tests.

    Args:
        tests: (query, the entry it should find or None). A query that stands there again has several right entries.
        stored: (question, entry).
    """
    expected: dict[str, set[int]] = {}
    for query, entry in tests:
        expected.setdefault(query, set()).update(() if entry is None else (entry,))
    return Retrieval(
        queries=tuple(expected),
        expected=tuple(map(frozenset, expected.values())),
        stored=tuple(text for text, _ in stored),
        entries=tuple(entry for _, entry in stored),
    )


def retrieval_from_tables(tests: str | Path, stored: str | Path) -> Retrieval:
    """Make a retrieval of a table of hit tests and the FAQ table whose entries they name; no corpus is needed.

    Raises:
        TableError: no such tables, rejected rows of the FAQ table, or a key that it does not have.
    """
    numbers: dict[str, int] = {}
    questions: list[tuple[str, int]] = []
    rejected = []
    with tables.open_table(stored) as reader:
        for number, draft in enumerate(reader):
            if isinstance(draft, RowError):
                rejected.append(f"line {draft.line}: {draft.reason}")
            else:
                numbers.setdefault(draft.question, number)
                if draft.key:
                    numbers[draft.key] = number
                if draft.enabled:
                    questions += [(text, number) for text in (draft.question, *draft.similar)]
    if rejected:
        raise TableError(
            f"{stored} has {len(rejected)} rows that cannot be taken, {'; '.join(rejected[:5])}; mend them"
        )
    read = tables.read_hit_tests(tests)
    tables.check_expected(tests, read, numbers, str(stored))
    return retrieval_from_tests(
        [(test.query, numbers[test.expected] if test.expected else None) for test in read], questions
    )


def retrieval_from_pairs(pairs: Pairs, *, seed: int = 0) -> Retrieval:
    """Make a retrieval of labelled pairs: a positive pair becomes a query and the stored question it should find.

    Texts that positive pairs join, one after the other, are one entry. Of such an entry those that only ever stand on
    the left are the queries, the others are stored. Every other text is stored as well, as an entry of its own: so a
    query meets its hard negatives. Half of the entries that queries should find, drawn by the seed, are left out:
    their queries are the ones without an answer.

    Raises:
        TableError: no pair is labelled as matching.
    """
    top = max(pairs.labels)
    texts = dict.fromkeys((*pairs.left, *pairs.right))
    rows = zip(pairs.left, pairs.right, pairs.labels, strict=True)
    matches = [(left, right) for left, right, label in rows if label == top > 0 and left != right]
    on_the_right = {right for _, right in matches}
    entry = {**{text: text for text in texts}, **join(matches)}
    members: dict[str, list[str]] = {}
    for text in texts:
        members.setdefault(entry[text], []).append(text)
    asked = {name: of_entry for name, of_entry in members.items() if len(of_entry) > 1}
    if not asked:
        raise TableError(f"{pairs.name} holds no matching pair of different texts; expected labels with a 1")
    queries: dict[str, str] = {}
    for name, of_entry in asked.items():
        # Where each stands on the right of another, the first is the query.
        queries.update((text, name) for text in [text for text in of_entry if text not in on_the_right] or of_entry[:1])
    lost = set(np.random.default_rng(seed).permutation(list(asked))[: len(asked) // 2].tolist())
    stored = [text for text in texts if text not in queries and entry[text] not in lost]
    number = {name: index for index, name in enumerate(members)}
    return Retrieval(
        queries=tuple(queries),
        expected=tuple(frozenset() if name in lost else frozenset({number[name]}) for name in queries.values()),
        stored=tuple(stored),
        entries=tuple(number[entry[text]] for text in stored),
    )


def _retrieve(encoder: Encoder, task: Retrieval, progress: Progress | None = None) -> list[list[tuple[int, float]]]:
    """For each query (entry, score) of the first 10 entries; both sides folded, as a search folds them."""
    stored = encoder.encode([normalise(text) for text in task.stored], progress=progress)
    queries = encoder.encode([normalise(text) for text in task.queries], query=True, progress=progress)
    return list(_search(queries, stored, np.asarray(task.entries)))


def _search(
    queries: npt.NDArray[np.float32], stored: npt.NDArray[np.float32], entries: npt.NDArray[np.int64]
) -> Iterator[list[tuple[int, float]]]:
    """For each query (entry, score) of the first 10 entries; equal scores in the order of stored questions."""
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        block = (queries[start : start + _QUERIES_AT_ONCE] @ stored.T).astype(np.float64).round(_SCORE_DIGITS)
        for scores in block:
            best: dict[int, float] = {}
            width = 4 * DEPTH
            while len(best) < DEPTH:
                best.clear()
                width = min(width, len(scores))
                # All that score as much as the last of them: a tie is not cut in two.
                floor = np.partition(scores, len(scores) - width)[len(scores) - width] if width else 0.0
                near = np.flatnonzero(scores >= floor)
                for place in near[np.lexsort((near, -scores[near]))]:
                    best.setdefault(int(entries[place]), float(scores[place]))
                if width == len(scores):
                    break
                width *= 4
            yield list(best.items())[:DEPTH]


def _mean(values: Sequence[float]) -> Figure | None:
    if not values:
        return None
    array = np.asarray(values)
    spread = evaluate.confidence_interval(lambda drawn: float(array[drawn].mean()), len(array))
    return Figure(float(array.mean()), *spread) if spread else None


# --- speed ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast an encoder is, at one batch size."""

    encoder: str
    device: str
    parameters: int
    layers: int
    max_length: int
    batch_size: int
    best: bool
    """Whether this is the fastest batch size; else it is the model cards' 16."""
    sentences: int
    seconds: float
    """To encode all of them."""
    latency: float
    """Seconds for one batch: the median."""
    throughput: float
    """Sentences a second, over all of them."""
    precision: Precision = "float32"
    """Of the matrix products."""


def measure_speed(
    name: str, encoder: TransformerEncoder, texts: Sequence[str], progress: Progress | None = None
) -> list[Speed]:
    """Time an encoder at the model cards' batch size of 16, and at the fastest of several sizes: maybe 16, too."""
    before = encoder.batch_size
    try:
        encoder.encode(texts[: 4 * CARD_BATCH_SIZE])  # the first pass allocates what the others use again
        trial = texts[:_TRIED]
        sizes = [size for size in BATCH_SIZES if size <= max(CARD_BATCH_SIZE, len(trial))]
        seconds = dict.fromkeys(sizes, float("inf"))
        for batch_size in (*sizes, *sizes):  # twice, and the better counts: a machine has other things to do
            encoder.batch_size = batch_size
            seconds[batch_size] = min(seconds[batch_size], _time(encoder, trial))
        card = _measure(name, encoder, texts, CARD_BATCH_SIZE, False, progress)
        fastest = min(seconds, key=lambda size: seconds[size])
        best = card
        if fastest != CARD_BATCH_SIZE:
            other = _measure(name, encoder, texts, fastest, True, progress)
            best = min(card, other, key=lambda speed: speed.seconds)
        return [card, replace(best, best=True)]
    finally:
        encoder.batch_size = before


def _measure(
    name: str,
    encoder: TransformerEncoder,
    texts: Sequence[str],
    batch_size: int,
    best: bool,
    progress: Progress | None,
) -> Speed:
    encoder.batch_size = batch_size
    seconds = _time(encoder, texts, progress)
    starts = range(0, max(1, len(texts) - batch_size + 1), batch_size)
    batches = [_time(encoder, texts[start : start + batch_size]) for start in starts[:_TIMED_BATCHES]]
    return Speed(
        encoder=name,
        device=encoder.device.type,
        parameters=encoder.parameters,
        layers=encoder.layers,
        max_length=encoder.max_length,
        batch_size=batch_size,
        best=best,
        sentences=len(texts),
        seconds=seconds,
        latency=float(np.median(batches)),
        throughput=len(texts) / seconds,
        precision=encoder.precision,
    )


def _time(encoder: TransformerEncoder, texts: Sequence[str], progress: Progress | None = None) -> float:
    start = time.perf_counter()
    encoder.encode(texts, progress=progress)
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Gap:
    """What a student gains over its teacher: the gap column of the model cards."""

    teacher: Speed
    student: Speed

    @property
    def size(self) -> float:
        """Parameters of the student by those of the teacher."""
        return self.student.parameters / self.teacher.parameters

    @property
    def cost(self) -> float:
        """Change of the time for all sentences: -0.5 is half of it."""
        return self.student.seconds / self.teacher.seconds - 1

    @property
    def latency(self) -> float:
        """Change of the time for one batch."""
        return self.student.latency / self.teacher.latency - 1

    @property
    def throughput(self) -> float:
        """Throughput of the student by that of the teacher."""
        return self.student.throughput / self.teacher.throughput


def gaps(speeds: Sequence[Speed]) -> list[Gap]:
    """Compare the larger with the smaller, on each device and setting: each X-teacher with X, or the only two."""
    names = list(dict.fromkeys(speed.encoder for speed in speeds))
    couples = [(f"{name}-teacher", name) for name in names if f"{name}-teacher" in names]
    if not couples and len(names) == 2:
        couples = [(names[0], names[1])]
    found = {(speed.encoder, speed.device, speed.best): speed for speed in speeds}
    settings = dict.fromkeys((speed.device, speed.best) for speed in speeds)
    pairs = [[found.get((name, *setting)) for name in couple] for couple in couples for setting in settings]
    return [
        Gap(*sorted(pair, key=lambda speed: (-speed.parameters, -speed.seconds)))
        for pair in ([speed for speed in both if speed] for both in pairs)
        if len(pair) == 2
    ]


def sample_questions(count: int = CARD_SENTENCES) -> list[str]:
    """Made-up Chinese customer questions, all different, to time with: the same on every machine."""
    whom = (
        "", "请问", "你好，", "我想问一下", "麻烦问下，", "急！", "老板，", "客服在吗，", "昨天打过电话的，",
        "第一次用，",
    )  # fmt: skip
    what = (
        "信用卡", "手机号", "登录密码", "快递", "订单", "发票", "房贷", "会员", "优惠券", "退款", "积分", "账单",
        "医保卡", "身份证", "驾照", "公积金", "定期存款", "交易限额", "收货地址", "运费险",
    )  # fmt: skip
    does = (
        "怎么办理", "在哪里改", "丢了怎么办", "为什么用不了", "可以提前吗", "多久能到", "要收手续费吗", "能不能取消",
        "过期了还能用吗", "一直显示处理中", "和别人的不一样", "怎么查进度",
    )  # fmt: skip
    more = (
        "", "？", "呢", "，谢谢", "，在线等", "，着急用", "，上次说三个工作日，现在都一个星期了", "，我人在外地",
        "，手机上能弄吗", "，要带什么材料去网点",
    )  # fmt: skip
    size = len(whom) * len(what) * len(does) * len(more)  # 24,000
    questions = []
    for number in range(count):
        rest = number * 7919 % size  # a prime step: neighbours differ in every part
        rest, a = divmod(rest, len(whom))
        rest, b = divmod(rest, len(what))
        rest, c = divmod(rest, len(does))
        questions.append(whom[a] + what[b] + does[c] + more[rest] + (f"（{number // size}）" if number >= size else ""))
    return questions
