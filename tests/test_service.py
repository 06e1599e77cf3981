"""FaqSearch's jobs: importing, building the index, healing it, judging and reporting; and all of it end to end."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES
from fakes import FakeEncoder, FakeSource

from faqsearch import FaqSearch, Settings
from faqsearch.errors import (
    CorpusExistsError,
    CorpusNotFoundError,
    EncoderError,
    EntryNotFoundError,
    ImportRejectedError,
    IndexFileError,
    StoreError,
    TableError,
)
from faqsearch.model import CorpusCounts, Entry, EntryDraft, HitTestReport, ImportReport, Miss, RowError

WriteTable = Callable[..., Path]

HEADER = ["编号", "标准问", "相似问", "答案"]
ROWS = (
    ["A1", "提前还款", "早点还清|提前结清", "答一"],
    ["A2", "临时额度", "", "答二"],
    ["A3", "固定额度", "长期额度", "答三"],
)


@pytest.fixture
def table(write_table: WriteTable) -> Path:
    return write_table(HEADER, *ROWS)


@pytest.fixture
def bank(faq: FaqSearch, table: Path) -> FaqSearch:
    """A service with the corpus `bank`, imported and indexed: 3 entries, 6 questions."""
    faq.import_table(table, corpus="bank")
    return faq


def version_folder(faq: FaqSearch, version: str | None = None) -> Path:
    folder = faq.settings.index_dir / "bank"
    return folder / "versions" / (version or (folder / "current").read_text().strip())


def files(faq: FaqSearch) -> dict[str, bytes]:
    return {
        str(file.relative_to(faq.settings.index_dir)): file.read_bytes()
        for file in faq.settings.index_dir.rglob("*")
        if file.is_file() and file.name != "rebuild.lock"
    }


def content(entry: Entry) -> tuple[object, ...]:
    """What a table holds of an entry."""
    texts = (entry.key, entry.question, entry.similar, entry.answer, entry.category)
    return (*texts, entry.enabled, entry.valid_from, entry.valid_to)


# --- the index


def test_an_incremental_rebuild_encodes_exactly_the_changed_questions(bank: FaqSearch, encoder: FakeEncoder) -> None:
    assert encoder.encoded == ["提前还款", "早点还清", "提前结清", "临时额度", "固定额度", "长期额度"]
    bank.edit_entry(bank.entry("bank/A1").id, similar=("提前结清", "新说法"), answer="新答")
    bank.edit_entry(bank.entry("bank/A2").id, question="临時額度")  # another writing of the same words
    bank.set_enabled(bank.entry("bank/A3").id, False)
    bank.add_entry("bank", EntryDraft("新问题", "答"))
    encoder.encoded.clear()
    report = bank.rebuild("bank")
    assert encoder.encoded == ["新说法", "临时额度", "新问题"]
    assert (report.kept, report.encoded, report.dropped, report.full, report.changed) == (4, 3, 2, False, True)
    bank.delete_entry(bank.entry("bank/A1").id)
    report = bank.rebuild("bank")
    assert (report.kept, report.encoded, report.dropped, report.changed) == (4, 0, 3, True)
    assert encoder.encoded == ["新说法", "临时额度", "新问题"]


def test_a_rebuild_without_changes_writes_nothing_and_loads_no_encoder(bank: FaqSearch) -> None:
    source, before = FakeSource(), files(bank)
    with FaqSearch.open(bank.settings, encoders=source) as later:
        report = later.rebuild("bank")
    assert (report.version, report.changed, report.kept) == (version_folder(bank).name, False, 6)
    assert (report.encoded, report.dropped, report.notes, source.loads) == (0, 0, (), [])
    assert files(bank) == before


def test_a_full_rebuild_encodes_all_again(bank: FaqSearch, encoder: FakeEncoder) -> None:
    encoder.encoded.clear()
    report = bank.rebuild("bank", full=True)
    assert (report.kept, report.encoded, report.full, len(encoder.encoded)) == (0, 6, True, 6)
    assert [version.count for version in bank.index_versions("bank")] == [6, 6]


def test_progress_counts_the_questions_to_encode(bank: FaqSearch) -> None:
    told: list[tuple[str, int, int | None]] = []
    bank.rebuild("bank", full=True, progress=lambda *args: told.append(args))
    assert told == [("encoding", 6, 6)]


def test_a_rebuild_builds_on_the_newest_version_that_is_whole(bank: FaqSearch, encoder: FakeEncoder) -> None:
    first = version_folder(bank).name
    bank.add_entry("bank", EntryDraft(question="新问题", answer="答"))
    bank.rebuild("bank")
    _flip(version_folder(bank) / "index.faiss")
    encoder.encoded.clear()
    report = bank.rebuild("bank")
    assert (report.full, report.kept, report.encoded, encoder.encoded) == (False, 6, 1, ["新问题"])
    assert report.notes[0].startswith(f"built on version {first}: ")
    assert bank.verify_index("bank").ok


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("index.faiss", _flip),
        ("index.faiss", Path.unlink),
        ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:50])),
        ("manifest.json", Path.unlink),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 9'))),
        # Here the version itself is whole, and its vectors are used again.
        ("../../current", lambda path: path.write_text("nonsense")),
        ("../../current", lambda path: path.write_text("000099-20260101T000000Z")),
    ],
    ids=["damaged", "no file", "cut manifest", "no manifest", "other format", "nonsense pointer", "dangling pointer"],
)
def test_a_damaged_index_is_told_everywhere_and_a_rebuild_heals_it(
    bank: FaqSearch, settings: Settings, file: str, damage: Callable[[Path], object]
) -> None:
    damage(version_folder(bank) / file)
    source = FakeSource()
    with FaqSearch.open(settings, encoders=source) as later:
        with pytest.raises(IndexFileError) as caught:
            later.search("提前还款", corpus="bank")
        assert str(caught.value).endswith("; run `faqsearch rebuild bank`")
        assert "\n" not in str(caught.value)
        broken = later.verify_index("bank")
        assert (broken.ok, broken.problems) == (False, (str(caught.value),))
        report = later.rebuild("bank")
        whole = file == "../../current"
        assert (report.full, report.encoded, report.changed) == (not whole, 0 if whole else 6, True)
        assert len(report.notes) == 1
        assert report.notes[0].startswith("built on version 000001-" if whole else "built in full: ")
        assert later.search("提前还款", corpus="bank").hits[0].score == 1.0
        assert later.verify_index("bank").ok
        assert later.status().corpora[0].problems == ()


def test_an_index_of_another_normalisation_is_built_anew(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    built = bank.index_versions("bank")[-1].version
    for module in ("service", "search"):
        monkeypatch.setattr(f"faqsearch.{module}.NORMALISATION", 2)
    with FaqSearch.open(bank.settings, encoders=FakeSource()) as later:
        with pytest.raises(IndexFileError, match="text normalisation 1, this program has 2; run `faqsearch rebuild"):
            later.search("提前还款", corpus="bank")
        assert later.verify_index("bank").problems == (
            f"text normalisation has changed since index version {built} was built; run `faqsearch rebuild bank`",
        )
        assert later.rebuild("bank").notes == (
            f"built in full: text normalisation has changed since index version {built} was built",
        )
        assert later.search("提前还款", corpus="bank").hits[0].score == 1.0


def test_a_rollback_goes_back_and_the_next_rebuild_forward(bank: FaqSearch, encoder: FakeEncoder) -> None:
    first = version_folder(bank).name
    new = bank.add_entry("bank", EntryDraft("新问题", "答")).id
    bank.delete_entry(bank.entry("bank/A2").id)
    second = bank.rebuild("bank").version
    assert bank.rollback_index("bank").version == first
    assert [version.current for version in bank.index_versions("bank")] == [True, False]
    result = bank.search("新问题", corpus="bank", k=9)
    assert (result.index_version, result.hits[0].entry_id) == (first, new)
    assert "临时额度" not in {hit.question for hit in result.hits}
    with pytest.raises(IndexFileError, match="corpus 'bank' has no earlier index version to go back to"):
        bank.rollback_index("bank")
    encoder.encoded.clear()
    report = bank.rebuild("bank")
    assert (encoder.encoded, report.encoded, report.dropped) == (["新问题"], 1, 1)
    assert report.version.startswith("000003-")
    assert bank.rollback_index("bank", second).version == second
    with pytest.raises(IndexFileError, match=f"no index version '../x'; there are {first}, {second}, "):
        bank.rollback_index("bank", "../x")


def test_a_rollback_to_a_damaged_version_is_refused(bank: FaqSearch) -> None:
    _flip(version_folder(bank) / "index.faiss")
    bank.rebuild("bank", full=True)
    with pytest.raises(IndexFileError, match="its checksum is not the manifest's"):
        bank.rollback_index("bank")
    assert bank.verify_index("bank").ok


def test_pruning_and_keep_versions_leave_the_last_ones(bank: FaqSearch, settings: Settings) -> None:
    names = [version_folder(bank).name, *(bank.rebuild("bank", full=True).version for _ in range(3))]
    assert bank.prune_index("bank", 2) == names[:2]
    assert bank.prune_index("bank", 2) == []
    with FaqSearch.open(replace(settings, keep_versions=1), encoders=FakeSource()) as tidy:
        last = tidy.rebuild("bank", full=True).version
        assert [version.version for version in tidy.index_versions("bank")] == [last]
        assert tidy.search("提前还款", corpus="bank").index_version == last


def test_verify_counts_what_is_pending_and_stale_and_names_problems(
    bank: FaqSearch, source: FakeSource, settings: Settings
) -> None:
    bank.add_entry("bank", EntryDraft("新问题", "答", ("也新",)))
    bank.delete_entry(bank.entry("bank/A2").id)
    report = bank.verify_index("bank")
    assert (report.version, report.count, report.pending, report.stale) == (version_folder(bank).name, 6, 2, 1)
    assert report.ok
    source.fingerprints["embedded"] = "another"
    built = bank.index_versions("bank")[-1].version
    assert bank.verify_index("bank").problems == (
        f"encoder 'embedded' has changed since index version {built} was built; run `faqsearch rebuild bank`",
    )
    del source.encoders["embedded"]
    assert bank.verify_index("bank").problems == ("no encoder 'embedded' on this machine; expected other",)
    bank.create_corpus("empty", encoder="other")
    assert bank.verify_index("empty").problems == ("no index is current; run `faqsearch rebuild empty`",)


def test_a_version_of_another_corpus_s_questions_does_not_verify(bank: FaqSearch, write_table: WriteTable) -> None:
    bank.import_table(write_table(["q", "a"], ["甲", "答"]), corpus="shop")
    folder = bank.settings.index_dir
    wrong = next((folder / "shop" / "versions").iterdir())
    (folder / "shop" / "versions" / wrong.name).rename(folder / "bank" / "versions" / "000009-20260101T000000Z")
    report = bank.verify_index("bank", "000009-20260101T000000Z")
    assert not report.ok


# --- tables


def test_an_import_reports_what_it_did(faq: FaqSearch, table: Path, write_table: WriteTable) -> None:
    version = (first := faq.import_table(table, corpus="bank")).index_version
    assert version is not None
    assert first == ImportReport("bank", True, False, 3, 0, 0, 0, 0, index_version=version)
    second = faq.import_table(table, corpus="bank")
    assert second == ImportReport("bank", False, False, 0, 0, 3, 0, 0, index_version=version)
    changed = write_table([*HEADER, "备注"], ["A1", "提前还款", "提前结清", "答一", "?"], ["A9", "新", "", "答", ""])
    report = faq.import_table(changed, corpus="bank", mode="replace", sync=False)
    assert report == ImportReport("bank", False, False, 1, 1, 0, 2, 0, notes=("columns not used: 备注",))
    assert [entry.key for entry in faq.entries("bank")] == ["A1", "A9"]


def test_rejected_rows_are_named_by_the_tables_own_headers_and_written_out(
    faq: FaqSearch, write_table: WriteTable, tmp_path: Path
) -> None:
    table = write_table(
        HEADER, ROWS[0], ["A2", "", "", "答"], ["A3", "另一问", "提前结清", "答"], ["A4", "好", "", "答"]
    )
    rejects = tmp_path / "rejects.csv"
    report = faq.import_table(table, corpus="bank", rejects=rejects)
    assert (report.added, report.rejected) == (2, 2)
    assert report.errors == (
        RowError(3, "标准问", "no question", "A2", None),
        RowError(
            4, "相似问", "'提前结清' leads to another entry already: line 2 (key 'A1') of this file", "A3", "另一问"
        ),
    )
    with rejects.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["line", "column", "reason", *HEADER]
    assert [[row[0], row[1], *row[3:]] for row in rows[1:]] == [
        ["3", "标准问", "A2", "", "", "答"],
        ["4", "相似问", "A3", "另一问", "提前结清", "答"],
    ]
    rows[1][4], rows[2][5] = "补上的", ""
    mended = faq.import_table(write_table(*rows, name="mended.csv"), corpus="bank")
    assert (mended.added, mended.rejected, mended.notes) == (2, 0, ())


@pytest.mark.parametrize("exists", [False, True])
def test_strict_and_dry_run_save_nothing(bank: FaqSearch, write_table: WriteTable, exists: bool) -> None:
    corpus = "bank" if exists else "new"
    table = write_table(HEADER, ["B1", "新一", "", "答"], ["B2", "新二", "", ""])
    before = (bank.corpora(), list(bank.entries("bank")), files(bank))
    report = bank.import_table(table, corpus=corpus, dry_run=True)
    assert (report.created, report.dry_run, report.added, report.rejected) == (not exists, True, 1, 1)
    with pytest.raises(ImportRejectedError) as caught:
        bank.import_table(table, corpus=corpus, strict=True)
    assert str(caught.value) == (
        f"1 rows of {table} were rejected and nothing was saved; the first is line 3: no answer;"
        " mend them, or import without --strict"
    )
    assert caught.value.report.errors == (RowError(3, "答案", "no answer", "B2", "新二"),)
    with pytest.raises(TableError):
        bank.import_table(write_table(["a", "b"], ["1", "2"], name="no.csv"), corpus=corpus)
    assert (bank.corpora(), list(bank.entries("bank")), files(bank)) == before


def test_an_import_whose_sync_fails_says_so_and_is_not_taken_for_a_failure(
    faq: FaqSearch, source: FakeSource, table: Path
) -> None:
    """A failure means that nothing was saved; here all was, and the next rebuild will catch up."""
    faq.create_corpus("bank", encoder="other")
    del source.encoders["other"]
    report = faq.import_table(table, corpus="bank")
    assert (report.added, report.index_version) == (3, None)
    assert len(report.notes) == 1
    assert "no encoder 'other' on this machine" in report.notes[0]
    assert faq.counts("bank") == CorpusCounts(3, 3, 6)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_an_exported_corpus_imports_as_the_same_corpus(faq: FaqSearch, tmp_path: Path, suffix: str, lang: str) -> None:
    faq.create_corpus("one")
    drafts = [
        EntryDraft("普通问题？", '第一行\n第二行，“引号”"和"逗号,', ("相似一", "Similar, 二"), "001", "分类/一"),
        EntryDraft("带|竖线##的\n问题", "=1+1", ("a|b", "c##d", "e\nf", "=cmd()"), "=键", "@类"),
        EntryDraft("-5 度怎么办", "'=不是公式", ("+86 怎么拨", "'@谁", "''-x"), None, "", False),
        EntryDraft("有期限的", "- 列表\n- 列表", (), "1.0", "", True, datetime(2026, 1, 1), datetime(2026, 2, 1)),
        EntryDraft("期限二", "答", ("𠮷😀",), "K2", "", True, None, datetime(2026, 1, 31, 23, 59, 59)),
        EntryDraft("期限三", "#N/A", ("TRUE", "007", "1e5"), "2026-01-01", "00", True, datetime(2026, 1, 1, 9, 30, 5)),
    ]
    for draft in drafts:
        faq.add_entry("one", draft)
    out = tmp_path / f"出口.{suffix}"
    assert faq.export_table(out, corpus="one", lang=lang) == 6
    report = faq.import_table(out, corpus="two", sync=False)
    assert (report.added, report.errors, report.notes) == (6, (), ())
    one, two = ([content(entry) for entry in faq.entries(corpus)] for corpus in ("one", "two"))
    assert two == one
    assert one[1][2] == ("a|b", "c##d", "e\nf", "=cmd()")
    again = faq.import_table(out, corpus="one", mode="replace", sync=False)
    assert (again.unchanged, again.added, again.updated, again.removed) == (6, 0, 0, 0)


# --- corpora, entries, reports


@pytest.mark.parametrize("name", ["general", "open-domain", "金融", "faq_2", "2026", "x" * 64, "ελ"])
def test_a_corpus_may_have_this_name(faq: FaqSearch, name: str) -> None:
    assert faq.create_corpus(name).title == name
    faq.add_entry(name, EntryDraft("甲", "答"))
    faq.rebuild(name)
    assert faq.search("甲", corpus=name).hits[0].score == 1.0
    with pytest.raises(CorpusExistsError, match="exists already"):
        faq.create_corpus(name)
    assert faq.delete_corpus(name) == 1
    assert list(faq.settings.index_dir.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        "-x",
        "a b",
        "ABC",
        "ｆｕｌｌ",
        "x" * 65,
        "a\n",
        "a\0",
        "~",
        "问题?",
    ],
)
def test_a_corpus_may_not_have_this_name(faq: FaqSearch, table: Path, name: str) -> None:
    for make in (lambda: faq.create_corpus(name), lambda: faq.import_table(table, corpus=name)):
        with pytest.raises(StoreError, match="cannot name a corpus; expected up to 64 small letters"):
            make()
    assert faq.corpora() == []


def test_a_corpus_is_changed_within_its_limits(faq: FaqSearch) -> None:
    before = faq.create_corpus("c", title=" 标题 ", encoder="other")
    assert (before.title, before.encoder) == ("标题", "other")
    changed = faq.set_corpus("c", title="新", encoder="embedded", answer_threshold=0.7, suggest_threshold=-1)
    assert changed == replace(before, title="新", encoder="embedded", answer_threshold=0.7, suggest_threshold=-1)
    for wrong in (
        {"answer_threshold": 1.01},
        {"suggest_threshold": -1.01},
        {"suggest_threshold": 0.71},
        {"answer_threshold": float("nan")},
    ):
        with pytest.raises(StoreError, match="expected -1 ≤ suggest ≤ answer ≤ 1, got"):
            faq.set_corpus("c", **wrong)  # type: ignore[arg-type] # thresholds alone
    for title in ("  ", "题" * 201):
        with pytest.raises(StoreError, match="a title has 1 to 200 characters"):
            faq.set_corpus("c", title=title)
    with pytest.raises(EncoderError, match="no encoder 'nothing' on this machine"):
        faq.set_corpus("c", encoder="nothing", title="nie")
    with pytest.raises(CorpusNotFoundError, match="no corpus 'd'; there are c"):
        faq.set_corpus("d", title="x")
    assert faq.corpora() == [changed]


def test_an_entry_is_found_by_its_id_or_by_corpus_and_key(bank: FaqSearch) -> None:
    entry = bank.entry("bank/A2")
    assert bank.entry(entry.id) == bank.entry(f" {entry.id} ") == entry
    wrong: dict[int | str, str] = {
        99: "no entry 99",
        "bank/A9": "no entry with the key 'A9'",
        "A2": "expected its id, or CORPUS/KEY",
    }
    for ref, told in wrong.items():
        with pytest.raises(EntryNotFoundError, match=told):
            bank.entry(ref)


def test_a_hit_test_counts_by_rank_and_decision(faq: FaqSearch, encoder: FakeEncoder, write_table: WriteTable) -> None:
    faq.create_corpus("c")
    faq.set_corpus("c", answer_threshold=0.9, suggest_threshold=0.8)
    faq.add_entry("c", EntryDraft("提前还款", "答", ("提前结清",), key="A1"))
    faq.add_entry("c", EntryDraft("固定额度", "答", ("长期额度",)))  # two entries: what is not first is second
    cases = [  # query, expected, the question that it is nearest to, and how near
        ("对", "A1", "提前结清", 0.95),
        ("错", "A1", "固定额度", 0.94),
        ("荐", "固定额度", "长期额度", 0.85),
        ("荐错", "固定额度", "提前还款", 0.84),
        ("拒", "A1", "提前还款", 0.5),
        ("误答", "", "固定额度", 0.92),
        ("误荐", "", "固定额度", 0.82),
        ("无", "", "提前结清", 0.4),
    ]
    for query, _, near, cosine in cases:
        encoder.place(query, near, cosine)
    report = faq.hit_test(write_table(["query", "key"], *([query, key] for query, key, *_ in cases)), corpus="c")
    assert [(test.score, test.answerable, test.right) for test in report.scored] == [
        (0.95, True, True),
        (0.94, True, False),
        (0.85, True, True),
        (0.84, True, False),
        (0.5, True, True),
        (0.92, False, False),
        (0.82, False, False),
        (0.4, False, False),
    ]
    assert replace(report, scored=()) == HitTestReport(
        corpus="c",
        queries=8,
        answerable=5,
        accuracy_at_1=3 / 5,
        accuracy_at_5=1.0,
        mrr_at_10=(1 + 1 / 2 + 1 + 1 / 2 + 1) / 5,
        auc=11 / 15,  # pairs in the right order: 3 of .95, 3 of .94, 2 of .85, 2 of .84, 1 of .5
        answer_threshold=0.9,
        suggest_threshold=0.8,
        right=1,
        wrong=1,
        suggested=2,
        refused=1,
        false_answers=1,
        false_suggestions=1,
        true_nones=1,
        misses=(
            Miss(3, "错", "A1", 2, "answer", 0.94, "固定额度", "固定额度"),
            Miss(5, "荐错", "固定额度", 2, "suggest", 0.84, "A1", "提前还款"),
            Miss(6, "拒", "A1", 1, "none", 0.5, "A1", "提前还款"),
            Miss(7, "误答", None, None, "answer", 0.92, "固定额度", "固定额度"),
        ),
    )


def test_an_expected_entry_that_is_not_shown_is_a_miss_and_an_unknown_one_an_error(
    bank: FaqSearch, write_table: WriteTable
) -> None:
    bank.set_enabled(bank.entry("bank/A2").id, False)
    report = bank.hit_test(write_table(["query", "key"], ["临时额度", "A2"]), corpus="bank")
    assert (report.accuracy_at_1, report.misses[0].expected_rank, report.auc) == (0.0, None, None)
    table = write_table(["query", "key"], ["临时额度", "A2"], ["问", "A7"])
    with pytest.raises(TableError) as caught:
        bank.hit_test(table, corpus="bank")
    assert str(caught.value) == (f"{table}: corpus 'bank' has no entries 'A7' (line 3); expected keys of its entries")


def test_hit_tests_may_name_a_question_in_several_writings(bank: FaqSearch, write_table: WriteTable) -> None:
    rows = [["固定额度", "固定额度"], ["长期额度", "固定額度"], ["长期额度", "固定额度 "]]
    report = bank.hit_test(write_table(["query", "key"], *rows), corpus="bank")
    assert (report.answerable, report.accuracy_at_1) == (3, 1.0)


def test_a_batch_of_queries_becomes_a_table(bank: FaqSearch, encoder: FakeEncoder, tmp_path: Path) -> None:
    encoder.place("像一", "提前还款", 0.85)
    (tmp_path / "q.txt").write_text("提前结清\n\n像一\n别的\n", "utf-8")
    bank.set_corpus("bank", answer_threshold=0.9, suggest_threshold=0.8)
    counts = bank.search_file(tmp_path / "q.txt", tmp_path / "out.csv", corpus="bank")
    assert counts == {"answer": 1, "suggest": 1, "none": 1}
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    wanted = ("line", "query", "decision", "score", "key", "matched_question", "answer")
    assert [tuple(row[name] for name in wanted) for row in rows[:2]] == [
        ("1", "提前结清", "answer", "1.0000", "A1", "提前结清", "答一"),
        ("3", "像一", "suggest", "0.8500", "A1", "提前还款", "答一"),
    ]
    assert [(row["line"], row["query"], row["decision"]) for row in rows[2:]] == [("4", "别的", "none")]


def test_status_tells_what_is_there_and_what_is_wrong(bank: FaqSearch, write_table: WriteTable) -> None:
    bank.create_corpus("empty")
    bank.import_table(write_table(["q", "a"], ["甲", "答"], name="late.csv"), corpus="late", sync=False)
    bank.add_entry("bank", EntryDraft("新", "答", enabled=False))
    status = bank.status()
    assert (status.database, status.index_dir) == (str(bank.settings.database_path), str(bank.settings.index_dir))
    assert not status.ok
    first, second, third = status.corpora
    assert (first.name, first.counts, first.indexed, first.pending) == ("bank", CorpusCounts(4, 3, 7), 6, 1)
    assert (first.index_version, first.problems, first.encoder) == (version_folder(bank).name, (), "embedded")
    assert first.index_age_seconds is not None
    assert (second.name, second.counts, second.index_version) == ("empty", CorpusCounts(0, 0, 0), None)
    assert second.problems == ()
    assert (third.name, third.pending, third.index_age_seconds) == ("late", 1, None)
    assert third.problems == ("no index is current; run `faqsearch rebuild late`",)


def test_status_asks_for_encoders_where_searching_gets_them(faq: FaqSearch, source: FakeSource) -> None:
    faq.create_corpus("c", encoder="other")
    assert faq.status().ok
    del source.encoders["other"]
    assert faq.status().corpora[0].problems == ("no encoder 'other' on this machine; expected embedded",)


# --- end to end, with the real encoder


def test_the_finance_sample_answers_colloquial_questions(settings: Settings) -> None:
    with FaqSearch.open(settings) as faq:
        report = faq.import_table(ROOT / "data" / "finance.csv", corpus="finance")
        assert (report.created, report.rejected, report.updated, report.removed) == (True, 0, 0, 0)
        assert report.added >= 200
        assert faq.verify_index("finance").ok
        result = faq.search("輸錯密码卡被锁了咋办", corpus="finance")
        assert (result.hits[0].key, result.decision) == ("F213", "answer")
        assert result.index_version == report.index_version
        hit_test = faq.hit_test(ROOT / "data" / "hit_tests" / f"{SAMPLES['finance']}.csv", corpus="finance")
        assert hit_test.queries >= 150
        assert hit_test.accuracy_at_1 >= 0.6
        again = faq.import_table(ROOT / "data" / "finance.csv", corpus="finance")
        assert (again.unchanged, again.index_version) == (report.added, report.index_version)
        assert faq.status().ok


# --- kinds of indexes, and being ready


def test_another_kind_of_index_is_built_without_encoding_and_answers_alike(
    faq: FaqSearch, write_table: WriteTable, encoder: FakeEncoder
) -> None:
    rows = [[f"K{number}", f"第{number}个问题", "", f"答{number}"] for number in range(300)]
    faq.import_table(write_table(HEADER, *rows), corpus="bank")
    queries = [f"第{number}个问题呢" for number in range(0, 300, 7)]
    for number, query in zip(range(0, 300, 7), queries, strict=True):
        encoder.place(query, f"第{number}个问题", 0.9)
    exact = [result.hits[0].key for result in faq.search_many(queries, corpus="bank", k=3)]
    assert exact == [f"K{number}" for number in range(0, 300, 7)]
    assert faq.corpus("bank").index_kind == "auto"
    assert faq.set_corpus("bank", index_kind="ivf").index_kind == "ivf"
    encoder.encoded.clear()
    report = faq.rebuild("bank")
    assert (report.changed, report.full, report.encoded, encoder.encoded) == (True, False, 0, [])
    assert faq.index_versions("bank")[-1].factory == "IVF64,Flat"
    assert not faq.rebuild("bank").changed
    found = faq.search_many(queries, corpus="bank", k=3)
    assert [result.hits[0].key for result in found] == exact
    assert all(len(result.hits) == 3 for result in found)
    new = faq.add_entry("bank", EntryDraft("新的问题", "答"))
    assert faq.search("新的问题", corpus="bank").hits[0].entry_id == new.id
    faq.delete_entry(faq.entry("bank/K7").id)
    assert "K7" not in {hit.key for hit in faq.search(queries[1], corpus="bank", k=250).hits}
    assert (faq.rebuild("bank").encoded, faq.verify_index("bank").ok) == (1, True)
    faq.set_corpus("bank", index_kind="auto")
    assert faq.rebuild("bank").encoded == 0
    assert faq.index_versions("bank")[-1].factory == "IDMap2,Flat"


def test_a_search_that_its_lists_cannot_fill_ends(faq: FaqSearch, write_table: WriteTable) -> None:
    """Every question of the nearest lists is of one entry: asking for more must not go on for ever."""
    similar = "|".join(f"说法{number}" for number in range(120))
    faq.import_table(write_table(HEADER, ["A", "问", similar, "答"], ["B", "别的", "", "答"]), corpus="bank")
    faq.set_corpus("bank", index_kind="ivf")
    faq.rebuild("bank")
    assert faq.search("说法5", corpus="bank", k=5).hits[0].key == "A"


def test_no_such_kind_of_index_is_told(bank: FaqSearch) -> None:
    with pytest.raises(StoreError, match="index kind is 'hnsw'; expected one of auto, flat, ivf"):
        bank.set_corpus("bank", index_kind="hnsw")  # type: ignore[arg-type]


def test_warming_up_loads_what_a_search_needs_and_leaves_no_trace(
    bank: FaqSearch, source: FakeSource, table: Path
) -> None:
    with FaqSearch.open(bank.settings, encoders=source) as later:
        source.loads.clear()
        later.warm_up("bank")
        assert source.loads == ["embedded"]
        assert later.statistics("bank").queries == 0
        later.search("提前还款", corpus="bank")
        assert source.loads == ["embedded"]
        with pytest.raises(CorpusNotFoundError):
            later.warm_up("nowhere")
