"""Files of labelled pairs: TSV, CSV, XLSX or JSON Lines → pairs, with every broken line told."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from faqsearch.errors import TableError
from faqsearch.files import UNDECODED, Broken, cell_text, detect_encoding, open_rows, read_head

NAMES = (("sentence1", "text1", "question1"), ("sentence2", "text2", "question2"), ("label", "score", "similarity"))
"""The columns of a file of pairs, each with the other names that are in use for it."""
_EXPECTED = "expected columns sentence1, sentence2 and label (or score), or three without a header"
_TOLD = 10

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of sentences with labels: 1 and 0 for the same meaning or not, or grades."""

    name: str
    left: tuple[str, ...]
    right: tuple[str, ...]
    labels: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def binary(self) -> bool:
        """Whether the labels are only 1 and 0."""
        return set(self.labels) <= {0.0, 1.0}


def join(pairs: Iterable[tuple[T, T]]) -> dict[T, T]:
    """Each text of these pairs → one text that stands for all which pairs join, directly or through others.

    >>> join([("a", "b"), ("c", "d"), ("b", "e")])
    {'a': 'e', 'b': 'e', 'c': 'd', 'd': 'd', 'e': 'e'}
    """
    joined: dict[T, T] = {}  # text → another of its group; the last of the chain stands for it

    def stands_for(text: T) -> T:
        while joined.setdefault(text, text) != text:
            joined[text] = joined[joined[text]]
            text = joined[text]
        return text

    for one, other in pairs:
        joined[stands_for(one)] = stands_for(other)
    return {text: stands_for(text) for text in list(joined)}


def read_pairs(path: str | Path, name: str | None = None) -> Pairs:
    """Read a file of labelled pairs.

    The content decides the format. A line of a TSV file is a pair, with quotation marks as they are unless they
    stand around a whole cell; CSV may quote as usual. Further columns are passed over.

    Args:
        path: columns `sentence1 sentence2 label|score` in any order, or three columns without names.
        name: what the set is called; else the file's name without its ending.

    Raises:
        TableError: no such file, no such columns, or lines that cannot be taken; the first of them are named.
    """
    path = Path(path)
    head = read_head(path, "a TSV, CSV, XLSX or JSON Lines file of labelled pairs")
    left, right, labels, problems = [], [], [], []
    for line, cells in _rows(path, head):
        problem = cells if isinstance(cells, str) else _problem(cells)
        if problem:
            problems.append(f"line {line}: {problem}")
            continue
        left.append(cell_text(cells[0]).strip())
        right.append(cell_text(cells[1]).strip())
        labels.append(float(cell_text(cells[2])))
    if problems:
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise TableError(f"{path}: {'; '.join(problems[:_TOLD])}{more}; mend or remove what is broken")
    if not labels:
        raise TableError(f"{path} holds no pairs; {_EXPECTED}")
    return Pairs(name or path.stem, tuple(left), tuple(right), tuple(labels))


def _problem(cells: Sequence[Any]) -> str | None:
    """Why these three cells are no labelled pair."""
    for column, cell in zip(("sentence1", "sentence2"), cells, strict=False):
        text = cell_text(cell)
        if not text.strip():
            return f"{column} is empty"
        if UNDECODED.search(text):
            return f"{column} holds bytes that are no text"
    label = cell_text(cells[2]).strip()
    return None if _number(label) is not None else f"the label is {label[:20]!r}, expected a number"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _rows(path: Path, head: bytes) -> Iterator[tuple[int, list[Any] | str]]:
    """(line, the three cells, or why there are none)."""
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        yield from _table_rows(path)
        return
    encoding, _ = detect_encoding(path, head)
    first = next(filter(str.strip, head.decode(encoding, errors="replace").splitlines()), "")
    if first.lstrip().startswith("["):
        raise TableError(f"{path} holds a JSON array; expected JSON Lines, one object a line")
    if first.lstrip().startswith("{"):
        yield from _json_rows(path, encoding)
    elif "\t" in first:
        yield from _tsv_rows(path, encoding)
    else:
        yield from _table_rows(path)


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as handle:
            for number, line in enumerate(handle, start=1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeError as exc:
        raise TableError(f"{path} cannot be read as {encoding}: {exc}; save it as UTF-8") from exc


def _json_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[Any] | str]]:
    for number, line in _lines(path, encoding):
        try:
            row = json.loads(line)
        except ValueError:
            yield number, "no valid JSON"
            continue
        if not isinstance(row, dict):
            yield number, "no JSON object"
            continue
        cells = [next((row[name] for name in names if name in row), None) for names in NAMES]
        missing = [names[0] for names, cell in zip(NAMES, cells, strict=True) if cell is None]
        if missing:
            yield number, f"no {' and no '.join(missing)}"
        elif not all(isinstance(cell, str) for cell in cells[:2]):
            yield number, "sentence1 or sentence2 is no text"
        else:
            yield number, cells


def _tsv_rows(path: Path, encoding: str) -> Iterator[tuple[int, list[Any] | str]]:
    columns: list[int] | None = None
    for number, line in _lines(path, encoding):
        cells = [_unquoted(cell) for cell in line.split("\t")]
        if columns is None:
            columns = _columns(path, cells)
            if columns is not None:
                continue
            columns = [0, 1, 2]
        yield number, _pick(cells, columns)


def _table_rows(path: Path) -> Iterator[tuple[int, list[Any] | str]]:
    with open_rows(path, None, lambda name: _index([name]) is not None) as source:
        columns = _columns(path, source.header)
        if columns is None:
            columns = [0, 1, 2]
            yield 1, _pick(list(source.header), columns)
        for line, cells in source.rows():
            if isinstance(cells, Broken):
                yield line, cells.reason
            elif any(cell_text(cell).strip() for cell in cells):
                yield line, _pick(cells, columns)


def _columns(path: Path, header: Sequence[str]) -> list[int] | None:
    """Where sentence1, sentence2 and the label stand; None if this line is no header but a pair."""
    names = [name.strip().lower() for name in header]
    found = [next((names.index(name) for name in known if name in names), None) for known in NAMES]
    if all(index is not None for index in found):
        return [index for index in found if index is not None]
    if len(header) == 3 and _number(header[2].strip()) is not None:
        return None
    raise TableError(f"{path} has the columns {_listed(header)}; {_EXPECTED}")


def _listed(header: Sequence[str]) -> str:
    return ", ".join(name[:30] for name in header[:8]) + (f" and {len(header) - 8} more" if len(header) > 8 else "")


def _index(names: Sequence[str]) -> int | None:
    """Where one of the known names stands among these."""
    known = {name for column in NAMES for name in column}
    return next((index for index, name in enumerate(names) if name.strip().lower() in known), None)


def _pick(cells: Sequence[Any], columns: Sequence[int]) -> list[Any] | str:
    if len(cells) <= max(columns):
        return f"{len(cells)} cells, expected {max(columns) + 1}"
    return [cells[index] for index in columns]


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that a spreadsheet puts around it; inner ones stand for themselves."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell
