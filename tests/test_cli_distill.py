"""`faqsearch distill` as it is run: on tiny checkpoints and files, and from a corpus's own log into service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from checkpoints import write_published
from conftest import Run

from faqsearch import cli_distill, distill, measure, registry

# The questions of the tests; nothing but characters that they share tells which mean the same.
QUESTIONS = list(measure.sample_questions(60))
QUICK = ("--layers", "1", "--judge-every", "2", "--device", "cpu")
FAQ = [
    ("K0", "信用卡丢了怎么办", "信用卡丢失了怎么挂失"),
    ("K1", "怎么修改登录密码", ""),
    ("K2", "快递什么时候送到", "我的快递几号送到"),
    ("K3", "如何开具电子发票", ""),
    ("K4", "会员可以退吗", ""),
]
HITS = [
    ("信用卡丢了怎么办呢", "K0"),
    ("怎么改登录密码", "K1"),
    ("快递什么时候能送到", "K2"),
    ("怎么开具电子发票", "K3"),
    ("会员可以退款吗", "K4"),
    ("今天天气好不好", ""),
    ("附近有火车站么", ""),
    ("地球离月亮多远", ""),
]


def write_pairs(path: Path, questions: list[str]) -> Path:
    """Each question beside itself in other words, and beside its neighbour: four pairs hang together."""
    rows = [(text, f"请问{text}呢", 1) for text in questions]
    rows += [(text, questions[place ^ 1], 0) for place, text in enumerate(questions)]
    path.write_text("".join(f"{left}\t{right}\t{label}\n" for left, right, label in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files to train on, a teacher that knows all characters, and a checkpoint that knows hardly any."""
    home = tmp_path_factory.mktemp("home")
    (home / "texts.txt").write_text("\n".join(QUESTIONS) + "\n", "utf-8")
    write_pairs(home / "bank.tsv", QUESTIONS[:40])
    write_pairs(home / "dev.tsv", QUESTIONS[40:])
    rows = ["key,question,similar,answer", *(f"{key},{question},{similar},答" for key, question, similar in FAQ)]
    (home / "faq.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (home / "hits.csv").write_text("query,key\n" + "".join(f"{query},{key}\n" for query, key in HITS), "utf-8")
    write_published(home / "teacher", 3, hidden=24, heads=4)
    write_published(home / "blind", 2, hidden=24, heads=4, size=120)
    return home


@pytest.fixture
def run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Run) -> Run:
    """Run a command in this process, with the data of a new home: (exit code, stdout, stderr)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hf" / "hub"))
    monkeypatch.setattr(measure, "BATCH_SIZES", (8, 16))
    monkeypatch.setattr(cli_distill, "_TIMED", 20)
    monkeypatch.setenv("FAQSEARCH_DEVICE", "cpu")
    monkeypatch.setenv("FAQSEARCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(home)

    return command


# --- the whole command ---------------------------------------------------------------------------


def test_a_student_is_trained_and_told_as_json_with_a_picture(run: Run, tmp_path: Path) -> None:
    student = tmp_path / "student"
    files = ("--texts", "texts.txt", "--pairs", "bank.tsv", "--pairs", "bank.tsv", "--judge", "dev.tsv")
    code, out, err = run(
        "distill", "-t", "teacher", *files, *QUICK, "-o", student, "--pair-rate", "1e-3", "--seed", "3",
        "--plot", tmp_path / "图.png", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert (code, list(found)) == (0, ["folder", "start", "best", "points", "pairs", "gaps", "hit_tests", "in_service"])
    assert (found["folder"], found["hit_tests"], found["in_service"]) == (str(student), [], None)
    points = found["points"]
    assert [list(point) for point in points] == [["phase", "step", "loss", "figure", "details"]] * len(points)
    assert found["start"] == points[0]
    assert found["best"]["figure"] == max(point["figure"] for point in points)
    assert list(dict.fromkeys(point["phase"] for point in points)) == ["distil", "match", "average"]
    assert [list(point["details"]) for point in points] == [["dev", "dev accuracy@1", "dev auc"]] * len(points)
    lines = [line for line in err.splitlines() if ": loss " in line]
    assert [line.split(":")[0] for line in lines] == [f"{point['phase']} {point['step']}" for point in points]
    assert (tmp_path / "图.png").read_bytes().startswith(b"\x89PNG")
    card = (student / "README.md").read_text("utf-8")
    assert "- bank: 80 labelled pairs\n- bank 2: 80 labelled pairs\n- 60 texts without labels\n" in card
    assert '"seed": 3' in card
    assert registry.load_encoder(str(student), device="cpu").layers == 1


def test_teacher_student_and_gap_are_printed(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "distill", "-t", "teacher", "--texts", "texts.txt", "--pairs", "bank.tsv", *QUICK, "--prune",
        "-o", tmp_path / "student",
    )  # fmt: skip
    assert code == 0
    assert "judged by what is held out: 8 pairs of bank\n" in err
    lines = [line.split() for line in out.splitlines() if line]
    scores = [line for line in lines if line[:2] in (["teacher", "bank"], [str(tmp_path / "student"), "bank"])]
    assert [line[2:4] for line in scores] == [["8", "4"], ["8", "4"]]  # pairs, matching: as many as are held out
    for name in ("model", "cost", "latency", "throughput"):
        assert any(line[0] == name for line in lines), name
    assert any({"teacher", str(tmp_path / "student")} <= set(line) and line[-1] == "gap" for line in lines)
    assert lines[-1][:2] == [f"{tmp_path}/student:", "judged"]
    assert (lines[-1][3:6]) == ["at", "the", "start"]


def test_a_command_that_was_killed_goes_on_with_resume(run: Run, home: Path, tmp_path: Path) -> None:
    """Killed outright, so that nothing can be tidied up."""
    args = ("-t", "teacher", "--texts", "texts.txt", "--pairs", "bank.tsv", "--judge", "dev.tsv", *QUICK)
    _, out, _ = run("distill", *args, "-o", tmp_path / "unbroken", "--json")
    script = (
        "import os, signal\n"
        "from faqsearch import cli, distill, encoder, printing\n"
        "encoder.has_fast_bf16 = lambda _device: False\n"  # as in this process, and not in distill
        "printing.note = lambda line: os.kill(os.getpid(), signal.SIGKILL) if line.startswith('match 2') else None\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", script, "distill", *args, "-o", str(tmp_path / "student")]
    environment = {**os.environ, "FAQSEARCH_HOME": str(tmp_path / "home")}
    killed = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    code, _, err = run("distill", *args, "-o", tmp_path / "student")
    assert code == 1
    assert err.endswith("student is not empty; give --resume to go on with it, or name another folder\n")
    code, resumed, _ = run("distill", *args, "-o", tmp_path / "student", "--resume", "--json")
    assert code == 0
    assert json.loads(resumed)["points"] == json.loads(out)["points"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("unbroken", "student")]
    assert weights[0] == weights[1]


# --- from a corpus's log into service ------------------------------------------------------------


def corpus(run: Run, encoder: str) -> None:
    """The FAQ as the corpus `bank`, with a confirmed answer in its log."""
    assert run("corpus", "create", "bank", "--encoder", encoder)[0] == 0
    assert run("corpus", "set", "bank", "--answer-threshold", "-1", "--suggest-threshold", "-1")[0] == 0
    assert run("import", "faq.csv", "--corpus", "bank")[0] == 0
    query = json.loads(run("search", "电子发票哪里开", "--corpus", "bank", "--with-query-id", "--json")[1])["query_id"]
    assert run("feedback", query, "right")[0] == 0


def in_use(run: Run) -> tuple[str, list[str]]:
    """The corpus's encoder, and the keys that hit tests find first."""
    status = json.loads(run("status", "--json")[1])
    assert status["ok"], status  # the index is of that encoder
    encoder = json.loads(run("corpus", "show", "bank", "--json")[1])["encoder"]
    hits = [json.loads(run("search", query, "--corpus", "bank", "--json")[1])["hits"] for query, _ in HITS[:5]]
    return encoder, [found[0]["key"] for found in hits]


