"""Encoders measured on pairs, on retrieval and for speed, with cosines that the tests choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import write_published
from fakes import FakeEncoder, FakeSource
from hypothesis import given, settings
from hypothesis import strategies as st

from faqsearch import FaqSearch, evaluate
from faqsearch.encoder import TransformerEncoder
from faqsearch.errors import TableError
from faqsearch.measure import (
    Figure,
    Gap,
    Retrieval,
    RetrievalScores,
    Speed,
    gaps,
    hold_out,
    measure_speed,
    quick_retrieval,
    retrieval_from_pairs,
    retrieval_from_tables,
    retrieval_from_tests,
    sample_questions,
    score_pairs,
    score_retrieval,
    summarise,
)
from faqsearch.pairs import Pairs

FIGURES = ("accuracy_at_1", "accuracy_at_5", "accuracy_at_10", "mrr_at_10", "recall_at_10", "auc")


def values(scores: RetrievalScores) -> dict[str, float | None]:
    figures: dict[str, Figure | None] = {name: getattr(scores, name) for name in FIGURES}
    return {name: None if figure is None else figure.value for name, figure in figures.items()}


class ChosenCosines(FakeEncoder):
    """Stored texts are at right angles to each other; each query has the cosines to them that are given."""

    dim = 64

    def __init__(self, stored: Sequence[str], cosines: dict[str, Sequence[float]]) -> None:
        super().__init__()
        for row, text in enumerate(stored):
            self._placed[text] = np.eye(self.dim, dtype=np.float32)[row]
        for text, chosen in cosines.items():
            vector = np.zeros(self.dim)
            vector[: len(chosen)] = chosen
            vector[-1] = np.sqrt(1 - vector @ vector)
            self._placed[text] = vector.astype(np.float32)

    def encode(self, texts: Sequence[str], *, query: bool = False, progress: Any = None) -> npt.NDArray[np.float32]:
        assert query == texts[0].startswith("问")  # a checkpoint's prefixes go by it
        return np.array([self._placed[text] for text in texts])


# --- pairs ---------------------------------------------------------------------------------------


def test_pairs_are_scored_as_they_are_by_hand() -> None:
    encoder = FakeEncoder()
    cosines = [0.9, 0.6, 0.8, 0.3]
    left, right = ("甲一", "乙一", "丙一", "丁一"), ("甲二", "乙二", "丙二", "丁二")
    for one, other, cosine in zip(left, right, cosines, strict=True):
        encoder.place(one, other, cosine)
    scores = score_pairs("mine", encoder, Pairs("set", left, right, (1.0, 1.0, 0.0, 0.0)))
    assert (scores.encoder, scores.set, scores.pairs, scores.matching) == ("mine", "set", 4, 2)
    assert scores.cosines == pytest.approx(cosines)
    assert scores.labels == (1, 1, 0, 0)
    # Ranks 4 2 3 1 and 3.5 3.5 1.5 1.5: deviations (1.5 -.5 .5 -1.5) and (1 1 -1 -1), so 2 / sqrt(5 * 4).
    assert scores.spearman == pytest.approx(2 / np.sqrt(20))
    # Deviations of the cosines (.25 -.05 .15 -.35), of the labels ±.5: .2 / sqrt(.21 * 1).
    assert scores.pearson == pytest.approx(0.2 / np.sqrt(0.21))
    assert scores.auc == pytest.approx(3 / 4)
    assert scores.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert scores.best_f1 == pytest.approx(2 * 2 / (3 + 2))
    assert scores.threshold == pytest.approx(0.6)


def test_grades_have_correlations_and_nothing_that_needs_yes_and_no() -> None:
    encoder = FakeEncoder()
    for text, cosine in (("甲", 0.2), ("乙", 0.5), ("丙", 0.9)):
        encoder.place(text, "对方", cosine)
    scores = score_pairs("x", encoder, Pairs("set", ("甲", "乙", "丙"), ("对方",) * 3, (0.5, 3.0, 5.0)))
    assert scores.spearman == pytest.approx(1)
    assert scores.pearson == pytest.approx(np.corrcoef([0.2, 0.5, 0.9], [0.5, 3, 5])[0, 1])
    assert [scores.matching, scores.auc, scores.average_precision, scores.best_f1, scores.threshold] == [None] * 5


def test_labels_all_alike_have_what_figures_they_can() -> None:
    encoder = FakeEncoder()
    encoder.place("甲", "对方", 0.2)
    none = score_pairs("x", encoder, Pairs("set", ("甲", "乙"), ("对方", "对方"), (0.0, 0.0)))
    assert (none.matching, none.spearman, none.auc, none.average_precision, none.best_f1) == (0, None, None, None, None)
    alone = score_pairs("x", encoder, Pairs("set", ("甲",), ("对方",), (1.0,)))
    assert (alone.matching, alone.spearman, alone.auc, alone.average_precision, alone.best_f1) == (
        (1, None, None, None, None)
    )


def test_texts_are_encoded_once_and_as_they_stand() -> None:
    """The model cards fold nothing; a search does."""
    encoder = FakeEncoder()
    told: list[tuple[str, int, int | None]] = []
    pairs = Pairs("set", ("ＡＰＰ 怎么用", "ＡＰＰ 怎么用", "甲"), ("甲", "ＡＰＰ 怎么用", "乙"), (1.0, 1.0, 0.0))
    scores = score_pairs("x", encoder, pairs, lambda *args: told.append(args))
    assert encoder.encoded == ["ＡＰＰ 怎么用", "甲", "乙"]
    assert told == [("encoding", 3, 3)]
    assert scores.cosines[1] == pytest.approx(1)


def test_a_cosine_is_never_above_one() -> None:
    """Though rounding makes the product of a float32 vector with itself 1.0000001 as often as not."""
    texts = tuple(f"句{number}" for number in range(50))
    scores = score_pairs("x", FakeEncoder(), Pairs("set", texts, texts, (1.0,) * 50))
    assert max(scores.cosines) <= 1
    assert min(scores.cosines) == pytest.approx(1)


# --- retrieval, by hand --------------------------------------------------------------------------

STORED = ("甲1", "甲2", "乙1", "丙1", "丙2", "丁1")
ENTRIES = (10, 10, 20, 30, 30, 40)
COSINES: dict[str, Sequence[float]] = {
    #       甲1   甲2   乙1   丙1   丙2   丁1
    "问一": (0.2, 0.9, 0.3, 0.0, 0.0, 0.0),
    "问二": (0.0, 0.1, 0.4, 0.7, 0.5, 0.0),  # 丙 first, once for both its questions, then 乙
    "问三": (0.4, 0.1, 0.5, 0.0, 0.1, 0.3),
    "问四": (0.0, 0.0, 0.1, 0.0, 0.2, 0.8),
    "问五": (0.5, 0.5, 0.5, 0.0, 0.1, 0.0),
}
TASK = Retrieval(
    queries=tuple(COSINES),
    # 50 is an entry that nothing is stored of, such as one that is switched off.
    expected=(frozenset({10}), frozenset({20}), frozenset({10, 50}), frozenset(), frozenset()),
    stored=STORED,
    entries=ENTRIES,
)


def test_retrieval_of_a_hand_worked_example() -> None:
    scores = score_retrieval("mine", ChosenCosines(STORED, COSINES), TASK)
    assert (scores.encoder, scores.queries, scores.answerable, scores.stored) == ("mine", 5, 3, 6)
    # Right entries came 1st, 2nd, and 2nd with the other one of two missing.
    # Best scores: .9 .7 .5 answerable, .8 .5 not: of 6 comparisons .9>.8 .9>.5 .7>.5 are right and .5=.5 is half.
    assert values(scores) == pytest.approx(
        {
            "accuracy_at_1": 1 / 3,
            "accuracy_at_5": 1.0,
            "accuracy_at_10": 1.0,
            "mrr_at_10": (1 + 1 / 2 + 1 / 2) / 3,
            "recall_at_10": (1 + 1 + 1 / 2) / 3,
            "auc": 3.5 / 6,
        }
    )
    for name in FIGURES:
        figure = getattr(scores, name)
        assert figure.low <= figure.value <= figure.high, name
    # Three queries of which one is right: none and all are drawn in more than 2.5% of the samples.
    assert scores.accuracy_at_1 == Figure(1 / 3, 0, 1)
    assert scores.accuracy_at_5 == Figure(1, 1, 1)


def test_the_quick_figures_are_those_of_the_whole_retrieval() -> None:
    assert quick_retrieval(ChosenCosines(STORED, COSINES), TASK) == pytest.approx((1 / 3, 3.5 / 6))
    none = Retrieval(TASK.queries, (frozenset(),) * 5, STORED, ENTRIES)
    assert quick_retrieval(ChosenCosines(STORED, COSINES), none) == (0, 0)


def test_ranks_count_entries_down_to_the_tenth() -> None:
    hits = [(entry, 1 - entry / 100) for entry in range(1, 13)]  # entry n comes n-th
    expected = [{1}, {5}, {6}, {10}, {11}, {2, 4, 11}, {99}]
    scores = summarise("x", list(map(frozenset, expected)), [hits] * 7, 12)
    assert values(scores) == pytest.approx(
        {
            "accuracy_at_1": 1 / 7,
            "accuracy_at_5": 3 / 7,
            "accuracy_at_10": 5 / 7,
            "mrr_at_10": (1 + 1 / 5 + 1 / 6 + 1 / 10 + 0 + 1 / 2 + 0) / 7,
            "recall_at_10": (4 + 2 / 3) / 7,
            "auc": None,  # nothing is unanswerable
        }
    )


def test_figures_of_queries_of_one_kind_only() -> None:
    none = summarise("x", [frozenset()] * 2, [[(1, 0.5)], []], 1)
    assert (none.queries, none.answerable, values(none)) == (2, 0, dict.fromkeys(FIGURES))


def test_intervals_are_those_of_the_drawn_queries() -> None:
    ranks = [1, 1, 2, None, 3, 1, 7, None, 1, 2]
    found = [[(0 if place == rank else place, 0.5) for place in range(1, 11)] for rank in ranks]
    scores = summarise("x", [frozenset({0})] * 10, found, 99)
    reciprocal = np.array([1 / rank if rank else 0 for rank in ranks])
    drawn = np.random.default_rng(0).integers(0, 10, (1000, 10))
    low, high = np.percentile(reciprocal[drawn].mean(axis=1), [2.5, 97.5])
    interval = scores.mrr_at_10
    assert interval is not None
    assert interval.value == pytest.approx(evaluate.mrr_at_k(ranks, 10))
    assert [interval.low, interval.high] == pytest.approx([low, high])


def test_equal_scores_come_in_the_order_of_stored_questions() -> None:
    """Though they are far apart, and even where more questions are tied than are looked at first."""
    stored = tuple(f"存{number:02}" for number in range(60))
    encoder = ChosenCosines(stored, {"问": [0.1] * 60})
    for right, rank in ((0, 1), (9, 10), (10, None)):
        task = Retrieval(("问",), (frozenset({right}),), stored, tuple(range(60)))
        found = score_retrieval("x", encoder, task).mrr_at_10
        assert found is not None
        assert found.value == pytest.approx(1 / rank if rank else 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 40), st.sampled_from([1, 2, 50]))
def test_retrieval_is_the_exhaustive_search(seed: int, stored: int, entries: int, shades: int) -> None:
    """With few entries of many questions, with many entries, and with ties everywhere."""
    generator = np.random.default_rng(seed)
    owner = np.sort(generator.integers(0, entries, stored))
    scores = generator.integers(0, shades + 1, (8, stored)) / (shades * 20)
    right = [frozenset(generator.choice(entries, generator.integers(0, 3)).tolist()) for _ in range(8)]
    ranked = []
    for row in scores:
        best: dict[int, float] = {}
        for place in sorted(range(stored), key=lambda place: (-row[place], place)):
            best.setdefault(int(owner[place]), float(row[place]))
        ranked.append(list(best.items())[:10])

    class Matrix(FakeEncoder):
        def encode(self, texts: Sequence[str], *, query: bool = False, progress: Any = None) -> Any:
            return scores.astype(np.float32) if query else np.eye(stored, dtype=np.float32)

    task = Retrieval(tuple("12345678"), tuple(right), ("x",) * stored, tuple(owner.tolist()))
    scored = score_retrieval("x", Matrix(), task)
    assert scored == summarise("x", right, ranked, stored)
    figures = [figure.value if figure else 0 for figure in (scored.accuracy_at_1, scored.auc)]
    assert quick_retrieval(Matrix(), task) == pytest.approx(figures)


def test_hit_tests_of_the_same_query_are_one_query_with_several_right_entries() -> None:
    tests = [("甲", 1), ("乙", None), ("甲", 3), ("甲", 1), ("丙", None), ("丙", 2)]
    assert retrieval_from_tests(tests, [("一", 1), ("一二", 1), ("三", 3)]) == Retrieval(
        queries=("甲", "乙", "丙"),
        expected=(frozenset({1, 3}), frozenset(), frozenset({2})),
        stored=("一", "一二", "三"),
        entries=(1, 1, 3),
    )


# --- retrieval in a corpus and in tables ---------------------------------------------------------

FAQ = [["编号", "标准问", "相似问", "答案", "启用"]] + [
    [f"K{number}", f"标准问题{number}", f"相似甲{number}\n相似乙{number}" if number % 2 else "", "答", "是"]
    for number in range(14)
]
HITS = [
    ["query", "key"],
    ["问甲", "K3"],
    ["问乙", "K4"],
    ["问丙", "标准问题5"],
    ["問丁", "K12"],
    ["问戊", ""],
    ["问己", ""],
]


def place_queries(encoder: FakeEncoder) -> None:
    encoder.place("问甲", "相似甲3", 0.9)
    encoder.place("问乙", "标准问题8", 0.85)  # wrong
    encoder.place("问丙", "相似乙5", 0.7)
    encoder.place("问丁", "标准问题12", 0.95)  # the query comes in Traditional Chinese
    encoder.place("问戊", "标准问题1", 0.8)
    encoder.place("问己", "标准问题2", 0.5)


def test_a_corpus_through_its_index_gives_the_figures_of_its_hit_test_and_of_a_search_in_memory(
    faq: FaqSearch, source: FakeSource, write_table: Callable[..., Path]
) -> None:
    encoder = source.encoders["embedded"]
    place_queries(encoder)
    table, hits = write_table(*FAQ), write_table(*HITS, name="hits.csv")
    faq.import_table(table, corpus="bank")
    task = faq.retrieval(hits, corpus="bank")
    assert (len(task.stored), len(set(task.entries))) == (28, 14)
    served = faq.evaluate_retrieval(hits, corpus="bank")
    assert (served.encoder, served.queries, served.answerable, served.stored) == ("embedded", 6, 4, 28)
    assert served.accuracy_at_1 is not None
    assert served.accuracy_at_1.value == 3 / 4
    assert served.auc is not None
    # .9 .85 .7 .95 against .8 .5: all but .7 < .8 are right.
    assert served.auc.value == pytest.approx(7 / 8)
    assert score_retrieval("embedded", encoder, task) == served
    assert score_retrieval("embedded", encoder, retrieval_from_tables(hits, table)) == served
    report = faq.hit_test(hits, corpus="bank")
    assert (report.queries, report.answerable) == (served.queries, served.answerable)
    found = values(served)
    assert report.accuracy_at_1 == found["accuracy_at_1"]
    assert report.accuracy_at_5 == found["accuracy_at_5"]
    assert report.mrr_at_10 == pytest.approx(found["mrr_at_10"])
    assert report.auc == found["auc"]


def test_what_is_disabled_is_not_stored_and_what_is_pending_is(
    faq: FaqSearch, source: FakeSource, write_table: Callable[..., Path]
) -> None:
    encoder = source.encoders["embedded"]
    place_queries(encoder)
    faq.import_table(write_table(*FAQ[:13]), corpus="bank")  # all but K12 and K13
    faq.import_table(write_table(*FAQ), corpus="bank", sync=False)
    faq.set_enabled(faq.entry("bank/K3").id, False)
    hits = write_table(*HITS, name="hits.csv")
    served = faq.evaluate_retrieval(hits, corpus="bank")
    assert (served.answerable, served.stored) == (4, 25)
    assert served.accuracy_at_1 is not None
    assert served.accuracy_at_1.value == 2 / 4  # K5 and K12
    assert score_retrieval("embedded", encoder, faq.retrieval(hits, corpus="bank")) == served
    # Another encoder is measured on the same task, without the corpus taking it.
    other = score_retrieval("other", source.encoders["other"], faq.retrieval(hits, corpus="bank"))
    assert (other.encoder, other.queries, other.stored) == ("other", 6, 25)


def test_a_key_that_is_nowhere_is_told_by_line(faq: FaqSearch, write_table: Callable[..., Path]) -> None:
    table = write_table(*FAQ)
    faq.import_table(table, corpus="bank")
    hits = write_table(*HITS, ["问庚", "K99"], ["问辛", "没有的"], name="hits.csv")
    for look_up in (lambda: retrieval_from_tables(hits, table), lambda: faq.evaluate_retrieval(hits, corpus="bank")):
        with pytest.raises(
            TableError, match=r"no entries 'K99' \(line 8\), '没有的' \(line 9\); expected keys"
        ) as caught:
            look_up()
        assert str(hits) in str(caught.value)


def test_rejected_rows_of_a_faq_table_are_told_by_line(write_table: Callable[..., Path]) -> None:
    table = write_table(*FAQ[:3], ["K8", "没有答案", "", "", "是"], ["K9", "问", "", "答", "也许"])
    with pytest.raises(
        TableError, match=r"has 2 rows that cannot be taken, line 5: no answer; line 6: .*也许"
    ) as caught:
        retrieval_from_tables(write_table(*HITS, name="hits.csv"), table)
    assert str(table) in str(caught.value)


# --- retrieval of pairs --------------------------------------------------------------------------

TEXT = st.sampled_from([f"句{number}" for number in range(14)])
PAIRS = st.lists(st.tuples(TEXT, TEXT, st.sampled_from([0.0, 1.0])), min_size=1, max_size=25).map(
    lambda rows: Pairs("set", *(tuple(column) for column in zip(*rows, strict=True)))
)


def positive(pairs: Pairs) -> list[tuple[str, str]]:
    rows = zip(pairs.left, pairs.right, pairs.labels, strict=True)
    return [(left, right) for left, right, label in rows if label == 1 and left != right]


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3))
def test_pairs_make_a_retrieval_that_can_be_solved(pairs: Pairs, seed: int) -> None:
    if not positive(pairs):
        with pytest.raises(TableError, match="set holds no matching pair of different texts"):
            retrieval_from_pairs(pairs)
        return
    task = retrieval_from_pairs(pairs, seed=seed)
    assert task == retrieval_from_pairs(pairs, seed=seed)
    assert not set(task.queries) & set(task.stored)
    assert len(set(task.queries)) == len(task.queries) == len(task.expected)
    assert len(set(task.stored)) == len(task.stored) == len(task.entries)
    assert {*task.queries, *task.stored} <= {*pairs.left, *pairs.right}
    assert all(len(right) <= 1 and right <= set(task.entries) for right in task.expected)


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3))
def test_a_stored_text_that_is_labelled_as_matching_a_query_is_right_for_it(pairs: Pairs, seed: int) -> None:
    """Else finding it would count as wrong, and a query whose match is stored as one without an answer."""
    if not positive(pairs):
        return
    task = retrieval_from_pairs(pairs, seed=seed)
    wanted = dict(zip(task.queries, task.expected, strict=True))
    entry = dict(zip(task.stored, task.entries, strict=True))
    for one, other in positive(pairs):
        for query, stored in ((one, other), (other, one)):
            if query in wanted and stored in entry:
                assert wanted[query] == {entry[stored]}, (query, stored)


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3))
def test_texts_that_are_labelled_as_matching_are_of_one_entry(pairs: Pairs, seed: int) -> None:
    """Whichever pairs they come in, and whether they are queries or stored."""
    if not positive(pairs):
        return
    task = retrieval_from_pairs(pairs, seed=seed)
    wanted = dict(zip(task.queries, task.expected, strict=True))
    entry = dict(zip(task.stored, task.entries, strict=True))
    for one, other in positive(pairs):
        if one in wanted and other in wanted:
            assert wanted[one] == wanted[other], (one, other)
        if one in entry and other in entry:
            assert entry[one] == entry[other], (one, other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_half_of_the_entries_that_are_asked_for_are_left_out_whole(seed: int) -> None:
    # 20 entries, each of one query with two stored questions; a hard negative beside each.
    texts = [(f"问{n}", f"{other}{n}", float(other != "非")) for n in range(20) for other in "甲乙非"]
    pairs = Pairs("set", *(tuple(column) for column in zip(*texts, strict=True)))
    task = retrieval_from_pairs(pairs, seed=seed)
    assert task.queries == tuple(f"问{n}" for n in range(20))
    entry = dict(zip(task.stored, task.entries, strict=True))
    kept = [n for n in range(20) if task.expected[n]]
    assert len(kept) == 10
    for n in range(20):
        assert f"非{n}" in entry
        if n in kept:
            assert task.expected[n] == {entry[f"甲{n}"]} == {entry[f"乙{n}"]}
        else:
            assert f"甲{n}" not in entry and f"乙{n}" not in entry
    assert len(set(task.entries)) == 10 + 20  # every other text is an entry of its own
    assert task.expected != retrieval_from_pairs(pairs, seed=seed + 1).expected


def test_of_grades_only_the_highest_means_the_same() -> None:
    pairs = Pairs("set", ("甲", "乙", "丙"), ("甲二", "乙二", "丙二"), (5.0, 4.5, 5.0))
    assert retrieval_from_pairs(pairs).queries == ("甲", "丙")
    with pytest.raises(TableError, match="expected labels with a 1"):
        retrieval_from_pairs(Pairs("set", ("甲",), ("乙",), (0.0,)))


# --- pairs held out ------------------------------------------------------------------------------


@settings(deadline=None)
@given(PAIRS, st.integers(0, 3), st.sampled_from([0.1, 0.4, 0.9]))
def test_no_text_of_a_pair_that_is_held_out_is_in_the_rest(pairs: Pairs, seed: int, share: float) -> None:
    rest, held = hold_out(pairs, share=share, seed=seed)
    assert not {*rest.left, *rest.right} & {*held.left, *held.right}
    assert len(held) <= share * len(pairs)
    assert (rest.name, held.name) == ("set", "set")
    rows, *parts = (list(zip(part.left, part.right, part.labels, strict=True)) for part in (pairs, rest, held))
    assert sorted([*parts[0], *parts[1]]) == sorted(rows)
    assert all(part == [row for row in rows if row in part] for part in parts)  # in their order
    assert (rest, held) == hold_out(pairs, share=share, seed=seed)


@pytest.mark.parametrize("together", [1, 4, 5])
def test_about_the_share_is_held_out_by_the_seed(together: int) -> None:
    """Though so many pairs hang together: 0-1, 1-2 and so on."""
    numbers = [number // together * 100 + number % together for number in range(200)]
    pairs = Pairs("set", tuple(map(str, numbers)), tuple(str(number + 1) for number in numbers), (1.0, 0.0) * 100)
    held = [hold_out(pairs, seed=seed)[1] for seed in (0, 1)]
    assert [len(part) for part in held] == [20, 20]
    assert held[0] != held[1]
    assert len(hold_out(pairs, share=0.5)[1]) == 100


def test_of_pairs_that_all_hang_together_none_is_held_out() -> None:
    pairs = Pairs("set", ("甲",) * 30, tuple(f"句{number}" for number in range(30)), (0.0,) * 30)
    assert hold_out(pairs) == (pairs, Pairs("set", (), (), ()))


# --- speed ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TransformerEncoder:
    folder = write_published(tmp_path_factory.mktemp("small"), 2, hidden=24, size=300)
    return TransformerEncoder(folder, device="cpu", batch_size=7)


def test_speed_is_measured_at_the_cards_batch_size_and_at_the_fastest(small: TransformerEncoder) -> None:
    texts = sample_questions(50)
    card, best = measure_speed("mine", small, texts)
    assert small.batch_size == 7
    assert (card.batch_size, card.best, best.best) == (16, False, True)
    assert best.batch_size in (8, 16, 32, 64, 128, 256)
    # Embeddings 300 + 512 + 2 rows of 24 and a norm; a layer: 4 square maps, two of the inner size 96, and two norms.
    parameters = (300 + 512 + 2) * 24 + 48 + 2 * (4 * (24 * 24 + 24) + 2 * 24 * 96 + 96 + 24 + 2 * 48)
    for speed in (card, best):
        assert (speed.encoder, speed.device, speed.layers, speed.max_length) == ("mine", "cpu", 2, 256)
        assert (speed.sentences, speed.parameters) == (50, parameters)
        assert speed.seconds > 0
        assert speed.latency > 0
        assert speed.throughput == pytest.approx(50 / speed.seconds)


def test_the_batch_size_comes_back_after_an_error(small: TransformerEncoder) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_speed("mine", small, ["问"], stop)
    assert small.batch_size == 7


def speed(encoder: str, parameters: int, seconds: float, device: str = "cpu", best: bool = False) -> Speed:
    return Speed(encoder, device, parameters, 4, 256, 16, best, 1000, seconds, seconds / 50, 1000 / seconds)


def test_a_student_is_compared_with_its_teacher_whichever_comes_first() -> None:
    student, teacher = speed("s", 45_000_000, 12.0), speed("t", 100_000_000, 48.0)
    for order in ([student, teacher], [teacher, student]):
        (gap,) = gaps(order)
        assert gap == Gap(teacher=teacher, student=student)
    assert (gap.size, gap.cost, gap.latency, gap.throughput) == pytest.approx((0.45, -0.75, -0.75, 4.0))


def test_gaps_are_told_by_device_and_setting_and_only_for_two_encoders() -> None:
    speeds = [
        speed(name, parameters, seconds, device, best)
        for device in ("cpu", "cuda")
        for name, parameters, seconds in (("s", 45, 10.0), ("t", 100, 20.0))
        for best in (False, True)
    ]
    found = [(gap.teacher.encoder, gap.student.encoder, gap.student.device, gap.student.best) for gap in gaps(speeds)]
    assert found == [("t", "s", device, best) for device in ("cpu", "cuda") for best in (False, True)]
    assert gaps(speeds[:2]) == []
    assert gaps([*speeds, speed("third", 1, 1.0)]) == []


@pytest.mark.parametrize("count", [10_000, 30_000])
def test_sample_questions_are_different_and_the_same_every_time(count: int) -> None:
    questions = sample_questions(count)
    assert len(set(questions)) == len(questions) == count
    assert questions == sample_questions(count)
    assert questions[:10_000] == sample_questions()
    assert max(map(len, questions)) < 60  # customers' questions, far under 256 tokens
