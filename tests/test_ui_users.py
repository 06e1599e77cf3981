"""Many users at once on a real server: no error, nobody gets another's answer, one model for all.

Each user speaks Streamlit's own protocol (a session is a WebSocket that carries protobuf messages), as the
page in a browser does, with the question in the address.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import ROOT
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from ui_app import free_port, wait_for_server
from websockets.asyncio.client import ClientConnection, connect

from faqsearch import EntryDraft, FaqSearch, Settings

USERS = 20
QUESTIONS = 2
WAIT_SECONDS = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A server over a corpus with one entry for each user: (its port, its process id)."""
    with FaqSearch.open(Settings.load(tmp_path)) as faq:
        faq.create_corpus("bank")
        for user in range(USERS):
            faq.add_entry("bank", EntryDraft(question=f"第{user}号柜台在哪里", answer=f"答案是{user}楼。"))
        faq.rebuild("bank")
    number = free_port()
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless=true"]
    environment = {**os.environ, "FAQSEARCH_HOME": str(tmp_path)}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--server.port={number}", "--server.address=127.0.0.1"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_server(number, process, tmp_path / "server.log")
        yield number, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def _ask(socket_: ClientConnection, query: str) -> str:
    """Ask as the address does; everything that the page then says."""
    message = BackMsg()
    message.rerun_script.query_string = urlencode({"corpus": "bank", "q": query})
    await socket_.send(message.SerializeToString())
    said = []
    while True:
        got = ForwardMsg()
        got.ParseFromString(await asyncio.wait_for(socket_.recv(decode=False), WAIT_SECONDS))
        if got.WhichOneof("type") == "delta":
            element = got.delta.new_element
            kind = element.WhichOneof("type")
            if kind == "markdown":
                said.append(element.markdown.body)
            elif kind == "alert":
                said.append(element.alert.body)
            elif kind == "exception":
                said.append(f"EXCEPTION {element.exception.message}")
        elif got.WhichOneof("type") == "script_finished" and said:
            return "\n".join(said)


def _resident_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the server's memory from /proc")
def test_twenty_users_at_once_get_their_own_answers_from_one_model(server: tuple[int, int]) -> None:
    port, pid = server

    async def one_user(user: int) -> list[str]:
        wrong = []
        for _ in range(QUESTIONS):
            async with connect(
                f"ws://127.0.0.1:{port}/_stcore/stream", max_size=None, open_timeout=WAIT_SECONDS
            ) as socket_:
                said = await _ask(socket_, f"第{user}号柜台在哪里")
            if f"答案是{user}楼。" not in said or "**有答案**" not in said or "EXCEPTION" in said:
                wrong.append(f"user {user}: {said}")
        return wrong

    async def everybody() -> list[str]:
        return [wrong for wrongs in await asyncio.gather(*map(one_user, range(USERS))) for wrong in wrongs]

    assert asyncio.run(everybody()) == []
    before = _resident_mb(pid)
    assert asyncio.run(everybody()) == []
    assert _resident_mb(pid) - before < 60  # a second copy of the model alone takes more