TEAM = ("--from-log", "bank", "--hit-tests", "hits.csv", "--judge", "dev.tsv", *QUICK)


def test_what_is_worse_on_the_hit_tests_is_not_put_in_service(run: Run, home: Path, tmp_path: Path) -> None:
    corpus(run, "teacher")
    before = in_use(run)
    assert before == (str(home / "teacher"), ["K0", "K1", "K2", "K3", "K4"])
    args = ("distill", "--init", "blind", *TEAM, "--put-in-service")
    code, out, err = run(*args, "-o", tmp_path / "student", "--json")
    found = json.loads(out)
    assert (code, found["in_service"]) == (0, False)
    assert err.startswith("from bank: 3 labelled pairs\n")  # two similar questions, and what was confirmed
    old, new = found["hit_tests"]
    assert (old["encoder"], new["encoder"]) == (str(home / "teacher"), str(tmp_path / "student"))
    assert (old["queries"], old["answerable"], old["stored"]) == (8, 5, 7)
    assert old["accuracy_at_1"]["value"] == 1 > new["accuracy_at_1"]["value"]
    assert in_use(run) == before
    code, out, err = run(*args, "-o", tmp_path / "again")
    assert code == 0
    assert "not put in service: it is worse on the hit tests than the encoder that the corpus has" in err
    assert "100.0 [100.0, 100.0]" in out
    assert in_use(run) == before


