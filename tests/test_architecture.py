"""The plan that the code keeps to: which module may know which, and what a program may rely on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import faqsearch

PACKAGE = Path(faqsearch.__file__).parent
MODULES = {path.stem: path for path in PACKAGE.glob("*.py")}
PAGES = {f"ui.{path.stem}": path for path in (PACKAGE / "ui").glob("*.py")}

# What each module may import of the package while it loads or later. Arrows point one way.
LEAVES = {"errors", "model", "text"}
MAY_IMPORT = {
    "errors": {"model"},  # for type checking alone
    "model": set(),
    "text": set(),
    "settings": {"errors", "model"},
    "evaluate": set(),
    "checkpoint": {"errors"},
    "hub": {"errors"},
    "pairs": {"errors", "files"},
    "measure": LEAVES | {"evaluate", "pairs", "tables", "encoder"},
    "distill": LEAVES | {"checkpoint", "encoder", "registry", "pairs", "measure"},
    "benchmark": LEAVES | {"hub", "pairs"},
    "plots": {"errors", "measure", "distill"},
    "files": {"errors", "model"},
    "tables": LEAVES | {"files"},
    "staging": LEAVES,
    "store": LEAVES | {"staging"},
    "bert": {"errors", "checkpoint"},
    "encoder": LEAVES | {"checkpoint", "bert"},
    "registry": {"errors", "model", "checkpoint", "hub", "encoder"},
    "torch_search": {"encoder"},
    "index": LEAVES | {"torch_search"},
    "search": LEAVES | {"store", "index", "encoder"},
    "service": LEAVES
    | {"settings", "tables", "store", "index", "encoder", "registry", "evaluate", "measure", "pairs", "search"},
    "console": {"errors", "settings", "service"},
    "cli": LEAVES | {"settings", "tables", "service", "console", "printing", "cli_distill", "cli_encoders"},
    "cli_distill": LEAVES
    | {"settings", "tables", "pairs", "registry", "measure", "distill", "plots", "console", "printing"},
    "cli_encoders": LEAVES
    | {"settings", "tables", "pairs", "registry", "encoder", "measure", "benchmark", "plots", "console", "printing"},
    "printing": LEAVES | {"service", "measure", "benchmark"},
    "__main__": {"cli"},
    "__init__": LEAVES | {"settings", "registry", "service"},
}
# What each module of the web pages may import, beside the others of them.
PAGES_MAY_IMPORT = {"text", "errors", "model", "settings", "service", "evaluate"}
# The one user of each library, migrations aside.
ONLY_USERS = {
    "torch": {"bert", "torch_search", "encoder", "distill"},
    "transformers": {"encoder"},
    "faiss": {"index"},
    "filelock": {"index"},
    "sqlalchemy": {"store", "staging"},
    "alembic": {"store"},
    "openpyxl": {"files"},
    "csv": {"files"},
    "opencc": {"text"},
    "typer": {"cli", "cli_distill", "cli_encoders", "console", "printing"},
    "rich": {"printing"},
    "huggingface_hub": {"hub"},
    "datasets": {"benchmark"},
    "matplotlib": {"plots"},
}
# Libraries of the web pages: nothing else uses them.
ONLY_PAGES = ("streamlit", "altair")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            base = node.module or ""
            found |= {f"{base}.{alias.name}" if base == "faqsearch" else base for alias in node.names}
    return found


def inside(path: Path) -> set[str]:
    """The modules of the package that a file imports, the pages being one: ui."""
    return {item.split(".")[1] for item in imports(path) if item.startswith("faqsearch.")} & {*MODULES, "ui"}


def users(library: str) -> set[str]:
    """The modules that import a library."""
    files = {**MODULES, **PAGES}.items()
    return {name for name, path in files if any(item.split(".")[0] == library for item in imports(path))}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_one_way(name: str) -> None:
    assert inside(MODULES[name]) <= MAY_IMPORT[name]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_pages_know_the_service_and_what_it_hands_out(name: str) -> None:
    assert inside(PAGES[name]) <= PAGES_MAY_IMPORT | {"ui"}


@pytest.mark.parametrize("library", sorted(ONLY_USERS))
def test_a_library_has_one_user(library: str) -> None:
    assert users(library) == ONLY_USERS[library]


@pytest.mark.parametrize("library", ONLY_PAGES)
def test_a_library_of_the_pages_is_used_by_pages_alone(library: str) -> None:
    found = users(library)
    assert found and found <= set(PAGES)


def test_only_settings_reads_the_environment() -> None:
    files = {**MODULES, **PAGES}.items()
    words = re.compile(r"\benviron\b|\bgetenv\b|\bputenv\b")
    assert {name for name, path in files if words.search(path.read_text(encoding="utf-8"))} == {"settings"}


def test_the_public_names_are_these() -> None:
    assert sorted(faqsearch.__all__) == [
        "Corpus",
        "Entry",
        "EntryDraft",
        "FaqSearch",
        "FaqSearchError",
        "Hit",
        "ImportReport",
        "IndexVersion",
        "Question",
        "SearchResult",
        "Settings",
        "__version__",
        "load_encoder",
        "normalise",
    ]
    for name in faqsearch.__all__:
        assert getattr(faqsearch, name) is not None
    assert dir(faqsearch) == sorted(faqsearch.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Searcher'"):
        faqsearch.Searcher  # noqa: B018 - the access is the test


@pytest.mark.parametrize("statement", ["import faqsearch", "from faqsearch import *", "import faqsearch.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    code = (
        f"{statement}\nimport sys\nprint(*sorted({{'torch', 'faiss', 'streamlit', 'transformers'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_schema_number_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    from faqsearch.store import SCHEMA

    config = Config()
    config.set_main_option("script_location", str(PACKAGE / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA
