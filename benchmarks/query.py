"""One query end to end over 100,000 questions, against the bare sum of its forward pass and its search in FAISS."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.common import CORPUS, build, median, report, sample_questions, seconds
from faqsearch import FaqSearch
from faqsearch.index import IndexFolder
from faqsearch.registry import load_encoder

THREADS = 20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    queries = [f"{text}？？" for text in sample_questions(options.questions + options.queries)[-options.queries :]]
    with tempfile.TemporaryDirectory() as folder:
        settings = build(Path(folder), options.questions)
        with FaqSearch.open(settings) as faq:
            opening = seconds(lambda: faq.warm_up(CORPUS))
            first = seconds(lambda: faq.search(queries[0], corpus=CORPUS))
            rows = end_to_end(faq, queries)
            rows += together(faq, queries)
        shell = [
            seconds(lambda: subprocess.run(command(folder, queries[0]), check=True, capture_output=True))
            for _ in range(3)
        ]
        libraries = [sys.executable, "-c", "import torch, faiss, sqlalchemy, typer"]
        bare = [seconds(lambda: subprocess.run(libraries, check=True)) for _ in range(3)]
    report(
        "query",
        f"One query over {options.questions:,} questions",
        ["what", "median, ms", "p99, ms", "p99 / median", "of both"],
        rows,
        getting_ready_s=opening,
        first_query_once_ready_ms=1000 * first,
        faqsearch_search_from_the_shell_s=median(shell),
        importing_its_libraries_alone_s=median(bare),
    )


def end_to_end(faq: FaqSearch, queries: list[str]) -> list[list[object]]:
    """Rows of one thread: the bare parts and the whole, query by query in turn."""
    encoder = load_encoder(device=faq.settings.device)
    built = IndexFolder(faq.settings.index_dir, CORPUS)
    index = built.load(built.versions()[-1])._cpu
    tokens = [[encoding.ids] for encoding in encoder._tokenizer.encode_batch(queries)]
    found: dict[str, list[float]] = {"forward pass": [], "search in FAISS": [], "both": [], "search(), end to end": []}
    for query, pieces in zip(queries, tokens, strict=True):
        start = perf_counter()
        vector = encoder._forward(pieces)
        middle = perf_counter()
        index.search(vector, 20)
        end = perf_counter()
        faq.search(query, corpus=CORPUS)
        taken = (middle - start, end - middle, end - start, perf_counter() - end)
        for values, value in zip(found.values(), taken, strict=True):
            values.append(value)
    base = median(found["both"])
    rows: list[list[object]] = []
    for name, values in found.items():
        middle, late = median(values), float(np.percentile(values, 99))
        rows.append([name, 1000 * middle, 1000 * late, late / middle, middle / base])
    return rows


def together(faq: FaqSearch, queries: list[str]) -> list[list[object]]:
    """How many queries a second, by one thread and by many at once."""

    def search(query: str) -> None:
        faq.search(query, corpus=CORPUS)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(search, queries))
        one = len(queries) / seconds(lambda: [search(query) for query in queries])
        many = len(queries) / seconds(lambda: list(pool.map(search, queries)))
    return [[f"one thread: {one:,.0f} queries/s, {THREADS} at once: {many:,.0f}", "", "", "", many / one]]


def command(home: str, query: str) -> list[str]:
    """`faqsearch search` as a shell runs it."""
    return [sys.executable, "-m", "faqsearch", "--home", home, "search", query, "--corpus", CORPUS]


if __name__ == "__main__":
    main()
