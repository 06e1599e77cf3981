"""Kinds of FAISS indexes over very many questions: build, memory, latency, and recall@10 against the exact one."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.common import median, report, sample_questions
from faqsearch.index import QuestionIndex
from faqsearch.registry import load_encoder

Vectors = npt.NDArray[np.float32]
K = 10


@dataclass(frozen=True)
class Kind:
    """A kind of index, and how widely it searches."""

    name: str
    make: Callable[[int, int], Any]
    """(dim, count) → an index, untrained."""
    widths: tuple[int, ...] = (0,)
    """Values of nprobe or efSearch to try."""


def lists(count: int) -> int:
    """Inverted lists for so many vectors: about four times the square root, a power of two."""
    return int(2 ** round(np.log2(4 * count**0.5)))


KINDS = (
    Kind("exact float32", lambda dim, _count: faiss.IndexFlatIP(dim)),
    Kind("exact float16", lambda dim, _count: faiss.index_factory(dim, "SQfp16", faiss.METRIC_INNER_PRODUCT)),
    Kind("8 bits", lambda dim, _count: faiss.index_factory(dim, "SQ8", faiss.METRIC_INNER_PRODUCT)),
    Kind(
        "inverted lists, float32",
        lambda dim, count: faiss.index_factory(dim, f"IVF{lists(count)},Flat", faiss.METRIC_INNER_PRODUCT),
        (4, 8, 16, 32, 64, 128),
    ),
    Kind(
        "inverted lists, float16",
        lambda dim, count: faiss.index_factory(dim, f"IVF{lists(count)},SQfp16", faiss.METRIC_INNER_PRODUCT),
        (8, 16, 32, 64, 128),
    ),
    Kind(
        "HNSW, float32",
        lambda dim, _count: faiss.index_factory(dim, "HNSW32,Flat", faiss.METRIC_INNER_PRODUCT),
        (32, 64, 128, 256),
    ),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument(
        "--without", nargs="*", default=[], help="kinds to leave out, such as HNSW, which is slow to build"
    )
    options = parser.parse_args()
    encoder = load_encoder(device="cpu")
    texts = sample_questions(options.questions)
    stored = encoder.encode(texts)
    # Queries are worded otherwise than what is stored, as people's are.
    asked = [f"那个，{texts[number]}啊" for number in range(0, len(texts), max(1, len(texts) // options.queries))]
    queries = encoder.encode(asked[: options.queries], query=True)
    truth: npt.NDArray[np.float32] | None = None
    rows: list[list[object]] = []
    for kind in KINDS:
        if any(name in kind.name for name in options.without):
            continue
        start = perf_counter()
        index = kind.make(encoder.dim, len(stored))
        if not index.is_trained:
            index.train(stored[:: max(1, len(stored) // (64 * getattr(index, "nlist", 1024)))])
        index.add(stored)
        built = perf_counter() - start
        size = len(faiss.serialize_index(index)) / 2**20
        for width in kind.widths:
            scores, found, taken = search(index, width, queries, stored)
            truth = scores[:, -1] if truth is None else truth
            name = f"{kind.name}{f', width {width}' if width else ''}"
            rows.append([name, built, size, 1000 * median(taken), recall(found, truth)])
        del index
    assert truth is not None
    rows.append(auto(stored, queries, truth))
    report(
        "scale",
        f"{options.questions:,} questions, {options.queries} queries, one at a time",
        ["index", "build, s", "MiB", "query, median ms", "recall@10"],
        rows,
    )


def auto(stored: Vectors, queries: Vectors, truth: Vectors) -> list[object]:
    """The row of what kind auto makes of so many questions, as a rebuild does and as a search uses it."""
    start = perf_counter()
    index = QuestionIndex(stored.shape[1])
    index.add(np.arange(len(stored)), stored)
    index = index.of_kind("auto")
    built = perf_counter() - start
    index.search(queries[:1], K)  # makes what a search wants at hand
    taken, true = [], []
    for query in queries:
        start = perf_counter()
        ((ids, _),) = index.search(query[None], K)
        taken.append(perf_counter() - start)
        true.append(np.pad(stored[ids] @ query, (0, K - len(ids)), constant_values=-1))
    with tempfile.TemporaryDirectory() as folder:
        index.write(Path(folder) / "index")
        size = (Path(folder) / "index").stat().st_size / 2**20
    return [f"kind auto: {index.factory}", built, size, 1000 * median(taken), recall(np.stack(true), truth)]


def recall(found: Vectors, truth: Vectors) -> str:
    """Share of what was found, (n, K) true scores, that is as good as the tenth: many are equally near."""
    return f"{float((found >= truth[:, None] - 1e-5).mean()):.4f}"


def search(index: Any, width: int, queries: Vectors, stored: Vectors) -> tuple[Vectors, Vectors, list[float]]:
    """(scores, true scores of what was found, seconds) of each query, searched one by one."""
    if width:
        faiss.ParameterSpace().set_index_parameter(index, "nprobe" if hasattr(index, "nprobe") else "efSearch", width)
    scores, true, taken = [], [], []
    for query in queries:
        start = perf_counter()
        score, ids = index.search(query[None], K)
        taken.append(perf_counter() - start)
        scores.append(score[0])
        true.append(np.where(ids[0] >= 0, stored[ids[0]] @ query, -1.0))
    return np.stack(scores), np.stack(true), taken


if __name__ == "__main__":
    main()
