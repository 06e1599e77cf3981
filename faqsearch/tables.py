"""FAQ tables → entries and row errors, and back.

Reading streams: a row at a time, whatever the size of the file. Nothing is guessed silently: what
was understood stands in `TableInfo`, and every row that is not taken comes out as a `RowError` with
its line, column and reason. Files and their encodings are `files`' business. This module knows
nothing of the database; a phrasing that is taken already is the store's to find.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from faqsearch.errors import TableError
from faqsearch.files import (
    NO_TEXT,
    NUL_MARK,
    UNDECODED,
    Broken,
    RowSource,
    bad_characters,
    cell_text,
    detect_encoding,
    open_rows,
    read_head,
    write_cells,
)
from faqsearch.model import (
    ANSWER_LIMIT,
    LABEL_LIMIT,
    QUERY_LIMIT,
    QUESTION_LIMIT,
    Entry,
    EntryDraft,
    HitTest,
    Progress,
    RowError,
    TableInfo,
)
from faqsearch.text import normalise

FIELDS = ("key", "question", "similar", "answer", "category", "enabled", "valid_from", "valid_to")
ALIASES: Mapping[str, tuple[str, ...]] = {
    "key": ("id", "qid", "key", "编号"),
    "question": ("question", "q", "title", "问题", "标准问", "标准问法"),
    "similar": (
        *("similar", "similar questions", "questions", "aliases", "indexes"),
        *("相似问", "相似问法", "相似问题", "扩展问"),
    ),
    "answer": ("answer", "a", "答案", "回答", "回复"),
    "category": ("category", "topic", "type", "分类", "类型", "类目"),
    "enabled": ("enabled", "status", "状态", "启用"),
    "valid_from": ("valid_from", "生效时间"),
    "valid_to": ("valid_to", "失效时间"),
}
"""Header names by field, best first; compared without case, white space, `_`, `-` and width."""
NUMBERED = (
    "question",
    "q",
    "similar",
    "similar question",
    "alias",
    "相似问",
    "相似问法",
    "相似问题",
    "扩展问",
)
"""Headers that hold one similar question each when a number follows: question1, 相似问2."""

QUERY_ALIASES = ("query", "用户问", "问法", *ALIASES["question"])
EXPECTED_ALIASES = ("expected", "entry", "期望", *ALIASES["key"])

REJECT_HEADER = ("line", "column", "reason")
"""The columns that a table of rejected rows begins with."""

_SEPARATORS = re.compile(r"\r\n|[\r\n]|##|\|")
_FORMULA = re.compile(r"'*[=+\-@]")
_ESCAPED_FORMULA = re.compile(r"'+[=+\-@]")
_TRUE = "1 true yes y on enabled enable active 是 启用 已启用 有效 开 开启 上线 正常"
_FALSE = "0 false no n off disabled disable inactive 否 停用 已停用 禁用 无效 关 关闭 下线"
_WHEN = re.compile(
    r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|年(\d{1,2})月(\d{1,2})日|()(\d\d)(\d\d))"
    r"(?:(?:[ Tt]|(?<=日))(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)?)?"
)
_END_OF_DAY = time(23, 59, 59)

_HEADERS = {
    "zh": ("编号", "标准问", "相似问", "答案", "分类", "启用", "生效时间", "失效时间"),
    "en": ("key", "question", "similar", "answer", "category", "enabled", "valid_from", "valid_to"),
}
_EXAMPLES = {
    "zh": (
        EntryDraft(
            key="A001",
            question="怎么修改登录密码？",
            similar=("登录密码在哪里改", "想换个登录密码"),
            answer="请打开“我的 - 设置 - 账号安全”，点“修改登录密码”，按提示验证手机号后设置新密码。",
            category="账号",
        ),
        EntryDraft(
            key="A002",
            question="双十二活动什么时候开始？",
            similar=("双12几号开始",),
            answer="活动从12月10日20:00开始，12月12日24:00结束。\n详情见 https://example.com/sale",
            category="活动",
            valid_from=datetime(2026, 12, 1),
            valid_to=datetime(2026, 12, 12, 23, 59, 59),
        ),
    ),
    "en": (
        EntryDraft(
            key="A001",
            question="How do I change my password?",
            similar=("Where can I change the password", "I want a new password"),
            answer="Open Settings, Account security, Change password, and confirm with your phone number.",
            category="Account",
        ),
        EntryDraft(
            key="A002",
            question="When does the winter sale start?",
            similar=("Winter sale start date",),
            answer="It runs from 10 December, 20:00, to 12 December.\nSee https://example.com/sale",
            category="Sales",
            valid_from=datetime(2026, 12, 1),
            valid_to=datetime(2026, 12, 12, 23, 59, 59),
        ),
    ),
}


# --- one entry -----------------------------------------------------------------------------------


def check_draft(draft: EntryDraft) -> tuple[str, str] | None:
    """What is wrong with an entry as it is written: (field, reason), or None.

    The same rules hold for a row of a table and for an entry that is added by hand.
    """
    if not draft.question:
        return "question", "no question"
    if not draft.answer:
        return "answer", "no answer"
    whole = "".join((draft.key or "", draft.question, *draft.similar, draft.answer, draft.category))
    if (len(whole) > LABEL_LIMIT or bad_characters(whole)) and (problem := _bad_text(draft)):
        return problem
    for name, texts in (("question", (draft.question,)), ("similar", draft.similar)):
        for text in texts:
            if not normalise(text):
                return name, "nothing is left of the question once white space is folded"
    if draft.valid_from and draft.valid_to and draft.valid_from > draft.valid_to:
        return (
            "valid_to",
            f"{draft.valid_to:%Y-%m-%d %H:%M} lies before the start, {draft.valid_from:%Y-%m-%d %H:%M}",
        )
    return None


def _bad_text(draft: EntryDraft) -> tuple[str, str] | None:
    """The first field that is too long or holds what is no text, and why; or None."""
    for name, texts, limit in (
        ("key", (draft.key or "",), LABEL_LIMIT),
        ("question", (draft.question,), QUESTION_LIMIT),
        ("similar", draft.similar, QUESTION_LIMIT),
        ("answer", (draft.answer,), ANSWER_LIMIT),
        ("category", (draft.category,), LABEL_LIMIT),
    ):
        for text in texts:
            if len(text) > limit:
                return name, f"{len(text):,} characters; at most {limit:,} are allowed"
            if reason := bad_characters(text):
                return name, reason
    return None


def tidy_draft(draft: EntryDraft) -> EntryDraft:
    """The entry with outer white space removed, line breaks as LF, and repeated phrasings dropped."""
    question = _tidy(draft.question)
    seen = {normalise(question)}
    similar = []
    for text in map(_tidy, draft.similar):
        folded = normalise(text)
        if folded and folded not in seen:
            seen.add(folded)
            similar.append(text)
    return EntryDraft(  # `replace` takes three times as long, which counts in a long table
        question,
        _tidy(draft.answer),
        tuple(similar),
        _tidy(draft.key or "") or None,
        _tidy(draft.category),
        draft.enabled,
        _local(draft.valid_from),
        _local(draft.valid_to),
        draft.line,
    )


def _local(when: datetime | None) -> datetime | None:
    """A moment in local time without a zone, as validity periods are kept."""
    return when.astimezone().replace(tzinfo=None) if when is not None and when.tzinfo is not None else when


def _tidy(text: str) -> str:
    text = text.strip()
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def parse_when(text: str, *, end: bool = False) -> datetime:
    """A date, or a date with a time, as editors write them, to local time.

    Args:
        text: 2026-01-31, 2026/1/31, 2026.1.31, 2026年1月31日 or 20260131; then 18:00 or 18:00:00 if need be, and an
            offset as in ISO 8601 (2026-01-31T18:00+08:00).
        end: whether it is the end of a period: a date without a time then means that whole day.

    Raises:
        ValueError: no such date.
    """
    match = _WHEN.fullmatch(" ".join(unicodedata.normalize("NFKC", text).split()))
    try:
        if match is None:
            raise ValueError
        day = date(*(int(part) for part in match.groups()[:9] if part and part.isdecimal()))
        hour, minute, second, offset = match.groups()[9:]
        if hour is None:
            return datetime.combine(day, _END_OF_DAY if end else time.min)
        if int(hour) == 24 and int(minute) == int(second or 0) == 0:  # the end of a day, as many write it
            return datetime.combine(day, _END_OF_DAY) if end else datetime.combine(day, time.min) + timedelta(days=1)
        when = datetime.combine(day, time(int(hour), int(minute), int(second or 0)))
        if offset:
            zone = "+0000" if offset in "Zz" else offset.replace(":", "")
            when = when.replace(tzinfo=datetime.strptime(zone, "%z").tzinfo).astimezone().replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:40]!r} is no date; expected e.g. 2026-01-31 or 2026-01-31 18:00") from None
    return when


def _format_when(when: datetime | None, *, end: bool = False) -> str:
    """The shortest text that `parse_when` reads back as the same moment."""
    if when is None:
        return ""
    whole_day = when.time() == (_END_OF_DAY if end else time.min)
    return when.isoformat(" ", "seconds")[: 10 if whole_day else None]


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which cells fill which field. `whole` are similar-question cells that hold one phrasing each."""

    header: tuple[str, ...]
    single: Mapping[str, int]
    split: tuple[int, ...]
    whole: tuple[int, ...]

    def title(self, name: str) -> str:
        """The table's own header for a field, for messages."""
        if name == "similar":
            indexes: Sequence[int] = (*self.split, *self.whole)
        else:
            indexes = [self.single[name]] if name in self.single else []
        return self.header[indexes[0]] if indexes else name


