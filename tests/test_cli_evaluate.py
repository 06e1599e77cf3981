"""`faqsearch evaluate` as it is run: with the embedded encoder and with checkpoints in the six published places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from checkpoints import SOURCES, place
from conftest import Run

from faqsearch import measure, registry
from faqsearch.benchmark import COLUMNS, PUBLISHED_SPEED

PAIR_KEYS = ["encoder", "set", "pairs", "matching", "spearman", "pearson", "auc", "average_precision", "best_f1",
             "threshold"]  # fmt: skip
RETRIEVAL_KEYS = ["encoder", "queries", "answerable", "stored", "accuracy_at_1", "accuracy_at_5", "accuracy_at_10",
                  "mrr_at_10", "recall_at_10", "auc"]  # fmt: skip
SPEED_KEYS = ["encoder", "device", "parameters", "layers", "max_length", "batch_size", "best", "sentences", "seconds",
              "latency", "throughput", "precision"]  # fmt: skip

MATCHING = [
    ("怎么提前还清贷款", "贷款能提前结清吗"),
    ("信用卡丢了怎么办", "卡片遗失要怎么挂失"),
    ("怎么修改登录密码", "登陆密码在哪里改"),
    ("快递什么时候送到", "包裹大概几号能到"),
    ("如何开具电子发票", "电子发票去哪儿开"),
    ("会员可以退吗", "开了会员能不能退款"),
]
OTHERS = [
    ("怎么提前还清贷款", "贷款利率是多少"),
    ("信用卡丢了怎么办", "信用卡额度怎么提高"),
    ("怎么修改登录密码", "怎么注销账户"),
    ("快递什么时候送到", "快递可以改地址吗"),
    ("如何开具电子发票", "今天天气怎么样"),
    ("会员可以退吗", "会员有哪些权益"),
]
GRADED = [
    ("一个人在骑马。", "有人骑着马。", 5),
    ("一个人在弹琴。", "一个人在唱歌。", 2),
    ("他在做饭。", "飞机飞走了。", 0),
]


def write_pairs(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["sentence1\tsentence2\tlabel", *(f"{left}\t{right}\t{label}" for left, right, label in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


BINARY = [(*pair, 1) for pair in MATCHING] + [(*pair, 0) for pair in OTHERS]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, a FAQ table with hit tests, and four of the six checkpoints in a Hugging Face cache."""
    home = tmp_path_factory.mktemp("home")
    write_pairs(home / "sets" / "bank.tsv", BINARY)
    write_pairs(home / "sets" / "stsb_dev.tsv", GRADED)
    write_pairs(home / "sets" / "lcqmc.tsv", BINARY[::-1])
    faq = ["key,question,answer", *(f"K{number},{left},答" for number, (left, _) in enumerate(MATCHING))]
    (home / "faq.csv").write_text("\n".join(faq) + "\n", "utf-8")
    hits = ["query,key", *(f"{right},K{number}" for number, (_, right) in enumerate(MATCHING)), "今天天气怎么样,"]
    (home / "hits.csv").write_text("\n".join(hits) + "\n", "utf-8")
    for seed, name in enumerate(("general", "open-domain", "finance", "finance-teacher")):
        place(home / "hf" / "hub", name, hidden=24, size=2000, seed=seed)
    return home


