"""Killed at any moment, and used by several processes at once: nothing is lost, nothing is there by half."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from crash_child import CORPUS, ROWS, batch_rows, write_batch
from fakes import FakeSource

from faqsearch import FaqSearch, Settings
from faqsearch.errors import IndexBusyError

CHILD = Path(__file__).with_name("crash_child.py")
KILLS = 50
VERSION = re.compile(r"\d{6}-\d{8}T\d{6}Z")


class Child:
    """A child process that has loaded its modules, or soon will have, and waits for a job."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.warm = False

    def start(self, job: str, home: Path, **values: object) -> Child:
        """Hand over the job once the child is warm."""
        if not self.warm:
            assert self.line() == "warm"
            self.warm = True
        self.tell(json.dumps({"job": job, "home": str(home), **values}))
        return self

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> list[str]:
        """The lines up to its end, which must be a good one."""
        out, errors = self.process.communicate(timeout=100)
        assert (errors, self.process.returncode) == ("", 0)
        return out.splitlines()

    def work(self, home: Path, **values: object) -> int:
        """Begin to import and rebuild in a process of its own; its id."""
        word, pid = self.start("work", home, **values).line().split()
        assert word == "pid"
        return int(pid)

    def work_end(self) -> tuple[list[str], int]:
        """The lines of that process up to its end, and its exit code."""
        lines = []
        while not (line := self.line()).startswith("end "):
            assert line, "the child has died"
            lines.append(line)
        return lines, int(line.split()[1])


@pytest.fixture
def spawn() -> Iterator[Callable[[], Child]]:
    """Starts children, and leaves none of them behind."""
    children: list[Child] = []

    def start() -> Child:
        children.append(Child())
        return children[-1]

    yield start
    for child in children:
        child.process.kill()
        child.process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder with batch 0 imported and indexed."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "faqsearch.toml").write_text("keep_versions = 2\n", encoding="utf-8")
    with open_home(folder) as faq:
        faq.import_table(write_batch(folder, 0), corpus=CORPUS)
    return folder


def open_home(folder: Path, source: FakeSource | None = None) -> FaqSearch:
    return FaqSearch.open(Settings.load(folder), encoders=source or FakeSource())


def check_whole(home: Path, committed: int, begun: int, rng: random.Random) -> int:
    """All that must hold after a kill; the batch that the database holds."""
    source = FakeSource()
    with open_home(home, source) as faq:
        entries = list(faq.entries(CORPUS))
        batch = int(entries[0].answer.split()[1])
        assert committed <= batch <= begun
        stored = {entry.key: (entry.question, entry.similar, entry.answer) for entry in entries}
        rows = batch_rows(batch)
        assert stored == {key: (question, (similar,), answer) for key, question, similar, answer in rows}
        report = faq.verify_index(CORPUS)
        assert report.problems == ()
        assert report.count - report.stale + report.pending == 2 * ROWS
        for key, question, similar, answer in rng.sample(rows, 3):
            # Not written as it is stored: found by its vector, in the index or beside it.
            source.encoders["embedded"].place(f"about {similar}", similar, 0.95)
            result = faq.search(f"about {similar}", corpus=CORPUS, k=1)
            hit = result.hits[0]
            assert (hit.key, hit.question, hit.matched_question, hit.answer) == (key, question, similar, answer)
            assert hit.score == pytest.approx(0.95, abs=1e-5)
            assert result.decision == "answer"
    return batch


def check_healed(home: Path, batch: int) -> None:
    """What the next change and its rebuild leave behind: no leftovers of the process that died."""
    with open_home(home) as faq:
        faq.import_table(write_batch(home, batch), corpus=CORPUS, mode="replace")
        report = faq.verify_index(CORPUS)
        assert (report.problems, report.count, report.pending, report.stale) == ((), 2 * ROWS, 0, 0)
        versions = faq.index_versions(CORPUS)
        assert versions[-1].current
    folder = home / "indexes" / CORPUS
    names = sorted(item.name for item in (folder / "versions").iterdir())
    assert names == [item.version for item in versions]
    assert 1 <= len(names) <= 2
    assert {item.name for item in folder.iterdir()} <= {"current", "versions", "rebuild.lock"}


