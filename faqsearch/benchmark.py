"""The seven columns of the published model cards: their data, and what the cards report.

The cards (https://huggingface.co/DMetaSoul) report Spearman's correlation ×100 of cosine and label.
Their scripts (https://github.com/meta-soul/MetaSpore, demo/nlp-algos-transformer) show on which data:
the dev parts of afqmc, lcqmc, bqcorpus, pawsx and xiaobu, and dev and test of the Chinese STS-B.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faqsearch import hub
from faqsearch.errors import FaqSearchError, TableError
from faqsearch.model import Progress
from faqsearch.pairs import Pairs, read_pairs

COLUMNS = ("csts_dev", "csts_test", "afqmc", "lcqmc", "bqcorpus", "pawsx", "xiaobu")
Part = Literal["dev", "test"]

PUBLISHED: dict[str, tuple[float, ...]] = {
    "general-teacher": (77.19, 72.59, 36.79, 76.91, 49.62, 16.24, 63.15),
    "general": (76.49, 73.33, 26.46, 64.26, 46.02, 11.83, 52.45),
    "open-domain-teacher": (80.90, 76.62, 34.51, 77.05, 52.95, 12.97, 59.47),
    "open-domain": (79.89, 76.34, 27.59, 69.26, 49.40, 9.06, 53.52),
    "finance-teacher": (77.40, 74.55, 36.00, 75.75, 73.24, 11.58, 54.75),
    "finance": (75.02, 71.99, 32.40, 67.06, 66.35, 7.57, 49.26),
}
"""Spearman ×100 by column, as the six model cards print it."""

PUBLISHED_AVERAGE = {
    "general-teacher": 56.07,
    "general": 50.12,
    "open-domain-teacher": 56.35,
    "open-domain": 52.15,
    "finance-teacher": 57.61,
    "finance": 52.80,
}
"""Their averages, as printed there."""


@dataclass(frozen=True, slots=True)
class PublishedSpeed:
    """What a model card reports of speed: 10,000 sentences on a V100, batch size 16, 256 tokens at most."""

    parameters: float
    seconds: float
    latency: float
    """Seconds for a batch."""
    throughput: float
    """Sentences a second."""


_STUDENT = PublishedSpeed(45e6, 12, 0.020, 791)
PUBLISHED_SPEED = {
    "general-teacher": PublishedSpeed(102e6, 23, 0.038, 418),
    "general": _STUDENT,
    "open-domain-teacher": PublishedSpeed(102e6, 23, 0.038, 421),
    "open-domain": _STUDENT,
    "finance-teacher": PublishedSpeed(102e6, 23, 0.038, 418),
    "finance": _STUDENT,
}

TRAINED_ON_DEV = {"embedded": ("lcqmc", "bqcorpus", "pawsx")}
"""Columns whose dev part an encoder has seen in training, at least in part: its figures there flatter it."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a column's data lie on the Hugging Face hub."""

    dataset: str
    revision: str
    splits: dict[Part, str]
    size: int
    """Pairs in the part that the cards use."""
    file: str | None = None
    """The one file of it, where the data set is no plain table; its column `split` then names the part."""


_STSB = ("C-MTEB/STSB", "0cde68302b3541bb8b3c340dc0644b0b745b3dc0")
_BOTH: dict[Part, str] = {"dev": "validation", "test": "test"}
SOURCES = {
    "csts_dev": _Source(*_STSB, {"dev": "validation", "test": "validation"}, 1458),
    "csts_test": _Source(*_STSB, {"dev": "test", "test": "test"}, 1361),
    "afqmc": _Source("C-MTEB/AFQMC", "b44c3b011063adb25877c13823db83bb193913c4", _BOTH, 4316),
    "lcqmc": _Source("C-MTEB/LCQMC", "17f9b096f80380fce5ed12a9be8be7784b337daf", _BOTH, 8802),
    "bqcorpus": _Source("C-MTEB/BQ", "e3dda5e115e487b39ec7e618c0c6a29137052a55", _BOTH, 10000),
    "pawsx": _Source("C-MTEB/PAWSX", "9c6a90e430ac22b5779fb019a23e820b11a8b5e1", _BOTH, 2000),
    "xiaobu": _Source(  # has no test part with labels
        "qgyd2021/sentence_pair",
        "4eff5abc4765b64da31e1a796dadca5e0bfe35bd",
        {"dev": "valid", "test": "valid"},
        10000,
        "data/bustm.jsonl",
    ),
}

