"""FAQ tables: columns, cells, rejected rows, dates, and what is written back."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest

from faqsearch import EntryDraft
from faqsearch.errors import TableError
from faqsearch.model import RowError
from faqsearch.tables import (
    open_table,
    parse_when,
)

Write = Callable[..., Path]
NOW = datetime(2026, 1, 1)


def _drafts(path: Path, **options: Sequence[str]) -> list[EntryDraft]:
    """Every entry of a table that has no bad row, without its line."""
    mapping = {name: columns for name, columns in options.items() if columns}
    with open_table(path, mapping=mapping) as reader:
        return [replace(row, line=0) if isinstance(row, EntryDraft) else pytest.fail(repr(row)) for row in reader]


def _rows(path: Path) -> list[EntryDraft | RowError]:
    with open_table(path) as reader:
        return list(reader)


def _fails(path: Path, mapping: dict[str, Sequence[str]] | None = None) -> str:
    with pytest.raises(TableError) as caught:
        open_table(path, mapping=mapping)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- columns -------------------------------------------------------------------------------------

ALIASES = {
    "key": "id qid key 编号",
    "question": "question q title 问题 标准问 标准问法",
    "similar": "similar questions aliases indexes 相似问 相似问法 扩展问",
    "answer": "answer a 答案 回答 回复",
    "category": "category topic type 分类 类型 类目",
    "enabled": "enabled status 状态 启用",
    "valid_from": "valid_from 生效时间",
    "valid_to": "valid_to 失效时间",
}
CELLS = {
    "key": "K1",
    "question": "怎么还款",
    "similar": "如何还钱",
    "answer": "打开页面",
    "category": "还款",
    "enabled": "停用",
    "valid_from": "2026-01-01",
    "valid_to": "2026-01-31",
}
DRAFT = EntryDraft(
    key="K1",
    question="怎么还款",
    similar=("如何还钱",),
    answer="打开页面",
    category="还款",
    enabled=False,
    valid_from=datetime(2026, 1, 1),
    valid_to=datetime(2026, 1, 31, 23, 59, 59),
)


@pytest.mark.parametrize(("field", "alias"), [(field, alias) for field in ALIASES for alias in ALIASES[field].split()])
def test_every_alias_names_its_column_in_any_order(write_table: Write, field: str, alias: str) -> None:
    header = {name: (alias if name == field else aliases.split()[-1]) for name, aliases in ALIASES.items()}
    for names in (list(ALIASES), list(ALIASES)[::-1]):
        path = write_table([header[name] for name in names], [CELLS[name] for name in names])

        with open_table(path) as reader:
            assert reader.info.columns == {name: (title,) for name, title in header.items()}
            assert reader.info.notes == ()
            assert reader.fields == set(ALIASES)
            assert list(reader) == [replace(DRAFT, line=2)]


@pytest.mark.parametrize("header", [" QUESTION ", "Question*", "ＱＵＥＳＴＩＯＮ", "标准 问", "问\n题"])
def test_headers_are_compared_without_case_width_white_space_and_marks(write_table: Write, header: str) -> None:
    assert _drafts(write_table([header, "答案", "Valid From"], ["q", "a", ""])) == [EntryDraft("q", "a")]


def test_numbered_columns_count_by_their_number_and_hold_one_phrasing_each(write_table: Write) -> None:
    path = write_table(
        ["相似问10", "question", "相似问", "question 2", "相似问_1", "answer"],
        ["j", "q", "m|n", "b ## b|c", "a", "好"],
        ["", "q2", "", "", "", "好"],
    )

    assert _drafts(path) == [EntryDraft("q", "好", ("m", "n", "a", "b ## b|c", "j")), EntryDraft("q2", "好")]


@pytest.mark.parametrize("header", [["question1", "question2", "similar1"], ["similar1", "question2", "question1"]])
def test_without_a_question_column_the_first_numbered_question_is_it(write_table: Write, header: list[str]) -> None:
    path = write_table([*header, "answer"], [*header, "a"])

    with open_table(path) as reader:
        assert reader.info.notes == ("column 'question1' is taken for the primary question",)
        (row,) = reader
    assert isinstance(row, EntryDraft)
    assert (row.question, sorted(row.similar)) == ("question1", ["question2", "similar1"])


def test_columns_that_are_not_used_are_noted(write_table: Write) -> None:
    path = write_table(["备注", "问题", "title", "答案", "问题", "", ""], ["n", "q", "t", "a", "q2"])

    with open_table(path) as reader:
        # `title` comes before 问题 among the names of a question column.
        assert reader.info.columns == {"question": ("title",), "answer": ("答案",)}
        assert reader.info.notes == ("columns not used: 备注, 问题, 问题",)
        assert list(reader) == [EntryDraft("t", "a", line=2)]


def test_a_mapping_wins_over_the_aliases(write_table: Write) -> None:
    path = write_table(
        ["question", "用户怎么说", "答案", "说法一", "说法 二", "相似问"],
        ["internal", "q", "a", "s1|s2", "s3", "not this"],
    )
    mapping = {"question": ["用户怎么说"], "similar": ["说法一", "说法二"]}

    with open_table(path, mapping=mapping) as reader:
        assert reader.info.columns == {
            "question": ("用户怎么说",),
            "similar": ("说法一", "说法 二"),
            "answer": ("答案",),
        }
        assert reader.info.notes == ("columns not used: question, 相似问",)
    assert _drafts(path, **mapping) == [EntryDraft("q", "a", ("s1", "s2", "s3"))]


def test_a_mapping_that_fits_nothing_is_refused(write_table: Write) -> None:
    path = write_table(["问题", "答案"], ["q", "a"])

    assert _fails(path, {"answer": ["回应"]}) == f"{path} has no column '回应' for answer; it has '问题', '答案'"
    assert _fails(path, {"reply": ["答案"]}) == (
        "unknown field 'reply' in the column mapping; known are"
        " key, question, similar, answer, category, enabled, valid_from, valid_to"
    )


def test_a_mapped_header_decides_between_delimiters(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("说法;回应,或答复\nq,1;a\n", encoding="utf-8")

    assert _drafts(path, question=["说法"], answer=["回应,或答复"]) == [EntryDraft("q,1", "a")]


def test_a_table_without_its_columns_says_what_it_has_and_what_is_expected(write_table: Write) -> None:
    path = write_table(["题目", "", "答案"], ["q", "", "a"])
    assert _fails(path) == (
        f"{path} has no question column: it has '题目', '答案'; expected one of"
        " question, q, title, 问题, 标准问, 标准问法, or name it with --map question=COLUMN"
    )
    path = write_table(["id", "question"], ["1", "q"])
    assert _fails(path) == (
        f"{path} has no answer column: it has 'id', 'question'; expected one of"
        " answer, a, 答案, 回答, 回复, or name it with --map answer=COLUMN"
    )


def test_a_table_with_a_header_only_is_refused(write_table: Write) -> None:
    for path in (write_table(["问题", "答案"]), write_table(["问题", "答案"], ["", ""], [], name="blank.csv")):
        assert _fails(path) == f"{path} holds a header but no rows"


# --- cells ---------------------------------------------------------------------------------------


def test_similar_questions_are_split_tidied_and_never_repeated(write_table: Write) -> None:
    cells = " 如何还钱 ## 怎么 还钱|\r\n\n怎么还款？|还钱#1|如何还钱\r最后"

    assert _drafts(write_table(["问题", "相似问", "答案"], ["怎么还款?", cells, "a"])) == [
        EntryDraft("怎么还款?", "a", ("如何还钱", "怎么 还钱", "还钱#1", "最后")),
    ]


def test_text_is_kept_exactly_but_for_outer_white_space_and_line_ends(write_table: Write) -> None:
    answer = '　1. 说"好",\r\n\r\n2. 见 [链接](https://a.b/?c=1|2)；\t"引号"'

    assert _drafts(write_table(["q", "a"], [" ＡＰＰ怎麼  登錄 ", answer + "\n "])) == [
        EntryDraft("ＡＰＰ怎麼  登錄", '1. 说"好",\n\n2. 见 [链接](https://a.b/?c=1|2)；\t"引号"'),
    ]


@pytest.mark.parametrize(
    ("words", "enabled"),
    [
        ("1 true TRUE Yes y on 启用 是 有效 １", True),
        ("0 false FALSE No n off 停用 禁用 否 無效 ０", False),
    ],
)
def test_an_entry_is_switched_by_the_usual_words(write_table: Write, words: str, enabled: bool) -> None:
    path = write_table(["q", "a", "状态"], *(["q", "a", word] for word in words.split()))

    assert [draft.enabled for draft in _drafts(path)] == [enabled] * len(words.split())


def test_an_empty_switch_is_on(write_table: Write) -> None:
    assert _drafts(write_table(["q", "a", "状态"], ["q", "a", " "])) == [EntryDraft("q", "a", enabled=True)]


def test_a_worksheet_gives_the_same_entries(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["编号", "问题", "相似问", "答案", "启用", "生效时间", "失效时间", None, None])
    book.active.append([1001, "怎么还款", "a\nb", "一\n二", True, datetime(2026, 1, 1), datetime(2026, 1, 31)])
    book.active.append([])
    book.active.append([1002.0, 12306, None, 3.5, 0, "2026年2月1日", datetime(2026, 2, 3, 18, 30)])
    book.save(tmp_path / "t.xlsx")

    assert _rows(tmp_path / "t.xlsx") == [
        EntryDraft("怎么还款", "一\n二", ("a", "b"), "1001", "", True, NOW, datetime(2026, 1, 31, 23, 59, 59), 2),
        EntryDraft("12306", "3.5", (), "1002", "", False, datetime(2026, 2, 1), datetime(2026, 2, 3, 18, 30), 4),
    ]


def test_entries_come_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("问题,答案\n" + "".join(f"问题{n},{'好' * 100}\n" for n in range(20_000)), encoding="utf-8")

    tracemalloc.start()
    try:
        with open_table(path) as reader:
            rows = iter(reader)
            first = [next(rows) for _ in range(100)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert first == [EntryDraft(f"问题{n}", "好" * 100, line=n + 2) for n in range(100)]
    assert peak < 4_000_000


# --- rejected rows -------------------------------------------------------------------------------

DAMAGED = (
    "编号,标准问,扩展问,回复,状态,失效时间,备注\r\n"
    "K1,好,,好,,,\r\n"
    "K2, ,s,a,,,\r\n"
    'K3,q3,,"\n\n",,,\r\n'
    "K4,q4,,a,也许,,\r\n"
    "K5,q5,,a,,2026-02-30,\r\n"
    "K6,q6,,a,,,,\r\n"
    "K7,q7,,a,,,,，,more\r\n"
    'K8,"q8" x,,a,,,\r\n'
    "K9,q9\0,,a,,,\r\n"
    "K10,q10,,=a\x07,,,\r\n"
    "K11,q11,,打\udcff,,,\r\n"
    "K12\udcff,q\udcfe12,,a,,,\r\n"
    ",\r\n"
    "\r\n"
    'K13,q13,"s\n1",a,1,2026-01-31,\r\n'
    'K14,"q14,,a,,,\r\n'
    "K15,q15\r\n"
)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.csv"
    path.write_bytes(DAMAGED.encode("utf-8", "surrogateescape"))
    return path


def test_every_bad_row_is_told_by_line_column_and_reason_and_the_others_are_read(damaged: Path) -> None:
    no_date = "'2026-02-30' is no date; expected e.g. 2026-01-31 or 2026-01-31 18:00"
    neither = "'也许' is neither on nor off; expected e.g. 1 or 0, yes or no, 启用 or 停用"
    end = datetime(2026, 1, 31, 23, 59, 59)

    rows = _rows(damaged)

    assert [row for row in rows if isinstance(row, EntryDraft)] == [
        EntryDraft("好", "好", key="K1", line=2),
        EntryDraft("q6", "a", key="K6", line=9),  # one empty cell too many is no loss
        EntryDraft("q13", "a", ("s", "1"), "K13", valid_to=end, line=18),
    ]
    errors = [row for row in rows if isinstance(row, RowError)]
    assert [(error.line, error.column, error.reason) for error in errors] == [
        (3, "标准问", "no question"),
        (4, "回复", "no answer"),
        (7, "状态", neither),
        (8, "失效时间", no_date),
        (10, "", "9 cells where the header has 7; the first one too many is '，'"),
        (11, "", 'a quotation mark inside a quoted cell; write it twice ("")'),
        (12, "标准问", "a NUL byte"),
        (13, "回复", "control character U+0007"),
        (14, "回复", "byte 0xff is no text in the file's encoding"),
        (15, "编号", "byte 0xff is no text in the file's encoding"),
        (20, "", "a quotation mark is opened and never closed"),
        (21, "回复", "no answer"),
    ]
    assert [(error.key, error.question) for error in errors if error.line in (3, 4, 10, 21)] == [
        *(("K2", None), ("K3", "q3"), ("K7", "q7"), ("K15", "q15")),
    ]


def test_what_a_rejected_row_says_of_itself_can_be_printed_and_stored(damaged: Path) -> None:
    for row in _rows(damaged):
        if isinstance(row, RowError):
            said = (row.column, row.reason, row.key or "", row.question or "")
            assert "\n" not in row.reason
            assert json.dumps(said, ensure_ascii=False).encode().decode() == json.dumps(said, ensure_ascii=False)


@pytest.mark.parametrize(
    ("column", "limit"),
    [("问题", 1_000), ("相似问", 1_000), ("相似问1", 1_000), ("答案", 50_000), ("编号", 200), ("分类", 200)],
)
def test_a_cell_may_have_its_limit_of_characters_and_not_one_more(write_table: Write, column: str, limit: int) -> None:
    cells = {"编号": "k", "问题": "q", "相似问": "s", "相似问1": "t", "答案": "a", "分类": "c"}
    rows = [list((cells | {column: "😀" * length}).values()) for length in (limit, limit + 1)]
    header = "相似问" if column == "相似问1" else column  # the field's first column stands for it

    fits, error = _rows(write_table(list(cells), *rows))

    assert isinstance(fits, EntryDraft)
    assert isinstance(error, RowError)
    reason = f"{limit + 1:,} characters; at most {limit:,} are allowed"
    assert (error.line, error.column, error.reason) == (3, header, reason)


def test_a_period_that_ends_before_it_starts_is_rejected(write_table: Write) -> None:
    path = write_table(["q", "a", "valid_from", "valid_to"], ["q", "a", "2026-01-02", "2026-01-01"])

    reason = "2026-01-01 23:59 lies before the start, 2026-01-02 00:00"
    assert _rows(path) == [RowError(2, "valid_to", reason, None, "q")]


# --- dates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-01-31", datetime(2026, 1, 31)),
        ("2026-1-5", datetime(2026, 1, 5)),
        ("2026/1/31", datetime(2026, 1, 31)),
        ("2026.01.31", datetime(2026, 1, 31)),
        ("2026年1月31日", datetime(2026, 1, 31)),
        ("20260131", datetime(2026, 1, 31)),
        ("２０２６－０１－３１　１８：００", datetime(2026, 1, 31, 18)),
        (" 2026-01-31   9:05 ", datetime(2026, 1, 31, 9, 5)),
        ("2026/01/31 18:00:07", datetime(2026, 1, 31, 18, 0, 7)),
        ("2026年1月31日 18:00", datetime(2026, 1, 31, 18)),
        ("20260131 18:00:07", datetime(2026, 1, 31, 18, 0, 7)),
        ("2026-01-31T18:00:07.25", datetime(2026, 1, 31, 18, 0, 7)),
        ("2026-01-31T18:00:07+08:00", datetime(2026, 1, 31, 15, 30, 7)),
        ("2026-01-31 10:00Z", datetime(2026, 1, 31, 15, 30)),
    ],
)
def test_dates_are_read_as_editors_write_them(monkeypatch: pytest.MonkeyPatch, text: str, when: datetime) -> None:
    monkeypatch.setenv("TZ", "IST-5:30")  # local time half an hour off: an offset that is mixed up shows
    time.tzset()
    try:
        assert parse_when(text) == when
        end = when if ":" in text or "：" in text else when.replace(hour=23, minute=59, second=59)
        assert parse_when(text, end=True) == end
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        *("2026-02-30", "2026-13-01", "31/01/2026", "明天", "46053", "2026", "2026-01-31 25:00", "26-1-31", "-"),
        *("202611", "2026111"),  # the month could end after one digit or two
        *("2026-01-31-05:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00+14:00"),
    ],
)
def test_what_is_no_single_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r" is no date; expected e\.g\. 2026-01-31 or 2026-01-31 18:00$"):
        parse_when(text)
