"""What the tests of the pages share: one page of the app in this process, over fake encoders."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from streamlit.testing.v1 import AppTest

TIMEOUT = 30


class OpenPage(Protocol):
    """Opens a page: open_page("ask", lang="en", corpus="bank")."""

    def __call__(self, name: str, **query: str) -> AppTest: ...


def open_page(name: str, **query: str) -> AppTest:
    """Run one page as a first visit with these query parameters."""
    script = f"from faqsearch.ui.app import show\nshow({name!r})\n"
    app = AppTest.from_string(script, default_timeout=TIMEOUT)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def texts_of(app: AppTest) -> str:
    """Everything that the page says, for looking a word up in it."""
    kinds: tuple[Callable[[], object], ...] = (
        lambda: app.title,
        lambda: app.header,
        lambda: app.subheader,
        lambda: app.markdown,
        lambda: app.caption,
        lambda: app.text,
        lambda: app.info,
        lambda: app.success,
        lambda: app.warning,
        lambda: app.error,
    )
    return "\n".join(str(element.value) for kind in kinds for element in kind())  # type: ignore[attr-defined] # each is a list of elements


def free_port() -> int:
    """A port on the loopback interface that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for_server(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a Streamlit server answers; an AssertionError with its log if it ends, or takes too long."""
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)  # nothing to wait on: the port is not open yet
