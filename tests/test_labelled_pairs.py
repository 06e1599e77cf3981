"""What a corpus's own log and entries teach an encoder, with scores that the tests choose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fakes import FakeEncoder

from faqsearch import FaqSearch
from faqsearch.errors import CorpusNotFoundError
from faqsearch.model import EntryDraft
from faqsearch.pairs import Pairs

REPAY, EARLY, LIMIT = "怎么提前还款", "贷款可以早点还清吗", "临时额度怎么申请"
SIMILAR = (REPAY, EARLY, 1.0)
Row = tuple[str, str, float]


@pytest.fixture
def bank(faq: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """Entry 1 with a similar question, and entry 2; queries at chosen scores."""
    faq.create_corpus("bank")
    faq.set_corpus("bank", answer_threshold=0.9, suggest_threshold=0.8)
    faq.add_entry("bank", EntryDraft(question=REPAY, answer="打开“贷款”。", similar=(EARLY,)))
    faq.add_entry("bank", EntryDraft(question=LIMIT, answer="在 App 申请。"))
    for text, question, score in (
        ("早点还钱", REPAY, 0.95),
        ("早点还清", EARLY, 0.95),
        ("能早还吗", EARLY, 0.85),
        ("额度不够", LIMIT, 0.95),
        ("下雨吗", REPAY, 0.4),
    ):
        encoder.place(text, question, score)
    return faq


def ask(faq: FaqSearch, text: str) -> str:
    return faq.search(text, corpus="bank").query_id


def labelled(faq: FaqSearch) -> list[Row]:
    """What there is beside the similar question, in order."""
    pairs = faq.labelled_pairs("bank")
    assert pairs.name == "bank"
    rows = list(zip(pairs.left, pairs.right, pairs.labels, strict=True))
    return [row for row in rows if row != SIMILAR]


def test_similar_questions_mean_the_same_as_their_entrys_primary_one(bank: FaqSearch) -> None:
    assert bank.labelled_pairs("bank") == Pairs("bank", (REPAY,), (EARLY,), (1.0,))
    bank.edit_entry(2, similar=("额度能临时调高吗", "怎么申请临时额度"))
    assert labelled(bank) == [(LIMIT, "额度能临时调高吗", 1), (LIMIT, "怎么申请临时额度", 1)]


def test_what_nothing_was_said_of_teaches_nothing(bank: FaqSearch) -> None:
    for text in ("早点还钱", "能早还吗", "下雨吗"):
        ask(bank, text)
    assert labelled(bank) == []


def test_a_confirmed_answer_is_a_pair_with_the_question_that_matched(bank: FaqSearch) -> None:
    for text in ("早点还钱", "早点还清"):
        bank.give_feedback(ask(bank, text), "right")
    assert labelled(bank) == [("早点还钱", REPAY, 1), ("早点还清", EARLY, 1)]


def test_a_wrong_answer_is_a_pair_that_does_not_match(bank: FaqSearch) -> None:
    bank.give_feedback(ask(bank, "早点还清"), "wrong")
    assert labelled(bank) == [("早点还清", EARLY, 0)]


def test_a_corrected_answer_is_a_wrong_pair_and_a_right_one(bank: FaqSearch) -> None:
    bank.give_feedback(ask(bank, "额度不够"), "instead", entry_id=1)
    assert labelled(bank) == [("额度不够", LIMIT, 0), ("额度不够", REPAY, 1)]


def test_a_suggestion_that_is_taken_is_right_though_it_is_named_instead_of_an_answer(bank: FaqSearch) -> None:
    """The page says `instead` of the candidates below a suggestion, the best one among them."""
    bank.give_feedback(ask(bank, "能早还吗"), "instead", entry_id=1)
    rows = labelled(bank)
    assert rows
    assert set(rows) <= {("能早还吗", EARLY, 1), ("能早还吗", REPAY, 1)}


@pytest.mark.parametrize("word", ["right", "wrong"])
def test_a_word_on_no_answer_says_nothing_of_the_nearest_question(bank: FaqSearch, word: str) -> None:
    """It was right to give none, or there should have been one, nobody knows which."""
    assert bank.search("下雨吗", corpus="bank", log=False).decision == "none"
    bank.give_feedback(ask(bank, "下雨吗"), word)  # type: ignore[arg-type] # a literal
    assert labelled(bank) == []


def test_the_last_word_on_a_query_counts(bank: FaqSearch) -> None:
    query = ask(bank, "早点还钱")
    bank.give_feedback(query, "instead", entry_id=2)
    bank.give_feedback(query, "right")
    assert labelled(bank) == [("早点还钱", REPAY, 1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_the_same_query_twice_the_later_word_counts_whichever_was_asked_first(
    bank: FaqSearch, order: tuple[int, int]
) -> None:
    asked = [ask(bank, "早点还钱"), ask(bank, "早点还钱")]
    bank.give_feedback(asked[order[0]], "right")
    bank.give_feedback(asked[order[1]], "wrong")
    assert labelled(bank) == [("早点还钱", REPAY, 0)]


def test_a_query_that_became_a_similar_question_is_no_longer_wrong(bank: FaqSearch) -> None:
    query = ask(bank, "早点还钱")
    bank.give_feedback(query, "wrong")
    bank.attach_queries([query], 1, "早点还钱")
    assert labelled(bank) == [(REPAY, "早点还钱", 1)]


@pytest.mark.parametrize(
    "go", [lambda faq: faq.delete_entry(1), lambda faq: faq.set_enabled(1, False)], ids=["deleted", "disabled"]
)
def test_an_entry_that_is_not_shown_teaches_nothing(bank: FaqSearch, go: Callable[[FaqSearch], object]) -> None:
    bank.give_feedback(ask(bank, "早点还清"), "right")
    bank.give_feedback(ask(bank, "额度不够"), "instead", entry_id=1)
    go(bank)
    assert bank.labelled_pairs("bank") == Pairs("bank", ("额度不够",), (LIMIT,), (0.0,))


def test_what_matched_a_question_that_is_gone_is_a_pair_with_the_primary_one(bank: FaqSearch) -> None:
    bank.give_feedback(ask(bank, "早点还清"), "right")
    bank.edit_entry(1, similar=(), question="怎样提前还清贷款")
    assert bank.labelled_pairs("bank") == Pairs("bank", ("早点还清",), ("怎样提前还清贷款",), (1.0,))


def test_a_query_that_is_the_question_itself_is_no_pair(bank: FaqSearch) -> None:
    bank.give_feedback(ask(bank, REPAY), "right")
    bank.give_feedback(ask(bank, EARLY), "wrong")
    assert labelled(bank) == []


def test_another_corpus_teaches_nothing_and_one_that_is_not_there_is_told(bank: FaqSearch) -> None:
    bank.give_feedback(ask(bank, "早点还钱"), "right")
    bank.create_corpus("other")
    assert bank.labelled_pairs("other") == Pairs("other", (), (), ())
    with pytest.raises(CorpusNotFoundError, match="nobody"):
        bank.labelled_pairs("nobody")