def faqsearch(home: Path, *args: str, code: int = 0) -> tuple[str, str]:
    """Run a command in a process of its own: (stdout, stderr)."""
    environment = {**os.environ, "HF_HOME": str(home / "hf"), "FAQSEARCH_DEVICE": "cpu"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-m", "faqsearch", *args]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, command: Run) -> Run:
    """Run a command in this process, which is quicker: (exit code, stdout, stderr)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    monkeypatch.setenv("FAQSEARCH_DEVICE", "cpu")
    monkeypatch.chdir(home)

    return command


def tables(markdown: str) -> list[list[list[str]]]:
    """The cells of each Markdown table, its rule taken out; every row has as many as the header."""
    found = []
    for block in markdown.split("\n\n"):
        lines = [line for line in block.strip().splitlines() if line.startswith("|")]
        if not lines:
            continue
        assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
        rows = [[cell.strip() for cell in line[1:-1].replace("\\|", "\0").split("|")] for line in lines]
        assert rows[1] == ["---"] * len(rows[0])
        assert {len(row) for row in rows} == {len(rows[0])}
        found.append([rows[0], *rows[2:]])
    return found


# --- each command in a process of its own --------------------------------------------------------


def test_pairs_are_printed_as_the_model_cards_do_and_drawn(home: Path) -> None:
    files = ["sets/bank.tsv", "sets/stsb_dev.tsv"]
    out, err = faqsearch(home, "evaluate", "pairs", *files, "-e", "embedded", "-e", "finance", "--plot", "图.png")
    lines = [line.split() for line in out.splitlines()]
    assert lines[:3] == [["Spearman", "×100"], [], ["encoder", "bank", "stsb_dev", "average"]]
    assert [line[0] for line in lines[3:5]] == ["embedded", "finance"]
    for line in lines[3:5]:
        bank, stsb, average = map(float, line[1:])
        assert average == pytest.approx((bank + stsb) / 2, abs=0.011)
    assert float(lines[3][1]) > 50  # the embedded encoder tells such pairs apart
    assert [line[:4] for line in lines[-4:]] == [
        ["embedded", "bank", "12", "6"],
        ["embedded", "stsb_dev", "3", "graded"],
        ["finance", "bank", "12", "6"],
        ["finance", "stsb_dev", "3", "graded"],
    ]
    assert (home / "图.png").read_bytes().startswith(b"\x89PNG")
    assert err == "picture: 图.png\n"


def test_retrieval_is_measured_in_a_corpus_as_json(home: Path, run: Run) -> None:
    run("import", "faq.csv", "--corpus", "bank")
    out, err = faqsearch(home, "evaluate", "retrieval", "hits.csv", "--corpus", "bank", "--json")
    (scores,) = json.loads(out)["scores"]
    assert err == ""
    assert list(scores) == RETRIEVAL_KEYS
    assert (scores["encoder"], scores["queries"], scores["answerable"], scores["stored"]) == ("embedded", 7, 6, 6)
    assert list(scores["accuracy_at_1"]) == ["value", "low", "high"]
    assert scores["accuracy_at_1"]["value"] >= 5 / 6
    assert scores["accuracy_at_10"] == {"value": 1, "low": 1, "high": 1}


def test_speed_is_printed_beside_the_published_one_with_the_gap_of_two(home: Path) -> None:
    out, _ = faqsearch(
        home, "evaluate", "speed", "-e", "finance", "-e", "finance-teacher", "--count", "20", "--device", "cpu",
        "--markdown",
    )  # fmt: skip
    assert out.startswith("20 sentences here, 10,000 others for the published rows")
    speeds, *gaps = tables(out)
    assert speeds[0] == ["encoder", "device", "batch", "parameters", "cost", "latency", "throughput"]
    for name in ("finance", "finance-teacher"):  # once where the cards' batch size is the fastest, else twice
        batches = [row[2] for row in speeds if row[:2] == [name, "cpu, float32"]]
        assert batches == ["16 (fastest)"] or (batches[0] == "16" and batches[1].endswith(" (fastest)"))
    assert ["finance, published", "V100", "16", "45M", "12 s", "20 ms", "791/s"] in speeds
    assert ["open-domain-teacher, published", "V100", "16", "102M", "23 s", "38 ms", "421/s"] in speeds
    assert [row[0] for row in speeds[-6:]] == [f"{name}, published" for name in PUBLISHED_SPEED]
    assert gaps
    for gap in gaps:
        assert gap[0] == ["", "teacher: finance-teacher", "student: finance", "gap"]
        assert [row[0] for row in gap[1:]] == ["model", "cost", "latency", "throughput"]
        assert gap[1][1].startswith("12 layers")
        assert gap[1][2].startswith("4 layers")


def test_the_benchmark_prints_our_figures_beside_the_published_ones(home: Path) -> None:
    out, err = faqsearch(home, "evaluate", "benchmark", "--data", "sets", "-e", "finance", "--markdown")
    (rows,) = tables(out)
    assert rows[0] == ["encoder", "csts_dev", "csts_test", "afqmc", "lcqmc", "bqcorpus", "pawsx", "xiaobu", "average"]
    measured = rows[1]
    assert measured[0] == "finance, measured"
    assert [cell == "-" for cell in measured[1:]] == [False, True, True, False, True, True, True, True]
    assert ["finance, published", "75.02", "71.99", "32.40", "67.06", "66.35", "7.57", "49.26", "52.80"] in rows
    assert len(rows) == 1 + 1 + 6
    assert "csts_dev stsb_dev.tsv (3 pairs), lcqmc lcqmc.tsv (12 pairs)" in err
    assert "no file for csts_test, afqmc, bqcorpus, pawsx, xiaobu: no average" in err


# --- pairs ---------------------------------------------------------------------------------------


def test_pairs_as_json_and_markdown(run: Run) -> None:
    code, out, _ = run("evaluate", "pairs", "sets/bank.tsv", "-e", "general", "-e", "open-domain", "--json")
    scores = json.loads(out)["scores"]
    assert code == 0
    assert [list(score) for score in scores] == [PAIR_KEYS] * 2
    assert [(score["encoder"], score["set"], score["pairs"]) for score in scores] == [
        ("general", "bank", 12),
        ("open-domain", "bank", 12),
    ]
    code, out, _ = run("evaluate", "pairs", "sets/bank.tsv", "-e", "general", "-e", "open-domain", "--markdown")
    spearman, figures = tables(out)
    assert spearman[0] == ["encoder", "bank", "average"]
    assert figures[0][:5] == ["encoder", "set", "pairs", "matching", "spearman"]
    for row, all_of, score in zip(spearman[1:], figures[1:], scores, strict=True):
        assert row == [score["encoder"]] + [f"{100 * score['spearman']:.2f}"] * 2
        names = ("spearman", "pearson", "auc", "average_precision", "best_f1")
        assert all_of[4:] == [*(f"{100 * score[name]:.2f}" for name in names), f"{score['threshold']:.3f}"]


@pytest.mark.parametrize("files", [("one/dev.tsv", "two/dev.tsv"), ("one/x/dev.tsv", "two/x/dev.tsv"),
                                   ("one/dev.tsv", "one/dev.csv")])  # fmt: skip
def test_files_of_the_same_name_are_different_sets(run: Run, tmp_path: Path, files: tuple[str, str]) -> None:
    paths = [write_pairs(tmp_path / file, BINARY[start:]) for start, file in enumerate(files)]
    code, out, _ = run("evaluate", "pairs", *paths, "-e", "general", "--json")
    scores = json.loads(out)["scores"]
    assert code == 0
    assert [score["pairs"] for score in scores] == [12, 11]
    names = [score["set"] for score in scores]
    assert len(set(names)) == 2
    assert all("dev" in name for name in names)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The encoders that were loaded."""
    names: list[str] = []
    real = registry.load_encoder

    def load_encoder(ref: str, **options: Any) -> Any:
        names.append(ref)
        return real(ref, **options)

    monkeypatch.setattr(registry, "load_encoder", load_encoder)
    return names


@pytest.mark.parametrize("args", [
    ("pairs", "sets/bank.tsv"),
    ("retrieval", "hits.csv", "--stored", "faq.csv"),
    ("retrieval", "sets/bank.tsv", "--from-pairs"),
    ("speed", "--count", "20"),
    ("benchmark", "--data", "sets"),
])  # fmt: skip
def test_a_missing_encoder_is_told_before_anything_is_measured(
    run: Run, loaded: list[str], args: tuple[str, ...]
) -> None:
    name = "general-teacher"
    code, out, err = run("evaluate", *args, "-e", "embedded", "-e", name)
    assert (code, out, loaded) == (1, "", [])
    assert err == f"error: encoder {name!r} is not on this machine; run `faqsearch model pull {name}`\n"


def test_an_incomplete_checkpoint_is_told_before_anything_is_measured(
    run: Run, loaded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place(tmp_path, "finance-teacher", hidden=24, size=500) / "pytorch_model.bin").unlink()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    code, out, err = run("evaluate", "pairs", "sets/bank.tsv", "-e", "embedded", "-e", "finance-teacher")
    assert (code, out, loaded) == (1, "", [])
    assert SOURCES["finance-teacher"][0].rpartition("/")[2] in err
    assert "has no weights" in err
    assert err.endswith("; run `faqsearch model pull finance-teacher`\n")


def test_a_broken_file_is_told_by_line_before_anything_is_measured(run: Run, loaded: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.tsv").write_text("sentence1\tsentence2\tlabel\n问\t答\t1\n问\t答\n\t答\t0\n", "utf-8")
    code, out, err = run("evaluate", "pairs", "sets/bank.tsv", tmp_path / "broken.tsv")
    message = (
        f"{tmp_path}/broken.tsv: line 3: 2 cells, expected 3; line 4: sentence1 is empty; mend or remove what is broken"
    )
    assert (code, out, err, loaded) == (1, "", f"error: {message}\n", [])
    code, out, _ = run("evaluate", "pairs", tmp_path / "broken.tsv", "--json")
    assert (code, json.loads(out)) == (1, {"error": message})


def test_a_picture_that_cannot_be_drawn_is_told_before_anything_is_measured(run: Run, loaded: list[str]) -> None:
    code, out, err = run("evaluate", "pairs", "sets/bank.tsv", "--plot", "out.gif")
    assert (code, out, loaded) == (1, "", [])
    assert err.startswith("error: out.gif is no picture that can be written; expected a name ending in .png")


# --- retrieval -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [(), ("--corpus", "bank", "--stored", "faq.csv"), ("--stored", "faq.csv", "--from-pairs")]
)
def test_retrieval_needs_exactly_one_place_to_search(run: Run, options: tuple[str, ...]) -> None:
    code, out, err = run("evaluate", "retrieval", "hits.csv", *options)
    assert (code, out) == (2, "")
    assert "give one of --corpus NAME, --stored FAQ and --from-pairs" in err


def test_retrieval_in_a_table_and_of_pairs(run: Run) -> None:
    code, out, _ = run("evaluate", "retrieval", "hits.csv", "--stored", "faq.csv", "-e", "general", "-e", "finance")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("7 queries, 6 of them answerable; 6 stored questions. ×100, in brackets")
    assert lines[2].split() == ["encoder", *(name.replace("_at_", "@") for name in RETRIEVAL_KEYS[4:])]
    assert [line.split()[0] for line in lines[3:]] == ["general", "finance"]
    assert all("100.0 [100.0, 100.0]" in line for line in lines[3:])  # accuracy@10 among six
    code, out, _ = run("evaluate", "retrieval", "sets/bank.tsv", "--from-pairs", "--markdown", "-e", "general")
    # Six matching pairs; of half of them what the query should find is left out.
    assert out.startswith("6 queries, 3 of them answerable; 9 stored questions. ")
    ((header, row),) = tables(out)
    assert (code, header[0], row[0], len(row)) == (0, "encoder", "general", 7)


def test_retrieval_of_what_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    hits = tmp_path / "hits.csv"
    hits.write_text("query,key\n问,K1\n问二,K77\n", "utf-8")
    assert run("evaluate", "retrieval", hits, "--stored", "faq.csv") == (
        1,
        "",
        f"error: {hits}: faq.csv has no entries 'K77' (line 3); expected keys of its entries\n",
    )
    code, _, err = run("--home", tmp_path, "evaluate", "retrieval", hits, "--corpus", "bank", "-e", "general")
    assert code == 1
    assert "there is no database" in err


# --- speed and benchmark -------------------------------------------------------------------------


def test_speed_of_sentences_from_a_file_as_json(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BATCH_SIZES", (8, 16))
    (tmp_path / "texts.txt").write_text("怎么还款\n怎么开户\n\n怎么退款\n", "utf-8")
    code, out, _ = run(
        "evaluate", "speed", "-e", "general", "--texts", tmp_path / "texts.txt", "--count", "7", "--json"
    )
    found = json.loads(out)
    assert (code, list(found), found["gaps"]) == (0, ["speeds", "gaps", "published"], [])
    assert [list(speed) for speed in found["speeds"]] == [SPEED_KEYS] * len(found["speeds"])
    card, best = [speed for speed in found["speeds"] if speed["device"] == "cpu"]
    assert (card["batch_size"], card["best"], card["sentences"], card["max_length"]) == (16, False, 7, 256)
    assert best["best"]
    assert found["published"]["finance"] == {
        "parameters": 45e6, "seconds": 12, "latency": 0.020, "throughput": 791,
    }  # fmt: skip


def test_the_benchmark_as_json(run: Run) -> None:
    code, out, _ = run("evaluate", "benchmark", "--data", "sets", "-e", "general", "--json")
    found = json.loads(out)
    assert (code, list(found)) == (0, ["unit", "measured", "published", "notes"])
    assert list(found["measured"]) == ["general"]
    assert list(found["measured"]["general"]) == [*COLUMNS, "average"]
    known = {name for name, value in found["measured"]["general"].items() if value is not None}
    assert known == {"csts_dev", "lcqmc"}
    assert found["measured"]["general"]["average"] is None
    assert set(found["published"]) == set(SOURCES)
    assert found["published"]["finance"]["bqcorpus"] == 66.35


def test_the_benchmark_without_its_data_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run("evaluate", "benchmark", "--data", "none")
    assert (code, err) == (1, "error: none is no folder; expected one with files such as lcqmc.tsv\n")
    monkeypatch.setitem(sys.modules, "datasets", None)
    code, _, err = run("evaluate", "benchmark")
    assert code == 1
    assert err.endswith("run `pip install 'faqsearch[evaluate]'`, or give --data DIR\n")