class TableReader:
    """A FAQ table that is being read: iterate it for `EntryDraft` and `RowError`, in line order.

    `info` says what was understood; `fields` are the entry fields that the table has columns for.
    Made by `open_table`; a context manager that closes the file.
    """

    def __init__(self, source: RowSource, columns: _Columns, info: TableInfo) -> None:
        self._source = source
        self._columns = columns
        self.info = info
        self._used = sorted({*columns.single.values(), *columns.split, *columns.whole})
        self.fields = frozenset(columns.single) | ({"similar"} if columns.split or columns.whole else set())

    def __enter__(self) -> TableReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[EntryDraft | RowError]:
        width = len(self._columns.header)
        for line, cells in self._source.rows():
            if isinstance(cells, Broken):
                yield RowError(line, "", cells.reason)
            elif len(cells) > width and any(cell not in (None, "") for cell in cells[width:]):
                extra = next(cell_text(cell) for cell in cells[width:] if cell not in (None, ""))
                yield RowError(
                    line,
                    "",
                    f"{len(cells)} cells where the header has {width}; the first one too many is {extra[:40]!r}",
                    *self._identity(cells),
                )
            elif bad_characters(whole := "".join(map(cell_text, cells))) and (reason := self._bad_cell(cells)):
                yield RowError(line, *reason, *self._identity(cells))
            elif whole.strip():
                yield self._draft(line, cells)

    def title(self, field: str) -> str:
        """The table's own header for a field, for messages."""
        return self._columns.title(field)

    @property
    def header(self) -> tuple[str, ...]:
        """The header cells as they are."""
        return self._columns.header

    def sample(self, count: int) -> Iterator[tuple[str, ...]]:
        """The cells of the first rows as they are."""
        rows = (cells for _, cells in self._source.rows() if not isinstance(cells, Broken))
        for cells in islice(rows, count):
            yield tuple(_showable(cell_text(cell)) for cell in cells[: len(self.header)])

    def rejects(self, lines: Mapping[int, RowError]) -> Iterator[tuple[RowError, list[str]]]:
        """The raw cells of the rows at these lines, for a table to mend."""
        for line, cells in self._source.rows():
            if line in lines:
                yield (
                    lines[line],
                    [cells.raw] if isinstance(cells, Broken) else [cell_text(cell) for cell in cells],
                )

    def _bad_cell(self, cells: list[Any]) -> tuple[str, str] | None:
        """(header, reason) of the first cell in use that holds what is no text."""
        for index in self._used:
            if index < len(cells) and (reason := bad_characters(cell_text(cells[index]))):
                return self._columns.header[index], reason
        return None

    def _identity(self, cells: list[Any]) -> tuple[str | None, str | None]:
        """Key and primary question of a rejected row, as far as they can be read."""
        key, question = (_clean(cells, self._columns.single.get(name)) for name in ("key", "question"))
        return (None if bad_characters(key) else key or None), (None if bad_characters(question) else question or None)

    def _draft(self, line: int, cells: list[Any]) -> EntryDraft | RowError:
        single = self._columns.single

        def cell(name: str) -> str:
            return _clean(cells, single.get(name))

        similar = [part for index in self._columns.split for part in _split(cells, index)]
        similar += [_clean(cells, index) for index in self._columns.whole]
        try:
            draft = tidy_draft(
                EntryDraft(
                    key=cell("key"),
                    question=cell("question"),
                    similar=tuple(similar),
                    answer=cell("answer"),
                    category=cell("category"),
                    enabled=_field("enabled", _parse_enabled, cell("enabled")),
                    valid_from=_field("valid_from", parse_when, cell("valid_from")) if cell("valid_from") else None,
                    valid_to=_field("valid_to", _parse_end, cell("valid_to")) if cell("valid_to") else None,
                    line=line,
                )
            )
        except _FieldError as exc:
            name, reason = exc.args
        else:
            problem = check_draft(draft)
            if problem is None:
                return draft
            name, reason = problem
        return RowError(line, self._columns.title(name), reason, *self._identity(cells))


