"""One entry: editing with near-duplicates in sight, two people at once, deleting, history.

What is typed is kept in the session as a draft, by entry: it outlives reruns, failed saves, and going
elsewhere and coming back. A draft knows the version that it began with, so that a save over somebody
else's is always told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from faqsearch.errors import (
    EncoderError,
    EntryConflictError,
    EntryInvalidError,
    EntryNotFoundError,
    IndexFileError,
    QueryError,
)
from faqsearch.model import ANSWER_LIMIT, LABEL_LIMIT, QUESTION_LIMIT, Change, Corpus, Entry, EntryDraft, Hit
from faqsearch.text import normalise
from faqsearch.ui.common import language, notify, person, plain, safe_markdown, service, state, t
from faqsearch.ui.differences import FIELDS, show_content, show_differences, when

NEW = "new"
"""The reference, in the address and among the drafts, of an entry that is not there yet."""
_OTHER = "\0"
"""The choice of a category that is not there yet."""
_STARTS, _ENDS = time(0, 0), time(23, 59)
_LAST_SECOND = time(23, 59, 59)
_COMPARED = 20
"""New similar questions that are compared with the stored ones."""
_NEAR = 5
_HISTORY = 20
_EMPTY = EntryDraft(question="", answer="")
_COLOURS = {"on": "green", "off": "gray", "expired": "orange", "upcoming": "blue"}


@dataclass(frozen=True, slots=True)
class Draft:
    """What a person is writing, and what it began as."""

    version: int | None
    base: EntryDraft
    mine: EntryDraft

    @property
    def dirty(self) -> bool:
        """Whether anything was changed."""
        return self.mine != self.base


def open_entry(ref: int | str) -> None:
    """Show this entry from now on."""
    st.query_params["entry"] = str(ref)


def close_entry() -> None:
    """Show the list from now on."""
    st.query_params.pop("entry", None)


def drafts() -> dict[str, Draft]:
    """The drafts of this session, by entry."""
    found: dict[str, Draft] = state("entry_drafts", {})
    return found


def keep() -> None:
    """Take what is in the fields over into its draft, wherever the person goes now."""
    ref = state("entry_loaded", ("", ""))[0]
    if ref in drafts() and "entry_question" in st.session_state:
        drafts()[ref] = replace(drafts()[ref], mine=_read(st.session_state))


def badge(entry: Entry) -> str:
    """The state of an entry as Markdown."""
    kind = entry.state_at(datetime.now())
    return f":{_COLOURS[kind]}-badge[{t(f'entries_page.{kind}')}]"


# --- one entry -----------------------------------------------------------------------------------


def add(corpus: Corpus) -> None:
    """Draw a new entry."""
    _back()
    draft = drafts().setdefault(NEW, Draft(None, _EMPTY, _EMPTY))
    st.markdown(f"#### {t('entries_page.add')}")
    _edit(corpus, None, draft)


def show(entry: Entry, corpus: Corpus) -> None:
    """Draw an entry."""
    _back()
    ref = str(entry.id)
    draft = drafts().get(ref)
    if draft is None or (draft.version != entry.version and (not draft.dirty or draft.mine == _as_read(entry.draft))):
        draft = _restart(ref, entry)
    st.markdown(f"#### {plain(entry.question)}")
    unsaved = f" :orange-badge[{t('entries_page.unsaved')}]" if draft.dirty else ""
    meta = t("entries_page.meta", id=entry.id, version=entry.version, at=when(entry.updated_at))
    st.caption(f"{badge(entry)}{unsaved} {meta}")
    st.session_state.setdefault("entry_view", "edit")
    view = st.segmented_control(
        t("entries_page.view"),
        ["edit", "history"],
        format_func={item: t(f"entries_page.view_{item}") for item in ("edit", "history")}.__getitem__,
        required=True,
        key="entry_view",
        label_visibility="collapsed",
    )
    if view == "history":
        _history(entry.id, entry)
        return
    if draft.version != entry.version:
        _conflict(entry, draft)
    _set_aside(ref, entry)
    _edit(corpus, entry, draft)


def gone(ref: str, corpus: Corpus) -> None:
    """Draw what is left of an entry that is not there: its history, and what was being written of it."""
    _back()
    changes = service().history(int(ref)) if ref.isdecimal() and len(ref) < 19 else []
    if not changes:
        st.warning(t("entries_page.not_found", ref=plain(ref)), icon=":material/search_off:")
        return
    last = changes[0]
    st.warning(t("entries_page.was_deleted", who=_who(last), at=when(last.at)), icon=":material/delete:")
    draft = drafts().get(ref)
    if draft is not None and draft.dirty:
        st.markdown(t("entries_page.yours_kept"))
        with st.container(border=True):
            show_content(draft.mine)
        st.button(
            t("entries_page.yours_as_new"),
            key="entry_mine_as_new",
            type="primary",
            icon=":material/note_add:",
            on_click=_as_new,
            args=(ref,),
        )
    if last.before is not None and st.button(
        t("entries_page.undelete", corpus=plain(corpus.title)), key="entry_undelete", icon=":material/undo:"
    ):
        try:
            entry = service().add_entry(corpus.name, last.before, who=person())
        except EntryInvalidError as exc:
            _show_problem(st.container(), exc, last.before)
        else:
            notify(t("entries_page.restored"))
            open_entry(entry.id)
            st.rerun()
    _history(int(ref), None)


def _back() -> None:
    st.button(
        t("entries_page.back"), key="entry_back", type="tertiary", icon=":material/arrow_back:", on_click=close_entry
    )


def _restart(ref: str, entry: Entry | None) -> Draft:
    """Begin a draft anew from what is stored."""
    base = _as_read(entry.draft) if entry else _EMPTY
    drafts()[ref] = Draft(entry.version if entry else None, base, base)
    st.session_state.pop("entry_loaded", None)
    return drafts()[ref]


def _as_new(ref: str) -> None:
    drafts()[NEW] = Draft(None, _EMPTY, drafts().pop(ref).mine)
    st.session_state.pop("entry_loaded", None)
    open_entry(NEW)


# --- the fields ----------------------------------------------------------------------------------


def _edit(corpus: Corpus, entry: Entry | None, draft: Draft) -> None:
    ref = str(entry.id) if entry else NEW
    loaded = (ref, language())
    if st.session_state.get("entry_loaded") != loaded or "entry_question" not in st.session_state:
        st.session_state.update(_cells(draft.mine))
        st.session_state["entry_loaded"] = loaded
    left, right = st.columns([3, 2], gap="medium")
    slots: dict[str, DeltaGenerator] = {}
    with left:
        st.text_input(
            t("entries_page.question"),
            key="entry_question",
            max_chars=QUESTION_LIMIT,
            placeholder=t("entries_page.question_hint"),
            on_change=keep,
        )
        slots["question"] = st.container()
        near_slot = st.container()
        st.text_area(
            t("entries_page.similar"),
            key="entry_similar",
            height=140,
            placeholder=t("entries_page.similar_hint"),
            on_change=keep,
        )
        slots["similar"] = st.container()
        st.text_area(
            t("entries_page.answer"),
            key="entry_answer",
            height=280,
            max_chars=ANSWER_LIMIT,
            placeholder=t("entries_page.answer_hint"),
            on_change=keep,
        )
        slots["answer"] = st.container()
    with right:
        _preview(st.session_state["entry_answer"])
        _labels(corpus, slots)
        _validity(slots)
    mine = _read(st.session_state)
    drafts()[ref] = draft = replace(draft, mine=mine)
    near = _near_duplicates(corpus, entry, draft)
    with near_slot:
        _show_near(corpus, near)
    _actions(corpus, entry, draft, near, slots)


def _preview(answer: str) -> None:
    st.caption(t("entries_page.preview"))
    with st.container(border=True, key="entry_preview"):
        if answer.strip():
            st.markdown(safe_markdown(answer))
        else:
            st.caption(t("entries_page.preview_empty"))


def _labels(corpus: Corpus, slots: dict[str, DeltaGenerator]) -> None:
    known = [name for name in service().categories(corpus.name) if name]
    chosen = st.session_state["entry_category"]
    if chosen not in ("", _OTHER, *known):
        known.append(chosen)
    names = {"": t("entries_page.no_category"), _OTHER: t("entries_page.new_category")}
    left, right = st.columns(2)
    with left:
        st.selectbox(
            t("entries_page.category"),
            ["", *known, _OTHER],
            format_func=lambda item: names.get(item, item),
            key="entry_category",
            on_change=keep,
        )
        if chosen == _OTHER:
            st.text_input(
                t("entries_page.category_name"),
                key="entry_category_new",
                max_chars=LABEL_LIMIT,
                placeholder=t("entries_page.category_name"),
                label_visibility="collapsed",
                on_change=keep,
            )
        slots["category"] = st.container()
    with right:
        st.text_input(
            t("entries_page.key"),
            key="entry_key",
            max_chars=LABEL_LIMIT,
            placeholder=t("entries_page.key_hint"),
            on_change=keep,
        )
        slots["key"] = st.container()


def _validity(slots: dict[str, DeltaGenerator]) -> None:
    st.toggle(t("entries_page.enabled"), key="entry_enabled", on_change=keep)
    for name in ("valid_from", "valid_to"):
        day, hour = st.columns([3, 2], wrap=False)
        with day:
            st.date_input(
                t(f"entries_page.{name}"),
                value=None,
                min_value=date.min,
                max_value=date.max,
                format="YYYY-MM-DD",
                key=f"entry_{name}",
                on_change=keep,
            )
        with hour:
            st.time_input(
                t("entries_page.time"),
                value=None,
                key=f"entry_{name}_time",
                disabled=st.session_state[f"entry_{name}"] is None,
                on_change=keep,
            )
        slots[name] = st.container()


def _cells(draft: EntryDraft) -> dict[str, Any]:
    """What stands in the fields for a draft."""
    start, end = draft.valid_from, draft.valid_to
    return {
        "entry_question": draft.question,
        "entry_similar": "\n".join(draft.similar),
        "entry_answer": draft.answer,
        "entry_category": draft.category,
        "entry_category_new": "",
        "entry_key": draft.key or "",
        "entry_enabled": draft.enabled,
        "entry_valid_from": start.date() if start else None,
        "entry_valid_from_time": start.time().replace(second=0, microsecond=0) if start else _STARTS,
        "entry_valid_to": end.date() if end else None,
        "entry_valid_to_time": end.time().replace(second=0, microsecond=0) if end else _ENDS,
    }


def _read(cells: Mapping[Any, Any]) -> EntryDraft:
    """The draft that stands in the fields."""
    category = cells["entry_category"]
    if category == _OTHER:
        category = cells.get("entry_category_new", "").strip()
    return EntryDraft(
        question=cells["entry_question"].strip(),
        similar=tuple(line.strip() for line in cells["entry_similar"].split("\n") if line.strip()),
        answer=cells["entry_answer"].strip(),
        category=category or "",
        key=cells["entry_key"].strip() or None,
        enabled=cells["entry_enabled"],
        valid_from=_moment(cells["entry_valid_from"], cells["entry_valid_from_time"] or _STARTS),
        valid_to=_moment(cells["entry_valid_to"], cells["entry_valid_to_time"] or _ENDS),
    )


def _moment(day: date | None, at: time) -> datetime | None:
    return datetime.combine(day, _LAST_SECOND if at == _ENDS else at) if day else None


def _as_read(draft: EntryDraft) -> EntryDraft:
    """A stored draft as the fields would give it back when nobody touched them."""
    return _read(_cells(draft))


def _changes(stored: EntryDraft, mine: EntryDraft) -> dict[str, Any]:
    """The fields that a person changed; what the fields cannot show (seconds, say) stays as it is."""
    shown = _as_read(stored)
    return {name: getattr(mine, name) for name in FIELDS if getattr(mine, name) != getattr(shown, name)}


# --- near-duplicates -----------------------------------------------------------------------------


def _near_duplicates(corpus: Corpus, entry: Entry | None, draft: Draft) -> list[tuple[str, Hit]] | None:
    """Each new phrasing with the stored questions near to it, best first; None where they cannot be looked up."""
    before = {draft.base.question, *draft.base.similar} if entry else set()
    texts = [text for text in (draft.mine.question, *draft.mine.similar) if text and text not in before]
    found: dict[int, tuple[str, Hit]] = {}
    try:
        for text in texts[:_COMPARED]:
            for hit in _neighbours(corpus, text, entry.id if entry else None):
                if hit.score >= corpus.suggest_threshold and (
                    hit.entry_id not in found or hit.score > found[hit.entry_id][1].score
                ):
                    found[hit.entry_id] = (text, hit)
    except (IndexFileError, EncoderError):
        return None
    except QueryError:  # an over-long line; saving tells it
        return []
    return sorted(found.values(), key=lambda item: -item[1].score)[:_NEAR]


def _neighbours(corpus: Corpus, text: str, without: int | None) -> Sequence[Hit]:
    """Asked once for a text, not on every rerun, until the corpus changes."""
    stamp = (corpus.name, corpus.revision)
    if state("entry_near_stamp", stamp) != stamp:
        st.session_state["entry_near_stamp"] = stamp
        st.session_state["entry_near"] = {}
    known: dict[tuple[str, int | None], Sequence[Hit]] = state("entry_near", {})
    if (text, without) not in known:
        known[text, without] = service().neighbours(text, corpus=corpus.name, without=without)
    return known[text, without]


def _show_near(corpus: Corpus, near: list[tuple[str, Hit]] | None) -> None:
    if near is None:
        st.caption(f":material/warning: {t('entries_page.near_unavailable')}")
        return
    if not near:
        return
    with st.container(border=True, gap="xsmall", key="entry_near_list"):
        st.caption(f":material/difference: {t('entries_page.near')}")
        for text, hit in near:
            same = normalise(text) == normalise(hit.matched_question)
            colour = "red" if same else "orange" if hit.score >= corpus.answer_threshold else "gray"
            with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
                st.badge(f"{hit.score:.2f}", color=colour, width="content")  # type: ignore[arg-type] # one of its colours
                st.button(
                    plain(hit.matched_question),
                    key=f"near_{hit.entry_id}",
                    type="tertiary",
                    help=plain(hit.question) if hit.question != hit.matched_question else None,
                    on_click=open_entry,
                    args=(hit.entry_id,),
                )
            if same:
                st.caption(f":red[{t('entries_page.near_same')}]")


# --- saving --------------------------------------------------------------------------------------


def _actions(
    corpus: Corpus,
    entry: Entry | None,
    draft: Draft,
    near: list[tuple[str, Hit]] | None,
    slots: dict[str, DeltaGenerator],
) -> None:
    ref = str(entry.id) if entry else NEW
    sure = [hit for _, hit in near or () if hit.score >= corpus.answer_threshold]
    if any(hit.score == 1 for hit in sure):
        sure = []  # the very phrasing leads to another entry: saving refuses it with a link, there is nothing to ask
    message = st.container()
    with st.container(horizontal=True, key="entry_actions"):
        # Never disabled: a click that also ends the typing would come before the button is enabled.
        wanted = st.button(t("entries_page.save"), key="entry_save", type="primary", icon=":material/save:")
        st.button(
            t("entries_page.discard"),
            key="entry_discard",
            icon=":material/undo:",
            disabled=not draft.dirty,
            on_click=_discard,
            args=(ref, entry),
        )
        if entry:
            with st.popover(t("entries_page.delete"), icon=":material/delete:", key="entry_delete"):
                _delete(entry)
    if wanted and sure:
        st.session_state["entry_doubt"] = draft.mine
    if sure and st.session_state.get("entry_doubt") == draft.mine:
        with message.container(border=True):
            st.warning(t("entries_page.doubt", count=len(sure)), icon=":material/content_copy:")
            wanted = st.button(t("entries_page.save_anyway"), key="entry_save_anyway", type="primary")
    if wanted:
        _save(corpus, entry, draft, slots, message)


def _save(
    corpus: Corpus, entry: Entry | None, draft: Draft, slots: dict[str, DeltaGenerator], message: DeltaGenerator
) -> None:
    try:
        if entry is None:
            saved = service().add_entry(corpus.name, draft.mine, who=person())
        else:
            changes = _changes(draft.base, draft.mine)
            saved = service().edit_entry(entry.id, version=draft.version, who=person(), **changes)
    except EntryInvalidError as exc:
        _show_problem(slots.get(exc.field, message), exc, draft.mine)
        return
    except (EntryConflictError, EntryNotFoundError):
        st.session_state["entry_refused"] = True
        st.rerun()  # what is stored now is drawn beside the draft
    _saved(str(entry.id) if entry else NEW, saved)


def _saved(ref: str, entry: Entry) -> None:
    drafts().pop(ref, None)
    st.session_state.pop("entry_loaded", None)
    st.session_state.pop("entry_doubt", None)
    state("entry_aside", {}).pop(ref, None)
    notify(t("entries_page.added") if ref == NEW else t("entries_page.saved"))
    open_entry(entry.id)
    st.rerun()


def _discard(ref: str, entry: Entry | None) -> None:
    keep()
    state("entry_aside", {})[ref] = drafts()[ref].mine
    _restart(ref, entry)


def _set_aside(ref: str, entry: Entry) -> None:
    """What the person put away for what is stored can be taken back."""
    if ref in state("entry_aside", {}):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(t("entries_page.aside"), width="content")
            st.button(
                t("entries_page.aside_back"),
                key="entry_aside_back",
                type="tertiary",
                on_click=_take_back,
                args=(ref, entry),
            )


def _take_back(ref: str, entry: Entry) -> None:
    mine = state("entry_aside", {}).pop(ref)
    drafts()[ref] = Draft(entry.version, _as_read(entry.draft), mine)
    st.session_state.pop("entry_loaded", None)


def _delete(entry: Entry) -> None:
    st.markdown(t("entries_page.delete_sure"))
    if st.button(t("entries_page.delete_yes"), key="entry_delete_yes", type="primary", icon=":material/delete:"):
        service().delete_entry(entry.id, who=person())
        drafts().pop(str(entry.id), None)
        st.session_state["entries_deleted"] = (entry.id, entry.question)
        close_entry()
        st.rerun()


def _show_problem(slot: DeltaGenerator, problem: EntryInvalidError, draft: EntryDraft) -> None:
    """Say what is wrong beside its field, with the way to the other entry where there is one."""
    with slot:
        if problem.entry_id is None:
            st.error(_explain(problem, draft), icon=":material/error:")
            return
        if problem.field == "key":
            st.error(t("entries_page.key_taken", text=plain(draft.key or "")), icon=":material/block:")
        else:
            st.error(t("entries_page.phrasing_taken", text=plain(problem.phrasing)), icon=":material/block:")
        st.button(
            t("entries_page.open_other", question=plain(_question(problem.entry_id))),
            key="entry_open_other",
            icon=":material/open_in_new:",
            on_click=open_entry,
            args=(problem.entry_id,),
        )


def _question(entry_id: int) -> str:
    try:
        return service().entry(entry_id).question
    except EntryNotFoundError:
        return str(entry_id)


def _explain(problem: EntryInvalidError, draft: EntryDraft) -> str:
    limit = {"answer": ANSWER_LIMIT, "question": QUESTION_LIMIT, "similar": QUESTION_LIMIT}.get(
        problem.field, LABEL_LIMIT
    )
    value = getattr(draft, problem.field, "")
    if problem.field == "valid_to":
        return t("entries_page.reversed")
    if problem.field in ("question", "answer") and not value:
        return t(f"entries_page.{problem.field}_missing")
    if any(len(text) > limit for text in ((value,) if isinstance(value, str) else value or ())):
        return t("entries_page.too_long", limit=f"{limit:,}")
    return t("entries_page.not_text")


# --- two people ----------------------------------------------------------------------------------


def _conflict(entry: Entry, draft: Draft) -> None:
    """Both texts side by side: somebody saved while this person was writing."""
    last = next(iter(service().history(entry.id)), None)
    who = _who(last)
    refused = st.session_state.pop("entry_refused", False)
    with st.container(border=True, key="entry_conflict"):
        st.warning(
            t(
                "entries_page.conflict_refused" if refused else "entries_page.conflict",
                who=who,
                at=when(entry.updated_at),
            ),
            icon=":material/group:",
        )
        show_differences(
            _as_read(entry.draft), draft.mine, (t("entries_page.theirs", who=who), t("entries_page.yours"))
        )
        with st.container(horizontal=True):
            mine = st.button(t("entries_page.keep_mine"), key="entry_keep_mine", type="primary", icon=":material/save:")
            st.button(
                t("entries_page.take_theirs"),
                key="entry_take_theirs",
                icon=":material/download_done:",
                on_click=_discard,
                args=(str(entry.id), entry),
            )
        if mine:
            _save_over(entry, draft, st.container())


def _save_over(entry: Entry, draft: Draft, slot: DeltaGenerator) -> None:
    changes = _changes(entry.draft, draft.mine)
    try:
        saved = service().edit_entry(entry.id, version=entry.version, who=person(), **changes)
    except EntryInvalidError as exc:
        _show_problem(slot, exc, draft.mine)
    except (EntryConflictError, EntryNotFoundError):  # and once more
        st.session_state["entry_refused"] = True
        st.rerun()
    else:
        _saved(str(entry.id), saved)


# --- history -------------------------------------------------------------------------------------


def _history(entry_id: int, entry: Entry | None) -> None:
    changes = service().history(entry_id)
    if not changes:
        st.caption(t("entries_page.no_history"))
        return
    limit = state("entry_history", {}).get(entry_id, _HISTORY)
    for change in changes[:limit]:
        with st.container(border=True, gap="small", key=f"change_{change.id}"):
            title = t(f"entries_page.did_{change.action}")
            st.markdown(f"**{title}** · {_who(change)} · {when(change.at)}")
            if change.before and change.after:
                show_differences(change.before, change.after, (t("entries_page.before"), t("entries_page.after")))
            elif only := change.before or change.after:
                show_content(only)
            if entry and change.before and change.before != entry.draft:
                _offer_restore(entry, change)
    if len(changes) > limit:
        more = t("entries_page.history_more", count=len(changes) - limit)
        st.button(more, key="entry_history_more", on_click=_more, args=(entry_id, limit + _HISTORY))


def _more(entry_id: int, limit: int) -> None:
    state("entry_history", {})[entry_id] = limit


def _offer_restore(entry: Entry, change: Change) -> None:
    if st.button(t("entries_page.restore"), key=f"restore_{change.id}", icon=":material/history:"):
        try:
            service().restore_entry(entry.id, change.id, who=person())
        except EntryInvalidError as exc:
            _show_problem(st.container(), exc, change.before or _EMPTY)
        else:
            notify(t("entries_page.restored"))
            st.rerun()


def _who(change: Change | None) -> str:
    return plain(change.who) if change and change.who else t("entries_page.somebody")
