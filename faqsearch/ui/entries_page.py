"""All entries of a corpus: filter, pages, several at once; and one of them, opened by `?entry=ID`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import streamlit as st

from faqsearch.errors import EntryNotFoundError
from faqsearch.model import LABEL_LIMIT, Corpus, Entry, EntryPage
from faqsearch.ui import entry_editor
from faqsearch.ui.common import choose_corpus, notify, person, plain, service, state, t
from faqsearch.ui.differences import when

SIZES = (20, 50, 100)
"""How many entries a page may hold."""
STATES = ("on", "off", "expired", "upcoming")
_ANY = "\1"
_OTHER = "\0"
_EXCERPT = 120

_STYLE = """<style>
[data-testid="InputInstructions"] { display: none; }
.st-key-entries_filter .stColumn .stColumn { min-width: 0; }
[class*="st-key-entry_row_"] { border-bottom: 1px solid rgba(128, 128, 128, 0.2); padding-bottom: 0.35rem; }
[class*="st-key-open_"] button p, [class*="st-key-near_"] button p { text-align: left; overflow-wrap: anywhere; }
[class*="st-key-open_"] button { min-height: 0; padding: 0.1rem 0; }
[class*="st-key-about_"] p { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
[class*="st-key-about_"] a { color: inherit; text-decoration: none; pointer-events: none; }
[class*="st-key-about_"], [class*="st-key-text_"] { min-width: 0; }
.st-key-entry_preview { max-height: 24rem; overflow-y: auto; overflow-wrap: anywhere; }
[class*="st-key-change_"], .st-key-entry_conflict { overflow-wrap: anywhere; }
</style>"""


def page() -> None:
    """Draw the page."""
    st.html(_STYLE)
    entry_editor.keep()
    wanted = st.query_params.get("entry", "")
    entry = _find(wanted)
    if entry and state("entries_followed", "") != wanted:
        st.session_state["entry_view"] = "edit"
        st.session_state["corpus"] = entry.corpus  # the switch follows the address
        if st.session_state.get("corpus_choice", entry.corpus) != entry.corpus:
            st.session_state["corpus_choice"] = entry.corpus
    st.session_state["entries_followed"] = wanted
    corpus = choose_corpus()
    if corpus is None:
        return
    if entry and entry.corpus != corpus.name:  # the person switched to another corpus
        entry_editor.close_entry()
        wanted = ""
    if wanted == entry_editor.NEW:
        entry_editor.add(corpus)
    elif not wanted:
        _list(corpus)
    elif entry:
        entry_editor.show(entry, corpus)
    else:
        entry_editor.gone(wanted, corpus)


def _find(wanted: str) -> Entry | None:
    if wanted in ("", entry_editor.NEW):
        return None
    try:
        return service().entry(wanted)
    except EntryNotFoundError:
        return None


# --- the list ------------------------------------------------------------------------------------


def _list(corpus: Corpus) -> None:
    _deleted()
    found, size = _filtered(corpus)
    if not found.total:
        _nothing(corpus)
        return
    _several(corpus, found)
    for entry in found.entries:
        _row(entry, corpus)
    _pages(found.total, size)


def _deleted() -> None:
    """The entry that was just deleted, with the way back."""
    if "entries_deleted" in st.session_state:
        entry_id, question = st.session_state["entries_deleted"]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/delete: {t('entries_page.deleted', question=plain(question))}", width="content")
            st.button(
                t("entries_page.deleted_open"),
                key="entries_deleted_open",
                type="tertiary",
                icon=":material/undo:",
                on_click=_open_deleted,
                args=(entry_id,),
            )


def _open_deleted(entry_id: int) -> None:
    st.session_state.pop("entries_deleted", None)
    entry_editor.open_entry(entry_id)


def _filtered(corpus: Corpus) -> tuple[EntryPage, int]:
    """The filter, and the page of entries that it leaves."""
    categories = service().categories(corpus.name)
    if st.session_state.get("entries_category", _ANY) not in (_ANY, *categories):
        st.session_state["entries_category"] = _ANY
    with st.container(key="entries_filter"):
        words, rest = st.columns([5, 7], vertical_alignment="bottom")
    kind, condition, new = rest.columns([3, 2, 2], vertical_alignment="bottom", gap="small", wrap=False)
    text = words.text_input(
        t("entries_page.search"),
        key="entries_text",
        placeholder=t("entries_page.search_hint"),
        icon=":material/search:",
        on_change=_refilter,
        persist_state="session",
    )
    names = {_ANY: t("entries_page.all"), "": t("entries_page.no_category")}
    category = kind.selectbox(
        t("entries_page.category"),
        [_ANY, *categories],
        format_func=lambda item: _named(item, names, categories),
        key="entries_category",
        on_change=_refilter,
        persist_state="session",
    )
    shown = condition.selectbox(
        t("entries_page.state"),
        [None, *STATES],
        format_func={item: t(f"entries_page.{item or 'all'}") for item in (None, *STATES)}.__getitem__,
        key="entries_state",
        on_change=_refilter,
        persist_state="session",
    )
    new.button(
        t("entries_page.add"),
        key="entries_add",
        type="primary",
        icon=":material/add:",
        width="stretch",
        on_click=entry_editor.open_entry,
        args=(entry_editor.NEW,),
    )
    size = int(st.session_state.get("entries_size", SIZES[0]))
    number = int(st.session_state.get("entries_number", 1))

    def look(number: int) -> EntryPage:
        return service().entry_page(
            corpus.name,
            text=text,
            category=None if category == _ANY else category,
            state=shown,  # type: ignore[arg-type] # one of STATES
            offset=(number - 1) * size,
            limit=size,
        )

    found = look(number)
    last = max(1, -(-found.total // size))
    if number > last:
        st.session_state["entries_number"] = last
        found = look(last)
    return found, size


def _named(category: str, names: Mapping[str, str], counts: Mapping[str, int]) -> str:
    name = names.get(category, category)
    return f"{name} · {counts[category]}" if category in counts else name


def _refilter() -> None:
    """Another filter begins at its first page, and with nothing selected that is out of sight."""
    st.session_state["entries_number"] = 1
    st.session_state["entries_picked"] = {}


def _clear_filter() -> None:
    st.session_state.update(entries_text="", entries_category=_ANY, entries_state=None)
    _refilter()


def _nothing(corpus: Corpus) -> None:
    if service().counts(corpus.name).entries:
        st.info(t("entries_page.none_left"), icon=":material/filter_alt_off:")
        st.button(t("entries_page.clear_filter"), key="entries_clear", on_click=_clear_filter)
    else:
        st.info(t("entries_page.empty"), icon=":material/inbox:")


def _row(entry: Entry, corpus: Corpus) -> None:
    picked = _picked(corpus)
    st.session_state[f"pick_{entry.id}"] = entry.id in picked
    with st.container(
        horizontal=True, vertical_alignment="center", gap="small", wrap=False, key=f"entry_row_{entry.id}"
    ):
        st.checkbox(
            plain(entry.question),
            key=f"pick_{entry.id}",
            label_visibility="collapsed",
            width="content",
            on_change=_pick,
            args=(corpus, [entry.id], f"pick_{entry.id}"),
        )
        with st.container(gap=None, key=f"text_{entry.id}"):
            st.button(
                plain(entry.question),
                key=f"open_{entry.id}",
                type="tertiary",
                on_click=entry_editor.open_entry,
                args=(entry.id,),
            )
            with st.container(key=f"about_{entry.id}"):
                st.caption(_about(entry))


def _about(entry: Entry) -> str:
    draft = entry_editor.drafts().get(str(entry.id))
    unsaved = f":orange-badge[{t('entries_page.unsaved')}]" if draft is not None and draft.dirty else ""
    parts = [
        plain(entry.key or ""),
        plain(entry.category),
        t("entries_page.similar_count", count=len(entry.similar)) if entry.similar else "",
        when(entry.updated_at),
        plain(entry.answer[:_EXCERPT]),
    ]
    state_now = "" if entry.state_at(datetime.now()) == "on" else entry_editor.badge(entry)
    return f"{state_now} {unsaved} ".lstrip() + " · ".join(part for part in parts if part)


def _pages(total: int, size: int) -> None:
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.pagination(max(1, -(-total // size)), key="entries_number", persist_state="session")
        st.selectbox(
            t("entries_page.size"),
            SIZES,
            format_func={count: t("entries_page.per_page", count=count) for count in SIZES}.__getitem__,
            key="entries_size",
            label_visibility="collapsed",
            width=140,
            on_change=_refilter,
            persist_state="session",
        )


# --- several at once -----------------------------------------------------------------------------


def _picked(corpus: Corpus) -> set[int]:
    """The selected entries; a corpus has its own."""
    found: set[int] = state("entries_picked", {}).setdefault(corpus.name, set())
    return found


def _pick(corpus: Corpus, ids: Sequence[int], key: str) -> None:
    if st.session_state[key]:
        _picked(corpus).update(ids)
    else:
        _picked(corpus).difference_update(ids)


def _several(corpus: Corpus, found: EntryPage) -> None:
    """The bar above the list: it is always there, so that nothing jumps when the first row is selected."""
    picked = _picked(corpus)
    ids = [entry.id for entry in found.entries]
    st.session_state["pick_page"] = set(ids) <= picked
    with st.container(horizontal=True, vertical_alignment="center", key="entries_several"):
        st.checkbox(t("entries_page.pick_page"), key="pick_page", on_change=_pick, args=(corpus, ids, "pick_page"))
        st.caption(t("entries_page.picked", count=len(picked), total=found.total), width="content")
        for name, enabled, icon in (("enable", True, "toggle_on"), ("disable", False, "toggle_off")):
            if st.button(
                t(f"entries_page.{name}"), key=f"entries_{name}", icon=f":material/{icon}:", disabled=not picked
            ):
                count = service().set_enabled_many(sorted(picked), enabled, who=person())
                _done(corpus, count)
        with st.popover(
            t("entries_page.set_category"), icon=":material/label:", disabled=not picked, key="entries_set_category"
        ):
            _set_category(corpus, picked)


def _set_category(corpus: Corpus, picked: set[int]) -> None:
    names = {"": t("entries_page.no_category"), _OTHER: t("entries_page.new_category")}
    known = [name for name in service().categories(corpus.name) if name]
    category = st.selectbox(
        t("entries_page.category"),
        ["", *known, _OTHER],
        format_func=lambda item: names.get(item, item),
        key="entries_new_category",
    )
    if category == _OTHER:
        category = st.text_input(t("entries_page.category_name"), key="entries_category_name", max_chars=LABEL_LIMIT)
    if st.button(t("entries_page.apply"), key="entries_category_apply", type="primary"):
        _done(corpus, service().set_category_many(sorted(picked), category, who=person()))


def _done(corpus: Corpus, count: int) -> None:
    _picked(corpus).clear()
    notify(t("entries_page.changed", count=count))
    st.rerun()
