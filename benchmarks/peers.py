"""Side by side with txtai, and with the recipe that most people write: build, search, memory, deletion, a re-import."""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from benchmarks.common import CORPUS, median, report, sample_questions, write_table
from faqsearch import FaqSearch, Settings
from faqsearch.registry import resolve

ANSWER = "请在“我的”页面里找到对应的业务，按提示办理；一般一到三个工作日内完成。"


class Peer(Protocol):
    """What each of them does in a folder of its own."""

    def build(self, questions: list[str]) -> None:
        """Encode, index and store all questions with their answers."""

    def search(self, query: str) -> str:
        """The nearest stored question."""

    def update(self, questions: list[str]) -> None:
        """Take over a list in which a few have changed."""

    def delete(self, number: int) -> None:
        """Delete one question; the next search does not find it."""

    def close(self) -> None:
        """Leave everything on disk."""


class Faqsearch:
    """This project."""

    def __init__(self, folder: Path) -> None:
        self._faq = FaqSearch.open(Settings.load(folder / "home"))

    def build(self, questions: list[str]) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            self._faq.import_table(write_table(Path(elsewhere) / "table.csv", questions), corpus=CORPUS)

    def search(self, query: str) -> str:
        return self._faq.search(query, corpus=CORPUS).hits[0].matched_question

    def update(self, questions: list[str]) -> None:
        self.build(questions)

    def delete(self, number: int) -> None:
        self._faq.delete_entry(self._faq.entry(f"{CORPUS}/K{number:07d}").id)

    def close(self) -> None:
        self._faq.close()


class Txtai:
    """txtai with its content store (SQLite) and FAISS, as its documentation has it; an exact index, as ours."""

    def __init__(self, folder: Path) -> None:
        from txtai import Embeddings

        self._folder = folder / "txtai"
        self._embeddings: Any = Embeddings(
            path=str(resolve("embedded")), content=True, backend="faiss", faiss={"components": "IDMap,Flat"}
        )
        if self._folder.exists():
            self._embeddings.load(str(self._folder))

    def build(self, questions: list[str]) -> None:
        self._embeddings.index(
            (number, {"text": question, "answer": ANSWER}, None) for number, question in enumerate(questions)
        )
        self.close()

    def search(self, query: str) -> str:
        return str(self._embeddings.search(query, 5)[0]["text"])

    def update(self, questions: list[str]) -> None:
        stored = {
            row["id"]: row["text"] for row in self._embeddings.search("select id, text from txtai", len(questions))
        }
        self._embeddings.upsert(
            (number, {"text": question, "answer": ANSWER}, None)
            for number, question in enumerate(questions)
            if stored.get(str(number)) != question
        )
        self.close()

    def delete(self, number: int) -> None:
        self._embeddings.delete([number])
        self.close()

    def close(self) -> None:
        self._embeddings.save(str(self._folder))


class Recipe:
    """sentence-transformers, IndexFlatIP and sqlite3, with the embeddings encoded again at each change."""

    def __init__(self, folder: Path) -> None:
        import faiss
        from sentence_transformers import SentenceTransformer

        self._faiss = faiss
        self._model: Any = SentenceTransformer(str(resolve("embedded")), device="cpu")
        self._file = str(folder / "recipe.faiss")
        self._database = sqlite3.connect(folder / "recipe.sqlite3")
        self._database.execute("CREATE TABLE IF NOT EXISTS faq (id INTEGER PRIMARY KEY, question TEXT, answer TEXT)")
        self._index: Any = faiss.read_index(self._file) if os.path.exists(self._file) else None

    def build(self, questions: list[str]) -> None:
        self._database.execute("DELETE FROM faq")
        rows = ((number, question, ANSWER) for number, question in enumerate(questions))
        self._database.executemany("INSERT INTO faq VALUES (?, ?, ?)", rows)
        self._database.commit()
        vectors = self._model.encode(questions, normalize_embeddings=True, show_progress_bar=False)
        self._index = self._faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)
        self._faiss.write_index(self._index, self._file)

    def search(self, query: str) -> str:
        _, rows = self._index.search(self._model.encode([query], normalize_embeddings=True, show_progress_bar=False), 5)
        found = self._database.execute("SELECT question, answer FROM faq WHERE id = ?", (int(rows[0][0]),)).fetchone()
        return str(found[0])

    def update(self, questions: list[str]) -> None:
        self.build(questions)

    def delete(self, number: int) -> None:
        questions = [row[0] for row in self._database.execute("SELECT question FROM faq WHERE id != ?", (number,))]
        self.build(questions)

    def close(self) -> None:
        self._database.close()


PEERS: dict[str, Callable[[Path], Peer]] = {"faqsearch": Faqsearch, "txtai": Txtai, "recipe": Recipe}


def main() -> None:
    """Print the table; each peer builds in a process of its own and serves in another, so that memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument(
        "--only", choices=[f"{step}:{name}" for name in PEERS for step in STEPS], help=argparse.SUPPRESS
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        step, name = options.only.split(":")
        print(json.dumps(STEPS[step](PEERS[name], options.folder, sample_questions(options.questions + 500))))
        return
    found: dict[str, dict[str, float]] = {name: {} for name in PEERS}
    for name in PEERS:
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                command = [sys.executable, "-m", "benchmarks.peers", "--questions", str(options.questions)]
                command += ["--only", f"{step}:{name}", "--folder", folder]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                found[name] |= json.loads(done.stdout)
    ours = found["faqsearch"]
    report(
        "peers",
        f"{options.questions:,} questions, the same checkpoint (ratio to ours)",
        ["what", *PEERS],
        [
            [what, *(f"{values[what]:,.3g} ({values[what] / ours[what]:.2f})" for values in found.values())]
            for what in ours
        ],
    )


def build(peer: Callable[[Path], Peer], folder: Path, questions: list[str]) -> dict[str, float]:
    """What building takes."""
    start = perf_counter()
    made = peer(folder)
    made.build(questions[:-500])
    taken = perf_counter() - start
    made.close()
    return {"build, s": taken}


def use(peer: Callable[[Path], Peer], folder: Path, questions: list[str]) -> dict[str, float]:
    """What serving and changing take."""
    queries = [f"{text}？？" for text in questions[-500:]]
    questions = questions[:-500]
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20
    start = perf_counter()
    made = peer(folder)
    made.search(queries[0])
    opened = perf_counter() - start
    taken = []
    for query in queries:
        start = perf_counter()
        made.search(query)
        taken.append(perf_counter() - start)
    resident = _resident()
    start = perf_counter()
    made.delete(len(questions) // 2)
    assert made.search(questions[len(questions) // 2]) != questions[len(questions) // 2]
    deleted = perf_counter() - start
    changed = [f"{text}（改）" if number % 100 == 7 else text for number, text in enumerate(questions)]
    start = perf_counter()
    made.update(changed)
    assert made.search(changed[7]) == changed[7]
    updated = perf_counter() - start
    made.close()
    return {
        "open and first search, s": opened,
        "search, median ms": 1000 * median(taken),
        "search, p99 ms": 1000 * float(np.percentile(taken, 99)),
        "memory while searching, MiB": resident,
        "on disk, MiB": disk,
        "delete one and search, s": deleted,
        "re-import with 1% changed and search, s": updated,
    }


STEPS: dict[str, Callable[[Callable[[Path], Peer], Path, list[str]], dict[str, float]]] = {"build": build, "use": use}


def _resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
