"""Raw rows of CSV, TSV and XLSX files, and files of rows: encodings, delimiters, quotes, worksheets.

Reading streams, a row at a time, and goes on after a row that cannot be parsed. Knows nothing of
FAQs: `tables` gives the cells their meaning.

CSV is read with the csv module rather than pandas, which neither tells a row's line once a cell
holds line breaks nor goes on after a row with too many cells or a stray quotation mark.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

from faqsearch.errors import TableError
from faqsearch.model import Progress

_SUSPECT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # all that follows, in one look
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
UNDECODED = re.compile(r"[\ud800-\udfff]")
NUL_MARK = "\udc00"  # what a NUL byte is read as: older csv modules stop at a NUL, and no decoder yields this
NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
XLSX_CELL_LIMIT = 32_767
_DELIMITERS = (",", "\t", ";")
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A line that could not be parsed into cells."""

    reason: str
    raw: str


Row = tuple[int, "list[Any] | Broken"]  # (line, cells)


class RowSource:
    """Raw rows of a file, whatever its format. `rows` may be called again: it starts over."""

    format: Literal["csv", "xlsx"]
    encoding = ""
    delimiter = ""
    header: list[str]
    notes: list[str]

    def rows(self) -> Iterator[Row]:
        """The rows below the header."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""

    def has_rows(self) -> bool:
        """Whether there is anything below the header."""
        return any(isinstance(cells, Broken) or any(map(cell_text, cells)) for _, cells in self.rows())

    def __enter__(self) -> RowSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_head(path: Path, expected: str = "a CSV, TSV or XLSX file with a header line and rows below it") -> bytes:
    """The first bytes of a file that can be read at all."""
    try:
        if path.is_dir():
            raise TableError(f"{path} is a folder; expected {expected}")
        if path.exists() and not path.is_file():
            raise TableError(f"{path} is a pipe or a device, which cannot be read twice; save it as a file first")
        with path.open("rb") as handle:
            head = handle.read(65536)
    except FileNotFoundError as exc:
        raise TableError(f"{path} does not exist; check the path") from exc
    except (OSError, ValueError) as exc:
        raise TableError(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if not head.strip():
        raise TableError(f"{path} is empty; expected {expected}")
    return head


def open_rows(
    path: Path, encoding: str | None, known: Callable[[str], bool], progress: Progress | None = None
) -> RowSource:
    """Open a file for its rows; its content decides the format, not its name.

    Args:
        path: a CSV, TSV or XLSX file.
        encoding: over what the bytes suggest (see `detect_encoding`).
        known: whether a header cell is one that the caller looks for; decides between delimiters.
        progress: told ("reading", bytes or rows read, all of them).

    Raises:
        TableError: no such file, or no table.
    """
    head = read_head(path)
    if head.startswith(b"PK\x03\x04"):
        return _XlsxSource(path, progress)
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableError(f"{path} is an old XLS file, or has a password; save it as XLSX without one, or as CSV")
    return _TextSource(path, head, encoding, known, progress)


class _TextSource(RowSource):
    format = "csv"

    def __init__(
        self, path: Path, head: bytes, encoding: str | None, known: Callable[[str], bool], progress: Progress | None
    ) -> None:
        self._path, self._progress, self._size = path, progress, path.stat().st_size
        self.notes = []
        if encoding:
            self.encoding = _check_encoding(encoding)
        else:
            self.encoding, damaged = detect_encoding(path, head)
            if damaged:
                self.notes.append("the file is UTF-8 with bytes that are not; rows with such bytes are rejected")
        self.delimiter = ","
        self.header = self._read_header(known)

    def rows(self) -> Iterator[Row]:
        header_seen = False
        for line, cells in self._records(self.delimiter):
            if header_seen:
                yield line, cells
            elif isinstance(cells, list) and any(cell.strip() for cell in cells):
                header_seen = True

    def _read_header(self, known: Callable[[str], bool]) -> list[str]:
        """Choose the delimiter under which the header has the most known names, then the most cells."""
        best: tuple[tuple[int, int], str, list[str]] | None = None
        for delimiter in _DELIMITERS:
            for _, cells in self._records(delimiter):
                if isinstance(cells, Broken):
                    break
                if any(cell.strip() for cell in cells):
                    header = [cell.strip() for cell in cells]
                    rank = (sum(map(known, header)), len(header))
                    if best is None or rank > best[0]:
                        best = (rank, delimiter, header)
                    break
        if best is None:
            raise TableError(f"{self._path} has no header line that can be read as CSV or TSV")
        self.delimiter = best[1]
        if bad := next(filter(None, map(bad_characters, best[2])), None):
            raise TableError(f"{self._path}, header line: {bad}; is this a table? Try --encoding")
        while best[2] and not best[2][-1]:
            best[2].pop()
        return best[2]

    def _records(self, delimiter: str) -> Iterator[Row]:
        try:
            with self._path.open(encoding=self.encoding, errors="surrogateescape", newline="") as handle:
                yield from _parse_csv(self._lines(handle), delimiter)
        except UnicodeError as exc:
            raise TableError(f"{self._path} cannot be read as {self.encoding}: {exc}; try --encoding") from exc

    def _lines(self, handle: IO[str]) -> Iterator[str]:
        raw = handle.buffer  # type: ignore[attr-defined] # text files opened by path have one
        for count, line in enumerate(handle):
            if self._progress and count % 4096 == 0:
                self._progress("reading", raw.tell(), self._size)
            yield line.replace("\0", NUL_MARK) if "\0" in line else line


class _Feed:
    """Physical lines for the csv reader, with the lines of the row in hand kept for a second try."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines, self._again = lines, deque[str]()
        self.taken: list[str] = []
        self.line = 1  # the line that the row in hand starts at

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line

    def accept(self) -> None:
        """The row in hand was parsed."""
        self.line += len(self.taken)
        self.taken.clear()

    def skip_line(self) -> None:
        """The row in hand was not: pass over its first line and give out the others again."""
        self._again.extendleft(reversed(self.taken[1:]))
        self.line += 1
        self.taken.clear()


