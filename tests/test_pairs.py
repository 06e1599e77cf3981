"""Files of labelled pairs: every format that is in use, and every broken line told by its number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from faqsearch.errors import TableError
from faqsearch.pairs import Pairs, read_pairs

ROWS = [("怎么提前还款", "想早点还贷款", "1"), ("怎么提前还款", "额度不够用", "0"), ("换 SIM 卡", "补办手机卡", "1")]
READ = Pairs(
    "set", ("怎么提前还款", "怎么提前还款", "换 SIM 卡"), ("想早点还贷款", "额度不够用", "补办手机卡"), (1, 0, 1)
)
HEADER = "sentence1\tsentence2\tlabel\n"

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of pairs; its name says nothing of its format."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "set.data"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def joined(separator: str, *rows: tuple[str, ...]) -> str:
    return "".join(separator.join(row) + "\n" for row in rows)


def problem(path: Path) -> str:
    with pytest.raises(TableError) as caught:
        read_pairs(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.replace(str(path), "FILE")


# --- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize(
    "header",
    [
        ("sentence1", "sentence2", "label"),
        ("sentence1", "sentence2", "score"),
        ("text1", "text2", "similarity"),
        ("question1", "question2", "label"),
        (" Sentence1", "SENTENCE2 ", "Label"),
        None,
    ],
)
def test_columns_are_found_by_each_of_their_names_or_by_their_place(
    write: Write, separator: str, header: tuple[str, ...] | None
) -> None:
    assert read_pairs(write(joined(separator, *([header] if header else []), *ROWS))) == READ


@pytest.mark.parametrize("separator", ["\t", ","])
def test_columns_stand_in_any_order_among_others(write: Write, separator: str) -> None:
    rows = [("label", "id", "sentence2", "来源", "sentence1")]
    rows += [(label, "7", right, "", left) for left, right, label in ROWS]
    assert read_pairs(write(joined(separator, *rows))) == READ


def json_lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize("names", [("sentence1", "sentence2", "label"), ("text1", "text2", "score")])
@pytest.mark.parametrize("number", [int, float, str])
def test_json_lines_hold_labels_as_numbers_or_text(write: Write, names: tuple[str, ...], number: Any) -> None:
    rows = [{"id": 7, **dict(zip(names, (left, right, number(label)), strict=True))} for left, right, label in ROWS]
    assert read_pairs(write(json_lines(*rows))) == READ


@pytest.mark.parametrize("header", [("score", "sentence1", "备注", "sentence2"), None])
def test_a_worksheet_is_read(tmp_path: Path, header: tuple[str, ...] | None) -> None:
    book = openpyxl.Workbook()
    if header:
        book.active.append(header)
    for left, right, label in ROWS:
        book.active.append((int(label), left, None, right) if header else (left, right, float(label)))
    book.save(tmp_path / "set.xlsx")
    assert read_pairs(tmp_path / "set.xlsx") == READ


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_encoding_and_line_ends_make_no_difference(write: Write, encoding: str, newline: str, kind: str) -> None:
    header = ("sentence1", "sentence2", "label")
    text = {
        "tsv": joined("\t", header, *ROWS),
        "csv": joined(",", header, *ROWS),
        "jsonl": json_lines(*(dict(zip(header, row, strict=True)) for row in ROWS)),
    }[kind]
    assert read_pairs(write(text.replace("\n", newline).encode(encoding))) == READ


def test_blank_lines_and_space_around_cells_do_not_count(write: Write) -> None:
    pairs = read_pairs(write("\n" + HEADER + "\n 问一 \t问二　\t 1 \n\t\n  \n问三\t问四\t0"))
    assert (pairs.left, pairs.right, pairs.labels) == (("问一", "问三"), ("问二", "问四"), (1, 0))


def test_quotation_marks_within_tsv_cells_are_text(write: Write) -> None:
    rows = [('"花呗"怎么开', '什么是"花呗', "1"), ('"', '5" 的屏幕', "0"), ('"a" 和 "b"', "一，二", "0")]
    pairs = read_pairs(write(HEADER + joined("\t", *rows)))
    assert list(zip(pairs.left, pairs.right, strict=True)) == [(left, right) for left, right, _ in rows]


def test_cells_that_a_spreadsheet_quoted_are_unquoted(write: Write) -> None:
    pairs = read_pairs(write('"sentence1"\t"sentence2"\t"label"\n"他说""好"""\t"一, 二"\t"1"\n'))
    assert (pairs.left, pairs.right, pairs.labels) == (('他说"好"',), ("一, 二",), (1,))


