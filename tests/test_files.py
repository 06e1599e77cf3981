"""Raw rows: encodings, delimiters, quotes, lines, worksheets, and files that are no table."""

from __future__ import annotations

import csv
import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from faqsearch.errors import TableError
from faqsearch.files import Broken, bad_characters, cell_text, open_rows, write_cells

Rows = list[tuple[int, Any]]


def _known(cell: str) -> bool:
    return cell in ("问题", "答案", "question", "answer")


def _read(path: Path, data: bytes | str, encoding: str | None = None) -> tuple[str, str, list[str], Rows]:
    """(encoding, delimiter, header, rows) of a file with these bytes."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with open_rows(path, encoding, _known) as source:
        return source.encoding, source.delimiter, source.header, list(source.rows())


def _fails(path: Path, encoding: str | None = None) -> str:
    with pytest.raises(TableError) as caught, open_rows(path, encoding, _known) as source:
        list(source.rows())
    message = str(caught.value)
    assert "\n" not in message
    return message


def _book(path: Path, *rows: list[Any]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def _rezip(path: Path, member: str, data: bytes) -> None:
    """Put other bytes in the place of one part of an XLSX file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (parts | {member: data}).items():
            archive.writestr(name, content)


CHINESE = "问题,答案\n怎么还款？,打开“我的”→还款\n忘记密码,點這裡😀\n"
CHINESE_ROWS = [(2, ["怎么还款？", "打开“我的”→还款"]), (3, ["忘记密码", "點這裡😀"])]


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (CHINESE.encode(), "utf-8"),
        (CHINESE.encode("utf-8-sig"), "utf-8-sig"),
        (CHINESE.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + CHINESE.encode("utf-16-be"), "utf-16"),
        (CHINESE.encode("utf-32"), "utf-32"),
        (CHINESE.encode("gb18030"), "gb18030"),
    ],
)
def test_the_encoding_is_found_from_the_bytes(tmp_path: Path, data: bytes, encoding: str) -> None:
    assert _read(tmp_path / "t.csv", data) == (encoding, ",", ["问题", "答案"], CHINESE_ROWS)


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf-8-sig"])
def test_a_named_utf8_is_read_with_or_without_its_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    for data in (CHINESE.encode(), CHINESE.encode("utf-8-sig")):
        assert _read(tmp_path / "t.csv", data, encoding)[2:] == (["问题", "答案"], CHINESE_ROWS)


def test_a_named_encoding_wins_over_what_the_bytes_suggest(tmp_path: Path) -> None:
    text = "問題,答案\n怎麼還款,請點這裡\n"

    assert _read(tmp_path / "t.csv", text.encode("big5"), "big5") == (
        *("big5", ",", ["問題", "答案"]),
        [(2, ["怎麼還款", "請點這裡"])],
    )


@pytest.mark.parametrize("name", ["utf-9", "latin-1", "ascii", "hex"])
def test_an_encoding_that_cannot_hold_chinese_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(CHINESE.encode())

    assert _fails(path, name) == f"{name!r} is no encoding for Chinese text; expected e.g. utf-8, gb18030, big5"


@pytest.mark.parametrize("others", [0, 1, 2, 50])
@pytest.mark.parametrize("header", ["question,answer", "问题,答案"])
def test_a_utf8_file_with_one_damaged_byte_stays_utf8(tmp_path: Path, header: str, others: int) -> None:
    # Read as GB18030, the good rows would come out as nonsense that nobody notices.
    good = "".join(f"问题{number},答案\n" for number in range(others))
    damaged = "怎么转账,打".encode() + b"\xff" + "开页面\n".encode()

    encoding, _, _, rows = _read(tmp_path / "t.csv", f"{header}\n{good}".encode() + damaged)

    assert encoding == "utf-8"
    assert rows == [
        *((number + 2, [f"问题{number}", "答案"]) for number in range(others)),
        (others + 2, ["怎么转账", "打\udcff开页面"]),
    ]


def test_a_utf8_file_with_old_mac_line_ends_and_one_damaged_byte_stays_utf8(tmp_path: Path) -> None:
    data = "问题,答案\r怎么还款,打开页面\r怎么转账,打".encode() + b"\xff" + "开页面\r".encode()

    assert _read(tmp_path / "t.csv", data)[3] == [(2, ["怎么还款", "打开页面"]), (3, ["怎么转账", "打\udcff开页面"])]


