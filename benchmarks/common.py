"""What the benchmarks share: runs in turn, tables, results on disk, made-up questions, the machine in words."""

from __future__ import annotations

import csv
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from faqsearch import FaqSearch, Settings
from faqsearch.measure import sample_questions

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], object]

CORPUS = "bench"

__all__ = ["CORPUS", "alternate", "build", "machine", "median", "report", "sample_questions", "seconds", "write_table"]


def alternate(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run in each round: A B A B, so that what else the machine does meets all alike.

    Args:
        runs: by name.
        rounds: how often each is timed; each runs once before, untimed.
    """
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            taken[name].append(seconds(run))
    return taken


def seconds(run: Run) -> float:
    """How long a run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def write_table(path: Path, questions: Sequence[str]) -> Path:
    """A FAQ table of an entry for each question, with answers of a usual length."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["key", "question", "answer", "category"])
        for number, question in enumerate(questions):
            answer = f"请在“我的”页面里找到对应的业务，按提示办理；一般一到三个工作日内完成。（{number}）"
            writer.writerow([f"K{number:07d}", question, answer, f"类别{number % 20}"])
    return path


def build(home: Path, count: int) -> Settings:
    """A home with a corpus of so many questions, imported and indexed."""
    settings = Settings.load(home)
    home.mkdir(exist_ok=True)
    with FaqSearch.open(settings) as faq:
        faq.import_table(write_table(home / "table.csv", sample_questions(count)), corpus=CORPUS)
    return settings


def median(values: Sequence[float]) -> float:
    """The median, of an even number of values the mean of the middle two."""
    return float(np.median(values))


def machine() -> str:
    """The machine in words: processor family, cores, memory, what it computes fast, and a GPU if there is one."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        flags = ""
    features = [name for flag, name in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{platform.machine()}, {os.cpu_count()} cores{' with ' if features else ''}{' and '.join(features)}"
    words += f", {memory:.0f} GiB of memory"
    return words + (f", one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU")


def report(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[object]], **more: object) -> None:
    """Print a table, and keep it as results/<name>.json."""
    texts = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *texts]) for column in range(len(header))]
    print(f"\n{title}\n")
    for row in [list(header), *texts]:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
    for key, value in more.items():
        print(f"{key.replace('_', ' ')}: {_shown(value)}")
    RESULTS.mkdir(exist_ok=True)
    kept = {"title": title, "machine": machine(), "torch": torch.__version__, "header": header, "rows": rows, **more}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