def test_what_is_not_worse_is_put_in_service_and_the_rebuilt_index_answers(run: Run, tmp_path: Path) -> None:
    corpus(run, "blind")
    assert in_use(run)[1] != ["K0", "K1", "K2", "K3", "K4"]
    code, out, _ = run(
        "distill", "-t", "teacher", "--texts", "texts.txt", *TEAM, "--put-in-service", "-o", tmp_path / "student",
        "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert (code, found["in_service"]) == (0, True)
    assert found["hit_tests"][1]["accuracy_at_1"]["value"] > found["hit_tests"][0]["accuracy_at_1"]["value"]
    assert in_use(run) == (str(tmp_path / "student"), ["K0", "K1", "K2", "K3", "K4"])


def test_without_being_asked_nothing_is_put_in_service(run: Run, tmp_path: Path, home: Path) -> None:
    corpus(run, "blind")
    code, out, _ = run("distill", "-t", "teacher", *TEAM, "-o", tmp_path / "student", "--json")
    found = json.loads(out)
    assert (code, found["in_service"], len(found["hit_tests"])) == (0, None, 2)
    assert in_use(run)[0] == str(home / "blind")


# --- what is refused -----------------------------------------------------------------------------


def refused(run: Run, tmp_path: Path, *args: str) -> tuple[int, str]:
    """(code, message) of a command that must leave nothing behind."""
    code, out, err = run("distill", *args, "-o", tmp_path / "student")
    assert out == ""
    assert not (tmp_path / "student").exists()
    return code, err


@pytest.mark.parametrize(("args", "message"), [
    (("--put-in-service",), "--put-in-service goes with --from-log CORPUS and --hit-tests FILE"),
    (("--put-in-service", "--from-log", "bank"), "--put-in-service goes with --from-log CORPUS and --hit-tests FILE"),
    (("--hit-tests", "hits.csv"), "--hit-tests goes with --from-log CORPUS"),
    (("--layers", "0"), "--layers"),
    (("--epochs", "-1"), "--epochs"),
    (("--device", "tpu"), "--device"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_misuse(
    run: Run, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    code, err = refused(run, tmp_path, "-t", "teacher", "--pairs", "bank.tsv", *args)
    assert code == 2
    assert message in " ".join(err.replace("│", " ").split())


def test_the_output_must_be_named(run: Run) -> None:
    code, out, err = run("distill", "-t", "teacher", "--pairs", "bank.tsv")
    assert (code, out) == (2, "")
    assert "--output" in err


@pytest.mark.parametrize(("args", "message"), [
    (("--pairs", "bank.tsv"), "there is nothing to start from; name a --teacher, or a checkpoint with --init"),
    (("-t", "teacher"), "there is nothing to train on; give --texts with a --teacher, or --pairs"),
    (("-t", "teacher", "--texts", "texts.txt"), "there are no pairs to judge by; give --judge FILE"),
    (("-t", "teacher", "--pairs", "bank.tsv", "--epochs", "0", "--pair-epochs", "0"), "nothing to train"),
    (("-t", "teacher", "--pairs", "bank.tsv", "--plot", "a.gif"), "a.gif is no picture that can be written"),
    (("-t", "teacher", "--pairs", "none.tsv"), "none.tsv"),
    (("-t", "teacher", "--texts", "none.txt", "--judge", "dev.tsv"), "none.txt"),
    (("-t", "teacher", "--pairs", "bank.tsv", "--from-log", "bank"), "there is no database"),
    (("-t", "general-teacher", "--pairs", "bank.tsv"),
     "error: encoder 'general-teacher' is not on this machine; run `faqsearch model pull general-teacher`"),
    (("--init", "finance", "--pairs", "bank.tsv"),
     "error: encoder 'finance' is not on this machine; run `faqsearch model pull finance`"),
    (("-t", "teacher", "--layers", "4", "--pairs", "bank.tsv"), "4 layers were asked for, the teacher has 3"),
    # What is judged by must not be trained on.
    (("-t", "teacher", "--pairs", "bank.tsv", "--judge", "bank.tsv"), "--judge"),
])  # fmt: skip
def test_what_cannot_be_trained_is_told_in_one_line(
    run: Run, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    code, err = refused(run, tmp_path, *args)
    assert code == 1
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("error: ")
    code, out, _ = run("distill", *args, "-o", tmp_path / "student", "--json")
    assert code == 1
    assert message.removeprefix("error: ") in json.loads(out)["error"]


def test_an_encoder_of_the_corpus_that_is_gone_is_told_before_training(run: Run, home: Path, tmp_path: Path) -> None:
    """Else hours of training would end in it."""
    shutil.copytree(home / "blind", tmp_path / "gone")
    corpus(run, str(tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")
    code, err = refused(run, tmp_path, "--init", "teacher", *TEAM)
    assert code == 1
    assert "gone" in err.splitlines()[-1]


def test_what_is_held_out_is_in_no_other_source(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources may share pairs, a corpus's own among them."""
    jobs: list[distill.Job] = []

    def stop(job: distill.Job, **_options: Any) -> None:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(distill, "distil", stop)
    write_pairs(tmp_path / "shared.tsv", QUESTIONS[40:10:-1])
    run("distill", "-t", "teacher", "--pairs", "bank.tsv", "--pairs", tmp_path / "shared.tsv", "-o", tmp_path / "out")
    (job,) = jobs
    trained, judged = (
        {frozenset(pair) for pairs in sets for pair in zip(pairs.left, pairs.right, strict=True)}
        for sets in (job.pairs, job.judged)
    )
    assert len(judged) > 8
    assert not trained & judged