def told(lines: list[str], committed: int) -> tuple[int, int, str]:
    """(last batch that was told as committed, last one begun, what was going on) from a child's lines."""
    begun, stage = committed, "start"
    for line in lines:
        stage, number = line.split()
        begun = int(number)
        if stage != "importing":
            committed = begun
    return committed, begun, stage


def test_killed_at_random_moments_nothing_committed_is_lost(home: Path, spawn: Callable[[], Child]) -> None:
    rng = random.Random(20260131)
    child = spawn()
    child.work(home, first=1, count=8)
    began = time.perf_counter()
    lines, code = child.work_end()
    cycle = (time.perf_counter() - began) / 8  # seconds that one import and rebuild take here
    assert (told(lines, 0), code) == ((8, 8, "rebuilt"), 0)
    batch = check_whole(home, 8, 8, rng)
    killed_in: Counter[str] = Counter()
    for _ in range(KILLS):
        pid = child.work(home, first=batch + 1, count=1_000)
        first = child.line()
        assert first == f"importing {batch + 1}"
        # Over two batches: one is imported and rebuilt in two steps, the other in one.
        time.sleep(rng.uniform(0, 2 * cycle))
        os.kill(pid, signal.SIGKILL)
        lines, code = child.work_end()
        assert code == -signal.SIGKILL
        committed, begun, stage = told([first, *lines], batch)
        killed_in[stage] += 1
        batch = check_whole(home, committed, begun, rng)
        if rng.random() < 0.3:  # and else crash upon crash
            batch += 1
            check_healed(home, batch)
    # The kills did fall into both imports and rebuilds.
    assert killed_in["importing"] >= 5
    assert killed_in["committed"] >= 5


def test_killed_before_each_step_of_publishing_a_version_is_whole(home: Path, spawn: Callable[[], Child]) -> None:
    child = spawn()
    batch, step, code = 0, 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 1
        # Two batches, so that the second publishing prunes a version.
        child.work(home, first=batch + 1, count=2, die_at=step)
        lines, code = child.work_end()
        committed, begun, _ = told(lines, batch)
        batch = check_whole(home, committed, begun, random.Random(step)) + 1
        check_healed(home, batch)
    assert code == 0
    # Folder, index, manifest, rename, pointer, its rename; twice; then the files of pruned versions.
    assert step > 12


@pytest.mark.parametrize("keep_versions", [1, 3])
def test_two_processes_search_while_a_third_imports_and_rebuilds(
    home: Path, spawn: Callable[[], Child], keep_versions: int
) -> None:
    (home / "faqsearch.toml").write_text(f"keep_versions = {keep_versions}\n", encoding="utf-8")
    readers, writer = [spawn(), spawn()], spawn()
    for reader in readers:
        reader.start("read", home)
        assert reader.line().startswith("version 000001-")
    writer.work(home, first=1, count=25)
    lines, code = writer.work_end()
    assert (told(lines, 0), code) == ((25, 25, "rebuilt"), 0)
    with open_home(home) as faq:
        last = faq.verify_index(CORPUS).version
    for reader in readers:
        reader.tell("stop")
    for reader in readers:
        summary: dict[str, Any] = json.loads(reader.end()[-1])
        versions = summary["versions"]
        assert versions == sorted(set(versions))
        assert versions[-1] == last
        assert len(versions) >= 3
    assert check_whole(home, 25, 25, random.Random(0)) == 25


