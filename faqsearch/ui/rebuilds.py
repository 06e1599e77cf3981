"""Rebuilds in the background: one for each corpus at a time, its progress there for everybody's page."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from datetime import datetime

import streamlit as st

from faqsearch.model import RebuildReport
from faqsearch.service import FaqSearch

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Rebuild:
    """One rebuild: how far it is, then its report or what went wrong."""

    corpus: str
    full: bool
    done: int = 0
    total: int | None = None
    report: RebuildReport | None = None
    error: Exception | None = None
    finished_at: datetime | None = None
    """When it ended, well or not; None while it runs."""
    thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self.finished_at is None

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


class Rebuilds:
    """The last rebuild of each corpus that was started from a page of this server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, Rebuild] = {}

    def last(self, corpus: str) -> Rebuild | None:
        """The rebuild of a corpus that runs, or the one that ended last."""
        return self._last.get(corpus)

    def start(self, service: FaqSearch, corpus: str, *, full: bool = False) -> Rebuild:
        """Rebuild in a thread of its own; where one runs already, that one."""
        with self._lock:
            last = self._last.get(corpus)
            if last is not None and last.running:
                return last
            started = Rebuild(corpus, full)
            # A server that stops does not wait: a rebuild that is broken off leaves the current version as it was.
            thread = threading.Thread(target=_run, args=(service, started), name=f"rebuild {corpus}", daemon=True)
            started.thread = thread
            self._last[corpus] = started
            thread.start()
            return started


def _run(service: FaqSearch, job: Rebuild) -> None:
    def progress(_stage: str, done: int, total: int | None) -> None:
        job.total, job.done = total, done

    try:
        job.report = service.rebuild(job.corpus, full=job.full, progress=progress)
    except Exception as exc:  # whatever it was, the page tells of it: nobody else waits for this thread
        _log.exception("rebuild of corpus %r", job.corpus)
        job.error = exc
    finally:
        job.finished_at = datetime.now()


@st.cache_resource(show_spinner=False)
def rebuilds() -> Rebuilds:
    """The rebuilds of this server, shared by all its users."""
    return Rebuilds()