def test_quoted_csv_cells_hold_commas_quotes_and_line_breaks(write: Write) -> None:
    text = 'sentence1,sentence2,label\n"好, 行","他说""好""",1\n"第一行\n第二行",问,0\n'
    pairs = read_pairs(write(text))
    assert (pairs.left, pairs.right) == (("好, 行", "第一行\n第二行"), ('他说"好"', "问"))


def test_labels_are_yes_and_no_or_grades(write: Write) -> None:
    graded = read_pairs(write(joined("\t", ("一", "二", "4.5"), ("三", "四", "-1"), ("五", "六", "1e0"))))
    assert graded.labels == (4.5, -1, 1)
    assert not graded.binary
    binary = read_pairs(write(joined("\t", ("一", "二", "1.0"), ("三", "四", "0"))))
    assert binary.labels == (1, 0)
    assert binary.binary


def test_a_set_is_called_as_its_file_or_as_is_said(write: Write) -> None:
    path = write(joined("\t", *ROWS))
    assert read_pairs(path).name == "set"
    assert read_pairs(str(path), "另一个").name == "另一个"
    assert len(read_pairs(path)) == 3


# --- broken files --------------------------------------------------------------------------------

GOOD = "问\t答\t1\n"
CURE = "; mend or remove what is broken"


def test_every_broken_line_is_told_by_its_number(write: Write) -> None:
    lines = [
        "只有一格",  # 2
        "问\t答",
        "\t答\t1",
        "问\t　 \t1",
        "",  # blank lines count, too
        "问\t答\tyes",  # 7
        "问\t答\t",
        "问\t答\tnan",
        GOOD.strip(),
        "问\t答\t-inf",  # 11
    ]
    assert problem(write(HEADER + "\n".join(lines))) == (
        "FILE: line 2: 1 cells, expected 3; line 3: 2 cells, expected 3; line 4: sentence1 is empty;"
        " line 5: sentence2 is empty; line 7: the label is 'yes', expected a number;"
        " line 8: the label is '', expected a number; line 9: the label is 'nan', expected a number;"
        f" line 11: the label is '-inf', expected a number{CURE}"
    )


def test_broken_csv_is_told_by_line(write: Write) -> None:
    text = 'sentence1,sentence2,label\n"第一行\n第二行",答,1\n问,答\n问,"答"x,1\n问,答,高\n"问,答,1\n'
    assert problem(write(text)) == (
        "FILE: line 4: 2 cells, expected 3;"
        ' line 5: a quotation mark inside a quoted cell; write it twice ("");'
        " line 6: the label is '高', expected a number;"
        f" line 7: a quotation mark is opened and never closed{CURE}"
    )