def test_of_two_rebuilds_at_once_one_waits_or_says_busy(home: Path, spawn: Callable[[], Child]) -> None:
    holder = spawn().start("rebuild", home, wait=0, hold=True)
    assert holder.line() == "encoding"
    with open_home(home) as faq:
        with pytest.raises(IndexBusyError) as busy:
            faq.rebuild(CORPUS)
        assert str(busy.value) == (
            f"another process is rebuilding the index of corpus '{CORPUS}'; try again when it is done"
        )
        # Searching and importing go on meanwhile.
        assert faq.import_table(write_batch(home, 1), corpus=CORPUS, mode="replace", sync=False).removed == 10
        assert faq.search("standing question 21", corpus=CORPUS).hits[0].answer == "batch 1 answer 21"
        patient = spawn().start("rebuild", home, wait=60)
        holder.tell("go on")
        assert holder.end()[0].startswith("version 000002-")
        assert patient.end()[0].startswith("version 000003-")
        report = faq.verify_index(CORPUS)
        assert (report.problems, report.pending, report.stale) == ((), 0, 0)


@pytest.mark.parametrize("file", ["manifest.json", "index.faiss"])
def test_a_reader_that_is_overtaken_by_a_rebuild_reads_the_new_version(
    home: Path, spawn: Callable[[], Child], file: str
) -> None:
    (home / "faqsearch.toml").write_text("keep_versions = 1\n", encoding="utf-8")
    # As it opens a file of version 1, another service publishes version 2 and prunes version 1.
    overtaken = spawn().start("overtaken", home, file=file).end()
    assert overtaken[-1] == "found batch 1 answer 11"
    assert overtaken[-2].startswith("version 000002-")


def test_the_lock_of_a_killed_rebuild_is_free_again(home: Path, spawn: Callable[[], Child]) -> None:
    holder = spawn().start("rebuild", home, wait=0, hold=True)
    assert holder.line() == "encoding"
    holder.process.kill()
    holder.process.wait()
    with open_home(home) as faq:
        assert faq.rebuild(CORPUS, full=True).version.startswith("000002-")


def test_eight_threads_search_while_tables_are_imported(home: Path) -> None:
    stop = threading.Event()
    with open_home(home) as faq, ThreadPoolExecutor(8) as pool:

        def search(seed: int) -> set[str]:
            rng, versions = random.Random(seed), set()
            while not stop.is_set():
                number = rng.randrange(51, ROWS, 2)  # in every batch
                result = faq.search(f"standing question {number}", corpus=CORPUS, k=2)
                top = result.hits[0]
                assert (top.key, top.score) == (f"K{number}", 1.0)
                assert re.fullmatch(rf"batch \d+ answer {number}", top.answer)
                assert len({hit.entry_id for hit in result.hits}) == 2
                versions.add(result.index_version or "")
            return versions

        threads = [pool.submit(search, seed) for seed in range(8)]
        try:
            for batch in range(1, 11):
                faq.import_table(write_batch(home, batch), corpus=CORPUS, mode="replace")
        finally:
            stop.set()
        seen = set().union(*(thread.result() for thread in threads))
        assert all(VERSION.fullmatch(version) for version in seen)
        assert len(seen) >= 3
        assert faq.search("standing question 51", corpus=CORPUS).hits[0].answer == "batch 10 answer 51"


@pytest.mark.parametrize("restored", [False, True])
def test_an_index_of_another_database_never_answers_for_this_one(home: Path, restored: bool) -> None:
    # The database is made anew, or comes back from a backup, beside the indexes of the one that was lost. Ids are
    # given again then, and under those ids the old index holds other questions' vectors.
    database = home / "data"
    shutil.copytree(database, home / "backup")
    source = FakeSource()
    with open_home(home, source) as faq:
        faq.import_table(write_batch(home, 1), corpus=CORPUS)
    shutil.rmtree(database)
    if restored:
        shutil.copytree(home / "backup", database)
    source.encoders["embedded"].place("other words", "batch 2 phrasing 30", 0.95)
    with open_home(home, source) as faq:
        faq.import_table(write_batch(home, 2), corpus=CORPUS, sync=False)
        for rebuild in (False, True):
            if rebuild:
                faq.rebuild(CORPUS)
            hit = faq.search("other words", corpus=CORPUS, k=1).hits[0]
            assert hit.matched_question == "batch 2 phrasing 30"
            assert hit.score == pytest.approx(0.95, abs=1e-5)
