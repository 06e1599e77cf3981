"""A progress bar for the service's long jobs, which are never broken off by what happens in the page meanwhile."""

from __future__ import annotations

import streamlit as st

from faqsearch.ui.common import t

STAGES = ("reading", "saving", "encoding", "searching")


class ProgressBar:
    """Given to the service as `progress`.

    A click elsewhere in the page, or a closed window, makes Streamlit break the script off at its next
    call, which would be in the middle of the job. That is put off here until `finish`.
    """

    def __init__(self, text: str) -> None:
        self._bar = st.progress(0.0, text=text)
        self._shown: tuple[str, int] = ("", 0)
        self._held: BaseException | None = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""
        percent = min(100, done * 100 // total) if total else 0
        shown = (stage, percent if total else done)
        if self._held is not None or shown == self._shown:
            return
        self._shown = shown
        key = stage if stage in STAGES else "working"
        count = f"{done:,}" if not total or stage == "reading" else f"{done:,} / {total:,}"
        text = t(f"progress.{key}", count=count, percent=percent)
        try:
            self._bar.progress(percent, text=text)
        except BaseException as exc:  # Streamlit's way to end a script
            self._held = exc

    def finish(self) -> None:
        """The job is done and what came of it is kept: now the page may be drawn anew."""
        if self._held is not None:
            raise self._held
        self._bar.empty()
