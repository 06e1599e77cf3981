"""What test_crash.py runs in child processes: jobs over one corpus, told on stdout as they go.

A child imports all that it needs, says `warm`, takes a line of JSON ({"job": …, "home": …, …}) from stdin and
does that job; jobs that may be killed are done in forks of it, one after the other. Nothing of it loads torch.
"""

from __future__ import annotations

import csv
import json
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

from fakes import FakeEncoder, FakeSource

import faqsearch.index  # noqa: F401 - loaded before `warm`, so that a kill falls into the work
from faqsearch import FaqSearch, Settings, normalise
from faqsearch.errors import IndexBusyError
from faqsearch.model import Progress

CORPUS = "bank"
ROWS = 120
SHIFT = 10
Row = tuple[str, str, str, str]


def batch_rows(batch: int) -> list[Row]:
    """The table of a batch: (key, question, similar, answer).

    Each row's answer and similar question name the batch, every other row's question stays, and the
    keys move on with the batch: replacing one table by the next adds, updates and removes entries.
    """
    rows = []
    for number in range(batch % 5 * SHIFT, batch % 5 * SHIFT + ROWS):
        question = f"standing question {number}" if number % 2 else f"batch {batch} question {number}"
        rows.append((f"K{number}", question, f"batch {batch} phrasing {number}", f"batch {batch} answer {number}"))
    return rows


def write_batch(folder: Path, batch: int) -> Path:
    path = folder / f"batch-{os.getpid()}.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows([("key", "question", "similar", "answer"), *batch_rows(batch)])
    return path


def say(*words: object) -> None:
    print(*words, flush=True)  # noqa: T201 - how a child reports


def work(faq: FaqSearch, home: Path, first: int, count: int) -> None:
    """Import batch after batch and bring the index up to date, in two steps or in one."""
    for batch in range(first, first + count):
        path = write_batch(home, batch)
        say("importing", batch)
        if batch % 2:
            faq.import_table(path, corpus=CORPUS, mode="replace", sync=False)
            say("committed", batch)
            faq.rebuild(CORPUS, full=batch % 4 == 1, wait=60)
        else:

            def told(stage: str, _done: int, _total: int | None, batch: int = batch) -> None:
                if stage == "encoding":  # of the sync, so the import is committed
                    say("committed", batch)

            faq.import_table(path, corpus=CORPUS, mode="replace", progress=told)
        say("rebuilt", batch)


def read(faq: FaqSearch) -> None:
    """Search until a line comes in; every answer must belong to the question that was found."""
    versions: list[str | None] = []
    searches = 0
    stopping = False
    while not stopping:
        stopping = bool(select.select([sys.stdin], [], [], 0)[0])
        for text in (f"standing question {searches % ROWS}", f"anything {searches}"):
            result = faq.search(text, corpus=CORPUS, k=3)
            searches += 1
            for hit in result.hits:
                number = hit.key[1:] if hit.key else "?"
                batch = hit.answer.split()[1]
                allowed = {f"standing question {number}", f"batch {batch} question {number}"}
                fits = hit.answer == f"batch {batch} answer {number}" and hit.question in allowed
                if not fits or hit.matched_question not in {*allowed, f"batch {batch} phrasing {number}"}:
                    raise AssertionError(f"{text!r} found {hit}")
            if not result.hits:
                raise AssertionError(f"{text!r} found nothing")
            if result.index_version not in versions[-1:]:
                versions.append(result.index_version)
                say("version", result.index_version)
    say(json.dumps({"searches": searches, "versions": versions}))


class HoldingEncoder(FakeEncoder):
    """Stops in the middle of a rebuild until a line comes in."""

    def encode(self, texts: Any, *, query: bool = False, progress: Progress | None = None) -> Any:
        say("encoding")
        sys.stdin.readline()
        return super().encode(texts, progress=progress)


def rebuild(faq: FaqSearch, wait: float) -> None:
    """Rebuild in full once."""
    try:
        report = faq.rebuild(CORPUS, full=True, wait=wait)
    except IndexBusyError as error:
        say("busy", error)
    else:
        say("version", report.version)


def die_at(step: int, home: Path) -> None:
    """Kill this process right before it makes, renames or deletes its `step`-th file or folder of the index."""
    steps = 0
    index_dir = str(home / "indexes")
    changes = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal steps
        writes = event == "open" and str(args[0]).startswith(index_dir) and "w" in str(args[1])
        if writes or event in changes:
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def overtaken(faq: FaqSearch, home: Path, file: str) -> None:
    """Search, and while the index version's file is about to be opened, have another service replace that version."""
    waiting = [True]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if waiting and event == "open" and str(args[0]).endswith(file):
            waiting.clear()
            with FaqSearch.open(Settings.load(home), encoders=FakeSource()) as other:
                other.import_table(write_batch(home, 1), corpus=CORPUS, mode="replace")

    sys.addaudithook(watch)
    result = faq.search("standing question 11", corpus=CORPUS)
    say("version", result.index_version)
    say("found", result.hits[0].answer)


def run(job: dict[str, Any]) -> None:
    home = Path(job["home"])
    source = FakeSource()
    if job.get("hold"):
        source.encoders["embedded"] = HoldingEncoder("embedded")
    with FaqSearch.open(Settings.load(home), encoders=source) as faq:
        if job["job"] == "read":
            read(faq)
        elif job["job"] == "overtaken":
            overtaken(faq, home, job["file"])
        elif job["job"] == "rebuild":
            rebuild(faq, job["wait"])
        else:
            if job.get("die_at"):
                die_at(job["die_at"], home)
            work(faq, home, job["first"], job["count"])


def main() -> None:
    normalise("贷款")  # loads OpenCC's dictionaries
    say("warm")
    while line := sys.stdin.readline():
        job = json.loads(line)
        if job["job"] != "work":
            run(job)
            return
        # In a fork, so that a killed process costs no new start. No thread runs here yet that a fork would lose.
        pid = os.fork()
        if pid == 0:
            say("pid", os.getpid())
            run(job)
            return
        say("end", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
