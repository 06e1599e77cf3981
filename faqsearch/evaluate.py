"""Metrics of retrieval and of labelled pairs, as pure functions over ranks, scores and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Ranks = Sequence["int | None"]
"""For each query the rank, from 1, at which what it should find came; None where it did not come."""


def accuracy_at_k(ranks: Ranks, k: int) -> float:
    """Share of queries whose expected entry is among the first k.

    >>> accuracy_at_k([1, 3, None, 2], 2)
    0.5
    """
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks) if ranks else 0.0


def mrr_at_k(ranks: Ranks, k: int) -> float:
    """Mean reciprocal rank; what comes after k counts 0 (Voorhees 1999).

    >>> mrr_at_k([1, 2, 4, None], 10)
    0.4375
    """
    return sum(1 / rank for rank in ranks if rank is not None and rank <= k) / len(ranks) if ranks else 0.0


def decisions_at(scores: Sequence[float], answer: float, suggest: float) -> tuple[int, int, int]:
    """How many scores would be answered, suggested and refused at these thresholds.

    >>> decisions_at([0.95, 0.9, 0.85, 0.2], 0.9, 0.8)
    (2, 1, 1)
    """
    answered = sum(score >= answer for score in scores)
    suggested = sum(suggest <= score < answer for score in scores)
    return answered, suggested, len(scores) - answered - suggested


def rightly_at(
    scores: Sequence[float], answerable: Sequence[bool], right: Sequence[bool], answer: float, suggest: float
) -> tuple[int, int, int]:
    """How many queries would rightly be answered, suggested and refused at these thresholds.

    An answer is right where the first hit is the expected entry, a suggestion where there is an entry to find, a
    refusal where there is none.

    >>> rightly_at([0.95, 0.92, 0.85, 0.84, 0.2], [True, True, True, False, False], [True] + [False] * 4, 0.9, 0.8)
    (1, 1, 1)
    """
    rows = list(zip(scores, answerable, right, strict=True))
    answered = sum(hit for score, _, hit in rows if score >= answer)
    suggested = sum(wanted for score, wanted, _ in rows if suggest <= score < answer)
    refused = sum(not wanted for score, wanted, _ in rows if score < suggest)
    return answered, suggested, refused


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Probability that a positive scores above a negative, ties counting half (the Mann-Whitney statistic).

    >>> roc_auc([0.9, 0.8, 0.7, 0.8], [True, True, False, False])
    0.875

    Returns:
        None unless there are both positives and negatives.
    """
    values = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels, dtype=bool)
    if not positive.any() or positive.all():
        return None
    n = int(positive.sum())
    rank_sum = float(_mean_ranks(values)[positive].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * (len(values) - n))


def pearson(scores: Sequence[float], labels: Sequence[float]) -> float | None:
    """Pearson's correlation.

    >>> pearson([1, 2, 3], [2, 4, 6.0])
    1.0

    Returns:
        None where one side does not vary.
    """
    x, y = (np.asarray(side, dtype=np.float64) for side in (scores, labels))
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def spearman(scores: Sequence[float], labels: Sequence[float]) -> float | None:
    """Spearman's correlation of ranks, ties sharing their mean rank: what model cards report of a cosine.

    >>> spearman([0.1, 0.2, 0.9], [0, 1, 5])
    1.0
    """
    return pearson(*(_mean_ranks(np.asarray(side, dtype=np.float64)).tolist() for side in (scores, labels)))


def average_precision(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Area under the precision-recall curve as a sum of steps, equal scores making one step.

    >>> average_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    0.8333333333333333

    Returns:
        None without positives.
    """
    hits, taken, _ = _cumulative(scores, labels)
    if not len(hits):
        return None
    recall = hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / taken))


def best_f1(scores: Sequence[float], labels: Sequence[bool]) -> tuple[float, float] | None:
    """(F1, threshold): the best F1 that any threshold reaches, and the highest such threshold.

    A pair counts as matching where its score is the threshold or above.

    >>> best_f1([0.9, 0.8, 0.7, 0.6], [True, True, False, False])
    (1.0, 0.8)

    Returns:
        None without positives.
    """
    hits, taken, thresholds = _cumulative(scores, labels)
    if not len(hits):
        return None
    f1 = 2 * hits / (taken + hits[-1])
    best = int(f1.argmax())
    return float(f1[best]), float(thresholds[best])


def confidence_interval(
    statistic: Callable[[npt.NDArray[np.int64]], float | None], n: int, *, samples: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """The middle 95% of a statistic over bootstrap samples (the percentile method; Efron and Tibshirani 1993).

    Args:
        statistic: its value for the cases of these indices, which may repeat; None where it has none.
        n: how many cases there are.
        samples: how many times n of them are drawn.
        seed: of the drawing.

    Returns:
        (low, high), or None where the statistic has no value.
    """
    if n == 0:
        return None
    generator = np.random.default_rng(seed)
    drawn = (statistic(generator.integers(0, n, n)) for _ in range(samples))
    values = [value for value in drawn if value is not None]
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _mean_ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _cumulative(
    scores: Sequence[float], labels: Sequence[bool]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(positives, cases, score) with at least each different score, from the highest down; empty without positives."""
    values = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels, dtype=bool)
    if not positive.any():
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # the last of each run of equal scores
    return hits[last], last + 1, values[last]