def open_table(
    path: str | Path,
    *,
    mapping: Mapping[str, Sequence[str]] | None = None,
    encoding: str | None = None,
    progress: Progress | None = None,
) -> TableReader:
    """Open a FAQ table and understand its header.

    Args:
        path: a CSV, TSV or XLSX file; its content decides which, not its name.
        mapping: field → headers that fill it, over the aliases.
        encoding: over what the bytes suggest: BOM, else strict UTF-8, else GB18030.
        progress: told ("reading", bytes or rows read, all of them).

    Raises:
        TableError: the file is no table, has no question or answer column, or cannot be read.
    """
    path = Path(path)
    names = [name for group in (*ALIASES.values(), *(mapping or {}).values()) for name in group]
    source = open_rows(path, encoding, _known(names), progress)
    try:
        columns, notes = _map_columns(path, source.header, mapping or {})
        if not source.has_rows():
            raise TableError(f"{path} holds a header but no rows")
    except BaseException:
        source.close()
        raise
    used: dict[str, tuple[str, ...]] = {name: (columns.header[index],) for name, index in columns.single.items()}
    if columns.split or columns.whole:
        used["similar"] = tuple(columns.header[index] for index in (*columns.split, *columns.whole))
    info = TableInfo(
        path=str(path),
        format=source.format,
        encoding=source.encoding,
        delimiter=source.delimiter,
        columns={name: used[name] for name in FIELDS if name in used},
        notes=(*source.notes, *notes),
    )
    return TableReader(source, columns, info)


