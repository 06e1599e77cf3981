"""The metrics, against examples worked by hand and against their definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats  # type: ignore[import-untyped] # has no types, nor has sklearn
import sklearn.metrics  # type: ignore[import-untyped]
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faqsearch.evaluate import (
    accuracy_at_k,
    average_precision,
    best_f1,
    confidence_interval,
    mrr_at_k,
    pearson,
    roc_auc,
    spearman,
)

RANKS = [1, 2, None, 1, 6, 11, 5]


@pytest.mark.parametrize(("k", "expected"), [(1, 2 / 7), (2, 3 / 7), (5, 4 / 7), (10, 5 / 7), (11, 6 / 7)])
def test_accuracy_counts_the_queries_whose_entry_is_among_the_first_k(k: int, expected: float) -> None:
    assert accuracy_at_k(RANKS, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, 2 / 7),
        (5, (1 + 1 / 2 + 1 + 1 / 5) / 7),
        (10, (1 + 1 / 2 + 1 + 1 / 6 + 1 / 5) / 7),
        (11, (1 + 1 / 2 + 1 + 1 / 6 + 1 / 11 + 1 / 5) / 7),
    ],
)
def test_mrr_is_the_mean_of_the_reciprocal_ranks_up_to_k(k: int, expected: float) -> None:
    assert mrr_at_k(RANKS, k) == pytest.approx(expected)


def test_no_answerable_query_is_no_division_by_zero() -> None:
    assert (accuracy_at_k([], 1), mrr_at_k([], 10)) == (0.0, 0.0)
    assert (accuracy_at_k([None], 1), mrr_at_k([None], 10)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.9, 0.1], [True, False], 1.0),
        ([0.1, 0.9], [True, False], 0.0),
        ([0.5, 0.5], [True, False], 0.5),
        # Pairs (positive, negative): .9>.7 .9>.2 .4<.7 .4>.2 .7=.7 .7>.2 → 4.5 of 6.
        ([0.9, 0.4, 0.7, 0.7, 0.2], [True, True, True, False, False], 4.5 / 6),
        ([0.3, 0.8], [True, True], None),
        ([0.3, 0.8], [False, False], None),
        ([], [], None),
    ],
)
def test_auc_of_hand_worked_examples(scores: list[float], labels: list[bool], expected: float | None) -> None:
    assert roc_auc(scores, labels) == (None if expected is None else pytest.approx(expected))


# Few different values make many ties; the others are float32, as cosines are.
COSINE = st.integers(-5, 5).map(lambda n: n / 5) | st.floats(-1, 1, width=32)
GRADED = st.lists(st.tuples(COSINE, st.integers(0, 5).map(float)), min_size=2, max_size=60)
LABELLED = st.lists(st.tuples(COSINE, st.booleans()), min_size=1, max_size=60)


@given(st.lists(st.tuples(COSINE, st.booleans()), max_size=60))
def test_auc_is_the_share_of_pairs_in_the_right_order(cases: list[tuple[float, bool]]) -> None:
    positive = [score for score, label in cases if label]
    negative = [score for score, label in cases if not label]
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    expected = pytest.approx(sum(pairs) / len(pairs), abs=1e-9) if pairs else None
    assert roc_auc([score for score, _ in cases], [label for _, label in cases]) == expected


@settings(deadline=None)
@given(LABELLED)
def test_auc_and_average_precision_are_those_of_scikit_learn(cases: list[tuple[float, bool]]) -> None:
    scores, labels = [score for score, _ in cases], [label for _, label in cases]
    assume(any(labels))
    assert average_precision(scores, labels) == pytest.approx(sklearn.metrics.average_precision_score(labels, scores))
    assume(not all(labels))
    assert roc_auc(scores, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))


@settings(deadline=None)
@given(GRADED)
def test_correlations_are_those_of_scipy(cases: list[tuple[float, float]]) -> None:
    scores, labels = [score for score, _ in cases], [label for _, label in cases]
    assume(len(set(scores)) > 1 and len(set(labels)) > 1)
    assert pearson(scores, labels) == pytest.approx(scipy.stats.pearsonr(scores, labels).statistic, abs=1e-9)
    assert spearman(scores, labels) == pytest.approx(scipy.stats.spearmanr(scores, labels).statistic, abs=1e-9)


def test_spearman_of_a_hand_worked_example_with_ties() -> None:
    # Ranks of the scores: 1, 2.5, 2.5, 4; of the labels: 1.5, 1.5, 3.5, 3.5; both have the mean 2.5.
    # Deviations (-1.5, 0, 0, 1.5) and (-1, -1, 1, 1): 3 / sqrt(4.5 * 4).
    scores, labels = [0.1, 0.5, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0]
    assert spearman(scores, labels) == pytest.approx(3 / math.sqrt(18))
    assert pearson(scores, labels) == pytest.approx(0.4 / math.sqrt(0.32 * 1.0))
    assert pearson(labels, [-label for label in labels]) == pytest.approx(-1)


@pytest.mark.parametrize("constant", [[0.1, 0.1, 0.1], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_what_does_not_vary_has_no_correlation(constant: list[float]) -> None:
    for correlation in (pearson, spearman):
        assert correlation(constant, [0.0, 1.0, 1.0]) is None
        assert correlation([0.2, 0.3, 0.4], constant) is None
        assert correlation([0.2], [1.0]) is None
        assert correlation([], []) is None


def test_average_precision_of_hand_worked_examples() -> None:
    # Found at ranks 1, 3 and 5 of 5: (1/1 + 2/3 + 3/5) / 3.
    labels = [True, False, True, False, True]
    assert average_precision([0.9, 0.8, 0.7, 0.6, 0.5], labels) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    # Equal scores are one step: all are found at once, three of five.
    assert average_precision([0.5] * 5, labels) == pytest.approx(3 / 5)
    assert average_precision([0.9, 0.1], [True, True]) == 1.0
    assert average_precision([0.9, 0.1], [False, False]) is None
    assert average_precision([], []) is None


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        # From .9: 2 * 1 / (1 + 3). From .7: 2 * 2 / (3 + 3). From .5: 2 * 3 / (5 + 3).
        ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1], (3 / 4, 0.5)),
        # From .9 it is 2 * 1 / (1 + 3), and from .5 again 2 * 2 / (5 + 3).
        ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], [1, 0, 0, 0, 1, 0, 0, 0, 0, 1], (1 / 2, 0.9)),
        # From .9 it is 2 * 3 / (4 + 5), and from .5 again 2 * 4 / (7 + 5), though precision and recall round otherwise.
        ([0.9] * 4 + [0.5] * 3 + [0.1] * 4, [1, 1, 1, 0] + [1, 0, 0] + [1, 0, 0, 0], (2 / 3, 0.9)),
        ([0.3, 0.3, 0.3], [1, 0, 0], (1 / 2, 0.3)),
    ],
)
def test_best_f1_of_hand_worked_examples(scores: list[float], labels: list[int], expected: tuple[float, float]) -> None:
    found = best_f1(scores, [bool(label) for label in labels])
    assert found is not None
    assert found[0] == pytest.approx(expected[0])
    assert found[1] == expected[1]


def test_without_matching_pairs_there_is_no_best_f1() -> None:
    assert best_f1([0.3, 0.2], [False, False]) is None
    assert best_f1([], []) is None


@settings(deadline=None)
@given(LABELLED)
def test_best_f1_is_the_best_of_scikit_learn_s_curve(cases: list[tuple[float, bool]]) -> None:
    scores, labels = [score for score, _ in cases], [label for _, label in cases]
    assume(any(labels))
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        expected = float(np.nanmax(2 * precision * recall / (precision + recall)))
    found = best_f1(scores, labels)
    assert found is not None
    assert found[0] == pytest.approx(expected)
    assert sklearn.metrics.f1_score(labels, [score >= found[1] for score in scores]) == pytest.approx(expected)


@settings(deadline=None)
@given(LABELLED)
def test_of_equally_good_thresholds_the_highest_is_told(cases: list[tuple[float, bool]]) -> None:
    """In fractions, as rounding must not decide between equals."""
    scores, labels = [score for score, _ in cases], [label for _, label in cases]
    assume(any(labels))

    def f1(threshold: float) -> Fraction:
        taken = [label for score, label in cases if score >= threshold]
        return Fraction(2 * sum(taken), len(taken) + sum(labels))

    found = best_f1(scores, labels)
    assert found is not None
    assert found[1] == max((f1(score), score) for score in scores)[1]


# --- confidence intervals ------------------------------------------------------------------------

VALUES = np.random.default_rng(1).beta(2, 1, 83)


def mean(drawn: npt.NDArray[np.int64]) -> float:
    return float(VALUES[drawn].mean())


@pytest.mark.parametrize("seed", [0, 7])
def test_the_interval_is_scipy_s_percentile_bootstrap(seed: int) -> None:
    expected = scipy.stats.bootstrap(
        (VALUES,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    found = confidence_interval(mean, len(VALUES), seed=seed)
    assert found is not None
    assert list(found) == pytest.approx([expected.low, expected.high])
    # And about what the normal distribution says of a mean.
    error = 1.96 * VALUES.std() / math.sqrt(len(VALUES))
    assert list(found) == pytest.approx([VALUES.mean() - error, VALUES.mean() + error], abs=0.015)


def test_the_interval_is_the_same_every_time_and_contains_the_value() -> None:
    found = confidence_interval(mean, len(VALUES))
    assert found is not None
    assert found[0] < VALUES.mean() < found[1]
    assert found == confidence_interval(mean, len(VALUES))
    assert found != confidence_interval(mean, len(VALUES), seed=1)


def test_samples_without_a_value_do_not_count() -> None:
    """As where all queries that were drawn are of one kind, and the AUC has none."""

    def first_or_none(drawn: npt.NDArray[np.int64]) -> float | None:
        return None if drawn[0] == 0 else float(drawn[0])

    assert confidence_interval(first_or_none, 2) == (1.0, 1.0)
    assert confidence_interval(lambda drawn: None, 2) is None
    assert confidence_interval(mean, 0) is None
