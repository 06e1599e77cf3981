"""An import's rules: which entry a row is, which rows are rejected, and what is left as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from rows import ALL, CORPUS, NO_SIMILAR, Load, content, done, ids, import_rows, problems, row

from faqsearch import normalise
from faqsearch.model import CorpusCounts, EntryDraft, ImportMode, RowError
from faqsearch.store import Store

# --- import: which entry a row is


def test_rows_are_matched_by_key_else_by_primary_question(store: Store, load: Load) -> None:
    assert load(row("a", "one"), row(None, "two"), row(None, "three")) == done(added=3, created=True)
    # By key with another question; by the folded question; a key adopts an entry that has none.
    assert load(row("a", "uno", answer="y"), row(None, "ＴＷＯ"), row("c", "Three")) == done(updated=3)
    assert content(store) == [("a", ("uno",), "y"), (None, ("ＴＷＯ",), "x"), ("c", ("Three",), "x")]
    # A row without a key leaves the entry's key; a similar question does not match.
    result = load(row(None, "uno", answer="z"), row(None, "four", "three"))
    assert problems(result) == [(3, "similar", "'three' leads to another entry already: entry 3 (key 'c')")]
    assert content(store)[0] == ("a", ("uno",), "z")


def test_a_key_never_takes_over_an_entry_of_another_key(store: Store, load: Load) -> None:
    load(row("a", "one"))
    assert problems(load(row("b", "one"))) == [
        (2, "question", "'one' leads to another entry already: entry 1 (key 'a')")
    ]
    assert load(row("b", "one"), mode="replace") == done(added=1, removed=1)
    assert content(store) == [("b", ("one",), "x")]


def test_merge_keeps_what_the_table_does_not_name_and_replace_removes_it(store: Store, load: Load) -> None:
    load(row("a", "one"), row("b", "two"), row("c", "three"))
    assert load(row("b", "two"), row("d", "four")) == done(added=1, unchanged=1)
    assert load(row("b", "two", answer="y"), row("e", "one"), mode="replace") == done(1, 1, 0, 3)
    assert content(store) == [("b", ("two",), "y"), ("e", ("one",), "x")]


def test_absent_columns_keep_their_values_when_merging_and_are_reset_by_replace(store: Store, load: Load) -> None:
    start, end = datetime(2020, 1, 1), datetime(2099, 12, 31, 23, 59, 59)
    full = EntryDraft("one", "x", ("two",), "a", "cards", False, start, end)
    load(full)
    few = frozenset(("key", "question", "answer"))
    assert load(row("a", "one"), fields=few) == done(unchanged=1)
    assert load(row("a", "uno", answer="y"), fields=few) == done(updated=1)
    entry = store.entry(1)
    assert (entry.category, entry.enabled, entry.valid_from, entry.valid_to) == ("cards", False, start, end)
    assert content(store) == [("a", ("uno", "two"), "y")]
    assert load(row("a", "uno", answer="y"), fields=few, mode="replace") == done(updated=1)
    entry = store.entry(1)
    assert (entry.similar, entry.category, entry.enabled, entry.valid_from) == ((), "", True, None)


def test_what_a_question_leaves_behind_does_not_count_as_a_change(store: Store, load: Load) -> None:
    # A similar question becomes the primary one: the same content afterwards, however it came about.
    load(row("a", "one", "two", "three"))
    assert load(row("a", "two"), fields=NO_SIMILAR) == done(updated=1)
    assert content(store) == [("a", ("two", "three"), "x")]
    assert load(row("a", "two", "three")) == done(unchanged=1)


# --- import: what is rejected


def test_the_same_key_twice_and_a_phrasing_twice_reject_the_later_row(store: Store, load: Load) -> None:
    result = load(row("a", "one", "shared"), row("a", "two"), row("b", "Shared"), row(None, "three", "four", "ONE"))
    assert (result.added, problems(result)) == (
        1,
        [
            (3, "key", "the key 'a' is on line 2 of this file already"),
            (4, "question", "'Shared' leads to another entry already: line 2 (key 'a') of this file"),
            (5, "similar", "'ONE' leads to another entry already: line 2 (key 'a') of this file"),
        ],
    )
    assert [(error.key, error.question) for error in result.errors] == [("a", "two"), ("b", "Shared"), (None, "three")]
    assert content(store) == [("a", ("one", "shared"), "x")]


def test_a_rejected_row_claims_no_phrasing(store: Store, load: Load) -> None:
    # Line 3 is rejected for "one", so nothing that is saved has "two": line 4 may have it.
    result = load(row("a", "one"), row("b", "ONE", "two"), row("c", "two"))
    assert [error.line for error in result.errors] == [3]
    assert content(store) == [("a", ("one",), "x"), ("c", ("two",), "x")]


def test_phrasings_kept_for_want_of_a_column_do_not_reject_their_own_row(store: Store, load: Load) -> None:
    load(row("a", "one", "two"))
    # The table has no similar questions, so entry 1 keeps "two": it is line 2 that is wrong, not line 3.
    result = load(row("b", "two"), row("a", "one", answer="y"), fields=NO_SIMILAR)
    assert problems(result) == [(2, "question", "'two' leads to another entry already: entry 1 (key 'a')")]
    assert content(store) == [("a", ("one", "two"), "y")]


def test_phrasings_may_be_swapped_and_moved_between_rows_of_a_file(store: Store, load: Load) -> None:
    load(row("a", "one", "two"), row("b", "three", "four"), row("c", "five"))
    moved = [row("a", "three", "five"), row("b", "one", "four", "two"), row("c", "six")]
    assert load(*moved) == done(updated=3)
    assert load(*moved) == done(unchanged=3)
    assert content(store) == [("a", ("three", "five"), "x"), ("b", ("one", "four", "two"), "x"), ("c", ("six",), "x")]
    assert ids(store)["four"] == 4


def test_an_entry_whose_row_is_rejected_keeps_its_phrasings(store: Store, load: Load) -> None:
    load(row("a", "one"), row("b", "two"), row("z", "taken"))
    # Line 3 would have given up "two", but it is rejected; so line 2 cannot have it, and line 4 still goes in.
    result = load(row("a", "one", "two"), row("b", "new", "taken"), row("c", "free"))
    assert problems(result) == [
        (2, "similar", "'two' leads to another entry already: entry 2 (key 'b')"),
        (3, "similar", "'taken' leads to another entry already: entry 3 (key 'z')"),
    ]
    assert [key for key, _, _ in content(store)] == ["a", "b", "z", "c"]


@pytest.mark.parametrize(
    "bad",
    [
        RowError(0, "answer", "no answer", "a", "uno"),  # named by its key
        RowError(0, "answer", "no answer", None, "ONE"),  # named by its primary question
        row("a", "uno", "kept"),  # a phrasing of the row above
        row("k", "one"),  # its key is on the row above already
    ],
)
def test_replace_never_removes_an_entry_whose_own_row_was_rejected(
    store: Store, load: Load, bad: EntryDraft | RowError
) -> None:
    load(row(None if isinstance(bad, EntryDraft) and bad.key == "k" else "a", "one"), row("k", "kept"), row("u", "un"))
    before = store.entry(1)
    result = load(row("k", "kept"), bad, row("n", "new"), mode="replace")
    assert (result.added, result.unchanged, result.removed) == (1, 1, 1)
    assert [error.line for error in result.errors] == [3]
    assert store.entry(1) == before
    assert [item.question for item in store.entries("bank")] == ["one", "kept", "new"]


@pytest.mark.parametrize("options", [{"dry_run": True}, {"strict": True}, {"strict": True, "mode": "replace"}])
def test_dry_run_and_strict_report_and_save_nothing(store: Store, load: Load, options: dict[str, object]) -> None:
    bad = RowError(0, "answer", "no answer", "b", "two")
    result = load(row("a", "one"), bad, **options)
    assert (result.created, result.added, [error.line for error in result.errors]) == (True, 1, [3])
    assert store.corpora() == []
    load(row("a", "one"), row("c", "three"))
    before = (list(store.entries("bank")), store.corpus("bank"))
    result = load(row("a", "one", answer="y"), bad, **options)
    assert (result.created, result.updated) == (False, 1)
    assert (list(store.entries("bank")), store.corpus("bank")) == before
    assert load(row("a", "one"), row("c", "three"), strict=True) == done(unchanged=2)


def test_rows_are_rejected_in_the_order_of_their_lines_and_each_once(load: Load) -> None:
    load(row("z", "taken"))
    result = load(row("a", "one"), row("b", "taken", "one"), RowError(0, "", "too many cells"), row("a", "taken"))
    assert [(error.line, error.column) for error in result.errors] == [(3, "similar"), (4, ""), (5, "key")]


# --- import: any table, against a model of the rules


@dataclass
class Model:
    """What an import should do, in plain Python: entries as (key, phrasings, answer, category)."""

    entries: list[tuple[str | None, tuple[str, ...], str, str]]

    def load(self, rows: Sequence[EntryDraft], mode: ImportMode, fields: frozenset[str]) -> tuple[list[int], list[int]]:
        """The counts (added, updated, unchanged, removed), and the rows that are rejected."""
        own = self._match(rows)
        merging = mode == "merge"
        refused: set[int] = set()
        kept: set[int] = set()  # for `replace`
        for number, item in enumerate(rows):
            if item.key is not None and item.key in [above.key for above in rows[:number]]:
                refused.add(number)
                kept |= {n for n, entry in enumerate(self.entries) if same(entry[1][0], item.question)}
        claimed: set[str] = set()
        for number, item in enumerate(rows):
            if number not in refused:
                if claimed & folded(item):
                    refused.add(number)
                    kept |= {own[number]} - {-1}
                else:
                    claimed |= folded(item)
        while True:
            named = {own[number] for number in range(len(rows)) if number not in refused}
            holders = {}
            for n, (_, texts, _, _) in enumerate(self.entries):
                carried = texts[1:] if merging and "similar" not in fields else ()
                for text in carried if n in named else texts if merging or n in kept else ():
                    holders[normalise(text)] = n
            fallen = {
                number
                for number, item in enumerate(rows)
                if number not in refused and any(holders.get(text, own[number]) != own[number] for text in folded(item))
            }
            if not fallen:
                break
            refused |= fallen
            kept |= {own[number] for number in fallen} - {-1}
        return self._save(rows, own, named, refused, kept, merging, fields), sorted(refused)

    def _match(self, rows: Sequence[EntryDraft]) -> list[int]:
        keys = {entry[0]: n for n, entry in enumerate(self.entries) if entry[0] is not None}
        own = [keys.get(item.key, -1) if item.key else -1 for item in rows]
        by_key = set(own)
        for number, item in enumerate(rows):
            for n, (key, texts, _, _) in enumerate(self.entries):
                free = n not in by_key and (item.key is None or key is None)
                if own[number] == -1 and free and same(texts[0], item.question):
                    own[number] = n
        return own

    def _save(
        self,
        rows: Sequence[EntryDraft],
        own: list[int],
        named: set[int],
        refused: set[int],
        kept: set[int],
        merging: bool,
        fields: frozenset[str],
    ) -> list[int]:
        counts = [0, 0, 0, 0]
        saved = {n: entry for n, entry in enumerate(self.entries) if merging or n in named | kept}
        counts[3] = len(self.entries) - len(saved)
        new = []
        for number in sorted(set(range(len(rows))) - refused):
            item, old = rows[number], saved.get(own[number])
            texts, category = (item.question, *item.similar), item.category
            if old and merging and "similar" not in fields:
                texts += tuple(text for text in old[1][1:] if not same(text, item.question))
            if old and merging and "category" not in fields:
                category = old[3]
            entry = (item.key or (old[0] if old else None), texts, item.answer, category)
            counts[0 if old is None else 2 if entry == old else 1] += 1
            if old is None:
                new.append(entry)
            else:
                saved[own[number]] = entry
        self.entries = [saved[n] for n in sorted(saved)] + new
        return counts


def same(left: str, right: str) -> bool:
    return normalise(left) == normalise(right)


def folded(item: EntryDraft) -> set[str]:
    return {normalise(text) for text in (item.question, *item.similar)}


# Few keys and phrasings, so that rows get in each other's way; two phrasings fold alike.
DRAFTS = st.builds(
    lambda key, texts, answer, category: EntryDraft(texts[0], answer, tuple(texts[1:]), key, category),
    st.sampled_from([None, None, "k1", "k2", "k3"]),
    st.lists(st.sampled_from(["a", "A", "b", "c", "d", "e", "f"]), min_size=1, max_size=3, unique_by=normalise),
    st.sampled_from(["x", "y"]),
    st.sampled_from(["", "cards"]),
)
TABLES = st.tuples(
    st.lists(DRAFTS, max_size=6),
    st.sampled_from(["merge", "replace"]),
    st.sampled_from([ALL, NO_SIMILAR, ALL - {"category"}]),
)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One database for all random tables: each example has a corpus of its own in it."""
    opened = Store(tmp_path_factory.mktemp("random") / "faq.sqlite3")
    yield opened
    opened.close()


