"""What the modules of the command line share: the options before a command, and what commands open."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from faqsearch.errors import StoreError
from faqsearch.service import FaqSearch
from faqsearch.settings import Settings

GROUP = {"no_args_is_help": True, "rich_markup_mode": "markdown"}
"""How each group of commands is made."""


@dataclass
class Globals:
    """The options before the command."""

    home: Path | None = None
    debug: bool = False


GLOBALS = Globals()

Corpus = Annotated[str, typer.Option("--corpus", "-c", help="The corpus's name.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def open_service(*, create: bool = False) -> FaqSearch:
    """The service; a command that only reads does not make a database where there is none."""
    settings = Settings.load(GLOBALS.home)
    if not create and not settings.database_path.exists():
        raise StoreError(f"there is no database {settings.database_path} yet; import a table first, or check --home")
    return FaqSearch.open(settings)


@contextmanager
def input_file(file: Path) -> Iterator[Path]:
    """A file to read; for - a copy of stdin, since a table is read more than once."""
    if str(file) != "-":
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as handle:
            shutil.copyfileobj(sys.stdin.buffer, handle)
        yield copy
