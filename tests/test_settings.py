"""Where settings come from, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faqsearch import Settings
from faqsearch.errors import SettingsError
from faqsearch.settings import SETTINGS_FILE


def _toml(home: Path, text: str | bytes) -> Path:
    home.mkdir(exist_ok=True)
    path = home / SETTINGS_FILE
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _fails(home: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(home, environ or {})
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_lie_under_the_home_folder(tmp_path: Path) -> None:
    assert Settings.load(tmp_path, {}) == Settings(
        database_url=f"sqlite:///{tmp_path}/data/faqsearch.sqlite3",
        index_dir=tmp_path / "indexes",
        device="auto",
        precision="auto",
        query_log=True,
        keep_versions=5,
        batch_size=1024,
    )


def test_without_a_home_the_current_folder_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings.load(environ={}).index_dir == tmp_path / "indexes"
    assert Settings.load("sub", {}).database_path == tmp_path / "sub" / "data" / "faqsearch.sqlite3"


def test_the_file_wins_over_the_defaults_and_the_environment_over_the_file(tmp_path: Path) -> None:
    _toml(tmp_path, 'device = "cpu"\nkeep_versions = 9\nquery_log = false\nbatch_size = 8\n')

    settings = Settings.load(None, {"FAQSEARCH_HOME": str(tmp_path), "FAQSEARCH_KEEP_VERSIONS": "2"})

    assert settings == Settings(
        database_url=f"sqlite:///{tmp_path}/data/faqsearch.sqlite3",
        index_dir=tmp_path / "indexes",
        device="cpu",
        query_log=False,
        keep_versions=2,
        batch_size=8,
    )


def test_the_process_environment_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAQSEARCH_HOME", str(tmp_path))
    monkeypatch.setenv("FAQSEARCH_INDEX_DIR", "else")

    assert Settings.load().index_dir == tmp_path / "else"


def test_an_explicit_home_holds_everything_whatever_the_environment_says(tmp_path: Path) -> None:
    environ = {
        "FAQSEARCH_HOME": "/elsewhere",
        "FAQSEARCH_DATABASE_URL": "sqlite:////elsewhere/db.sqlite3",
        "FAQSEARCH_INDEX_DIR": "/elsewhere/indexes",
        "FAQSEARCH_DEVICE": "cpu",
    }

    settings = Settings.load(tmp_path, environ)

    assert settings.database_path == tmp_path / "data" / "faqsearch.sqlite3"
    assert settings.index_dir == tmp_path / "indexes"
    assert settings.device == "cpu"  # not a place: still the environment's to say


def test_the_file_of_an_explicit_home_counts(tmp_path: Path) -> None:
    _toml(tmp_path, 'database_url = "sqlite:///db/faq.sqlite3"\nindex_dir = "/var/indexes"\n')

    settings = Settings.load(tmp_path, {"FAQSEARCH_INDEX_DIR": "/elsewhere"})

    assert settings.database_path == tmp_path / "db" / "faq.sqlite3"
    assert settings.index_dir == Path("/var/indexes")


def test_paths_in_the_environment_are_relative_to_home_and_may_be_absolute(tmp_path: Path) -> None:
    environ = {
        "FAQSEARCH_HOME": str(tmp_path),
        "FAQSEARCH_DATABASE_URL": "sqlite:///sub/faq.sqlite3",
        "FAQSEARCH_INDEX_DIR": "~/indexes",
    }

    settings = Settings.load(None, environ)

    assert settings.database_url == f"sqlite:///{tmp_path}/sub/faq.sqlite3"
    assert settings.index_dir == Path("~/indexes").expanduser()
    absolute = Settings.load(None, {**environ, "FAQSEARCH_DATABASE_URL": "sqlite:////srv/faq.sqlite3"})
    assert absolute.database_path == Path("/srv/faq.sqlite3")


def test_paths_may_be_chinese_and_hold_spaces(tmp_path: Path) -> None:
    home = tmp_path / "客服 知识库"
    _toml(home, 'index_dir = "索引 目录"\ndatabase_url = "sqlite:///数据/问答.sqlite3"\n')

    settings = Settings.load(home, {})

    assert settings.index_dir == home / "索引 目录"
    assert settings.database_path == home / "数据" / "问答.sqlite3"


def test_a_settings_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    _toml(tmp_path, b"\xef\xbb\xbfbatch_size = 7\r\n")

    assert Settings.load(tmp_path, {}).batch_size == 7


@pytest.mark.parametrize(
    ("text", "logged"),
    [("1", True), ("TRUE", True), ("yes", True), ("On", True), ("0", False), ("false", False), ("no", False)],
)
def test_the_query_log_is_switched_by_the_usual_words(tmp_path: Path, text: str, logged: bool) -> None:
    assert Settings.load(tmp_path, {"FAQSEARCH_QUERY_LOG": text}).query_log is logged


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    assert Settings.load(tmp_path, {"FAQSEARCH_DEVICE": "", "FAQSEARCH_KEEP_VERSIONS": ""}) == Settings.load(
        tmp_path, {}
    )


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("FAQSEARCH_DEVICE", "gpu", "one of auto, cpu, cuda"),
        ("FAQSEARCH_QUERY_LOG", "maybe", "true or false"),
        ("FAQSEARCH_KEEP_VERSIONS", "0", "a whole number from 1"),
        ("FAQSEARCH_KEEP_VERSIONS", "2.5", "a whole number from 1"),
        ("FAQSEARCH_BATCH_SIZE", "-1", "a whole number from 1"),
        ("FAQSEARCH_BATCH_SIZE", "viele", "a whole number from 1"),
        ("FAQSEARCH_DATABASE_URL", "mysql://host/db", "sqlite:///path/to/file.sqlite3"),
        ("FAQSEARCH_DATABASE_URL", "data/faq.sqlite3", "sqlite:///path/to/file.sqlite3"),
        ("FAQSEARCH_DATABASE_URL", "sqlite:///", "sqlite:///path/to/file.sqlite3"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name_and_what_is_expected(variable: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load(None, {variable: value})

    assert str(caught.value) == f"{variable} is {value!r}; expected {expected}"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('device = "gpu"', "device is 'gpu'"),
        ("query_log = 2", "query_log is '2'"),
        ("keep_versions = true", "keep_versions is 'True'"),
        ("keep_versions = 0", "keep_versions is '0'"),
        ("batch_size = 1.5", "batch_size is '1.5'"),
        ('database_url = "postgres://x"', "database_url is 'postgres://x'"),
    ],
)
def test_a_bad_value_in_the_file_is_refused_by_file_and_name(tmp_path: Path, line: str, shown: str) -> None:
    path = _toml(tmp_path, f"{line}\n")

    assert _fails(tmp_path).startswith(f"{path}: {shown}; expected ")


@pytest.mark.parametrize("value", ["5", "true", '["a", "b"]', '""', '"  "', "{a = 1}"])
def test_an_index_folder_that_is_no_path_is_refused(tmp_path: Path, value: str) -> None:
    path = _toml(tmp_path, f"index_dir = {value}\n")

    assert _fails(tmp_path).startswith(f"{path}: index_dir is ")


def test_a_home_of_an_unknown_user_is_refused(tmp_path: Path) -> None:
    assert "~no-such-user" in _fails(Path("~no-such-user/faq"))
    path = _toml(tmp_path, 'index_dir = "~no-such-user/indexes"\n')
    assert _fails(tmp_path).startswith(f"{path}: index_dir is '~no-such-user/indexes'")


@pytest.mark.parametrize("name", ["indexdir", "Device", "faqsearch", "home"])
def test_an_unknown_setting_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    path = _toml(tmp_path, f'{name} = "x"\n')

    assert _fails(tmp_path) == (
        f"{path}: unknown setting {name!r}; known are"
        " database_url, index_dir, device, precision, query_log, keep_versions, batch_size, person"
    )


@pytest.mark.parametrize("text", [b"device = cpu\n", 'index_dir = "索引"\n'.encode("gb18030"), b"= 1"])
def test_a_file_that_is_no_toml_in_utf8_is_refused(tmp_path: Path, text: bytes) -> None:
    path = _toml(tmp_path, text)

    assert _fails(tmp_path).startswith(f"{path} cannot be read as TOML in UTF-8: ")


def test_a_settings_file_that_is_a_folder_and_a_home_that_is_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")

    assert str(tmp_path / SETTINGS_FILE) in _fails(tmp_path)
    assert str(tmp_path / "file") in _fails(tmp_path / "file")


def test_a_bad_value_that_is_overridden_does_not_count(tmp_path: Path) -> None:
    _toml(tmp_path, 'device = "gpu"\n')

    assert Settings.load(tmp_path, {"FAQSEARCH_DEVICE": "cpu"}).device == "cpu"


def test_loading_changes_neither_folder_nor_environment(tmp_path: Path) -> None:
    before = dict(os.environ)

    Settings.load(tmp_path / "home", {"FAQSEARCH_INDEX_DIR": "x"})

    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before