@hypothesis_settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(tables=st.lists(TABLES, min_size=1, max_size=3))
def test_any_tables_are_imported_by_the_rules_and_again_without_a_change(
    shared_store: Store, tables: list[tuple[list[EntryDraft], ImportMode, frozenset[str]]]
) -> None:
    corpus = replace(CORPUS, name=f"random-{len(shared_store.corpora())}")
    model = Model([])
    for drafts, mode, fields in tables:
        rows = [
            replace(
                draft,
                similar=draft.similar if "similar" in fields else (),
                category=draft.category if "category" in fields else "",
            )
            for draft in drafts
        ]
        first = import_rows(shared_store, *rows, corpus=corpus, mode=mode, fields=fields)
        counts, refused = model.load(rows, mode, fields)
        assert [error.line - 2 for error in first.errors] == refused
        assert [first.added, first.updated, first.unchanged, first.removed] == counts
        stored = list(shared_store.entries(corpus.name))
        assert [(e.key, (e.question, *e.similar), e.answer, e.category) for e in stored] == model.entries
        revision = shared_store.corpus(corpus.name).revision
        again = import_rows(shared_store, *rows, corpus=corpus, mode=mode, fields=fields)
        assert (again.added, again.updated, again.removed) == (0, 0, 0)
        assert again.unchanged == len(rows) - len(refused)
        assert [error.line - 2 for error in again.errors] == refused
        assert list(shared_store.entries(corpus.name)) == stored
        assert shared_store.corpus(corpus.name).revision == revision


def test_twenty_thousand_rows_are_imported_and_again_without_a_change(store: Store) -> None:
    def drafts() -> list[EntryDraft]:
        return [row(f"K{n}", f"question {n}", f"phrasing {n}", answer=f"answer {n}") for n in range(20_000)]

    seen: list[int] = []
    first = import_rows(store, *drafts(), progress=lambda stage, count, total: seen.append(count))
    assert (first, seen[-1]) == (done(added=20_000, created=True), 20_000)
    assert import_rows(store, *drafts()) == done(unchanged=20_000)
    corpus = store.corpus("bank")
    assert (corpus.revision, store.counts(corpus.id)) == (1, CorpusCounts(20_000, 20_000, 40_000))
    assert store.exact(corpus.id, ["phrasing 19999"])["phrasing 19999"].answer == "answer 19999"
    assert store.question_ids(corpus.id)[1].tolist() == list(range(1, 40_001))
