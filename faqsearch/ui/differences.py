"""Two states of an entry side by side, with what differs coloured."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from difflib import SequenceMatcher

import streamlit as st

from faqsearch.model import EntryDraft
from faqsearch.ui.common import plain, t

FIELDS = tuple(field.name for field in fields(EntryDraft) if field.name != "line")
_COMPARED = 1_000_000
"""Longest pair of lines, as the product of their lengths, that is compared by characters."""

_ALIKE = 0.4
"""Lines with less in common differ as a whole: a letter here and there that they share would only confuse."""


def show_differences(before: EntryDraft, after: EntryDraft, titles: tuple[str, str]) -> None:
    """Draw the fields that differ, before on the left and after on the right."""
    left, right = _values(before), _values(after)
    for name in FIELDS:
        if left[name] != right[name]:
            marked = mark(left[name], right[name])
            st.markdown(f"**{t(f'entries_page.{name}')}**")
            for column, title, text in zip(st.columns(2), titles, marked, strict=True):
                with column.container(border=True, gap="xsmall"):
                    st.caption(title)
                    st.markdown(text or f":gray[{t('entries_page.nothing')}]")


def show_content(draft: EntryDraft) -> None:
    """Draw the fields of an entry that hold something."""
    for name, text in _values(draft).items():
        if text:
            st.markdown(f"**{t(f'entries_page.{name}')}**  \n" + mark(text, text)[0])


def when(moment: datetime | None) -> str:
    """A moment as it is read: without seconds."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def mark(before: str, after: str) -> tuple[str, str]:
    """Both texts as Markdown that shows them as they are, coloured where the other one differs."""
    old, new = before.split("\n"), after.split("\n")
    left: list[str] = []
    right: list[str] = []
    for _, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
        for index in range(max(b - a, d - c)):
            has = (a + index < b, c + index < d)
            pair = _mark_line(old[a + index] if has[0] else "", new[c + index] if has[1] else "")
            left += pair[:1] if has[0] else ()
            right += pair[1:] if has[1] else ()
    return "  \n".join(left), "  \n".join(right)


def _mark_line(before: str, after: str) -> tuple[str, str]:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    if before != after and (len(before) * len(after) > _COMPARED or matcher.ratio() < _ALIKE):
        return _coloured(before, "red"), _coloured(after, "green")
    left = right = ""
    for kind, a, b, c, d in matcher.get_opcodes():
        left += _coloured(before[a:b], "" if kind == "equal" else "red")
        right += _coloured(after[c:d], "" if kind == "equal" else "green")
    return left, right


def _coloured(text: str, colour: str) -> str:
    # White space at the start of a line would make it code, and = under a line a heading.
    text = plain(text).replace("=", "\\=").replace("  ", "\xa0 ").replace("\t", "\xa0 ")
    return f":{colour}-background[{text}]" if colour and text else text


def _values(draft: EntryDraft) -> dict[str, str]:
    return {
        "question": draft.question,
        "similar": "\n".join(draft.similar),
        "answer": draft.answer,
        "category": draft.category,
        "key": draft.key or "",
        "enabled": t("entries_page.on") if draft.enabled else t("entries_page.off"),
        "valid_from": when(draft.valid_from),
        "valid_to": when(draft.valid_to),
    }
