"""What people say of answers, the queue of unanswered queries, and the figures of the query log."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fakes import FakeEncoder, FakeSource

from faqsearch import EntryDraft, FaqSearch, Settings
from faqsearch.errors import EncoderError, EntryInvalidError, EntryNotFoundError, QueryError, QueryNotFoundError
from faqsearch.model import AskedEntry, DayCount, Decision, Hit, LoggedQuery, SearchResult, StageTime, Timing
from faqsearch.store import LogLine, Store

TODAY = datetime.now().replace(hour=12, minute=0, second=0, microsecond=0)


@pytest.fixture
def bank(faq: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """Two entries in the corpus `bank`, and queries at chosen scores."""
    faq.create_corpus("bank")
    faq.set_corpus("bank", answer_threshold=0.9, suggest_threshold=0.8)
    faq.add_entry("bank", EntryDraft(key="B1", question="怎么提前还款", answer="打开“贷款”。"))
    faq.add_entry("bank", EntryDraft(key="B2", question="临时额度怎么申请", answer="在 App 申请。"))
    encoder.place("早点还钱", "怎么提前还款", 0.95)
    encoder.place("额度不够", "临时额度怎么申请", 0.85)
    encoder.place("下雨吗", "怎么提前还款", 0.4)
    encoder.place("会下雨吗", "下雨吗", 0.93)
    encoder.place("要下雨了", "下雨吗", 0.92)
    encoder.place("股票涨吗", "下雨吗", 0.7)
    return faq


def ask(faq: FaqSearch, *texts: str) -> list[str]:
    """The query ids of these queries."""
    return [faq.search(text, corpus="bank").query_id for text in texts]


def queue(faq: FaqSearch) -> list[list[str]]:
    """The texts of each group."""
    return [[query.query for query in group.queries] for group in faq.unanswered("bank")]


# --- what is in the queue


def test_what_got_none_is_in_the_queue_and_nothing_else(bank: FaqSearch) -> None:
    ids = ask(bank, "早点还钱", "额度不够", "下雨吗")
    bank.search("下雨吗", corpus="bank", log=False)
    (group,) = bank.unanswered("bank")
    (query,) = group.queries
    assert (query.query_id, query.query, query.decision, query.feedback) == (ids[2], "下雨吗", "none", None)
    assert [(hit.entry_id, hit.score) for hit in group.nearest][:1] == [(1, 0.4)]
    assert group.count == 1


def test_wrong_and_instead_join_the_queue_and_right_takes_them_out(bank: FaqSearch) -> None:
    (answered,) = ask(bank, "早点还钱")
    seen = []
    for verdict, entry_id in (("right", None), ("wrong", None), ("instead", 2), ("right", None)):
        bank.give_feedback(answered, verdict, entry_id=entry_id, who="Anna")  # type: ignore[arg-type] # a literal
        seen.append([[query.feedback for query in group.queries] for group in bank.unanswered("bank")])
    assert seen == [[], [["wrong"]], [["instead"]], []]


def test_feedback_is_kept_with_who_when_and_the_entry_that_was_meant(bank: FaqSearch, settings: Settings) -> None:
    (query_id,) = ask(bank, "早点还钱")
    before = datetime.now().replace(microsecond=0)
    bank.give_feedback(query_id, "instead", entry_id=2, who="Anna")
    (line,) = log_of(settings)
    assert (line["ref"], line["feedback"], line["feedback_entry_id"], line["feedback_who"]) == (
        query_id,
        "instead",
        2,
        "Anna",
    )
    assert before <= line["feedback_at"] <= datetime.now()
    bank.give_feedback(query_id, "right", who="Bea")
    (line,) = log_of(settings)
    assert (line["feedback"], line["feedback_entry_id"], line["feedback_who"]) == ("right", None, "Bea")


def test_feedback_that_makes_no_sense_is_refused(bank: FaqSearch, settings: Settings) -> None:
    (query_id,) = ask(bank, "早点还钱")
    with pytest.raises(QueryError, match="name an entry for `instead`, and for nothing else"):
        bank.give_feedback(query_id, "instead")
    with pytest.raises(QueryError, match="name an entry for `instead`, and for nothing else"):
        bank.give_feedback(query_id, "wrong", entry_id=1)
    with pytest.raises(EntryNotFoundError, match="no entry 99;"):
        bank.give_feedback(query_id, "instead", entry_id=99)
    for unknown in ("", "0" * 32):
        with pytest.raises(QueryNotFoundError, match="this query is not in the log;"):
            bank.give_feedback(unknown, "wrong")
        with pytest.raises(QueryNotFoundError):
            bank.enqueue(unknown)
    assert log_of(settings)[0]["feedback"] is None


def test_a_query_that_was_not_logged_has_no_id(settings: Settings, source: FakeSource) -> None:
    with FaqSearch.open(replace(settings, query_log=False), encoders=source) as faq:
        faq.create_corpus("bank")
        faq.add_entry("bank", EntryDraft(question="q", answer="a"))
        assert faq.search("下雨吗", corpus="bank").query_id == ""
        assert queue(faq) == []


def test_a_suggestion_can_be_put_into_the_queue_by_hand(bank: FaqSearch) -> None:
    (query_id,) = ask(bank, "额度不够")
    assert queue(bank) == []
    bank.enqueue(query_id)
    bank.enqueue(query_id)
    assert queue(bank) == [["额度不够"]]


def test_each_corpus_has_its_own_queue(bank: FaqSearch) -> None:
    ask(bank, "下雨吗")
    bank.create_corpus("other")
    assert bank.unanswered("other") == ()
    bank.delete_corpus("bank")
    bank.create_corpus("bank")
    assert queue(bank) == []


# --- groups


def test_near_identical_queries_stand_together_most_frequent_first(bank: FaqSearch) -> None:
    ask(bank, "股票涨吗", "下雨吗", "怎么销户", "会下雨吗", "要下雨了", "怎么销户", "下雨吗", "邮编是多少")
    # 会下雨吗 and 要下雨了 join 下雨吗, which was asked most and so leads; newest first within the group.
    assert queue(bank) == [
        ["下雨吗", "要下雨了", "会下雨吗", "下雨吗"],
        ["怎么销户", "怎么销户"],
        ["邮编是多少"],
        ["股票涨吗"],
    ]
    assert [group.count for group in bank.unanswered("bank", limit=2)] == [4, 2]


def test_spellings_that_fold_alike_are_one_group_whatever_the_encoder_says(bank: FaqSearch) -> None:
    ask(bank, "How do I pay?", "HOW DO I  PAY？")
    assert queue(bank) == [["HOW DO I  PAY？", "How do I pay?"]]


def test_the_answer_threshold_says_what_is_nearly_the_same(bank: FaqSearch) -> None:
    ask(bank, "下雨吗", "会下雨吗")
    assert queue(bank) == [["会下雨吗", "下雨吗"]]
    bank.set_corpus("bank", answer_threshold=0.94)
    assert queue(bank) == [["会下雨吗"], ["下雨吗"]]


def test_an_empty_queue_needs_no_encoder(bank: FaqSearch, settings: Settings) -> None:
    class NoSource(FakeSource):
        def load(self, ref: str) -> FakeEncoder:
            raise EncoderError("no encoder")

    with FaqSearch.open(settings, encoders=NoSource()) as other:
        assert other.unanswered("bank") == ()


# --- dealing with it


def test_an_attached_query_is_answered_from_now_on(bank: FaqSearch, settings: Settings) -> None:
    ask(bank, "下雨吗", "会下雨吗", "下雨吗")
    (group,) = bank.unanswered("bank")
    ids = [query.query_id for query in group.queries]
    entry = bank.attach_queries(ids, 2, "下雨吗", who="Anna")
    assert (entry.id, entry.similar, entry.version) == (2, ("下雨吗",), 2)
    assert queue(bank) == []
    found = bank.search("会下雨吗", corpus="bank")
    assert (found.decision, found.hits[0].entry_id, found.hits[0].score) == ("answer", 2, 0.93)
    assert [(item.action, item.who) for item in bank.history(2)][0] == ("edit", "Anna")
    assert [(line["handled"], line["handled_who"]) for line in log_of(settings)][:3] == [("attached", "Anna")] * 3


def test_a_query_can_be_attached_where_its_text_stands_already(bank: FaqSearch) -> None:
    """Marked wrong although the phrasing is that entry's own: nothing is added, and it leaves the queue."""
    (query_id,) = ask(bank, "怎么提前还款")
    bank.give_feedback(query_id, "wrong")
    assert bank.attach_queries([query_id], 1, "怎么提前还款").version == 1
    assert queue(bank) == []