def test_a_broken_worksheet_is_told_by_row(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (("sentence1", "sentence2", "label"), ("问", "答", 1), ("问", None, 1), (), ("问", "答", "好")):
        book.active.append(row)
    book.save(tmp_path / "x.xlsx")
    assert problem(tmp_path / "x.xlsx") == (
        f"FILE: line 3: sentence2 is empty; line 5: the label is '好', expected a number{CURE}"
    )


def test_broken_json_lines_are_told_by_line(write: Write) -> None:
    lines = [
        '{"sentence1": "问", "sentence2": "答", "label": 1}',
        '{"sentence1": "问", "sentence2": "答", ',
        '["问", "答", 1]',
        '{"sentence1": "问"}',
        '{"sentence1": "问", "sentence2": "答", "label": null}',
        '{"sentence1": 1, "sentence2": "答", "label": 1}',
        '{"sentence1": "", "sentence2": "答", "label": 1}',
        '{"sentence1": "问", "sentence2": "答", "label": NaN}',
        '{"sentence1": "问", "sentence2": "答", "label": [1]}',
    ]
    assert problem(write("\n".join(lines))) == (
        "FILE: line 2: no valid JSON; line 3: no JSON object; line 4: no sentence2 and no label; line 5: no label;"
        " line 6: sentence1 or sentence2 is no text; line 7: sentence1 is empty;"
        f" line 8: the label is 'nan', expected a number; line 9: the label is '[1]', expected a number{CURE}"
    )


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl"])
def test_bytes_that_are_no_text_are_told_by_line(write: Write, kind: str) -> None:
    bad = "坏".encode()[:2]
    rows = [(f"问题{number}".encode(), "回答".encode()) for number in range(5)]
    rows[2] = (b"a" + bad, "回答".encode())
    rows[4] = ("问".encode(), bad + b"b")
    if kind == "jsonl":
        lines = [b'{"sentence1": "%s", "sentence2": "%s", "label": 1}' % row for row in rows]
    else:
        separator = b"\t" if kind == "tsv" else b","
        lines = [separator.join((*row, b"1")) for row in rows]
    assert problem(write(b"\n".join(lines))) == (
        f"FILE: line 3: sentence1 holds bytes that are no text; line 5: sentence2 holds bytes that are no text{CURE}"
    )


def test_utf_16_that_breaks_off_is_one_clear_line(write: Write) -> None:
    """Half a character at its end; the decoder cannot pass over it as that of UTF-8 does."""
    assert "utf-16" in problem(write(joined("\t", *ROWS).encode("utf-16")[:-1]))


def test_more_than_ten_broken_lines_are_counted(write: Write) -> None:
    told = "; ".join(f"line {number}: 1 cells, expected 3" for number in range(2, 12))
    assert problem(write(HEADER + "x\n" * 10 + GOOD)) == f"FILE: {told}{CURE}"
    assert problem(write(HEADER + "x\n" * 13 + GOOD)) == f"FILE: {told}; and 3 more{CURE}"


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_an_empty_file_is_told(write: Write, content: str) -> None:
    assert problem(write(content)) == ("FILE is empty; expected a TSV, CSV, XLSX or JSON Lines file of labelled pairs")


@pytest.mark.parametrize("content", [HEADER, "label,sentence1,sentence2\n\n"])
def test_a_header_alone_is_told(write: Write, content: str) -> None:
    assert problem(write(content)).startswith("FILE holds no pairs; expected columns sentence1, sentence2 and label")


@pytest.mark.parametrize(
    "header",
    [
        ("query", "answer", "label"),
        ("sentence1", "sentence2"),
        ("sentence1", "sentence2", "标签"),
        ("id", "问", "答", "1"),
    ],
)
@pytest.mark.parametrize("separator", ["\t", ","])
def test_other_columns_are_told_with_what_is_expected(write: Write, header: tuple[str, ...], separator: str) -> None:
    assert problem(write(joined(separator, header, ("问", "答", "1", "1")))) == (
        f"FILE has the columns {', '.join(header)}; expected columns sentence1, sentence2 and label (or score), or"
        " three without a header"
    )


def test_a_folder_a_missing_file_and_a_binary_file_are_told(tmp_path: Path, write: Write) -> None:
    assert problem(tmp_path).startswith("FILE is a folder; expected a TSV")
    assert problem(tmp_path / "none.tsv") == "FILE does not exist; check the path"
    assert problem(write(bytes(range(256)) * 9)).startswith("FILE is a binary file; expected")
    assert problem(write(b"PK\x03\x04nothing")).startswith("FILE is a damaged XLSX file")