def test_a_gb18030_file_with_one_damaged_byte_stays_gb18030(tmp_path: Path) -> None:
    data = "问题,答案\n怎么还款,打开页面\n怎么转账,".encode("gb18030") + b"\xff\n" + "忘记密码,重设\n".encode("gb18030")

    encoding, _, _, rows = _read(tmp_path / "t.csv", data)

    assert encoding == "gb18030"
    assert rows == [(2, ["怎么还款", "打开页面"]), (3, ["怎么转账", "\udcff"]), (4, ["忘记密码", "重设"])]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_the_delimiter_is_found_whatever_the_cells_hold(tmp_path: Path, delimiter: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows([["问题", "备注,;说明", "答案"], ["a;b", "c\td", "e,f"]])

    _, found, header, rows = _read(tmp_path / "t.txt", buffer.getvalue())

    assert (found, header, rows) == (delimiter, ["问题", "备注,;说明", "答案"], [(2, ["a;b", "c\td", "e,f"])])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_right_after_cells_with_line_breaks_and_blank_lines(tmp_path: Path, end: str) -> None:
    lines = [
        "",
        "问题,答案",
        'q1,"步骤：',
        '1. 说 ""好""',
        "",
        '2. 选 a,b;c"',
        "",
        "",
        "q2,a2",
        'q3,"x',
        'y"',
        "q4,a4",
        "",
    ]

    _, _, header, rows = _read(tmp_path / "t.csv", end.join(lines))

    assert header == ["问题", "答案"]
    assert [(line, cells) for line, cells in rows if cells] == [
        (3, ["q1", f'步骤：{end}1. 说 "好"{end}{end}2. 选 a,b;c']),
        (9, ["q2", "a2"]),
        (10, ["q3", f"x{end}y"]),
        (12, ["q4", "a4"]),
    ]


def test_only_real_line_ends_end_a_line(tmp_path: Path) -> None:
    text = "问题,答案\na\u2028b,c\u0085d\x0be\n"

    assert _read(tmp_path / "t.csv", text)[3] == [(2, ["a\u2028b", "c\u0085d\x0be"])]


NEVER_CLOSED = "a quotation mark is opened and never closed"
INSIDE = 'a quotation mark inside a quoted cell; write it twice ("")'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('bad,"open', INSIDE),  # the next quoted cell seems to close it
        ('bad,"say "hi" now"', INSIDE),
        ('"bad" ,x', INSIDE),
    ],
)
def test_a_row_with_broken_quotes_does_not_swallow_the_rows_after_it(tmp_path: Path, line: str, reason: str) -> None:
    text = f'问题,答案\nq1,a1\n{line}\nq2,"a\n2"\nq3,a3\n'

    assert _read(tmp_path / "t.csv", text)[3] == [
        (2, ["q1", "a1"]),
        (3, Broken(reason, line)),
        (4, ["q2", "a\n2"]),
        (6, ["q3", "a3"]),
    ]


def test_a_quote_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    rows = "".join(f"q{number},a{number}\n" for number in range(20_000))

    found = _read(tmp_path / "t.csv", f'问题,答案\nbad,"open\n{rows}worse,"open')[3]

    assert found[0] == (2, Broken("a cell of over 131,072 characters, or a quotation mark never closed", 'bad,"open'))
    assert found[1:-1] == [(number + 3, [f"q{number}", f"a{number}"]) for number in range(20_000)]
    assert found[-1] == (20_003, Broken(NEVER_CLOSED, 'worse,"open'))


def test_a_quote_inside_a_bare_cell_is_text(tmp_path: Path) -> None:
    assert _read(tmp_path / "t.csv", '问题,答案\n5" 屏幕,叫"小白"的\n')[3] == [(2, ['5" 屏幕', '叫"小白"的'])]


