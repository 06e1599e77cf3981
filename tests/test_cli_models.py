"""The encoder commands on a machine of their own: what is listed, checked and put in service, without any network."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import SOURCES, place, snapshot, write, write_published
from fake_hub import FakeHub, Machine

from faqsearch import registry

TITLES = ("name", "role", "parameters", "dim", "where", "licence", "corpora", "checkpoint")
ROLES = {
    "general": "general",
    "open-domain": "open-domain questions",
    "finance": "finance questions",
}
PAIRS = [
    ("怎么提前还款", "想早点还清贷款", 1),
    ("怎么提前还款", "如何开户", 0),
    ("额度不够", "提高额度", 1),
    ("转账失败", "挂失卡片", 0),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose commands may reach a hub that has everything, and must not."""
    with FakeHub() as hub:
        source = write_published(tmp_path / "source", hidden=12, size=200)
        for name, _ in SOURCES.values():
            hub.add(name, source)
        yield Machine(tmp_path, hub.url)
        assert hub.requests == []


def row(name: str, dim: str, where: str, corpora: str = "-") -> tuple[str, ...]:
    """One published checkpoint as `model list` prints it."""
    role, teacher = ROLES[name.removesuffix("-teacher")], name.endswith("-teacher")
    parameters = "102M" if teacher else "45M"
    return name, role + ", teacher" * teacher, parameters, dim, where, "none stated", corpora, SOURCES[name][0]


def cells(table: str) -> list[tuple[str, ...]]:
    """The rows of a printed table, by where the titles begin."""
    head, *lines = table.splitlines()
    starts = [head.index(title) for title in TITLES]
    return [tuple(line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True))
            for line in (head, *lines)]  # fmt: skip


def test_the_list_says_what_each_encoder_is_and_where_it_lies(machine: Machine) -> None:
    embedded = ("embedded", "any corpus", "20M", "384", "embedded", "MIT", "-", "ships with faqsearch")
    fresh = machine.run("model", "list")
    assert (fresh.code, fresh.err) == (0, "")
    assert cells(fresh.out) == [TITLES, embedded, *(row(name, "768", "missing") for name in SOURCES)]
    assert not (machine.folder / "faqsearch").exists()  # a list makes no database

    for name in SOURCES:
        place(machine.cache, name, hidden=12, size=200)
    (snapshot(machine.cache, SOURCES["open-domain"][0]) / "pytorch_model.bin").unlink()
    assert machine.run("corpus", "create", "bank", "--encoder", "finance").code == 0
    assert machine.run("corpus", "create", "shop", "--encoder", "finance").code == 0
    own = str(write_published(machine.folder / "own", hidden=24, size=200))
    assert machine.run("corpus", "create", "mine", "--encoder", own).code == 0
    full = machine.run("model", "list")
    assert (full.code, full.err) == (0, "")
    assert cells(full.out) == [
        TITLES,
        embedded,
        row("general", "12", "downloaded"),
        row("general-teacher", "12", "downloaded"),
        row("open-domain", "768", "incomplete"),
        row("open-domain-teacher", "12", "downloaded"),
        row("finance", "12", "downloaded", "bank, shop"),
        row("finance-teacher", "12", "downloaded"),
        (own, "-", "-", "24", "folder", "-", "mine", "a folder"),
    ]
    listed = {item["name"]: item for item in machine.run("model", "list", "--json").json["encoders"]}
    assert list(listed) == ["embedded", *SOURCES, own]
    assert listed["finance"] == {
        "name": "finance",
        "source": SOURCES["finance"][0],
        "role": "finance questions",
        "parameters": 44_974_080,
        "dim": 12,
        "where": "downloaded",
        "folder": str(snapshot(machine.cache, SOURCES["finance"][0])),
        "licence": "none stated",
        "corpora": ["bank", "shop"],
    }