_FILES = {
    "csts_dev": ("csts_dev", "stsb_dev", "stsb"),
    "csts_test": ("csts_test", "stsb_test"),
    "afqmc": ("afqmc",),
    "lcqmc": ("lcqmc",),
    "bqcorpus": ("bqcorpus", "bq_corpus", "bq"),
    "pawsx": ("pawsx", "paws-x", "pawsx_zh"),
    "xiaobu": ("xiaobu", "oppo-xiaobu", "bustm"),
}
_ENDINGS = (".tsv", ".csv", ".jsonl", ".txt", ".xlsx")


def average(figures: dict[str, float | None]) -> float | None:
    """The mean of all seven columns; None unless each has a figure."""
    values = [figures.get(column) for column in COLUMNS]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def from_folder(folder: str | Path) -> tuple[dict[str, Pairs], list[str]]:
    """The columns' data from files of a folder, named as the columns are (csts_dev.tsv, bqcorpus.csv …).

    Returns:
        The pairs by column, and notes: which files were taken, which columns have none.

    Raises:
        TableError: no such folder, none of the files, or one that is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TableError(f"{folder} is no folder; expected one with files such as lcqmc.tsv")
    files = {file.name.lower(): file for file in sorted(folder.iterdir()) if file.is_file()}
    found, taken, missing = {}, [], []
    for column, names in _FILES.items():
        file = next((files[name + ending] for name in names for ending in _ENDINGS if name + ending in files), None)
        if file is None:
            missing.append(column)
        else:
            found[column] = read_pairs(file, column)
            taken.append(f"{column} {file.name} ({len(found[column]):,} pairs)")
    if not found:
        raise TableError(f"{folder} holds none of {', '.join(f'{column}.tsv' for column in COLUMNS)}")
    notes = [f"from {folder}: {', '.join(taken)}; whether these are the published sets cannot be told"]
    if missing:
        notes.append(f"no file for {', '.join(missing)}: no average")
    return found, notes


def from_hub(part: Part = "dev", progress: Progress | None = None) -> tuple[dict[str, Pairs], list[str]]:
    """The columns' data from public copies on the Hugging Face hub, downloaded into its cache once.

    Args:
        part: dev, on which the cards report, or test. xiaobu has dev alone, the STS-B columns are what they say.
        progress: told ("loading", columns done, 7).

    Returns:
        The pairs by column, and notes: what differs from the published sets.

    Raises:
        FaqSearchError: the library is not installed.
        TableError: a set cannot be downloaded.
    """
    try:
        import datasets
    except ImportError as exc:
        raise FaqSearchError(
            "the benchmark's data come through the library datasets, which is not installed;"
            " run `pip install 'faqsearch[evaluate]'`, or give --data DIR"
        ) from exc
    hub.quiet()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    found, notes = {}, []
    for done, (column, source) in enumerate(SOURCES.items()):
        if progress:
            progress("loading", done, len(SOURCES))
        try:
            rows = _load(datasets, source, part)
        except Exception as exc:  # whatever HTTP, parquet and script loading raise
            detail = " ".join(str(exc).split())[:160] or type(exc).__name__
            raise TableError(
                f"{column}: {source.dataset} cannot be loaded from the Hugging Face hub ({detail}); check the network,"
                " HF_ENDPOINT and HF_HUB_OFFLINE, or give the files in --data DIR"
            ) from exc
        found[column] = _as_pairs(column, rows)
        if part == "dev" and len(found[column]) != source.size:
            notes.append(f"{column} has {len(found[column]):,} pairs here; the published set has {source.size:,}")
    if part == "test":
        notes.append(
            "test parts, but for csts_dev and xiaobu; the published rows are on dev parts, so compare with care"
        )
    return found, notes


def _load(datasets: Any, source: _Source, part: Part) -> Any:  # noqa: ANN401 - the library's types
    if source.file is None:
        return datasets.load_dataset(source.dataset, revision=source.revision, split=source.splits[part])
    url = f"hf://datasets/{source.dataset}@{source.revision}/{source.file}"
    rows = datasets.load_dataset("json", data_files=url, split="train")
    return rows.filter(lambda row: str(row["split"]).startswith(source.splits[part]))


def _as_pairs(column: str, rows: Any) -> Pairs:  # noqa: ANN401
    label = "score" if "score" in rows.column_names else "label"
    if not {"sentence1", "sentence2", label} <= set(rows.column_names) or not len(rows):
        raise TableError(
            f"{column}: the hub's copy has the columns {', '.join(rows.column_names)} and {len(rows)} rows"
        )
    return Pairs(
        column, tuple(rows["sentence1"]), tuple(rows["sentence2"]), tuple(float(value) for value in rows[label])
    )
