"""The metrics, against examples worked by hand and against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faqsearch.evaluate import accuracy_at_k, mrr_at_k, roc_auc

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


# Few different values make many ties.
@given(st.lists(st.tuples(st.integers(-5, 5).map(lambda n: n / 5) | st.floats(-1, 1), st.booleans()), max_size=60))
def test_auc_is_the_share_of_pairs_in_the_right_order(cases: list[tuple[float, bool]]) -> None:
    positive = [score for score, label in cases if label]
    negative = [score for score, label in cases if not label]
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    expected = pytest.approx(sum(pairs) / len(pairs), abs=1e-9) if pairs else None
    assert roc_auc([score for score, _ in cases], [label for _, label in cases]) == expected
