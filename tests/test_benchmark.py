"""The published figures, and the seven sets from a folder or from local copies of the hub's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa  # type: ignore[import-untyped] # has no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from faqsearch import benchmark
from faqsearch.errors import FaqSearchError, TableError
from faqsearch.pairs import Pairs

COLUMNS = ("csts_dev", "csts_test", "afqmc", "lcqmc", "bqcorpus", "pawsx", "xiaobu")


# --- what the cards say --------------------------------------------------------------------------


def test_the_published_figures_are_those_of_the_model_cards() -> None:
    assert benchmark.COLUMNS == COLUMNS
    assert benchmark.PUBLISHED == {
        "general-teacher": (77.19, 72.59, 36.79, 76.91, 49.62, 16.24, 63.15),
        "general": (76.49, 73.33, 26.46, 64.26, 46.02, 11.83, 52.45),
        "open-domain-teacher": (80.90, 76.62, 34.51, 77.05, 52.95, 12.97, 59.47),
        "open-domain": (79.89, 76.34, 27.59, 69.26, 49.40, 9.06, 53.52),
        "finance-teacher": (77.40, 74.55, 36.00, 75.75, 73.24, 11.58, 54.75),
        "finance": (75.02, 71.99, 32.40, 67.06, 66.35, 7.57, 49.26),
    }


def test_the_published_averages_are_the_means_of_their_columns() -> None:
    """Within 0.01: the cards cut off the average of `finance`, 52.807, instead of rounding it."""
    assert {name: sum(row) / 7 for name, row in benchmark.PUBLISHED.items()} == pytest.approx(
        benchmark.PUBLISHED_AVERAGE, abs=0.01
    )


def test_the_published_speeds_are_those_of_the_model_cards() -> None:
    student, teacher = (45e6, 12, 0.020, 791), (102e6, 23, 0.038)
    assert {
        name: (speed.parameters, speed.seconds, speed.latency, speed.throughput)
        for name, speed in benchmark.PUBLISHED_SPEED.items()
    } == {
        "general": student,
        "open-domain": student,
        "finance": student,
        "general-teacher": (*teacher, 418),
        "open-domain-teacher": (*teacher, 421),
        "finance-teacher": (*teacher, 418),
    }


def test_there_is_an_average_only_of_all_seven() -> None:
    row: dict[str, float | None] = {column: number / 10 for number, column in enumerate(COLUMNS)}
    assert benchmark.average(row) == pytest.approx(0.3)
    assert benchmark.average({**row, "pawsx": None}) is None
    assert benchmark.average({column: row[column] for column in COLUMNS[1:]}) is None


# --- from a folder -------------------------------------------------------------------------------


def write_set(folder: Path, name: str, pairs: int = 2) -> None:
    separator = "," if name.endswith(".csv") else "\t"
    rows = [("sentence1", "sentence2", "label"), *((f"{name}{n}", "对", str(n % 2)) for n in range(pairs))]
    (folder / name).write_text("".join(separator.join(row) + "\n" for row in rows), "utf-8")


@pytest.mark.parametrize(
    "names",
    [
        [f"{column}.tsv" for column in COLUMNS],
        ["stsb_dev.csv", "stsb_test.tsv", "AFQMC.TSV", "lcqmc.txt", "bq.tsv", "paws-x.tsv", "bustm.csv"],
        ["stsb.tsv", "csts_test.csv", "afqmc.csv", "LCQMC.tsv", "bq_corpus.tsv", "pawsx_zh.tsv", "OPPO-xiaobu.tsv"],
    ],
)
def test_files_are_found_by_the_names_that_the_sets_go_by(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        write_set(tmp_path, name, number + 2)
    write_set(tmp_path, "others.tsv")
    (tmp_path / "lcqmc").mkdir()
    sets, notes = benchmark.from_folder(str(tmp_path))
    assert tuple(sets) == COLUMNS
    for number, (column, name) in enumerate(zip(COLUMNS, names, strict=True)):
        assert (sets[column].name, len(sets[column])) == (column, number + 2)
        assert sets[column].left[0] == f"{name}0"
    taken = [f"{column} {name} ({n} pairs)" for column, name, n in zip(COLUMNS, names, range(2, 9), strict=True)]
    assert notes == [f"from {tmp_path}: {', '.join(taken)}; whether these are the published sets cannot be told"]


def test_columns_without_a_file_are_told(tmp_path: Path) -> None:
    write_set(tmp_path, "bq.tsv")
    write_set(tmp_path, "bqcorpus.csv", 1000)  # goes before an alias
    sets, notes = benchmark.from_folder(tmp_path)
    assert {column: len(pairs) for column, pairs in sets.items()} == {"bqcorpus": 1000}
    assert notes == [
        f"from {tmp_path}: bqcorpus bqcorpus.csv (1,000 pairs); whether these are the published sets cannot be told",
        "no file for csts_dev, csts_test, afqmc, lcqmc, pawsx, xiaobu: no average",
    ]


def test_a_folder_without_the_sets_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("x")
        with pytest.raises(TableError, match="is no folder; expected one with files such as lcqmc.tsv") as caught:
            benchmark.from_folder(folder)
        assert str(folder) in str(caught.value)
    with pytest.raises(TableError, match=r"holds none of csts_dev.tsv, csts_test.tsv, .*, xiaobu.tsv"):
        benchmark.from_folder(tmp_path)


def test_a_broken_file_of_a_folder_is_told_by_line(tmp_path: Path) -> None:
    write_set(tmp_path, "lcqmc.tsv")
    (tmp_path / "afqmc.tsv").write_text("一\t二\t1\n一\t二\n", "utf-8")
    with pytest.raises(TableError, match=r"afqmc\.tsv: line 2: 2 cells, expected 3"):
        benchmark.from_folder(tmp_path)


# --- from the hub --------------------------------------------------------------------------------

PARTS = {"validation": 5, "test": 3}


def write_table(folder: Path, **columns: list[Any]) -> None:
    """A data set as the hub's copies are: a parquet file for each part."""
    (folder / "data").mkdir(parents=True)
    for part, rows in PARTS.items():
        table = pa.table({name: values[:rows] for name, values in columns.items()})
        pq.write_table(table, folder / "data" / f"{part}-00000-of-00001.parquet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders in place of the hub's data sets; the library reads them as it reads the hub's."""
    sources = {}
    for column, source in benchmark.SOURCES.items():
        folder = tmp_path / "hub" / source.dataset
        sources[column] = replace(source, dataset=str(folder), size=2 if source.file else 5)
        if source.file:
            lines = [{"sentence1": f"{column}{split}{n}", "sentence2": "对", "label": str(n), "split": split}
                     for split in ("train", "valid", "validation") for n in range(2)][:5]  # fmt: skip
            (folder / source.file).parent.mkdir(parents=True)
            (folder / source.file).write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        elif not folder.exists():
            left = [f"{source.dataset}{n}" for n in range(5)]
            write_table(folder, sentence1=left, sentence2=["对"] * 5, score=[n % 2 for n in range(5)], idx=[0] * 5)
    # bustm is not read through a data set's name but as one file by its address.
    real = datasets.load_dataset

    def load_dataset(path: str, **options: Any) -> Any:
        if url := options.get("data_files"):
            before, _, after = url.partition("@")
            revision, _, file = after.partition("/")
            assert revision == benchmark.SOURCES["xiaobu"].revision
            options["data_files"] = f"{before.removeprefix('hf://datasets/')}/{file}"
        return real(path, **options)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(benchmark, "SOURCES", sources)
    return tmp_path / "hub"


def test_the_hub_s_copies_are_read_by_part(hub: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    sets, notes = benchmark.from_hub(progress=lambda *args: told.append(args))
    assert tuple(sets) == COLUMNS
    # The STS-B columns are two parts of one set; everything else is the dev part.
    assert [len(pairs) for pairs in sets.values()] == [5, 3, 5, 5, 5, 5, 3]
    assert sets["lcqmc"] == Pairs(
        "lcqmc", tuple(f"C-MTEB/LCQMC{n}" for n in range(5)), ("对",) * 5, (0.0, 1.0, 0.0, 1.0, 0.0)
    )
    assert sets["xiaobu"] == Pairs(
        "xiaobu", ("xiaobuvalid0", "xiaobuvalid1", "xiaobuvalidation0"), ("对",) * 3, (0.0, 1.0, 0.0)
    )
    assert notes == [
        "csts_test has 3 pairs here; the published set has 5",
        "xiaobu has 3 pairs here; the published set has 2",
    ]
    assert told == [("loading", done, 7) for done in range(7)]


def test_of_the_test_part_each_column_has_what_there_is(hub: Path) -> None:
    sets, notes = benchmark.from_hub("test")
    assert {column: len(pairs) for column, pairs in sets.items()} == {
        "csts_dev": 5, "csts_test": 3, "afqmc": 3, "lcqmc": 3, "bqcorpus": 3, "pawsx": 3, "xiaobu": 3,
    }  # fmt: skip
    assert notes == [
        "test parts, but for csts_dev and xiaobu; the published rows are on dev parts, so compare with care"
    ]


def test_a_copy_with_other_columns_is_told(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(hub / "other", query=["一"] * 5, score=[1] * 5)
    sources = {"afqmc": replace(benchmark.SOURCES["afqmc"], dataset=str(hub / "other"))}
    monkeypatch.setattr(benchmark, "SOURCES", sources)
    with pytest.raises(TableError, match="afqmc: the hub's copy has the columns query, score and 5 rows"):
        benchmark.from_hub()


@pytest.mark.parametrize("column", ["lcqmc", "xiaobu"])
def test_without_network_it_is_one_line_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    source = benchmark.SOURCES[column]
    monkeypatch.setattr(benchmark, "SOURCES", {column: source})
    with pytest.raises(TableError) as caught:
        benchmark.from_hub()
    message = str(caught.value)
    assert message.startswith(f"{column}: {source.dataset} cannot be loaded from the Hugging Face hub (")
    assert message.endswith("check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give the files in --data DIR")
    assert "\n" not in message


def test_without_the_library_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FaqSearchError, match=r"run `pip install 'faqsearch\[evaluate\]'`, or give --data DIR"):
        benchmark.from_hub()
