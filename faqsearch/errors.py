"""Everything that can go wrong, as one tree.

    FaqSearchError
    ├── SettingsError       a setting that cannot be used
    ├── TableError          a file that is no FAQ table
    ├── ImportRejectedError a strict import that met rejected rows; nothing was saved
    ├── QueryError          a query that cannot be searched for
    ├── StoreError          the database
    │   ├── CorpusNotFoundError
    │   ├── CorpusExistsError
    │   ├── EntryNotFoundError
    │   ├── EntryInvalidError   an entry that breaks a rule, a phrasing that is taken among them
    │   ├── EntryConflictError  somebody else has changed the entry meanwhile
    │   └── QueryNotFoundError
    ├── EncoderError        a checkpoint that is missing, damaged or of an unknown kind
    │   └── DamagedCheckpointError  before it is known what mends it
    └── IndexFileError      an index version that is missing, damaged or does not fit
        └── IndexBusyError  another process is rebuilding this index

Every message is one line: what was got, what was expected, and the cure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from faqsearch.model import Entry, ImportReport


class FaqSearchError(Exception):
    """The base of all errors that this package raises on purpose."""


class SettingsError(FaqSearchError):
    """A setting that cannot be used."""


class TableError(FaqSearchError):
    """A file that is no FAQ table, or not one that can be read.

    `header` holds the columns that were found, where the trouble is that these are not the expected ones.
    """

    def __init__(self, message: str, header: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.header = header


class ImportRejectedError(FaqSearchError):
    """A strict import met rejected rows and saved nothing; `report` holds them."""

    def __init__(self, message: str, report: ImportReport) -> None:
        super().__init__(message)
        self.report = report


class QueryError(FaqSearchError):
    """A query that cannot be searched for: empty, too long, or no valid text."""


class StoreError(FaqSearchError):
    """The database cannot be opened, or refuses what was asked of it."""


class CorpusNotFoundError(StoreError):
    """No corpus of this name."""


class CorpusExistsError(StoreError):
    """A corpus of this name exists already."""


class EntryNotFoundError(StoreError):
    """No entry of this id or key."""


class EntryInvalidError(StoreError):
    """An entry that breaks a rule: no answer, over length, a phrasing that leads elsewhere.

    `field` is the field of `EntryDraft` at fault, or ""; `entry_id` the entry that has the key or `phrasing` already.
    """

    def __init__(self, message: str, *, field: str = "", entry_id: int | None = None, phrasing: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.entry_id = entry_id
        self.phrasing = phrasing


class EntryConflictError(StoreError):
    """The entry was changed since it was read; `entry` is what it is now."""

    def __init__(self, message: str, entry: Entry) -> None:
        super().__init__(message)
        self.entry = entry


class QueryNotFoundError(StoreError):
    """No logged query of this id."""


class EncoderError(FaqSearchError):
    """A checkpoint that is missing, damaged, or of a kind that cannot be loaded."""


class DamagedCheckpointError(EncoderError):
    """A checkpoint that lacks a file, or has a damaged one; the message has yet to say what mends it.

    Where a checkpoint comes from decides that, so it leaves this package as a plain EncoderError.
    """


class IndexFileError(FaqSearchError):
    """An index version that is missing, damaged, or does not fit its corpus."""


class IndexBusyError(IndexFileError):
    """Another process holds the lock of this index."""