def test_a_nul_byte_is_kept_for_the_row_to_be_rejected(tmp_path: Path) -> None:
    (_, cells), after = _read(tmp_path / "t.csv", "问题,答案\nq\0x,a\nq2,a2\n")[3]

    assert [bad_characters(cell) for cell in cells] == ["a NUL byte", None]
    assert after == (3, ["q2", "a2"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("好\t的\r\n😀", None),
        ("a\0b", "a NUL byte"),
        ("a\udcffb", "byte 0xff is no text in the file's encoding"),
        ("a\ud83d", "code U+D83D is no text in the file's encoding"),
        ("a\x1bb", "control character U+001B"),
    ],
)
def test_characters_that_no_cell_may_hold_are_named(text: str, found: str | None) -> None:
    assert bad_characters(text) == found


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", " is empty; expected a CSV, TSV or XLSX file with a header line"),
        (b" \r\n\n", " is empty; expected a CSV, TSV or XLSX file with a header line"),
        (b"\xef\xbb\xbf\n", " has no header line that can be read as CSV or TSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, " is a binary file; expected a CSV, TSV or XLSX table"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), " is an old XLS file, or has a password; save it as XLSX"),
        (b"PK\x03\x04" + b"x" * 200, " is a damaged XLSX file, or none"),
        ("问题,答案\nq,a\n".encode("utf-16-le"), ", header line: a NUL byte; is this a table?"),
        ("问题,答案\n".encode("utf-16") + b"a", " cannot be read as utf-16: "),
        (b'"question,answer\nq,a\n', " has no header line that can be read as CSV or TSV"),
    ],
)
def test_a_file_that_is_no_table_is_told_in_one_line(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "表 格.csv"
    path.write_bytes(data)

    assert _fails(path).startswith(f"{path}{told}")


def test_a_folder_and_a_missing_file_are_told_in_one_line(tmp_path: Path) -> None:
    assert (
        _fails(tmp_path)
        == f"{tmp_path} is a folder; expected a CSV, TSV or XLSX file with a header line and rows below it"
    )
    assert _fails(tmp_path / "no.csv") == f"{tmp_path / 'no.csv'} does not exist; check the path"


def test_a_big_file_is_read_a_row_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        handle.write("question,answer\n" + "".join(f'怎么还款{n},"第一步\n{"好" * 100}"\n' for n in range(50_000)))

    tracemalloc.start()
    try:
        with open_rows(path, None, _known) as source:
            rows = source.rows()
            assert next(rows) == (2, ["怎么还款0", f"第一步\n{'好' * 100}"])
            last = None
            for last in rows:  # noqa: B007 - only the last one counts
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert last == (100_000, ["怎么还款49999", f"第一步\n{'好' * 100}"])
    assert path.stat().st_size > 16_000_000
    assert peak < 2_000_000


def test_progress_is_told_in_bytes_up_to_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("question,answer\n" + "q,a\n" * 20_000, encoding="utf-8")
    told: list[tuple[str, int, int | None]] = []

    with open_rows(path, None, _known, lambda *step: told.append(step)) as source:
        told.clear()
        list(source.rows())

    size = path.stat().st_size
    assert {(stage, total) for stage, _, total in told} == {("reading", size)}
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert size // 2 < done[-1] <= size


# --- worksheets ----------------------------------------------------------------------------------


def test_worksheet_cells_of_every_kind_come_as_text(tmp_path: Path) -> None:
    row = [1001, 2.0, 2.5, True, datetime(2026, 1, 31), datetime(2026, 1, 31, 18, 5), date(2026, 2, 1), "a\nb"]
    path = _book(tmp_path / "t.xlsx", ["问题"] + ["x"] * 7, row)

    with open_rows(path, None, _known) as source:
        ((line, cells),) = source.rows()

    assert line == 2 and isinstance(cells, list)
    assert [cell_text(cell) for cell in cells] == [
        *("1001", "2", "2.5", "True", "2026-01-31", "2026-01-31 18:05:00", "2026-02-01", "a\nb"),
    ]


def test_worksheet_lines_are_its_row_numbers_despite_blank_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    book = openpyxl.Workbook()
    sheet = book.active
    for place, text in {"A2": "问题", "B2": "答案", "A4": "q1", "B4": "a1", "A9": "q2", "B9": "a2"}.items():
        sheet[place] = text
    sheet["D4"] = ""  # an empty column that the program has formatted
    book.create_sheet("旧版")
    book.save(path)

    with open_rows(path, None, _known) as source:
        rows = [(line, [cell for cell in cells if cell]) for line, cells in source.rows() if isinstance(cells, list)]

    assert source.header == ["问题", "答案"]
    assert rows == [(4, ["q1", "a1"]), (9, ["q2", "a2"])]
    assert source.notes == ["worksheet 'Sheet' is read, others are not: 旧版"]


@pytest.mark.parametrize("name", ["t.csv", "t.xls", "t.XLSX", "导出"])
def test_a_workbook_is_known_by_its_content_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = _book(tmp_path / "t.xlsx", ["问题", "答案"], ["q", "a"]).rename(tmp_path / name)

    with open_rows(path, None, _known) as source:
        assert (source.format, list(source.rows())) == ("xlsx", [(2, ["q", "a"])])


def test_a_workbook_without_styles_is_read_without_a_warning(tmp_path: Path) -> None:
    # As written by report generators; a warning would be an error here and noise for the user.
    path = _book(tmp_path / "t.xlsx", ["问题", "答案"], ["q", "a"])
    _rezip(path, "xl/styles.xml", b'<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"/>')

    with open_rows(path, None, _known) as source:
        assert list(source.rows()) == [(2, ["q", "a"])]


@pytest.mark.parametrize("member", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "[Content_Types].xml"])
def test_a_workbook_with_broken_xml_is_told_in_one_line(tmp_path: Path, member: str) -> None:
    path = _book(tmp_path / "t.xlsx", ["问题", "答案"], ["q", "a"])
    _rezip(path, member, b"<worksheet><sheetData><row")

    assert _fails(path).startswith(f"{path} is a damaged XLSX file")


