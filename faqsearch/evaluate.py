"""Retrieval metrics, as pure functions over ranks, scores and labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2  # of tied scores, from 1
    n = int(positive.sum())
    rank_sum = float(mean_ranks[inverse][positive].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * (len(values) - n))