def test_a_query_that_cannot_be_attached_stays_in_the_queue(bank: FaqSearch) -> None:
    (query_id,) = ask(bank, "下雨吗")
    with pytest.raises(EntryInvalidError, match="similar: '怎么提前还款' leads to another entry already: entry 1"):
        bank.attach_queries([query_id], 2, "怎么提前还款")
    with pytest.raises(EntryNotFoundError):
        bank.attach_queries([query_id], 99, "下雨吗")
    with pytest.raises(EntryInvalidError, match="answer"):
        bank.answer_queries([query_id], "bank", EntryDraft(question="下雨吗", answer=" "))
    assert (queue(bank), bank.counts("bank").questions) == ([["下雨吗"]], 2)


def test_a_query_that_is_not_in_the_log_changes_no_entry(bank: FaqSearch) -> None:
    (query_id,) = ask(bank, "下雨吗")
    for ids in ([query_id, "0" * 32], ["0" * 32]):
        with pytest.raises(QueryNotFoundError):
            bank.attach_queries(ids, 2, "下雨吗")
        with pytest.raises(QueryNotFoundError):
            bank.answer_queries(ids, "bank", EntryDraft(question="下雨吗", answer="看天气预报。"))
        with pytest.raises(QueryNotFoundError):
            bank.dismiss_queries(ids)
    assert (bank.entry(2).version, bank.counts("bank").entries, queue(bank)) == (1, 2, [["下雨吗"]])


