"""Versions of entries and the history of their changes: who, when, before, after, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeSource

from faqsearch import EntryDraft, FaqSearch, Settings
from faqsearch.errors import EntryConflictError, EntryInvalidError, EntryNotFoundError, ImportRejectedError
from faqsearch.model import Change
from faqsearch.settings import system_user

WriteTable = Callable[..., Path]
HEADER = ["key", "question", "similar", "answer", "category"]
LOAN = EntryDraft(
    key="B1", question="怎么提前还款", similar=("提前结清", "早点还钱"), answer="打开“贷款”。", category="贷款"
)
LIMIT = EntryDraft(key="B2", question="临时额度怎么申请", answer="在 App 申请。\n再确认。", category="信用卡")


@pytest.fixture
def bank(faq: FaqSearch) -> FaqSearch:
    """Entries 1 and 2 in the corpus `bank`, added by Anna."""
    faq.create_corpus("bank")
    assert [faq.add_entry("bank", draft, who="Anna").id for draft in (LOAN, LIMIT)] == [1, 2]
    return faq


def story(faq: FaqSearch, entry_id: int) -> list[tuple[str, str, EntryDraft | None, EntryDraft | None]]:
    """(action, who, before, after), newest first."""
    return [(item.action, item.who, item.before, item.after) for item in faq.history(entry_id)]


def now_is(faq: FaqSearch, entry_id: int) -> EntryDraft:
    entry = faq.entry(entry_id)
    names = ("key", "question", "similar", "answer", "category", "enabled", "valid_from", "valid_to")
    return EntryDraft(**{name: getattr(entry, name) for name in names})


# --- what is kept


def test_every_action_is_kept_with_who_before_and_after(bank: FaqSearch) -> None:
    edited = replace(
        LOAN, key=None, answer="去网点。", similar=("早点还钱",), valid_to=datetime(2999, 1, 31, 23, 59, 59)
    )
    bank.edit_entry(1, key=None, answer="去网点。", similar=("早点还钱",), valid_to=edited.valid_to, who="Bea")
    off = replace(edited, enabled=False)
    bank.set_enabled(1, False, who="Carl")
    bank.set_enabled(1, True, who="Carl")
    other = replace(edited, category="个贷")
    bank.set_category_many([1], "个贷", who="Dora")
    added = bank.history(1)[-1].id
    bank.restore_entry(1, bank.history(1)[-2].id, who="Emil")
    bank.delete_entry(1, who="Finn")
    assert story(bank, 1) == [
        ("delete", "Finn", LOAN, None),
        ("restore", "Emil", other, LOAN),
        ("category", "Dora", edited, other),
        ("enable", "Carl", off, edited),
        ("disable", "Carl", edited, off),
        ("edit", "Bea", LOAN, edited),
        ("add", "Anna", None, LOAN),
    ]
    ids = [item.id for item in bank.history(1)]
    assert ids == sorted(ids, reverse=True)
    assert ids[-1] == added
    assert story(bank, 2) == [("add", "Anna", None, LIMIT)]


def test_each_change_has_its_moment(bank: FaqSearch) -> None:
    before = datetime.now().replace(microsecond=0)
    bank.edit_entry(1, answer="neu")
    change = bank.history(1)[0]
    assert before <= change.at <= datetime.now()
    assert bank.entry(1).updated_at == change.at


@pytest.mark.parametrize("change", [{"answer": LOAN.answer}, {"similar": LOAN.similar, "key": "B1"}, {}])
def test_what_changes_nothing_is_no_change(bank: FaqSearch, change: dict[str, Any]) -> None:
    before = (bank.entry(1), bank.history(1), bank.corpus("bank"))
    bank.edit_entry(1, **change)
    assert bank.set_enabled_many([1, 2], True) == 0
    assert bank.set_category_many([1], "贷款") == 0
    assert (bank.entry(1), bank.history(1), bank.corpus("bank")) == before


def test_the_order_of_the_phrasings_is_a_change(bank: FaqSearch) -> None:
    bank.edit_entry(1, question="提前结清", similar=("早点还钱", "怎么提前还款"), who="Bea")
    swapped = replace(LOAN, question="提前结清", similar=("早点还钱", "怎么提前还款"))
    assert story(bank, 1)[0] == ("edit", "Bea", LOAN, swapped)


def test_who_is_the_person_of_the_settings_else_the_user(settings: Settings, source: FakeSource) -> None:
    for person, expected in (("Gina", "Gina"), ("", system_user())):
        with FaqSearch.open(replace(settings, person=person), encoders=source) as faq:
            if not faq.corpora():
                faq.create_corpus("bank")
            entry = faq.add_entry("bank", EntryDraft(question=f"von {person}", answer="x"))
            assert faq.history(entry.id)[0].who == expected
            faq.edit_entry(entry.id, answer="y", who="  Hugo ")
            assert faq.history(entry.id)[0].who == "Hugo"


# --- imports


def test_a_merge_is_kept_entry_by_entry(bank: FaqSearch, write_table: WriteTable) -> None:
    table = write_table(
        HEADER,
        ["B1", "怎么提前还款", "早点还钱", "新答案", "贷款"],
        ["B2", LIMIT.question, "", LIMIT.answer, "信用卡"],
        ["B3", "怎么销卡", "", "去网点。", ""],
    )
    bank.import_table(table, corpus="bank", who="Ines")
    assert story(bank, 1) == [
        ("import", "Ines", LOAN, replace(LOAN, similar=("早点还钱",), answer="新答案")),
        ("add", "Anna", None, LOAN),
    ]
    assert story(bank, 2) == [("add", "Anna", None, LIMIT)]  # the row said nothing new
    assert story(bank, 3) == [("import", "Ines", None, EntryDraft(key="B3", question="怎么销卡", answer="去网点。"))]
    again = [bank.history(n) for n in (1, 2, 3)]
    bank.import_table(table, corpus="bank", who="Jan")
    assert [bank.history(n) for n in (1, 2, 3)] == again


def test_a_replacing_import_keeps_what_it_removes(bank: FaqSearch, write_table: WriteTable) -> None:
    # A phrasing goes from the removed entry to a new one.
    table = write_table(HEADER, ["B2", LIMIT.question, "", LIMIT.answer, "信用卡"], ["N", "提前结清", "", "新", ""])
    report = bank.import_table(table, corpus="bank", mode="replace", who="Ines")
    assert (report.added, report.updated, report.unchanged, report.removed) == (1, 0, 1, 1)
    assert story(bank, 1) == [("delete", "Ines", LOAN, None), ("add", "Anna", None, LOAN)]
    assert story(bank, 3) == [("import", "Ines", None, EntryDraft(key="N", question="提前结清", answer="新"))]


@pytest.mark.parametrize("how", ["dry run", "strict"])
def test_an_import_that_saves_nothing_leaves_no_history(bank: FaqSearch, write_table: WriteTable, how: str) -> None:
    table = write_table(HEADER, ["B1", "怎么提前还款", "", "新答案", ""], ["B9", "无", "", "", ""])
    before = [(bank.history(n), bank.entry(n).version) for n in (1, 2)]
    if how == "dry run":
        assert bank.import_table(table, corpus="bank", mode="replace", dry_run=True).removed == 1
    else:
        with pytest.raises(ImportRejectedError, match="1 rows of"):
            bank.import_table(table, corpus="bank", mode="replace", strict=True)
    assert [(bank.history(n), bank.entry(n).version) for n in (1, 2)] == before
    assert bank.history(3) == []


# --- versions


def test_the_version_grows_with_every_change(bank: FaqSearch, write_table: WriteTable) -> None:
    versions = [bank.entry(1).version]
    for change in (
        lambda: bank.edit_entry(1, answer="a"),
        lambda: bank.set_enabled(1, False),
        lambda: bank.set_enabled_many([1, 2], True),
        lambda: bank.set_category_many([1], "c"),
        lambda: bank.import_table(
            write_table(["key", "question", "answer"], ["B1", LOAN.question, "b"]), corpus="bank"
        ),
        lambda: bank.restore_entry(1, bank.history(1)[0].id),
        lambda: bank.edit_entry(1, answer="a"),
    ):
        change()
        versions.append(bank.entry(1).version)
    assert versions == [1, 2, 3, 4, 5, 6, 7, 7]
    assert bank.entry(2).version == 1


def test_a_second_save_of_the_same_version_is_told_and_changes_nothing(bank: FaqSearch) -> None:
    seen = bank.entry(1)
    first = bank.edit_entry(1, version=seen.version, answer="von Bea", who="Bea")
    with pytest.raises(EntryConflictError) as refused:
        bank.edit_entry(1, version=seen.version, answer="von Carl", who="Carl")
    assert str(refused.value) == ("entry 1 was changed meanwhile (it is version 2, not 1); look at both and save again")
    assert refused.value.entry == first == bank.entry(1)
    # Knowing the newer version, or saying that it does not matter, it goes through.
    assert bank.edit_entry(1, version=2, answer="von Carl").answer == "von Carl"
    assert bank.edit_entry(1, answer="von Dora").version == 4


@pytest.mark.parametrize("version", [None, 1])
def test_an_entry_that_was_deleted_cannot_be_saved(bank: FaqSearch, version: int | None) -> None:
    bank.delete_entry(1)
    with pytest.raises(EntryNotFoundError, match="no entry 1;"):
        bank.edit_entry(1, version=version, answer="zu spät")


def test_two_services_see_each_others_versions(bank: FaqSearch, settings: Settings, source: FakeSource) -> None:
    with FaqSearch.open(settings, encoders=source) as other:
        seen = other.entry(1)
        bank.edit_entry(1, answer="hier")
        with pytest.raises(EntryConflictError):
            other.edit_entry(1, version=seen.version, answer="dort")
        assert other.entry(1).answer == "hier"


# --- the way back


def test_an_earlier_state_comes_back_whole_and_is_found_at_once(bank: FaqSearch) -> None:
    bank.rebuild("bank")
    bank.edit_entry(1, key=None, question="anders", similar=(), answer="neu", category="", who="Bea")
    edit = bank.history(1)[0]
    assert bank.search("提前结清", corpus="bank").decision == "none"
    assert bank.restore_entry(1, edit.id).key == "B1"
    assert now_is(bank, 1) == LOAN
    hit = bank.search("提前结清", corpus="bank").hits[0]
    assert (hit.entry_id, hit.score, hit.matched_question) == (1, 1.0, "提前结清")
    # The restoring is a change as well, and can be undone.
    bank.restore_entry(1, bank.history(1)[0].id)
    assert now_is(bank, 1) == EntryDraft(question="anders", answer="neu")


def test_a_key_that_came_later_is_cleared_again(bank: FaqSearch) -> None:
    entry = bank.add_entry("bank", EntryDraft(question="ohne", answer="x"))
    bank.edit_entry(entry.id, key="K")
    bank.restore_entry(entry.id, bank.history(entry.id)[0].id)
    assert bank.entry(entry.id).key is None
    assert bank.add_entry("bank", EntryDraft(question="mit", answer="x", key="K")).key == "K"


def test_what_is_taken_meanwhile_is_not_taken_back(bank: FaqSearch) -> None:
    bank.edit_entry(1, key=None, similar=())
    bank.edit_entry(2, similar=("提前结清",))
    before = (bank.entry(1), bank.entry(2), bank.history(1))
    with pytest.raises(EntryInvalidError, match="similar: '提前结清' leads to another entry already: entry 2"):
        bank.restore_entry(1, bank.history(1)[0].id)
    bank.edit_entry(2, similar=(), key="B1")
    with pytest.raises(EntryInvalidError, match="key: 'B1' belongs to entry 2 of this corpus already"):
        bank.restore_entry(1, bank.history(1)[0].id)
    assert (bank.entry(1), bank.history(1)) == (before[0], before[2])


def test_there_is_no_state_before_an_entry_nor_in_anothers_history(bank: FaqSearch) -> None:
    (added,) = bank.history(1)
    bank.edit_entry(2, answer="neu")
    for entry_id, change_id in ((1, added.id), (1, bank.history(2)[0].id), (1, 999), (7, added.id)):
        with pytest.raises(EntryNotFoundError, match=f"entry {entry_id} has no state before change {change_id};"):
            bank.restore_entry(entry_id, change_id)


def test_the_history_goes_with_its_corpus_and_is_empty_for_what_never_was(bank: FaqSearch) -> None:
    for never in (0, -1, 99, 2**70):
        assert bank.history(never) == []
    bank.delete_corpus("bank")
    assert bank.history(1) == []


def test_a_text_of_any_kind_comes_back_as_it_was(bank: FaqSearch) -> None:
    odd = EntryDraft(
        question='"quotes" \\ und \u2028 𠮷', similar=("null", "[1, 2]"), answer="a\n\tb {}", category="'; DROP TABLE x"
    )
    entry = bank.add_entry("bank", odd)
    bank.edit_entry(entry.id, question="q", similar=(), answer="a", category="")
    change: Change = bank.history(entry.id)[0]
    assert change.before == odd
    bank.restore_entry(entry.id, change.id)
    assert now_is(bank, entry.id) == odd