def test_a_workbook_damaged_anywhere_is_told_or_read(tmp_path: Path) -> None:
    path = _book(tmp_path / "t.xlsx", ["问题", "答案"], *([f"q{n}", f"a{n}" * 20] for n in range(50)))
    whole = path.read_bytes()

    told = 0
    for place in range(4, len(whole), 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            with open_rows(path, None, _known) as source:
                list(source.rows())
        except TableError as exc:
            told += str(exc).startswith(f"{path} ")
    assert told > 20
    path.write_bytes(whole[: len(whole) // 2])
    assert _fails(path).startswith(f"{path} is a damaged XLSX file")


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx", "t.XLSX"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    rows = [["问题", "答案"], ['a,"b"\t;', "c\nd\n"], ["=1+1", " 007"], ["😀", "_x000D_"], ["#N/A", "TRUE"]]

    write_cells(tmp_path / name, rows)

    with open_rows(tmp_path / name, None, _known) as source:
        assert [source.header, *(cells for _, cells in source.rows())] == rows
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_csv_file_opens_right_in_a_spreadsheet(tmp_path: Path) -> None:
    write_cells(tmp_path / "t.csv", [["问题", "a b"], ["c,d", "e\nf"]])

    expected = '问题,a b\r\n"c,d","e\nf"\r\n'
    assert (tmp_path / "t.csv").read_bytes() == b"\xef\xbb\xbf" + expected.encode()


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_a_cell_with_a_bare_carriage_return_stays_one_cell(tmp_path: Path, name: str) -> None:
    write_cells(tmp_path / name, [["问题", "答案"], ["q", "a\rb"]])

    with open_rows(tmp_path / name, None, _known) as source:
        ((line, cells),) = source.rows()
    assert line == 2 and isinstance(cells, list)
    assert [cell.replace("\r", "\n") for cell in cells] == ["q", "a\nb"]


@pytest.mark.parametrize("text", ["字" * 40_000, "a\uffffb", "a\x01b"], ids=["long", "U+FFFF", "U+0001"])
def test_what_a_worksheet_cannot_hold_is_told_and_never_cut(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.xlsx"
    try:
        write_cells(path, [["问题", "答案"], ["q", text]])
    except TableError as exc:
        assert str(exc).startswith(f"{path} ")
        assert list(tmp_path.iterdir()) == []
    else:
        with open_rows(path, None, _known) as source:
            assert list(source.rows()) == [(2, ["q", text])]


@pytest.mark.parametrize("name", ["t.csv", "t.xlsx"])
def test_a_write_that_fails_leaves_the_old_file_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("old", encoding="utf-8")

    def rows() -> Iterator[list[str]]:
        yield ["问题", "答案"]
        raise TableError("the rows ended early")

    with pytest.raises(TableError, match="the rows ended early"):
        write_cells(path, rows())

    assert {found.name: found.read_text(encoding="utf-8") for found in tmp_path.iterdir()} == {name: "old"}


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no" / "t.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(TableError) as caught:
            write_cells(path, [["a"]])
        assert str(caught.value) == f"{path} cannot be written: {reason}"