def test_a_new_entry_answers_a_query(bank: FaqSearch, settings: Settings) -> None:
    ids = ask(bank, "下雨吗", "股票涨吗")
    entry = bank.answer_queries(ids[:1], "bank", EntryDraft(question="下雨吗", answer="看天气预报。"), who="Anna")
    assert (entry.id, queue(bank)) == (3, [["股票涨吗"]])
    assert bank.search("下雨吗", corpus="bank").hits[0].answer == "看天气预报。"
    assert (log_of(settings)[0]["handled"], log_of(settings)[0]["handled_who"]) == ("added", "Anna")


def test_what_is_dismissed_stays_away_until_it_is_asked_or_marked_wrong_again(bank: FaqSearch) -> None:
    (first,) = ask(bank, "下雨吗")
    bank.dismiss_queries([first, first], who="Anna")
    assert queue(bank) == []
    bank.give_feedback(first, "right")  # nothing was there to be found: no reason to come back
    assert queue(bank) == []
    bank.give_feedback(first, "wrong")
    assert queue(bank) == [["下雨吗"]]
    bank.dismiss_queries([first])
    (second,) = ask(bank, "下雨吗")
    assert [query.query_id for query in bank.unanswered("bank")[0].queries] == [second]


# --- the log


@contextmanager
def writer(settings: Settings) -> Iterator[None]:
    """Another process that is writing."""
    with closing(sqlite3.connect(settings.database_path, isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        yield
        raw.execute("ROLLBACK")


def test_lines_kept_while_another_writes_are_there_for_all_that_reads_the_log(
    bank: FaqSearch, settings: Settings
) -> None:
    with writer(settings):
        right, wrong, suggested, _ = ask(bank, "早点还钱", "怎么提前还款", "额度不够", "下雨吗")
    assert log_of(settings) == []
    bank.give_feedback(right, "right")
    with writer(settings):
        (later,) = ask(bank, "股票涨吗")
    bank.enqueue(later)
    bank.give_feedback(wrong, "wrong")
    with writer(settings):
        ask(bank, "邮编是多少")
    assert sorted(queue(bank)) == [["下雨吗"], ["怎么提前还款"], ["股票涨吗"], ["邮编是多少"]]
    with writer(settings):
        ask(bank, "早点还钱")
    assert bank.statistics("bank").queries == 7
    with writer(settings):
        ask(bank, "早点还钱")
    bank.close()
    assert [line["query"] for line in log_of(settings)][-2:] == ["早点还钱", "早点还钱"]
    assert suggested in {line["ref"] for line in log_of(settings)}


def test_feedback_finds_a_line_that_another_thread_is_just_writing(
    bank: FaqSearch, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search takes the waiting lines of others to the disk: until they are there, feedback waits for them."""
    writing, go_on = threading.Event(), threading.Event()
    write = Store.log_queries

    def slow(store: Store, queries: Sequence[LogLine], **options: int) -> bool:
        if threading.current_thread() is searcher:
            writing.set()
            assert go_on.wait(30)
        return write(store, queries, **options)

    def complain() -> None:
        bank.give_feedback(mine, "wrong")
        said.append(True)

    said: list[bool] = []
    with writer(settings):
        (mine,) = ask(bank, "早点还钱")
    searcher = threading.Thread(target=lambda: ask(bank, "下雨吗"))
    speaker = threading.Thread(target=complain)
    monkeypatch.setattr(Store, "log_queries", slow)
    searcher.start()
    assert writing.wait(30)
    ask(bank, "额度不够")  # a search waits for nobody
    speaker.start()
    go_on.set()
    speaker.join(30)
    searcher.join(30)
    assert said == [True]
    assert sorted(queue(bank)) == [["下雨吗"], ["早点还钱"]]
    assert len(log_of(settings)) == 3


# --- figures


def log_of(settings: Settings) -> list[dict[str, Any]]:
    """The whole query log, oldest first."""
    with closing(Store(settings.database_path)) as store:
        return [line for corpus in store.corpora() for line in store.query_log(corpus.id)]


def write_log(
    settings: Settings, *lines: tuple[int, Decision, int | None, float | None, float], corpus: str = "bank"
) -> None:
    """Lines of (days ago, decision, entry, score, milliseconds)."""
    rows = []
    with closing(Store(settings.database_path)) as store:
        corpus_id = store.corpus(corpus).id
        for n, (days, decision, entry, score, took) in enumerate(lines):
            hits = (Hit(1, score or 0.0, entry, None, "q", "q", "a", ""),) if entry else ()
            times = Timing(took, took / 2, took / 4, took * 2)
            result = SearchResult("q", corpus, decision, hits, None, times, query_id=f"{corpus}{n}")
            rows.append(LogLine(corpus_id, TODAY - timedelta(days=days), entry, result))
        assert store.log_queries(rows)


def test_figures_of_a_log_written_by_hand(bank: FaqSearch, settings: Settings) -> None:
    for question in ("三", "四", "五"):
        bank.add_entry("bank", EntryDraft(question=question, answer="x"))
    bank.set_enabled(5, False)
    bank.create_corpus("other")
    write_log(settings, (0, "answer", 3, 1.0, 1), corpus="other")
    write_log(
        settings,
        (7, "answer", 4, 0.99, 1000.0),  # a day too old
        (6, "answer", 2, 0.95, 10.0),
        (6, "answer", 2, 0.95, 20.0),
        (6, "suggest", 1, 0.85, 30.0),
        (0, "none", 3, 0.5, 40.0),  # the best of nothing is not asked for
        (0, "none", None, None, 50.0),
        (0, "answer", 99, 0.91, 60.0),  # an entry that is gone
    )
    bank.give_feedback("bank1", "right")
    bank.give_feedback("bank2", "wrong")
    bank.give_feedback("bank3", "instead", entry_id=2)
    bank.give_feedback("bank6", "wrong")
    today, then = TODAY.date().isoformat(), (TODAY - timedelta(days=6)).date().isoformat()
    figures = bank.statistics("bank", days=7)
    assert (figures.corpus, figures.days, figures.queries) == ("bank", 7, 6)
    assert figures.decisions == (
        DayCount(then, "answer", 2),
        DayCount(then, "suggest", 1),
        DayCount(today, "answer", 1),
        DayCount(today, "none", 2),
    )
    assert figures.feedback == (
        DayCount(today, "instead", 1),
        DayCount(today, "right", 1),
        DayCount(today, "wrong", 2),
    )
    assert figures.most_asked == (AskedEntry(2, "临时额度怎么申请", 2), AskedEntry(1, "怎么提前还款", 1))
    # 4 was asked too long ago; 5 is switched off.
    assert figures.never_asked == (AskedEntry(3, "三", 0), AskedEntry(4, "四", 0))
    assert figures.never_asked_total == 2
    assert sorted(figures.scores) == [0.5, 0.85, 0.91, 0.95, 0.95]
    # Of 10, 20 … 60: the median is 35, and 95 % lie below 60 - 0.25 · 10.
    assert figures.stages == (
        StageTime("encode", 35.0, 57.5),
        StageTime("search", 17.5, 28.75),
        StageTime("fetch", 8.75, 14.375),
        StageTime("total", 70.0, 115.0),
    )
    assert bank.statistics("bank", days=8).queries == 7
    assert bank.statistics("bank", days=1).queries == 3
    few = bank.statistics("bank", days=7, top=1, sample=2)
    assert (few.most_asked, few.never_asked, few.never_asked_total) == (
        figures.most_asked[:1],
        figures.never_asked[:1],
        2,
    )
    assert (few.scores, few.stages[0]) == ((0.91,), StageTime("encode", 55.0, 59.5))


def test_figures_of_an_empty_log(bank: FaqSearch) -> None:
    figures = bank.statistics("bank")
    assert (figures.queries, figures.decisions, figures.feedback, figures.most_asked) == (0, (), (), ())
    assert (figures.never_asked_total, figures.scores, figures.stages) == (2, (), ())
    bank.create_corpus("empty")
    assert bank.statistics("empty").never_asked == ()


def test_a_day_begins_at_midnight(bank: FaqSearch, settings: Settings) -> None:
    midnight = TODAY.replace(hour=0)
    with closing(Store(settings.database_path)) as store:
        corpus_id = store.corpus("bank").id
        for n, at in enumerate((midnight, midnight - timedelta(microseconds=1))):
            result = SearchResult("q", "bank", "none", (), None, Timing(1, 1, 1, 1), query_id=str(n))
            assert store.log_queries([LogLine(corpus_id, at, None, result)])
        assert [query.query_id for query in store.unanswered(corpus_id)] == ["1", "0"]
        assert store.unanswered(corpus_id)[1] == LoggedQuery("0", "q", midnight, "none", None)
    assert bank.statistics("bank", days=1).queries == 1
    assert [item.day for item in bank.statistics("bank", days=2).decisions] == [
        (midnight - timedelta(days=1)).date().isoformat(),
        midnight.date().isoformat(),
    ]
