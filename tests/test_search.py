"""Searching: what is found, in which order, and that the database is the truth whatever the index holds."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from fakes import FakeEncoder, FakeSource
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from faqsearch import FaqSearch, Settings
from faqsearch.errors import CorpusNotFoundError, EncoderError, IndexFileError, QueryError
from faqsearch.model import QUERY_LIMIT, Entry, EntryDraft, Hit, Progress, SearchResult
from faqsearch.store import Store
from faqsearch.text import normalise

WriteTable = Callable[..., Path]


@pytest.fixture(autouse=True)
def _corpus(request: pytest.FixtureRequest) -> None:
    if "faq" in request.fixturenames:
        request.getfixturevalue("faq").create_corpus("c")


@pytest.fixture
def other(faq: FaqSearch, settings: Settings) -> Iterator[FaqSearch]:
    """Another process on the same folders: its own encoders, its own memory."""
    with FaqSearch.open(settings, encoders=FakeSource()) as service:
        yield service


def add(faq: FaqSearch, *questions: str, key: str | None = None, category: str = "") -> int:
    draft = EntryDraft(questions[0], f"答{questions[0]}", questions[1:], key, category)
    return faq.add_entry("c", draft).id


def found(faq: FaqSearch, query: str, k: int = 5) -> list[tuple[int, float]]:
    return [(hit.entry_id, hit.score) for hit in faq.search(query, corpus="c", k=k).hits]


def best(faq: FaqSearch, query: str) -> int | None:
    """The entry that an exact match finds, if one does."""
    hits = faq.search(query, corpus="c", k=1).hits
    return hits[0].entry_id if hits and hits[0].score == 1.0 else None


# --- hits, scores, decisions


@pytest.mark.parametrize("indexed", [False, True])
def test_hits_are_entries_by_their_best_question_with_its_cosine(
    faq: FaqSearch, encoder: FakeEncoder, indexed: bool
) -> None:
    loan = add(faq, "提前还款", "早点还清", "Pay off Early", key="F001", category="贷款")
    card = add(faq, "临时额度", "固定额度")
    for text, cosine in [
        ("提前还款", 0.5),
        ("早点还清", 0.7),
        ("Pay off Early", 0.91),
        ("临时额度", 0.8),
        ("固定额度", -1),
    ]:
        encoder.place(text, "我想把钱还了", cosine)
    version = faq.rebuild("c").version if indexed else None
    result = faq.search("  我想把钱还了 ", corpus="c", k=2)
    assert result.hits == (
        Hit(1, 0.91, loan, "F001", "提前还款", "Pay off Early", "答提前还款", "贷款"),
        Hit(2, 0.8, card, None, "临时额度", "临时额度", "答临时额度", ""),
    )
    assert (result.query, result.corpus, result.decision) == ("我想把钱还了", "c", "answer")
    assert result.index_version == version
    assert found(faq, "我想把钱还了", k=1) == [(loan, 0.91)]


@pytest.mark.parametrize(
    ("cosine", "decision"),
    [(0.95, "answer"), (0.9, "answer"), (0.89999, "suggest"), (0.8, "suggest"), (0.79999, "none"), (-0.5, "none")],
)
@pytest.mark.parametrize("indexed", [False, True])
def test_the_decision_follows_the_thresholds_and_includes_them(
    faq: FaqSearch, encoder: FakeEncoder, cosine: float, decision: str, indexed: bool
) -> None:
    faq.set_corpus("c", answer_threshold=0.9, suggest_threshold=0.8)
    add(faq, "甲")
    encoder.place("甲", "问", cosine)
    if indexed:
        faq.rebuild("c")
    result = faq.search("问", corpus="c")
    assert ([hit.score for hit in result.hits], result.decision) == ([cosine], decision)


def test_a_changed_threshold_holds_for_the_next_search(faq: FaqSearch, encoder: FakeEncoder) -> None:
    add(faq, "甲")
    encoder.place("甲", "问", 0.5)
    assert faq.search("问", corpus="c").decision == "none"
    faq.set_corpus("c", answer_threshold=0.5, suggest_threshold=0.4)
    assert faq.search("问", corpus="c").decision == "answer"


def test_an_exact_match_scores_one_and_comes_before_its_equals(faq: FaqSearch, encoder: FakeEncoder) -> None:
    twin = add(faq, "他人的问题")
    own = add(faq, "本来的问题", "这么问")
    encoder.place("他人的问题", "这么问", 1.0)
    faq.rebuild("c")
    result = faq.search("这么问", corpus="c", k=2)
    assert [(hit.entry_id, hit.score, hit.matched_question) for hit in result.hits] == [
        (own, 1.0, "这么问"),
        (twin, 1.0, "他人的问题"),
    ]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("怎么登录信用卡APP？", "怎麼登錄信用卡ＡＰＰ?"),
        ("怎麼登錄", "怎么登录"),
        ("How do I  LOG IN", "how do i log in"),
        ("Ｗｉ－Ｆｉ　密码", "wi-fi 密码"),
    ],
)
def test_traditional_and_full_width_writing_matches_exactly(faq: FaqSearch, stored: str, asked: str) -> None:
    entry = add(faq, stored)
    result = faq.search(asked, corpus="c")
    assert (result.hits[0].entry_id, result.hits[0].score) == (entry, 1.0)
    assert result.hits[0].matched_question == stored, "what is shown stays as it was written"
    assert result.query == asked


@pytest.mark.parametrize("indexed", [False, True])
def test_an_entry_with_hundreds_of_phrasings_does_not_crowd_out_the_others(
    faq: FaqSearch, encoder: FakeEncoder, write_table: WriteTable, indexed: bool
) -> None:
    phrasings = [f"说法{number}" for number in range(400)]
    table = write_table(["key", "question", "answer", "similar"], ["1", "主", "答", "|".join(phrasings)])
    faq.import_table(table, corpus="c", sync=False)
    second, third = add(faq, "乙"), add(faq, "丙")
    for number, text in enumerate(phrasings):
        encoder.place(text, "问", 0.6 + number / 1000)
    encoder.place("乙", "问", 0.55)
    encoder.place("丙", "问", 0.52)
    if indexed:
        faq.rebuild("c")
    assert found(faq, "问", k=3) == [(faq.entry("c/1").id, 0.999), (second, 0.55), (third, 0.52)]


def test_hits_that_are_dead_in_the_index_do_not_use_up_the_places(
    faq: FaqSearch, encoder: FakeEncoder, write_table: WriteTable
) -> None:
    alive = add(faq, "活着")
    encoder.place("活着", "问", 0.5)
    rows = [[f"已死{number}", "答"] for number in range(300)]
    faq.import_table(write_table(["question", "answer"], *rows), corpus="c", sync=False)
    for number in range(300):
        encoder.place(f"已死{number}", "问", 0.6 + number / 1000)
    faq.rebuild("c")
    assert found(faq, "问", k=1)[0][1] == 0.899
    faq.import_table(write_table(["question", "answer"], ["活着", "答"]), corpus="c", mode="replace", sync=False)
    assert found(faq, "问", k=3) == [(alive, 0.5)]


@pytest.mark.parametrize("indexed", [0, 40, 121], ids=["none indexed", "some indexed", "all indexed"])
@pytest.mark.parametrize("company", [0, 30], ids=["alone", "in a batch"])
def test_equal_scores_come_by_rising_question_id(
    faq: FaqSearch, encoder: FakeEncoder, write_table: WriteTable, indexed: int, company: int
) -> None:
    """However many there are, and whether or not an index holds them: a rebuild must not shuffle answers."""
    texts = [f"同{number}" for number in range(120)] + ["更好"]
    for text in texts[:120]:
        encoder.place(text, "同", 1.0)
    encoder.place("问", "同", 0.875)
    # The last one, being better, pushes one of its equals out of whatever list is kept of the best so far.
    encoder.place("更好", "问", 0.9)
    rows = [["key", "question", "answer"], *([text, text, "答"] for text in texts)]
    if indexed:
        faq.import_table(write_table(*rows[: indexed + 1]), corpus="c")
    faq.import_table(write_table(*rows), corpus="c", sync=indexed == len(texts))
    queries = ["问", *(f"别的{number}" for number in range(company))]
    hits = faq.search_many(queries, corpus="c", k=5)[0].hits
    assert [(hit.key, hit.score) for hit in hits] == [("更好", 0.9), *((f"同{number}", 0.875) for number in range(4))]


def test_a_rebuild_does_not_change_the_order_of_equal_scores(
    faq: FaqSearch, encoder: FakeEncoder, write_table: WriteTable
) -> None:
    """Index and pending questions are compared by different routines, whose last bits differ."""
    for half in ("先", "后"):
        rows = [["question", "answer"], *([f"{half}{number}", "答"] for number in range(30))]
        faq.import_table(write_table(*rows), corpus="c", sync=half == "先")
    for number in range(30):
        encoder.place(f"后{number}", f"先{number}", 1.0)
        encoder.place(f"问{number}", f"先{number}", 0.5 + number / 100)
    queries = [f"问{number}" for number in range(30)]

    def order() -> list[list[tuple[str, float]]]:
        results = [faq.search(query, corpus="c", k=2) for query in queries]
        return [[(hit.question, hit.score) for hit in result.hits] for result in results]

    expected = [
        [(f"先{number}", round(0.5 + number / 100, 2)), (f"后{number}", round(0.5 + number / 100, 2))]
        for number in range(30)
    ]
    assert order() == expected
    faq.rebuild("c")
    assert order() == expected


def test_search_many_gives_what_search_gives(faq: FaqSearch, encoder: FakeEncoder) -> None:
    for number in range(30):
        add(faq, f"问题{number}", f"另问{number}")
    for number in range(0, 300, 3):
        encoder.place(f"查{number}", f"问题{number % 30}", 0.85)
    faq.rebuild("c")
    add(faq, "还没进索引")
    queries = [*(f"查{number}" for number in range(300)), "问题3", "問題3", "还没进索引", "查0"]

    def bare(result: SearchResult) -> SearchResult:
        # Scores of one query and of many come from different matrix routines and may differ by rounding.
        hits = tuple(replace(hit, score=round(hit.score, 5)) for hit in result.hits)
        return replace(result, hits=hits, took_ms=single.took_ms, query_id="")

    single = faq.search("查0", corpus="c")
    many = faq.search_many(queries, corpus="c", k=3)
    assert [bare(result) for result in many] == [bare(faq.search(query, corpus="c", k=3)) for query in queries]
    assert many[0].hits[0].score == pytest.approx(0.85, abs=1e-6)
    assert faq.search_many([], corpus="c") == []


def test_an_empty_corpus_finds_nothing(faq: FaqSearch) -> None:
    assert (faq.search("问", corpus="c").hits, faq.search("问", corpus="c").decision) == ((), "none")
    faq.rebuild("c")
    assert (faq.search("问", corpus="c").hits, faq.search("问", corpus="c").decision) == ((), "none")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "the query is empty; expected a question"),
        (" \u3000\t\n", "the query is empty; expected a question"),
        ("问" * (QUERY_LIMIT + 1), "the query has 10,001 characters; at most 10,000 are allowed"),
        ("你好\ud800", "the query holds bytes that are no text; expected UTF-8"),
        ("\udce4\udcbd", "the query holds bytes that are no text; expected UTF-8"),
    ],
    ids=["empty", "white space", "too long", "lone surrogate", "undecoded bytes"],
)
def test_a_query_that_is_none_is_one_line(faq: FaqSearch, query: str, told: str) -> None:
    add(faq, "甲")
    for ask in (lambda: faq.search(query, corpus="c"), lambda: faq.search_many(["甲", query], corpus="c")):
        with pytest.raises(QueryError) as caught:
            ask()
        assert str(caught.value) == told


def test_the_longest_query_and_unusual_signs_are_searched(faq: FaqSearch) -> None:
    entry = add(faq, "𠮷😀")
    assert found(faq, "問" * QUERY_LIMIT)[0][0] == entry
    assert best(faq, "𠮷😀") == entry


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_told(faq: FaqSearch, k: int) -> None:
    with pytest.raises(QueryError, match=f"k is {k}; expected 1 or more"):
        faq.search("问", corpus="c", k=k)


def test_an_unknown_corpus_names_those_that_there_are(faq: FaqSearch) -> None:
    with pytest.raises(CorpusNotFoundError, match="no corpus 'd'; there are c"):
        faq.search("问", corpus="d")


# --- the database is the truth


@pytest.fixture(params=["same process", "another process"])
def editor(request: pytest.FixtureRequest, faq: FaqSearch, other: FaqSearch) -> FaqSearch:
    """Who changes the data that `faq` searches."""
    return faq if request.param == "same process" else other


def test_every_change_holds_for_the_next_search(faq: FaqSearch, editor: FaqSearch, write_table: WriteTable) -> None:
    kept, edited, switched, deleted = (add(faq, f"问题{name}", f"也问{name}") for name in "甲乙丙丁")
    faq.rebuild("c")
    assert best(faq, "问题甲") == kept

    editor.import_table(write_table(["question", "answer"], ["新来的", "答"]), corpus="c", sync=False)
    new = editor.entries("c")
    assert best(faq, "新来的") == max(entry.id for entry in new)
    added = add(editor, "加上的")
    assert best(faq, "加上的") == added

    editor.edit_entry(edited, question="改过的", answer="新答")
    assert (best(faq, "改过的"), best(faq, "问题乙"), best(faq, "也问乙")) == (edited, None, edited)
    assert faq.search("也问乙", corpus="c").hits[0].answer == "新答"

    editor.set_enabled(switched, False)
    assert switched not in dict(found(faq, "问题丙", k=20))
    editor.set_enabled(switched, True)
    assert best(faq, "问题丙") == switched

    editor.delete_entry(deleted)
    assert deleted not in dict(found(faq, "问题丁", k=20))
    moved = add(editor, "问题丁")  # the same words, another entry
    assert best(faq, "问题丁") == moved
    editor.rebuild("c")
    texts = ("问题甲", "改过的", "也问丙", "问题丁", "加上的")
    assert [best(faq, text) for text in texts] == [kept, edited, switched, moved, added]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(("seconds", "shown"), [(-3601, False), (-3600, True), (0, True), (7200, True), (7201, False)])
def test_an_entry_is_shown_within_its_validity_period_alone(
    faq: FaqSearch, monkeypatch: pytest.MonkeyPatch, seconds: int, shown: bool, indexed: bool
) -> None:
    noon = datetime(2026, 1, 31, 12)
    draft = EntryDraft("活动", "答", valid_from=noon - timedelta(hours=1), valid_to=noon + timedelta(hours=2))
    entry = faq.add_entry("c", draft)
    if indexed:
        faq.rebuild("c")
    monkeypatch.setattr("faqsearch.store.now", lambda: noon + timedelta(seconds=seconds))
    assert found(faq, "活动") == ([(entry.id, 1.0)] if shown else [])


def test_a_corpus_that_was_deleted_and_made_again_has_nothing_of_the_old(faq: FaqSearch, editor: FaqSearch) -> None:
    old = add(faq, "旧问题")
    faq.rebuild("c")
    assert best(faq, "旧问题") == old
    editor.delete_corpus("c")
    with pytest.raises(CorpusNotFoundError):
        faq.search("旧问题", corpus="c")
    editor.create_corpus("c")
    new = add(editor, "新问题")
    result = faq.search("旧问题", corpus="c")
    assert ([hit.entry_id for hit in result.hits], result.index_version) == ([new], None)


def test_each_pending_question_is_encoded_once(faq: FaqSearch, encoder: FakeEncoder) -> None:
    add(faq, "一", "二")
    faq.search("问", corpus="c")
    add(faq, "三")
    faq.search("问", corpus="c")
    faq.search("问", corpus="c")
    assert encoder.encoded == ["一", "二", "问", "三", "问", "问"]
    faq.rebuild("c")
    encoder.encoded.clear()
    faq.search("问", corpus="c")
    assert encoder.encoded == ["问"]


OPERATIONS = ("add", "edit", "delete", "switch", "rebuild", "full", "rollback", "expire")


@examples(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9), st.booleans()), max_size=14))
def test_a_search_is_a_comparison_with_every_live_question(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    """Whatever was done before, in this process or another, and whatever the index holds."""
    settings = Settings.load(tmp_path_factory.mktemp("home"))
    source = FakeSource()
    encoder = source.encoders["embedded"]
    texts = iter(f"文{number}" for number in range(1000))
    with FaqSearch.open(settings, encoders=source) as faq, FaqSearch.open(settings, encoders=FakeSource()) as other:
        faq.create_corpus("c")
        for step, pick, elsewhere in steps:
            who = other if elsewhere else faq
            entries = list(faq.entries("c"))
            entry = entries[pick % len(entries)] if entries else None
            if step == "add" or entry is None:
                add(who, next(texts), next(texts))
            elif step == "edit":
                who.edit_entry(entry.id, question=next(texts), similar=entry.similar[:1] + (next(texts),))
            elif step == "delete":
                who.delete_entry(entry.id)
            elif step == "switch":
                who.set_enabled(entry.id, not entry.enabled)
            elif step == "expire":
                who.edit_entry(entry.id, valid_to=datetime(2020, 1, 1))
            elif step == "rollback" and len(who.index_versions("c")) > 1:
                who.rollback_index("c", who.index_versions("c")[pick % 2].version)
            elif step in ("rebuild", "full"):
                who.rebuild("c", full=step == "full")
            for query in ("查询", entry.question if entry else "查"):
                expected = compare_all(list(faq.entries("c")), encoder, query)
                got = found(faq, query, k=50)
                assert [entry_id for entry_id, _ in got] == [entry_id for entry_id, _ in expected]
                assert [score for _, score in got] == pytest.approx([score for _, score in expected], abs=2e-6)


def compare_all(entries: list[Entry], encoder: FakeEncoder, query: str) -> list[tuple[int, float]]:
    scores = {
        entry.id: max(
            1.0 if normalise(text) == query else float(encoder.vector(text) @ encoder.vector(query))
            for text in (entry.question, *entry.similar)
        )
        for entry in entries
        if entry.enabled and entry.valid_to is None
    }
    return sorted(scores.items(), key=lambda item: -item[1])


# --- encoders


def test_queries_use_the_encoder_of_the_index_until_the_rebuild(
    faq: FaqSearch, source: FakeSource, editor: FaqSearch
) -> None:
    add(faq, "甲")
    faq.rebuild("c")
    editor.set_corpus("c", encoder="other")
    add(editor, "乙")
    first, second = source.encoders["embedded"], source.encoders["other"]
    first.encoded.clear()
    assert faq.search("问", corpus="c").decision == "none"
    assert (first.encoded, second.encoded) == (["乙", "问"], []), "pending questions are compared by it too"
    editor.rebuild("c")
    second.encoded.clear()
    faq.search("问", corpus="c")
    assert (first.encoded, second.encoded) == (["乙", "问"], ["问"])
    second.place("甲", "像甲", 0.93)
    faq.rebuild("c", full=True)
    assert found(faq, "像甲", k=1) == [(faq.search("甲", corpus="c").hits[0].entry_id, 0.93)]


def test_without_an_index_a_new_encoder_holds_at_once(faq: FaqSearch, source: FakeSource) -> None:
    add(faq, "甲")
    faq.search("问", corpus="c")
    faq.set_corpus("c", encoder="other")
    faq.search("问", corpus="c")
    assert source.encoders["other"].encoded == ["甲", "问"]


def test_a_changed_checkpoint_is_told_and_healed_by_a_rebuild(
    faq: FaqSearch, settings: Settings, source: FakeSource
) -> None:
    entry = add(faq, "甲")
    version = faq.rebuild("c").version
    changed = FakeSource()
    changed.fingerprints["embedded"] = "another"
    with FaqSearch.open(settings, encoders=changed) as later:
        with pytest.raises(IndexFileError) as caught:
            later.search("甲", corpus="c")
        assert str(caught.value) == (
            "encoder 'embedded' is not the one that built the index (its files have changed);"
            " run `faqsearch rebuild --all`"
        )
        report = later.rebuild("c")
        assert (report.full, report.encoded) == (True, 1)
        assert report.notes == (
            f"built in full: encoder 'embedded' has changed since index version {version} was built",
        )
        assert best(later, "甲") == entry
        # A process that still has the old one in memory takes the new one together with the new index.
        source.fingerprints["embedded"] = "another"
        assert best(faq, "甲") == entry
        assert source.loads == ["embedded", "embedded"]


def test_an_encoder_that_is_gone_is_told(faq: FaqSearch, settings: Settings) -> None:
    faq.set_corpus("c", encoder="other")
    add(faq, "甲")
    faq.rebuild("c")
    with FaqSearch.open(settings, encoders=FakeSource("embedded")) as later:
        with pytest.raises(EncoderError, match="no encoder 'other' on this machine"):
            later.search("甲", corpus="c")
        later.set_corpus("c", encoder="embedded")
        later.rebuild("c")
        assert best(later, "甲") is not None


def test_the_encoder_is_loaded_once_for_all_searches_and_threads(faq: FaqSearch, source: FakeSource) -> None:
    entries = {f"问题{number}": add(faq, f"问题{number}") for number in range(8)}
    start = threading.Barrier(len(entries))
    wrong: list[str] = []

    def work(query: str) -> None:
        start.wait()
        wrong.extend(query for _ in range(10) if best(faq, query) != entries[query])

    threads = [threading.Thread(target=work, args=(query,)) for query in entries]
    for thread in threads:
        thread.start()
    faq.rebuild("c")
    for thread in threads:
        thread.join()
    assert wrong == []
    assert source.loads == ["embedded"]


# --- several threads at once


class Gate:
    """Holds up the first call of an encoder until the test opens it; notes what each call was given."""

    def __init__(self, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[list[str]] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self._encode = encoder.encode
        monkeypatch.setattr(encoder, "encode", self)

    def __call__(self, texts: list[str], *, query: bool = False, progress: Progress | None = None) -> object:
        self.calls.append(list(texts))
        if not self.entered.is_set():
            self.entered.set()
            assert self.opened.wait(30)
        elif self.error:
            raise self.error
        return self._encode(texts, query=query)

    def ask(self, faq: FaqSearch, queries: list[tuple[str, int]]) -> dict[tuple[str, int], SearchResult | Exception]:
        """Ask the first query, and while it is held up the others, a thread each."""
        results: dict[tuple[str, int], SearchResult | Exception] = {}

        def work(query: tuple[str, int]) -> None:
            try:
                results[query] = faq.search(query[0], corpus="c", k=query[1])
            except EncoderError as exc:
                results[query] = exc

        threads = [threading.Thread(target=work, args=(query,)) for query in queries]
        threads[0].start()
        assert self.entered.wait(30)
        for thread in threads[1:]:
            thread.start()
        self.open_for(faq, len(queries) - 1)
        for thread in threads:
            thread.join(30)
        return results

    def open_for(self, faq: FaqSearch, count: int) -> None:
        """Open once so many queries wait."""
        queue = faq._searcher._queues[faq.corpus("c").id]
        deadline = time.monotonic() + 30
        while len(queue.waiting) < count and time.monotonic() < deadline:
            time.sleep(0.001)
        self.opened.set()


def test_queries_that_come_while_another_is_searched_for_are_searched_for_together(
    faq: FaqSearch, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in "甲乙丙丁":
        encoder.place(f"问{text}", f"第{text}", 0.9)
        add(faq, f"第{text}", key=text)
    faq.rebuild("c")
    queries = [("问甲", 3), ("问乙", 3), ("问丙", 3), ("问丁", 1), ("没有这个", 3)]
    alone = {(query, k): faq.search(query, corpus="c", k=k) for query, k in queries}
    gate = Gate(encoder, monkeypatch)
    together = gate.ask(faq, queries)
    assert sorted(map(len, gate.calls)) == [1, 1, 3]  # the first, the one that wants another k, and the rest
    for query, result in together.items():
        assert isinstance(result, SearchResult)
        assert (result.query, result.hits, result.decision) == (query[0], alone[query].hits, alone[query].decision)
        assert len(result.hits) == query[1]
    assert len({result.query_id for result in together.values() if isinstance(result, SearchResult)}) == len(queries)


def test_an_error_reaches_every_query_that_it_struck_and_no_later_one(
    faq: FaqSearch, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add(faq, "甲")
    faq.rebuild("c")
    gate = Gate(encoder, monkeypatch)
    gate.error = EncoderError("it broke")
    results = gate.ask(faq, [("甲", 5), ("乙", 5), ("丙", 5)])
    assert isinstance(results["甲", 5], SearchResult)
    assert [str(results[query, 5]) for query in "乙丙"] == ["it broke", "it broke"]
    gate.error = None
    assert best(faq, "甲") == entry


def test_an_entry_is_found_at_once_by_the_thread_that_added_it_while_others_search(
    faq: FaqSearch, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(faq, "甲")
    faq.rebuild("c")
    best(faq, "甲")
    gate = Gate(encoder, monkeypatch)
    held_up = threading.Thread(target=best, args=(faq, "乙"))
    held_up.start()
    assert gate.entered.wait(30)
    later: list[int | None] = []
    entry = add(faq, "丙")
    after = threading.Thread(target=lambda: later.append(best(faq, "丙")))
    after.start()
    gate.open_for(faq, 1)
    held_up.join(30)
    after.join(30)
    assert later == [entry]


# --- the query log


def log_of(settings: Settings, faq: FaqSearch) -> list[dict[str, object]]:
    store = Store(settings.database_path)
    try:
        return store.query_log(faq.corpus("c").id)
    finally:
        store.close()


def test_the_query_log_says_what_was_asked_and_found(faq: FaqSearch, encoder: FakeEncoder, settings: Settings) -> None:
    before = datetime.now()
    empty = faq.search("还没有", corpus="c")
    entry = faq.entry(add(faq, "甲", "乙"))
    encoder.place("乙", "像乙", 0.85)
    version = faq.rebuild("c").version
    result = faq.search(" 像乙 ", corpus="c")
    faq.search("不记", corpus="c", log=False)
    rows = log_of(settings, faq)
    wanted = ("query", "decision", "entry_id", "question_id", "score", "index_version")
    assert [tuple(row[name] for name in wanted) for row in rows] == [
        ("还没有", "none", None, None, None, None),
        ("像乙", "suggest", entry.id, entry.questions[1].id, 0.85, version),
    ]
    for row, took in zip(rows, (empty.took_ms, result.took_ms), strict=True):
        assert before <= row["at"] <= datetime.now()  # type: ignore[operator] # a column of datetimes
        stages = (row["encode_ms"], row["search_ms"], row["fetch_ms"], row["total_ms"])
        assert stages == (took.encode, took.search, took.fetch, took.total)


def test_a_query_log_that_is_off_stays_empty(faq: FaqSearch, settings: Settings) -> None:
    with FaqSearch.open(replace(settings, query_log=False), encoders=FakeSource()) as quiet:
        quiet.search("问", corpus="c")
        quiet.search_many(["一", "二"], corpus="c", log=True)
    assert log_of(settings, faq) == []


def test_while_another_process_writes_searches_go_on_and_are_logged_later(faq: FaqSearch, settings: Settings) -> None:
    writer = sqlite3.connect(settings.database_path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    assert faq.search("一", corpus="c").hits == ()
    assert log_of(settings, faq) == []
    writer.execute("ROLLBACK")
    writer.close()
    faq.search("二", corpus="c")
    assert [row["query"] for row in log_of(settings, faq)] == ["一", "二"]