def read_hit_tests(path: str | Path) -> list[HitTest]:
    """Read hit tests: a query column, and the key (or primary question) of the entry it should find.

    Raises:
        TableError: no such columns, or a row without a query or with undecodable bytes.
    """
    path = Path(path)
    with open_rows(path, None, _known((*QUERY_ALIASES, *EXPECTED_ALIASES))) as source:
        query = _find_column(source.header, QUERY_ALIASES)
        expected = _find_column(source.header, EXPECTED_ALIASES)
        if query is None or expected is None:
            raise TableError(
                f"{path} has the columns {_listed(source.header)}; expected hit tests with `query` and `key`"
                " (the key of the entry that the query should find, empty for none)"
            )
        tests = []
        for line, cells in source.rows():
            if isinstance(cells, Broken):
                raise TableError(f"{path}, line {line}: {cells.reason}")
            if any(cells[len(source.header) :]):
                raise TableError(f"{path}, line {line}: {len(cells)} cells where the header has {len(source.header)}")
            text, key = _clean(cells, query), _clean(cells, expected)
            reason = bad_characters(text + key) or (None if text or not key else "no query")
            if reason:
                raise TableError(f"{path}, line {line}: {reason}")
            if text:
                tests.append(HitTest(line, text, key or None))
    if not tests:
        raise TableError(f"{path} holds no hit tests")
    return tests