def test_a_damaged_checkpoint_is_one_line_and_nothing_that_a_library_says(machine: Machine) -> None:
    corrupt, misshapen = (place(machine.cache, name, hidden=12, size=200) for name in ("finance", "general"))
    weights = corrupt / "pytorch_model.bin"
    weights.write_bytes(weights.read_bytes()[:5000])
    config = json.loads((misshapen / "config.json").read_text("utf-8"))
    write(misshapen / "config.json", {**config, "hidden_size": 24})
    done = machine.run("model", "check", "finance", "--json")
    assert done.json == {"error": done.failure}
    assert done.failure.startswith(f"checkpoint {corrupt} cannot be loaded (")
    assert done.failure.endswith("; run `faqsearch model pull finance`")
    told = machine.run("model", "check", "general").failure
    assert told.startswith(f"checkpoint {misshapen} does not fit its config.json: ")
    assert told.endswith(" missing or of another shape; run `faqsearch model pull general`")


def test_a_published_encoder_is_put_in_service(machine: Machine) -> None:
    table = machine.folder / "faq.csv"
    with table.open("w", encoding="utf-8", newline="") as handle:
        rows = [("提前还款流程", "打开“贷款”。"), ("信用卡挂失", "请致电客服。"), ("如何开户", "请带身份证。")]
        csv.writer(handle).writerows([("问题", "答案"), *rows])
    assert machine.run("import", table, "--corpus", "finance", "--no-sync").code == 0
    refused = machine.run("corpus", "set", "finance", "--encoder", "finance")
    assert refused.failure == "encoder 'finance' is not on this machine; run `faqsearch model pull finance`"
    assert machine.run("corpus", "show", "finance", "--json").json["encoder"] == "embedded"

    place(machine.cache, "finance")
    done = machine.run("corpus", "set", "finance", "--encoder", "finance", "--json")
    assert (done.code, done.json["encoder"]) == (0, "finance")
    assert "run `faqsearch rebuild finance`" in done.err
    assert machine.run("rebuild", "finance").code == 0
    # Not one of the stored texts, so that the encoder finds it and not its exact words.
    found = machine.run("search", "提前还款的流程", "--corpus", "finance", "--json").json
    encoder = registry.load_encoder(str(snapshot(machine.cache, SOURCES["finance"][0])))
    scores = encoder.encode(["提前还款的流程"]) @ encoder.encode([question for question, _ in rows]).T
    assert {hit["question"]: hit["score"] for hit in found["hits"]} == pytest.approx(
        {question: float(score) for (question, _), score in zip(rows, scores[0], strict=True)}, abs=1e-5
    )
    status = machine.run("status", "--json").json
    kept = ("name", "encoder", "indexed", "pending", "problems")
    assert status["ok"] is True
    assert [{name: corpus[name] for name in kept} for corpus in status["corpora"]] == [
        {"name": "finance", "encoder": "finance", "indexed": 3, "pending": 0, "problems": []}
    ]

    shutil.rmtree(machine.cache)
    told = "encoder 'finance' is not on this machine; run `faqsearch model pull finance`"
    assert machine.run("rebuild", "finance", "--full").failure.endswith(told)
    assert machine.run("search", "还款", "--corpus", "finance").failure == told
    assert machine.run("corpus", "show", "finance", "--json").json["encoder"] == "finance"


def test_pairs_are_scored_with_published_encoders_side_by_side(machine: Machine) -> None:
    file = machine.folder / "pairs.tsv"
    file.write_text("".join(f"{one}\t{two}\t{label}\n" for one, two, label in PAIRS), "utf-8")
    place(machine.cache, "finance")
    done = machine.run("evaluate", "pairs", file, "-e", "embedded", "-e", "finance", "--json")
    assert done.code == 0, done.err
    assert [(item["encoder"], item["set"], item["pairs"]) for item in done.json["scores"]] == [
        ("embedded", "pairs", 4),
        ("finance", "pairs", 4),
    ]
    # Told before anything is loaded or scored.
    missing = machine.run("evaluate", "pairs", file, "-e", "embedded", "-e", "general", "--json")
    told = "encoder 'general' is not on this machine; run `faqsearch model pull general`"
    assert (missing.failure, missing.json) == (told, {"error": told})
