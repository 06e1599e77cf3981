"""What every page shares: the one service, the language, the corpus, who is there, and errors as messages."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from faqsearch.errors import (
    CorpusNotFoundError,
    EncoderError,
    FaqSearchError,
    IndexBusyError,
    IndexFileError,
    TableError,
)
from faqsearch.model import Corpus
from faqsearch.service import FaqSearch
from faqsearch.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LANGUAGES = {"zh": "中文", "en": "English"}
_TEXTS = Path(__file__).parent.parent / "assets" / "texts"
_LINK = re.compile(r"\]\(\s*([^)\s]*)")
_SAFE = re.compile(r"(?:https?://|mailto:|tel:)", re.IGNORECASE)
_REFERENCE = re.compile(r"^(\s*)\[(?=[^\]]*\]:)", re.MULTILINE)
_DIRECTIVE = re.compile(r":(?=[a-z][a-z_-]*[\[:/])")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+\-.!|~$:>]")


@st.cache_resource(show_spinner=False)
def service() -> FaqSearch:
    """The one FaqSearch of this server: encoders and indexes are loaded once for all users, never per rerun."""
    return FaqSearch.open(Settings.load())


# --- language ------------------------------------------------------------------------------------


@cache
def texts() -> dict[str, tuple[str, str]]:
    """Every text of the pages by its key, in Chinese and in English, from assets/texts/*.toml."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted(_TEXTS.glob("*.toml")):
        for name, pair in tomllib.loads(path.read_text(encoding="utf-8")).items():
            key = f"{path.stem}.{name}"
            chinese, english = pair
            found[key] = (chinese, english)
    return found


def language() -> str:
    """The language, zh or en: as chosen in this session, Chinese first."""
    return str(st.session_state.get("language", "zh"))


def t(key: str, **values: object) -> str:
    """A text of the pages in the language of the session.

    >>> t("common.entries", count=3)
    '3 条'
    """
    text = texts()[key][0 if language() == "zh" else 1]
    return text.format(**values) if values else text


# --- who and where -------------------------------------------------------------------------------


def person() -> str | None:
    """The name that was given in the settings page, for the history; None for the system's user."""
    return st.session_state.get("person") or None


def choose_corpus() -> Corpus | None:
    """The corpus switch in the sidebar: remembered in the session and in the address.

    Returns None, having said so on the page, where there is no corpus yet.
    """
    corpora = service().corpora()
    if not corpora:
        st.info(t("common.no_corpus"), icon=":material/inbox:")
        st.code(t("common.no_corpus_command"), language="bash")
        return None
    names = [corpus.name for corpus in corpora]
    asked = st.query_params.get("corpus")
    if asked and asked not in names and st.session_state.get("corpus") not in names:
        # Never answer from another corpus than the one that a link names.
        st.warning(t("common.unknown_corpus", name=plain(asked)), icon=":material/link_off:")
        if not st.button(t("common.choose_other"), key="corpus_other"):
            return None
        del st.query_params["corpus"]
    wanted = st.session_state.get("corpus") or st.query_params.get("corpus")
    titles = {corpus.name: corpus.title for corpus in corpora}
    name = st.sidebar.selectbox(
        t("common.corpus"),
        names,
        index=names.index(wanted) if wanted in names else 0,
        format_func=lambda item: titles[item] if titles[item] == item else f"{titles[item]} · {item}",
        key="corpus_choice",
    )
    st.session_state["corpus"] = name
    st.query_params["corpus"] = name
    return next(corpus for corpus in corpora if corpus.name == name)


# --- showing -------------------------------------------------------------------------------------


def safe_markdown(text: str) -> str:
    """An answer as Markdown that keeps its line breaks, lists and links and can run nothing.

    Raw HTML stays text (Streamlit's `unsafe_allow_html` is never used), a link leads only to the web, mail or a
    phone, and pictures, formulas and colour directives are shown as they are written.
    """
    text = _escape(text)
    lines = text.split("\n")
    # A single line break is one in the answer, while Markdown needs two spaces before it.
    return "\n".join(line + "  " if line.strip() else line for line in lines)


def _escape(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    text = text.replace("$", "\\$").replace("![", "!\\[")
    text = _DIRECTIVE.sub(r"\\:", text)
    text = _REFERENCE.sub(r"\1\\[", text)
    return _LINK.sub(lambda match: match.group() if _SAFE.match(match.group(1)) else "](#", text)


def plain(text: str) -> str:
    """A text shown as it is, with nothing taken for Markdown."""
    return _MARKDOWN.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " "))


@contextmanager
def errors_shown() -> Iterator[None]:
    """The one place where an error becomes a message in the page: what it is and what to do."""
    try:
        yield
    except IndexBusyError:
        st.warning(t("common.index_busy"), icon=":material/hourglass_top:")
    except IndexFileError as exc:
        st.error(t("common.index_damaged", detail=exc), icon=":material/build:")
    except EncoderError as exc:
        st.error(t("common.encoder_missing", detail=exc), icon=":material/memory:")
    except CorpusNotFoundError:
        st.session_state.pop("corpus", None)
        st.warning(t("common.corpus_gone"), icon=":material/inbox:")
    except TableError as exc:
        st.error(t("common.table_error", detail=exc), icon=":material/table:")
    except FaqSearchError as exc:
        st.error(t("common.error", detail=exc), icon=":material/error:")
    except Exception:  # a bug: the person gets one line, whoever looks after the server the traceback
        logging.getLogger(__name__).exception("a page failed")
        st.error(t("common.bug"), icon=":material/bug_report:")


def notify(message: str) -> None:
    """Keep a message over the next rerun and show it there."""
    st.session_state.setdefault("notices", []).append(message)


def show_notices() -> None:
    """Show what `notify` kept."""
    for message in st.session_state.pop("notices", []):
        st.toast(message, icon=":material/check:")


def state(name: str, default: Any) -> Any:  # noqa: ANN401 - whatever the page keeps
    """A value of this session, made the first time."""
    return st.session_state.setdefault(name, default)
