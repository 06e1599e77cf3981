"""Settings, and the one reader of the environment and of faqsearch.toml.

Later wins: defaults, `faqsearch.toml` in the home folder, environment variables. A home folder that
is named explicitly (`--home DIR`) holds everything, so the environment's database and index
folder do not count then.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from faqsearch.errors import SettingsError
from faqsearch.model import Precision

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS_FILE = "faqsearch.toml"
CHOICES = {"device": ("auto", "cpu", "cuda"), "precision": ("auto", "float32", "bfloat16")}
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Settings:
    """How and where faqsearch works. Paths are absolute once they come out of `load`."""

    database_url: str = "sqlite:///data/faqsearch.sqlite3"
    """SQLite is the one database: sqlite:///relative/to/home or sqlite:////absolute."""
    index_dir: Path = Path("indexes")
    device: str = "auto"
    """auto (a GPU where there is one), cpu, or cuda."""
    precision: Precision = "auto"
    """Of the encoder: auto (bfloat16 where the hardware has it, else float32), or one of them."""
    query_log: bool = True
    """Whether queries are logged in the database."""
    keep_versions: int = 5
    """Index versions that a rebuild leaves in place, the current one among them."""
    batch_size: int = 1024
    """Texts that the encoder takes at once, at most."""
    person: str = ""
    """Whom the history names where nobody else is given; the system's user while this is empty."""

    def __post_init__(self) -> None:
        """Refuse what `load` would refuse, however the settings are made."""
        if not self.database_url.startswith(_SQLITE) or self.database_url == _SQLITE:
            raise SettingsError(f"database_url is {self.database_url!r}; expected sqlite:///path/to/file.sqlite3")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        for name in ("keep_versions", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; expected a whole number from 1")
        object.__setattr__(self, "index_dir", Path(self.index_dir))

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.database_url.removeprefix(_SQLITE)).expanduser()

    @classmethod
    def load(cls, home: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """Read faqsearch.toml and the environment.

        Args:
            home: the folder that relative paths start from; else FAQSEARCH_HOME, else the current one.
            environ: the environment; `os.environ` unless given.

        Raises:
            SettingsError: an unknown name or a value that cannot be used.
        """
        environ = os.environ if environ is None else environ
        root = _expand(str(home or environ.get("FAQSEARCH_HOME") or "."), "the home folder").absolute()
        names = [item.name for item in fields(cls)]
        values = _read_toml(root / SETTINGS_FILE, names)
        for name in names:
            variable = f"FAQSEARCH_{name.upper()}"
            explicit_home = home is not None and name in ("database_url", "index_dir")
            if environ.get(variable) and not explicit_home:
                values[name] = (environ[variable], variable)
        return cls(**{name: _convert(name, value, origin, root) for name, (value, origin) in values.items()})._rooted(
            root
        )

    def _rooted(self, root: Path) -> Settings:
        return replace(self, database_url=_SQLITE + str(root / self.database_path), index_dir=root / self.index_dir)


def environment_for(home: str | Path | None) -> dict[str, str]:
    """The environment in which another program's `Settings.load()` finds what `Settings.load(home)` finds here."""
    environment = dict(os.environ)
    if home is not None:
        environment["FAQSEARCH_HOME"] = str(_expand(str(home), "the home folder").absolute())
        for name in ("FAQSEARCH_DATABASE_URL", "FAQSEARCH_INDEX_DIR"):
            environment.pop(name, None)  # they do not count beside a home folder that is named
    return environment


def _read_toml(path: Path, names: list[str]) -> dict[str, tuple[Any, str]]:
    """The settings file's values with where they come from; nothing where there is no such file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"{path} cannot be read as TOML in UTF-8: {exc}") from exc
    for name in table:
        if name not in names:
            raise SettingsError(f"{path}: unknown setting {name!r}; known are {', '.join(names)}")
    return {name: (value, f"{path}: {name}") for name, value in table.items()}


def _expand(path: str, origin: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise SettingsError(f"{origin} is {path!r}, but there is no such user; name the folder in full") from exc


def system_user() -> str:
    """The name that the system knows the user by; "" where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run under a user without a name
        return ""


def _convert(name: str, value: object, origin: str, root: Path) -> Any:  # noqa: ANN401 - one of several types
    text = str(value).strip()
    if name == "database_url":
        if not text.startswith(_SQLITE) or text == _SQLITE:
            raise SettingsError(f"{origin} is {text!r}; expected sqlite:///path/to/file.sqlite3")
        return text
    if name == "person":
        return text
    if name == "index_dir":
        if not isinstance(value, str) or not text:
            raise SettingsError(f"{origin} is {value!r}; expected the path of a folder")
        return root / _expand(text, origin)
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise SettingsError(f"{origin} is {text!r}; expected one of {', '.join(CHOICES[name])}")
        return text
    if name == "query_log":
        lowered = text.lower()
        if lowered not in ("1", "0", "true", "false", "yes", "no", "on", "off"):
            raise SettingsError(f"{origin} is {text!r}; expected true or false")
        return lowered in ("1", "true", "yes", "on")
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise SettingsError(f"{origin} is {text!r}; expected a whole number from 1")
    return int(text)