def _parse_csv(lines: Iterator[str], delimiter: str) -> Iterator[Row]:
    """Parse strictly, and go on after a row with broken quotes at the next physical line."""
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            if "expected after" in str(exc):
                reason = 'a quotation mark inside a quoted cell; write it twice ("")'
            elif "limit" in str(exc):
                reason = f"a cell of over {csv.field_size_limit():,} characters, or a quotation mark never closed"
            else:
                reason = "a quotation mark is opened and never closed"
            yield feed.line, Broken(reason, feed.taken[0].rstrip("\r\n"))
            feed.skip_line()
            reader = csv.reader(feed, delimiter=delimiter, strict=True)
        else:
            yield feed.line, cells
            feed.accept()


class _XlsxSource(RowSource):
    format = "xlsx"

    def __init__(self, path: Path, progress: Progress | None) -> None:
        import openpyxl

        self._path, self._progress = path, progress
        self.notes = []
        self._file = path.open("rb")  # by handle: openpyxl refuses paths that do not end in .xlsx
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of missing styles and the like, which no reader cares for
                # read_only streams the rows; data_only reads a formula's last value instead of its text.
                self._book = openpyxl.load_workbook(self._file, read_only=True, data_only=True)
        except Exception as exc:  # a damaged archive raises nearly anything
            self._file.close()
            raise self._damaged(exc) from exc
        if not self._book.worksheets:
            self.close()
            raise TableError(f"{path} has no worksheet; expected a table on the first one")
        for sheet in self._book.worksheets:
            self._sheet, self._total = sheet, sheet.max_row
            sheet.reset_dimensions()  # some programs write a wrong size, which would cut rows off
            first = next((cells for _, cells in self._all() if isinstance(cells, list)), None)
            if first is not None:
                break
        else:
            self.close()
            raise TableError(f"{path} is empty; expected a header row and rows below it")
        if others := [sheet.title for sheet in self._book.worksheets if sheet is not self._sheet]:
            self.notes.append(f"worksheet {self._sheet.title!r} is read, others are not: {', '.join(others)}")
        self.header = [cell_text(cell).strip() for cell in first]
        while self.header and not self.header[-1]:
            self.header.pop()

    def rows(self) -> Iterator[Row]:
        rows = self._all()
        next(rows)  # the header
        return rows

    def close(self) -> None:
        self._book.close()
        self._file.close()

    def _damaged(self, exc: Exception) -> TableError:
        return TableError(f"{self._path} is a damaged XLSX file, or none ({exc}); save it again from the program")

    def _all(self) -> Iterator[Row]:
        try:
            for line, cells in enumerate(self._sheet.iter_rows(values_only=True), start=1):
                if self._progress and line % 1024 == 0:
                    self._progress("reading", line, self._total)
                if any(cell not in (None, "") for cell in cells):
                    yield line, list(cells)
        except Exception as exc:  # as above; the rows are read from the archive only here
            self.close()
            raise self._damaged(exc) from exc


def _check_encoding(encoding: str) -> str:
    try:
        "中文".encode(encoding)
    except (LookupError, UnicodeError) as exc:
        raise TableError(f"{encoding!r} is no encoding for Chinese text; expected e.g. utf-8, gb18030, big5") from exc
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def detect_encoding(path: Path, head: bytes) -> tuple[str, bool]:
    """(encoding, whether some of its bytes are damaged): BOM, else strict UTF-8, else GB18030.

    A UTF-8 file with a few damaged bytes would pass for GB18030 and come out as nonsense. GB18030 text
    holds few sequences that are valid UTF-8, so the majority of what lies beyond ASCII decides.
    """
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return encoding, False
    control = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    if control > max(8, len(head) // 20):
        raise TableError(f"{path} is a binary file; expected a CSV, TSV or XLSX table (text as UTF-8 or GB18030)")
    try:
        for _ in _decoded(path, "strict"):
            pass
    except UnicodeDecodeError:
        damaged = valid = 0
        for text in _decoded(path, "replace"):
            bad = text.count("\ufffd")
            damaged += bad
            valid += sum(not char.isascii() for char in text) - bad
        return ("utf-8", True) if valid > damaged else ("gb18030", False)
    return "utf-8", False


def _decoded(path: Path, errors: str) -> Iterator[str]:
    """A file as UTF-8, a block at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    with path.open("rb") as handle:
        while block := handle.read(1 << 16):
            yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def cell_text(cell: Any) -> str:  # noqa: ANN401 - whatever a spreadsheet cell holds
    """A cell as text; a spreadsheet's whole numbers come without their .0, dates in ISO form."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        midnight = (cell.hour, cell.minute, cell.second) == (0, 0, 0)
        return f"{cell:%Y-%m-%d}" if midnight else f"{cell:%Y-%m-%d %H:%M:%S}"
    if isinstance(cell, date):
        return cell.isoformat()
    return str(cell)


def bad_characters(text: str) -> str | None:
    """What in a text no cell may hold: NUL, undecodable bytes, control characters; or None."""
    if not _SUSPECT.search(text):
        return None
    if NUL_MARK in text or "\0" in text:
        return "a NUL byte"
    if match := UNDECODED.search(text):
        code = ord(match.group())
        what = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"code U+{code:04X}"
        return f"{what} is no text in the file's encoding"
    if match := _CONTROL.search(text):
        return f"control character U+{ord(match.group()):04X}"
    return None


def write_cells(out: str | Path | IO[str], rows: Iterable[Sequence[str]]) -> None:
    """The one place that a table is written. A file appears whole or not at all."""
    if not isinstance(out, (str, Path)):
        csv.writer(out, lineterminator="\n").writerows(rows)
        return
    path = Path(out)
    if path.suffix.lower() in (".xls", ".ods", ".json", ".pdf"):
        raise TableError(f"{path} cannot be written; expected a name that ends in .csv, .tsv or .xlsx")
    try:
        with _whole_file(path) as handle:
            if path.suffix.lower() == ".xlsx":
                _write_xlsx(path, handle, rows)
            else:
                # With a BOM, as spreadsheets take a CSV file without one for the system's old encoding.
                text = io.TextIOWrapper(handle, encoding="utf-8-sig", newline="")
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
                text.detach()  # flushes, and leaves the file open for its own end
    except OSError as exc:
        raise TableError(f"{path} cannot be written: {exc.strerror or exc}") from exc


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only once it is complete; a pipe or a device is written straight to."""
    if path.exists() and not path.is_file():
        with path.open("wb") as handle:
            yield handle
        return
    path = path.resolve()  # a link stays a link
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            yield temporary
            temporary.flush()
            os.chmod(temporary.name, mode)
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise


def _write_xlsx(path: Path, handle: IO[bytes], rows: Iterable[Sequence[str]]) -> None:
    import openpyxl
    from openpyxl.cell import WriteOnlyCell

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("FAQ")
    try:
        for row in rows:
            sheet.append([_xlsx_cell(path, WriteOnlyCell(sheet), text) for text in row])
    except BaseException:
        if writer := sheet._writer:  # made with the first row; openpyxl leaves its file behind otherwise
            sheet.close()
            writer.cleanup()
        raise
    book.save(handle)


def _xlsx_cell(path: Path, cell: Any, text: str) -> Any:  # noqa: ANN401 - an openpyxl cell, untyped
    if len(text) > XLSX_CELL_LIMIT:
        raise TableError(
            f"{path} cannot be written: an XLSX cell holds at most {XLSX_CELL_LIMIT:,} characters, one here has"
            f" {len(text):,}; write a .csv file instead"
        )
    if NO_TEXT.search(text):
        raise TableError(f"{path} cannot be written: no XLSX cell can hold {text[:40]!r}; write a .csv file instead")
    if text:
        cell.value = text
        cell.data_type = "s"  # text, never a formula or a number
    return cell
