"""Importing a FAQ table, against a bare `pandas.read_csv` and `executemany` into the same tables."""

from __future__ import annotations

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from shutil import rmtree

import pandas as pd

from benchmarks.common import CORPUS, alternate, median, report, sample_questions, write_table
from faqsearch import FaqSearch, Settings

NOW = "2026-01-01 00:00:00.000000"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=0, help="also measure the memory of so many rows, such as 1000000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        ours(options.alone, options.alone.parent / "home")
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        table = write_table(work / "table.csv", sample_questions(options.rows))
        taken = alternate(
            {
                "pandas.read_csv, executemany": lambda: bare(table, work / "bare"),
                "import_table": lambda: ours(table, work / "ours"),
            },
            options.rounds,
        )
        with FaqSearch.open(Settings.load(work / "ours")) as faq:
            again = alternate(
                {"the same table again": lambda: faq.import_table(table, corpus=CORPUS, sync=False)}, options.rounds
            )
        more: dict[str, object] = {"peak_memory_MiB": peak(table)}
        if options.large:
            large = write_table(work / "large.csv", sample_questions(options.large))
            more[f"peak_memory_of_{options.large}_rows_MiB"] = peak(large)
    base = median(taken["pandas.read_csv, executemany"])
    rows = [[name, median(values), median(values) / base] for name, values in {**taken, **again}.items()]
    report("importing", f"Importing {options.rows:,} rows, without encoding", ["by", "seconds", "ratio"], rows, **more)


def ours(table: Path, home: Path) -> None:
    """Import into a new home."""
    rmtree(home, ignore_errors=True)
    with FaqSearch.open(Settings.load(home)) as faq:
        faq.import_table(table, corpus=CORPUS, sync=False)


def bare(table: Path, home: Path) -> None:
    """What is least: no check, no history, no folding, no second look."""
    rmtree(home, ignore_errors=True)
    settings = Settings.load(home)
    with FaqSearch.open(settings) as faq:  # for its schema
        faq.create_corpus(CORPUS)
    frame = pd.read_csv(table)
    with closing(sqlite3.connect(settings.database_path)) as database:
        corpus = database.execute("SELECT id FROM corpora").fetchone()[0]
        database.executemany(
            "INSERT INTO entries (id, corpus_id, key, answer, category, enabled, created_at, updated_at, version)"
            f" VALUES (?, {corpus}, ?, ?, ?, 1, '{NOW}', '{NOW}', 1)",
            ((number, *row) for number, row in enumerate(zip(frame.key, frame.answer, frame.category, strict=True), 1)),
        )
        database.executemany(
            f"INSERT INTO questions (corpus_id, entry_id, position, text, folded) VALUES ({corpus}, ?, 0, ?, ?)",
            ((number, text, text) for number, text in enumerate(frame.question, 1)),
        )
        database.commit()


def peak(table: Path) -> int:
    """MiB that a process takes at most which does nothing but import a table."""
    command = [sys.executable, "-m", "benchmarks.importing", "--alone", str(table)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
