"""FAQ tables as they are written and read back; rejected rows to mend; hit tests and queries."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from faqsearch import Entry, EntryDraft, Question
from faqsearch.errors import TableError
from faqsearch.model import HitTest, RowError
from faqsearch.tables import (
    FIELDS,
    check_draft,
    needs_numbered,
    open_table,
    read_hit_tests,
    read_queries,
    tidy_draft,
    write_entries,
    write_rejects,
    write_rows,
    write_template,
)

Write = Callable[..., Path]
NOW = datetime(2026, 1, 1)


def _drafts(path: Path) -> list[EntryDraft]:
    """Every entry of a table that has no bad row, without its line."""
    with open_table(path) as reader:
        return [replace(row, line=0) if isinstance(row, EntryDraft) else pytest.fail(repr(row)) for row in reader]


def _entry(draft: EntryDraft) -> Entry:
    questions = tuple(Question(number, text) for number, text in enumerate((draft.question, *draft.similar), start=1))
    period = (draft.valid_from, draft.valid_to)
    return Entry(1, "c", draft.key, questions, draft.answer, draft.category, draft.enabled, *period, NOW, NOW, 1)


# --- writing and reading back --------------------------------------------------------------------

AWKWARD = st.lists(
    st.one_of(
        st.sampled_from(
            [*"'=+-@\"#|,;\t\n，＝＂　🙂", "##", "''", "怎麼", "还款", "007", "1.0", "\u2028", "\ufeff", "_x0041_"]
        ),
        # An XML file cannot hold U+FFFE and U+FFFF.
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"),
    ),
    max_size=8,
).map("".join)
WHEN = st.none() | st.datetimes(datetime(1000, 1, 1)).map(lambda when: when.replace(microsecond=0))
DRAFTS = st.builds(
    EntryDraft,
    key=st.none() | AWKWARD,
    question=AWKWARD,
    similar=st.lists(AWKWARD, max_size=4).map(tuple),
    answer=AWKWARD,
    category=AWKWARD,
    enabled=st.booleans(),
    valid_from=WHEN,
    valid_to=WHEN,
).map(tidy_draft)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("written")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx"])
@hypothesis_settings(max_examples=60, deadline=None)
@given(drafts=st.lists(DRAFTS.filter(lambda draft: check_draft(draft) is None), min_size=1, max_size=4))
def test_what_is_written_is_read_back_and_nothing_in_it_runs(folder: Path, name: str, drafts: list[EntryDraft]) -> None:
    numbered = max((len(draft.similar) for draft in drafts if needs_numbered(draft.similar)), default=0)

    write_entries(folder / name, map(_entry, drafts), numbered=numbered, lang="en" if len(drafts) % 2 else "zh")

    assert _drafts(folder / name) == drafts
    if name.endswith("xlsx"):
        cells = [cell for row in openpyxl.load_workbook(folder / name).active.iter_rows() for cell in row if cell.value]
        assert {cell.data_type for cell in cells} == {"s"}
        written = [str(cell.value) for cell in cells]
    else:
        with (folder / name).open(encoding="utf-8-sig", newline="") as handle:
            written = [cell for row in csv.reader(handle, delimiter="\t" if "tsv" in name else ",") for cell in row]
    assert [cell for cell in written if cell.startswith(("=", "+", "-", "@"))] == []


@hypothesis_settings(deadline=None)
@given(text=AWKWARD.map(str.strip), quotes=st.integers(0, 3), sign=st.sampled_from("=+-@"))
def test_escaping_a_formula_loses_nothing(text: str, quotes: int, sign: str) -> None:
    formula = ("'" * quotes + sign + text).strip()
    draft = tidy_draft(EntryDraft(formula, formula, (f"{formula}1",), formula, formula))
    assume(check_draft(draft) is None and not needs_numbered(draft.similar))
    stream = io.StringIO()

    write_entries(stream, [_entry(draft)])

    stream.seek(0)
    cells = list(csv.reader(stream))[1]
    assert cells[:5] == [f"'{text}" for text in (formula, formula, f"{formula}1", formula, formula)]


@pytest.mark.parametrize("when", [datetime(1, 1, 1), datetime(999, 2, 3, 4, 5, 6), datetime(9999, 12, 31, 23, 59, 59)])
def test_the_first_and_the_last_dates_survive(tmp_path: Path, when: datetime) -> None:
    draft = EntryDraft("q", "a", valid_from=when, valid_to=when)

    write_entries(tmp_path / "t.csv", [_entry(draft)])

    assert _drafts(tmp_path / "t.csv") == [draft]


def test_the_longest_answer_survives_a_worksheet_or_is_refused(tmp_path: Path) -> None:
    draft = EntryDraft("q", "好" * 50_000)  # a worksheet's cell ends at 32,767 characters
    try:
        write_entries(tmp_path / "t.xlsx", [_entry(draft)])
    except TableError as exc:
        assert str(exc).startswith(f"{tmp_path / 't.xlsx'} ")
    else:
        assert _drafts(tmp_path / "t.xlsx") == [draft]


def test_too_few_numbered_columns_are_an_error_not_a_loss() -> None:
    with pytest.raises(TableError, match="^the corpus changed while it was written; export it again$"):
        write_entries(io.StringIO(), [_entry(EntryDraft("q", "a", ("s", "t|u")))], numbered=1)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx"])
@pytest.mark.parametrize(
    ("lang", "questions"),
    [
        ("zh", ["怎么修改登录密码？", "双十二活动什么时候开始？"]),
        ("en", ["How do I change my password?", "When does the winter sale start?"]),
    ],
)
def test_the_template_is_a_table_without_an_error(tmp_path: Path, name: str, lang: str, questions: list[str]) -> None:
    write_template(tmp_path / name, lang)

    drafts = _drafts(tmp_path / name)
    assert [draft.question for draft in drafts] == questions
    assert [(draft.key, draft.enabled, len(draft.similar)) for draft in drafts] == [
        ("A001", True, 2),
        ("A002", True, 1),
    ]
    assert drafts[1].valid_to == datetime(2026, 12, 12, 23, 59, 59)
    with open_table(tmp_path / name) as reader:
        assert reader.fields == set(FIELDS)
        assert reader.info.notes == ()


# --- rejected rows -------------------------------------------------------------------------------

DAMAGED = (
    "编号,标准问,扩展问,回复,状态\r\n"
    "K1,q1,,a,\r\n"
    "K2, ,s,a,\r\n"
    'K3,q3,,"\n\n",\r\n'
    "K4,q4,,a,也许\r\n"
    "K5,q5,,a,,,，,more\r\n"
    'K6,"q6" x,,a,\r\n'
    "K7,问\0题,,a,\r\n"
    "K8,q8,,打\udcff开\x07,\r\n"
)


@pytest.mark.parametrize("name", ["rejects.csv", "rejects.xlsx"])
def test_rejected_rows_can_be_mended_and_imported(tmp_path: Path, name: str) -> None:
    (tmp_path / "damaged.csv").write_bytes(DAMAGED.encode("utf-8", "surrogateescape"))
    path = tmp_path / name
    with open_table(tmp_path / "damaged.csv") as reader:
        errors = [row for row in reader if isinstance(row, RowError)]
        write_rejects(path, reader, errors)

    if name.endswith("xlsx"):
        sheet = openpyxl.load_workbook(path).active
        header, *rows = [[str(cell or "") for cell in cells] for cells in sheet.iter_rows(values_only=True)]
    else:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header, *rows = csv.reader(handle)
    assert header[:8] == ["line", "column", "reason", "编号", "标准问", "扩展问", "回复", "状态"]
    assert [row[:3] for row in rows] == [[str(error.line), error.column, error.reason] for error in errors]
    assert [row[0] for row in rows] == ["3", "4", "7", "8", "9", "10", "11"]
    assert rows[0][3:8] == ["K2", " ", "s", "a", ""]
    assert rows[1][3:8] == ["K3", "q3", "", "\n\n", ""]
    assert rows[3][3:] == ["K5", "q5", "", "a", "", "", "，", "more"]
    assert rows[4][3] == 'K6,"q6" x,,a,'
    assert rows[5][4] == "问\\x00题"
    assert rows[6][6].startswith("打\\xff开")

    mended = [row[:8] for row in (*rows[:3], *rows[5:])]
    mended[0][4], mended[1][6], mended[2][7], mended[3][4], mended[4][6] = "q2", "a", "停用", "问题", "打开"
    write_rows(path, [header[:8], *mended])
    assert _drafts(path) == [
        EntryDraft("q2", "a", ("s",), "K2"),
        EntryDraft("q3", "a", (), "K3"),
        EntryDraft("q4", "a", (), "K4", enabled=False),
        EntryDraft("问题", "a", (), "K7"),
        EntryDraft("q8", "打开", (), "K8"),
    ]


def test_raw_cells_of_a_rejected_row_come_back_as_they_were(write_table: Write, tmp_path: Path) -> None:
    cells = ["=1+1", "", " a|'=b ##", "-x\r\n\r", "'+c", "@d", "e\rf"]
    with open_table(write_table(["编号", "问题", "相似问", "答案", "分类", "x", "y"], cells)) as reader:
        write_rejects(tmp_path / "r.csv", reader, [row for row in reader if isinstance(row, RowError)])

    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as handle:
        _, row = csv.reader(handle)
    assert row[3:] == ["'=1+1", "", " a|'=b ##", "'-x\r\n\r", "'+c", "'@d", "e\rf"]


# --- hit tests and queries -----------------------------------------------------------------------


@pytest.mark.parametrize("header", ["query,key", "Query,Expected", "用户问,期望", "问题,编号", "question,id"])
def test_hit_tests_are_read(tmp_path: Path, header: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'{header},note\n"怎么\n还款", K1 ,x\n\n天气,,\n,,\n=1,2\n', encoding="gb18030")

    assert read_hit_tests(path) == [HitTest(2, "怎么\n还款", "K1"), HitTest(5, "天气", None), HitTest(7, "=1", "2")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b",K1", "no query"),
        (b"a\0,K1", "a NUL byte"),
        (b"a\xff,K1", "byte 0xff is no text in the file's encoding"),
        (b'"a" b,K1', 'a quotation mark inside a quoted cell; write it twice ("")'),
        ("还款,还是不还,K1".encode(), "3 cells where the header has 2"),  # the key would be lost in silence
    ],
)
def test_a_bad_hit_test_is_told_by_its_line(tmp_path: Path, row: bytes, told: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("query,key\n怎么还款,K1\n".encode() + row + "\n忘记密码,K2\n".encode())

    with pytest.raises(TableError) as caught:
        read_hit_tests(path)
    assert str(caught.value).startswith(f"{path}, line 3: {told}")


def test_files_without_hit_tests_are_refused(write_table: Write) -> None:
    for rows, told in (
        (
            [["query", "answer"], ["q", "a"]],
            "has the columns 'query', 'answer'; expected hit tests with `query` and `key`",
        ),
        ([["query", "key"]], "holds no hit tests"),
    ):
        with pytest.raises(TableError) as caught:
            read_hit_tests(path := write_table(*rows))
        assert str(caught.value).startswith(f"{path} {told}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_queries_are_read_one_a_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes('怎么还款,"今天"？\r\n\r\n　忘记密码 \n=1+1'.encode(encoding))

    assert read_queries(path) == [(1, '怎么还款,"今天"？'), (3, "忘记密码"), (4, "=1+1")]


def test_a_bad_file_of_queries_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("怎么还款\n".encode() * 3_000 + b"a\xffb\n" + "忘记密码\n".encode())
    with pytest.raises(TableError, match="line 3001"):
        read_queries(path)

    path.write_bytes(b"\xef\xbb\xbf\n \n")
    with pytest.raises(TableError) as caught:
        read_queries(path)
    assert str(caught.value) == f"{path} holds no queries; expected one a line"