def check_expected(path: str | Path, tests: Sequence[HitTest], known: Container[str], where: str) -> None:
    """Refuse hit tests whose entries are not there.

    Raises:
        TableError: naming the first of the unknown keys by line.
    """
    unknown = [test for test in tests if test.expected and test.expected not in known]
    if unknown:
        named = ", ".join(f"{test.expected!r} (line {test.line})" for test in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise TableError(f"{path}: {where} has no entries {named}{more}; expected keys of its entries")


def read_queries(path: str | Path) -> list[tuple[int, str]]:
    """Read queries, one a line, from a text file: (line, query). Blank lines are passed over."""
    path = Path(path)
    head = read_head(path, "a text file with one query a line")
    if head.startswith(b"PK\x03\x04"):
        raise TableError(f"{path} is an XLSX or ZIP file; expected a text file with one query a line")
    encoding, _ = detect_encoding(path, head)
    queries = []
    with path.open(encoding=encoding, errors="surrogateescape") as handle:
        for line, text in enumerate(handle, start=1):
            if reason := bad_characters(text):
                raise TableError(f"{path}, line {line}: {reason}; expected text in UTF-8, one query a line")
            if len(text.strip()) > QUERY_LIMIT:
                raise TableError(f"{path}, line {line}: {len(text):,} characters; a query has at most {QUERY_LIMIT:,}")
            if text.strip():
                queries.append((line, text.strip()))
    if not queries:
        raise TableError(f"{path} holds no queries; expected one a line")
    return queries


class _FieldError(Exception):
    """args: field, reason."""


def _field(name: str, parse: Callable[[str], Any], text: str) -> Any:  # noqa: ANN401 - whatever the field holds
    try:
        return parse(text)
    except ValueError as exc:
        raise _FieldError(name, str(exc)) from exc


def _parse_end(text: str) -> datetime:
    return parse_when(text, end=True)


def _parse_enabled(text: str) -> bool:
    folded = normalise(text)
    if not folded or folded in _TRUE.split():
        return True
    if folded in _FALSE.split():
        return False
    raise ValueError(f"{text!r} is neither on nor off; expected e.g. 1 or 0, yes or no, 启用 or 停用")


def _unescape(text: str) -> str:
    """Take off the apostrophe that keeps a spreadsheet from running a cell (see `_escape`)."""
    return text[1:] if _ESCAPED_FORMULA.match(text) else text


def _escape(text: str) -> str:
    """Keep a spreadsheet from running a cell: '=1+1' → "'=1+1"."""
    return "'" + text if _FORMULA.match(text) else text


def _clean(cells: list[Any], index: int | None) -> str:
    if index is None or index >= len(cells):
        return ""
    return _unescape(cell_text(cells[index]).strip())


def _split(cells: list[Any], index: int) -> list[str]:
    if index >= len(cells):
        return []
    return [_unescape(part.strip()) for part in _SEPARATORS.split(cell_text(cells[index]))]


# --- columns -------------------------------------------------------------------------------------


def _fold_header(text: str) -> str:
    return re.sub(r"[\s_\-*]", "", normalise(text))


def _listed(headers: Iterable[str]) -> str:
    return ", ".join(repr(header) for header in headers if header) or "(none)"


def _known(names: Iterable[str]) -> Callable[[str], bool]:
    """Whether a header cell is one of these names."""
    folded = {_fold_header(name) for name in names}
    return lambda cell: _fold_header(cell) in folded


def _find_column(header: Sequence[str], aliases: Sequence[str]) -> int | None:
    folded = [_fold_header(cell) for cell in header]
    return next((folded.index(_fold_header(name)) for name in aliases if _fold_header(name) in folded), None)


def _map_columns(path: Path, header: Sequence[str], mapping: Mapping[str, Sequence[str]]) -> tuple[_Columns, list[str]]:
    """Find the column of each field: those named explicitly first, then the aliases in their order."""
    folded = [_fold_header(cell) for cell in header]
    found: dict[str, list[int]] = {name: _named(path, header, name, wanted) for name, wanted in mapping.items()}
    for name in ALIASES:
        if name not in mapping:
            taken = {index for indexes in found.values() for index in indexes}
            found[name] = _by_alias(folded, name, taken)
    taken = {index for indexes in found.values() for index in indexes}
    whole = [] if "similar" in mapping else _numbered(folded, taken)
    notes = []
    primary = next((index for index in whole if folded[index].startswith("q")), None)
    if not found["question"] and primary is not None:
        whole.remove(primary)
        found["question"] = [primary]
        notes.append(f"column {header[found['question'][0]]!r} is taken for the primary question")
    for name in ("question", "answer"):
        if not found[name]:
            raise TableError(
                f"{path} has no {name} column: it has {_listed(header)}; "
                f"expected one of {', '.join(ALIASES[name])}, or name it with --map {name}=COLUMN",
                tuple(header),
            )
    used = {index for indexes in (*found.values(), whole) for index in indexes}
    if tuple(header[: len(REJECT_HEADER)]) == REJECT_HEADER:
        used.update(range(len(REJECT_HEADER)))
    if extra := [title for index, title in enumerate(header) if index not in used and title]:
        notes.append(f"columns not used: {', '.join(extra)}")
    if not all(header):
        notes.append("columns without a name are not used")
    single = {name: indexes[0] for name, indexes in found.items() if name != "similar" and indexes}
    return _Columns(tuple(header), single, tuple(sorted(found["similar"])), tuple(whole)), notes


def _named(path: Path, header: Sequence[str], name: str, wanted: Sequence[str]) -> list[int]:
    """The columns that an explicit mapping names for a field."""
    if name not in FIELDS:
        raise TableError(f"unknown field {name!r} in the column mapping; known are {', '.join(FIELDS)}")
    indexes = []
    wanted = [wanted] if isinstance(wanted, str) else wanted
    for text in wanted if name == "similar" else wanted[-1:]:
        index = _find_column(header, [text])
        if index is None:
            raise TableError(f"{path} has no column {text!r} for {name}; it has {_listed(header)}")
        indexes.append(index)
    return indexes


def _by_alias(folded: Sequence[str], name: str, taken: set[int]) -> list[int]:
    """The column whose header is the first alias of a field; for similar questions, all such columns."""
    aliases = [_fold_header(alias) for alias in ALIASES[name]]
    matches = [
        index for alias in aliases for index, title in enumerate(folded) if title == alias and index not in taken
    ]
    return matches if name == "similar" else matches[:1]


def _numbered(folded: Sequence[str], taken: set[int]) -> list[int]:
    """Columns such as question1, 相似问2, by their number."""
    stems = {_fold_header(stem) for stem in NUMBERED}
    found = []
    for index, text in enumerate(folded):
        match = re.fullmatch(r"(.*?)(\d+)", text)
        if match and match.group(1) in stems and index not in taken:
            found.append((int(match.group(2)), index))
    return [index for _, index in sorted(found)]


# --- writing -------------------------------------------------------------------------------------


def write_template(out: str | Path | IO[str], lang: str = "zh") -> None:
    """Write an empty table with two example rows to a CSV, TSV or XLSX file, or as CSV to a stream."""
    rows = [list(_HEADERS[lang])]
    rows += [_cells(draft, "\n".join(draft.similar), []) for draft in _EXAMPLES[lang]]
    write_cells(out, rows)


def write_entries(out: str | Path | IO[str], entries: Iterable[Entry], *, numbered: int = 0, lang: str = "zh") -> None:
    """Write entries so that reading them gives the same entries again.

    Args:
        out: a file ending in .csv, .tsv or .xlsx, or a stream for CSV.
        entries: what to write, in this order.
        numbered: how many columns for similar questions that cannot share a cell (see `needs_numbered`).
        lang: the language of the header, zh or en.
    """
    stem = _HEADERS[lang][2]

    def rows() -> Iterator[list[str]]:
        yield [*_HEADERS[lang], *(f"{stem}{number}" for number in range(1, numbered + 1))]
        for entry in entries:
            draft = EntryDraft(
                key=entry.key,
                question=entry.question,
                similar=entry.similar,
                answer=entry.answer,
                category=entry.category,
                enabled=entry.enabled,
                valid_from=entry.valid_from,
                valid_to=entry.valid_to,
            )
            whole = needs_numbered(draft.similar)
            if whole and len(draft.similar) > numbered:
                raise TableError("the corpus changed while it was written; export it again")
            joined = "" if whole else "\n".join(map(_escape, draft.similar))
            yield _cells(draft, joined, list(draft.similar) if whole else [], width=numbered)

    write_cells(out, rows())


def needs_numbered(similar: Iterable[str]) -> bool:
    """Whether one of these similar questions holds a separator, so that they cannot share a cell."""
    return any(_SEPARATORS.search(text) for text in similar)


def write_rejects(out: str | Path, reader: TableReader, errors: Sequence[RowError]) -> None:
    """Write the rejected rows with line, column and reason before their own cells, to mend and import again.

    Where the table was such a file itself, the new reasons take the place of the old ones.
    """
    by_line = {error.line: error for error in errors}
    header = reader._columns.header
    skip = len(REJECT_HEADER) if header[: len(REJECT_HEADER)] == REJECT_HEADER else 0

    def rows() -> Iterator[list[str]]:
        yield [*REJECT_HEADER, *header[skip:]]
        for error, cells in reader.rejects(by_line) if by_line else ():
            yield [str(error.line), error.column, error.reason, *map(_showable, cells[skip:] or cells)]

    write_cells(out, rows())


def write_rows(out: str | Path | IO[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows of text, escaped for spreadsheets, to a CSV, TSV or XLSX file, or as CSV to a stream."""
    write_cells(out, ([_escape(cell) for cell in row] for row in rows))


def _showable(text: str) -> str:
    """A raw cell that a file can hold and no spreadsheet runs; undecodable bytes become visible escapes."""
    text = ("'" + text if text[:1] in tuple("=+-@") else text).replace(NUL_MARK, "\0")
    text = NO_TEXT.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
    return UNDECODED.sub(lambda match: f"\\x{ord(match.group()) & 0xFF:02x}", text)


def _cells(draft: EntryDraft, joined: str, numbered: list[str], width: int = 0) -> list[str]:
    cells = [
        draft.key or "",
        draft.question,
        joined,
        draft.answer,
        draft.category,
        "1" if draft.enabled else "0",
        _format_when(draft.valid_from),
        _format_when(draft.valid_to, end=True),
        *numbered,
        *[""] * (width - len(numbered)),
    ]
    return [cell if index == 2 else _escape(cell) for index, cell in enumerate(cells)]
