"""The command line: what is printed where, exit codes, and that no error is ever a traceback."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from fakes import FakeEncoder, FakeSource

from faqsearch import Settings, cli, service


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, source: FakeSource, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process, with fake encoders, under its own home folder."""
    monkeypatch.setattr(service, "_Registry", lambda settings: source)
    monkeypatch.setattr(cli, "_prepare_streams", lambda: None)  # the captured streams are not the real ones
    monkeypatch.chdir(tmp_path)

    def run(*args: object, home: str = "home") -> Done:
        monkeypatch.setattr(sys, "argv", ["faqsearch", "--home", home, *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else int(bool(exc.code))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def imported(run: Run, write_table: Callable[..., Path], encoder: FakeEncoder) -> Run:
    """Three entries in the corpus `bank`, and queries at chosen scores."""
    table = write_table(
        ["编号", "标准问", "相似问", "答案", "分类"],
        ["B1", "怎么提前还款", "想早点把贷款还了\n提前结清", "打开“贷款”。\n点提前还款。", "贷款"],
        ["B2", "临时额度怎么申请", "", "在 App 申请。", "信用卡"],
        ["B3", "固定额度怎么申请", "", "满半年后申请。", "信用卡"],
    )
    assert run("import", table, "--corpus", "bank").code == 0
    encoder.place("我要早点还钱", "提前结清", 0.95)
    encoder.place("额度不够用", "临时额度怎么申请", 0.85)
    encoder.place("天气好吗", "怎么提前还款", 0.5)
    return run


def test_import_prints_its_counts_and_notes_on_the_right_streams(run: Run, write_table: Callable[..., Path]) -> None:
    table = write_table(["问题", "回答", "备注"], ["问一", "答一", "x"], ["问二", "答二", "y"])
    done = run("import", table, "--corpus", "new")
    assert (done.code, done.out) == (0, "new (new corpus): 2 added, 0 updated, 0 unchanged, 0 removed, 0 rejected\n")
    assert done.err.splitlines()[0] == "columns not used: 备注"
    again = run("import", table, "--corpus", "new")
    assert again.out == "new: 0 added, 0 updated, 2 unchanged, 0 removed, 0 rejected\n"


def test_import_as_json_is_one_object(run: Run, write_table: Callable[..., Path]) -> None:
    done = run("import", write_table(["q", "a"], ["问", "答"], ["", "答"]), "-c", "new", "--json")
    report = done.json
    assert done.code == 3
    counts = {name: report[name] for name in ("added", "updated", "unchanged", "removed", "rejected", "created")}
    assert counts == {"added": 1, "updated": 0, "unchanged": 0, "removed": 0, "rejected": 1, "created": True}
    assert report["errors"] == [{"line": 3, "column": "q", "reason": "no question", "key": None, "question": None}]
    assert report["index_version"].startswith("000001-")


def test_rejected_rows_are_named_counted_and_written_out(
    run: Run, write_table: Callable[..., Path], tmp_path: Path
) -> None:
    table = write_table(["q", "a"], ["好", "答"], ["没有答案", ""], *([f"空{n}", ""] for n in range(25)))
    out = tmp_path / "rejects.csv"
    done = run("import", table, "-c", "new", "--rejects", out)
    assert done.code == 3
    assert "line 3, a: no answer" in done.err.splitlines()
    assert "… and 6 more; --rejects OUT.csv writes them all" in done.err.splitlines()
    with out.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows[:2] == [["line", "column", "reason", "q", "a"], ["3", "a", "no answer", "没有答案", ""]]
    assert len(rows) == 27


def test_strict_saves_nothing_and_fails(run: Run, write_table: Callable[..., Path]) -> None:
    done = run("import", write_table(["q", "a"], ["好", "答"], ["坏", ""]), "-c", "new", "--strict")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: 1 rows of ")
    assert run("corpus", "list", "--json").json == {"corpora": []}  # not even the corpus


def test_dry_run_and_no_sync(run: Run, write_table: Callable[..., Path], encoder: FakeEncoder) -> None:
    table = write_table(["q", "a"], ["好", "答"])
    done = run("import", table, "-c", "new", "--dry-run")
    assert done.out.startswith("new (new corpus): 1 added")
    assert "dry run: nothing was saved" in done.err
    assert run("corpus", "show", "new").code == 1
    run("import", table, "-c", "new", "--no-sync")
    assert encoder.encoded == []
    assert run("search", "好", "-c", "new", "--json").json["hits"][0]["score"] == 1.0


def test_columns_are_mapped_by_hand(run: Run, write_table: Callable[..., Path]) -> None:
    table = write_table(["客户怎么说", "话术", "别名"], ["问", "答", "另一问"])
    assert run("import", table, "-c", "new").code == 1
    done = run(
        "import", table, "-c", "new", "--map", "question=客户怎么说", "--map", "answer=话术", "--map", "similar=别名"
    )
    assert done.code == 0
    assert run("search", "另一问", "-c", "new", "--json").json["hits"][0]["question"] == "问"
    assert run("import", table, "-c", "new", "--map", "frage=x").code == 2


def test_search_shows_decision_question_match_and_answer(imported: Run) -> None:
    done = imported("search", "我要早点还钱", "-c", "bank", "-k", "2")
    lines = done.out.splitlines()
    assert lines[0] == "answer"
    assert "1. 怎么提前还款  [0.950] (entry 1, B1, 贷款)" in lines
    assert "   matched: 提前结清" in lines
    assert lines[4:6] == ["   打开“贷款”。", "   点提前还款。"]
    assert imported("search", "额度不够用", "-c", "bank").out.startswith("suggest: ")
    assert imported("search", "天气好吗", "-c", "bank").out.startswith("none")


def test_search_as_json_has_exactly_the_promised_fields(imported: Run) -> None:
    result = imported("search", "我要早点还钱", "-c", "bank", "-k", "1", "--json").json
    assert list(result) == ["query", "corpus", "decision", "hits", "index_version", "took_ms"]
    assert list(result["took_ms"]) == ["encode", "search", "fetch", "total"]
    assert result["hits"] == [
        {
            "rank": 1,
            "score": 0.95,
            "entry_id": 1,
            "key": "B1",
            "question": "怎么提前还款",
            "matched_question": "提前结清",
            "answer": "打开“贷款”。\n点提前还款。",
            "category": "贷款",
        }
    ]


def test_a_batch_of_queries_becomes_a_table(imported: Run, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("我要早点还钱\r\n\r\n天气好吗\n", encoding="gb18030")
    done = imported("search", "--batch", queries, "-c", "bank", "-o", tmp_path / "out.csv")
    assert done.out.startswith("2 queries: 1 answer, 0 suggest, 1 none")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["line"], row["query"], row["decision"], row["key"], row["score"]) for row in rows] == [
        ("1", "我要早点还钱", "answer", "B1", "0.9500"),
        ("3", "天气好吗", "none", "B1", "0.5000"),
    ]


@pytest.mark.parametrize(
    "args",
    [
        ("search", "-c", "bank"),
        ("search", "x", "--batch", "y", "-c", "bank", "-o", "z"),
        ("search", "--batch", "y", "-c", "bank"),
        ("search", "x", "-c", "bank", "-k", "0"),
        ("rebuild",),
        ("rebuild", "bank", "--all"),
        ("corpus", "set", "bank"),
        ("corpus", "set", "bank", "--answer-threshold", "1.5"),
        ("entry", "edit", "1"),
        ("entry", "edit", "1", "--valid-from", "gestern"),
        ("entry", "delete", "1"),
        ("entry", "list", "-c", "bank", "--state", "gone"),
        ("entry", "list", "-c", "bank", "--page", "0"),
        ("entry", "restore", "1", "first"),
        ("feedback", "x", "perhaps"),
        ("feedback", "x", "instead"),
        ("feedback", "x", "wrong", "--entry", "1"),
        ("stats", "-c", "bank", "--days", "0"),
        ("search", "--batch", "y", "-c", "bank", "-o", "z.csv", "--with-query-id"),
        ("ui", "--port", "70000"),
        ("frobnicate",),
    ],
)
def test_wrong_usage_is_exit_code_2(imported: Run, args: tuple[str, ...]) -> None:
    assert imported(*args).code == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("search", "x", "-c", "nope"), "error: no corpus 'nope'; there are bank"),
        (("search", "   ", "-c", "bank"), "error: the query is empty; expected a question"),
        (("import", "nope.csv", "-c", "bank"), "error: nope.csv does not exist; check the path"),
        (("entry", "show", "99"), "error: no entry 99; `faqsearch search` and `export` show the entries' ids"),
        (("entry", "show", "bank/B9"), "error: corpus 'bank' has no entry with the key 'B9'"),
        (("corpus", "create", "../x"), "error: '../x' cannot name a corpus; expected up to 64 small letters"),
        (("corpus", "set", "bank", "--encoder", "nope"), "error: no encoder 'nope' on this machine; expected"),
        (("corpus", "set", "bank", "--suggest-threshold", "0.99"), "error: thresholds: expected -1 ≤ suggest"),
        (("index", "rollback", "-c", "bank"), "error: corpus 'bank' has no earlier index version to go back to"),
        (("entry", "disable", "1", "99"), "error: no entry 99;"),
        (("entry", "history", "99"), "error: no entry 99;"),
        (("entry", "history", "9" * 30), "error: "),
        (("entry", "history", "bank/B9"), "error: corpus 'bank' has no entry with the key 'B9'"),
        (("entry", "restore", "1", "99"), "error: entry 1 has no state before change 99; see its history"),
        (("entry", "edit", "1", "--answer", "x", "--version", "7"), "error: entry 1 was changed meanwhile (it is"),
        (("feedback", "0" * 32, "right"), "error: this query is not in the log;"),
        (("feedback", "0" * 32, "instead", "--entry", "99"), "error: no entry 99;"),
        (("unanswered", "add", "0" * 32), "error: this query is not in the log;"),
        (("unanswered", "dismiss", "abc", "-c", "bank"), "error: corpus 'bank' has no unanswered query 'abc'; see"),
        (("unanswered", "dismiss", "", "-c", "bank"), "error: corpus 'bank' has no unanswered query ''; see"),
        (("unanswered", "list", "-c", "nope"), "error: no corpus 'nope'; there are bank"),
        (("stats", "-c", "nope"), "error: no corpus 'nope'; there are bank"),
        (("entry", "near", "x", "-c", "nope"), "error: no corpus 'nope'; there are bank"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(imported: Run, args: tuple[str, ...], message: str) -> None:
    done = imported(*args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(message)
    assert len(done.err.splitlines()) == 1


def test_an_entry_from_its_making_to_its_end(imported: Run) -> None:
    added = imported(
        *("entry", "add", "-c", "bank", "--question", "怎么销卡", "--similar", "不想要卡了", "--answer", "去网点。"),
        *("--key", "B4", "--valid-to", "2999-01-31", "--json"),
    ).json
    assert (added["id"], added["similar"], added["valid_to"]) == (4, ["不想要卡了"], "2999-01-31T23:59:59")
    assert imported("search", "怎么销卡", "-c", "bank", "--json").json["hits"][0]["entry_id"] == 4
    edited = imported("entry", "edit", "bank/B4", "--answer", "打电话。", "--add-similar", "注销卡片", "--json").json
    assert (edited["answer"], edited["similar"]) == ("打电话。", ["不想要卡了", "注销卡片"])
    imported("entry", "disable", "4")
    assert imported("search", "注销卡片", "-c", "bank", "--json").json["decision"] == "none"
    imported("entry", "enable", "4")
    assert imported("search", "注销卡片", "-c", "bank", "--json").json["hits"][0]["answer"] == "打电话。"
    taken = imported("entry", "edit", "4", "--question", "提前结清")
    assert (taken.code, taken.err) == (
        1,
        "error: question: '提前结清' leads to another entry already: entry 1 (key 'B1')\n",
    )
    assert imported("entry", "delete", "4", "--yes").out == "deleted entry 4\n"
    assert imported("entry", "show", "4").code == 1


def test_entries_are_listed_by_pages_and_filtered(imported: Run) -> None:
    done = imported("entry", "list", "-c", "bank", "--limit", "2")
    assert [line.split()[:4] for line in done.out.splitlines()] == [
        ["id", "key", "state", "category"],
        ["3", "B3", "on", "信用卡"],
        ["2", "B2", "on", "信用卡"],
    ]
    assert done.err == "page 1 of 2, entries: 3\n"
    imported("entry", "edit", "2", "--valid-to", "2020-01-31")
    imported("entry", "edit", "3", "--valid-from", "2999-01-31")
    imported("entry", "disable", "1")

    def found(*args: object) -> list[int]:
        listed = imported("entry", "list", "-c", "bank", *args, "--json").json
        assert listed["total"] == len(listed["entries"])
        return sorted(entry["id"] for entry in listed["entries"])

    assert [found("--state", state) for state in ("on", "off", "expired", "upcoming")] == [[], [1], [2], [3]]
    assert (found("--text", "額度"), found("--text", "B1"), found("--text", "满半年")) == ([2, 3], [1], [3])
    assert (found("--category", "信用卡"), found("--category", "")) == ([2, 3], [])
    page = imported("entry", "list", "-c", "bank", "--page", "2", "--limit", "2", "--json").json
    assert (page["total"], page["page"], page["pages"], len(page["entries"])) == (3, 2, 2, 1)
    assert list(page["entries"][0]) == list(imported("entry", "show", "1", "--json").json)
    assert imported("entry", "list", "-c", "bank", "--page", "9").out == ""


def test_several_entries_are_switched_and_categorized_at_once(imported: Run) -> None:
    assert imported("entry", "disable", "1", "bank/B2", "2").out == "disabled entries: 2\n"
    assert imported("entry", "disable", "2", "3", "--json").json == {"entries": [2, 3], "changed": 1}
    assert imported("entry", "enable", "1", "2", "3", "--who", "Anna").out == "enabled entries: 3\n"
    assert imported("entry", "categorize", "额度", "2", "3").out == "categorized entries: 2\n"
    assert imported("entry", "categorize", "额度", "2").out == "categorized entries: 0, 1 were so already\n"
    assert imported("entry", "show", "3", "--json").json["category"] == "额度"
    # One that is not there: none is changed.
    assert imported("entry", "disable", "1", "99").code == 1
    assert imported("entry", "show", "1", "--json").json["enabled"] is True


def test_history_shows_who_did_what_and_brings_back_what_was(imported: Run) -> None:
    imported("entry", "edit", "1", "--key", "", "--answer", "去网点。", "--add-similar", "早还", "--who", "Anna")
    changed = imported("entry", "history", "1")
    assert [line.split("  ")[-2:] for line in changed.out.splitlines() if line[0] != " "][0] == ["Anna", "edit"]
    assert [line.strip() for line in changed.out.splitlines() if line[0] == " "][:3] == [
        "key: B1 → -",
        "similar: + 早还",
        "answer: 打开“贷款”。 点提前还款。 → 去网点。",
    ]
    history = imported("entry", "history", "1", "--json").json
    edit, first = history["changes"]
    assert (history["entry_id"], edit["action"], edit["who"], first["action"]) == (1, "edit", "Anna", "import")
    assert (edit["before"]["key"], edit["after"]["key"], first["before"]) == ("B1", None, None)
    assert edit["before"]["answer"] == first["after"]["answer"] == "打开“贷款”。\n点提前还款。"
    restored = imported("entry", "restore", "1", edit["id"], "--who", "Bea", "--json").json
    assert (restored["key"], restored["similar"], restored["version"]) == ("B1", ["想早点把贷款还了", "提前结清"], 3)
    imported("entry", "delete", "1", "--yes", "--who", "Carl")
    gone = imported("entry", "history", "1", "--json").json["changes"][0]
    assert (gone["action"], gone["who"], gone["after"]) == ("delete", "Carl", None)


def test_an_import_names_who_it_was(run: Run, write_table: Callable[..., Path]) -> None:
    run("import", write_table(["q", "a"], ["问", "答"]), "-c", "new", "--who", "Anna")
    assert run("entry", "history", "1", "--json").json["changes"][0]["who"] == "Anna"


def test_near_shows_the_nearest_questions_and_logs_nothing(imported: Run) -> None:
    done = imported("entry", "near", "我要早点还钱", "-c", "bank", "-k", "1")
    assert done.out.splitlines()[1].split() == ["0.950", "1", "B1", "贷款", "提前结清"]
    near = imported("entry", "near", "天气好吗", "-c", "bank", "-k", "2", "--json").json
    assert (near["text"], near["corpus"], len(near["near"])) == ("天气好吗", "bank", 2)
    assert (near["near"][0]["entry_id"], near["near"][0]["score"]) == (1, 0.5)
    assert imported("unanswered", "list", "-c", "bank", "--json").json["groups"] == []


# --- the query log


def test_feedback_goes_by_the_id_that_search_shows(imported: Run) -> None:
    result = imported("search", "我要早点还钱", "-c", "bank", "--json", "--with-query-id").json
    assert list(result) == ["query", "corpus", "decision", "hits", "index_version", "took_ms", "query_id"]
    query_id = result["query_id"]
    assert imported("feedback", query_id, "wrong").out == "kept: wrong\n"
    (group,) = imported("unanswered", "list", "-c", "bank", "--json").json["groups"]
    assert (group["id"], group["query"], group["queries"][0]["feedback"]) == (query_id, "我要早点还钱", "wrong")
    said = imported("feedback", query_id, "instead", "--entry", "bank/B2", "--json").json
    assert said == {"query_id": query_id, "feedback": "instead", "entry_id": 2}
    assert imported("feedback", query_id, "right").code == 0
    assert imported("unanswered", "list", "-c", "bank").err == "no unanswered queries in corpus 'bank'\n"
    shown = imported("search", "额度不够用", "-c", "bank", "--with-query-id").out.splitlines()[-1].split()
    assert (shown[0], len(shown[1])) == ("query", 32)
    assert imported("unanswered", "add", shown[1]).code == 0
    assert "额度不够用" in imported("unanswered", "list", "-c", "bank").out


def test_a_search_that_is_not_logged_says_so(imported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAQSEARCH_QUERY_LOG", "off")
    done = imported("search", "额度不够用", "-c", "bank", "--with-query-id")
    assert done.out.splitlines()[-1] == "not logged: the setting query_log is off"


def test_the_queue_from_the_question_to_its_answer(imported: Run, encoder: FakeEncoder) -> None:
    encoder.place("天气如何", "天气好吗", 0.95)
    for query in ("天气好吗", "股票涨吗", "天气如何", "邮编多少"):
        imported("search", query, "-c", "bank")
    header, first, *rest = imported("unanswered", "list", "-c", "bank").out.splitlines()
    assert header.split() == ["ID", "asked", "last", "query", "nearest"]
    short, asked, *_ = first.split()
    assert (len(short), asked, "天气如何" in first, len(rest)) == (8, "2", True, 2)
    groups = imported("unanswered", "list", "-c", "bank", "--json").json["groups"]
    assert [(group["query"], group["count"]) for group in groups] == [("天气如何", 2), ("邮编多少", 1), ("股票涨吗", 1)]
    # The ID of a group stays good while the group grows: it is that of one of its queries.
    imported("search", "天气好吗", "-c", "bank")
    done = imported("unanswered", "attach", short, "bank/B3", "-c", "bank", "--who", "Anna", "--json")
    assert (done.json["id"], done.json["similar"], done.err) == (3, ["天气如何"], "queries dealt with: 3\n")
    assert imported("search", "天气好吗", "-c", "bank", "--json").json["hits"][0]["entry_id"] == 3
    answered = imported(
        *("unanswered", "answer", groups[1]["id"], "-c", "bank", "--answer", "见官网。", "--category", "网点"),
        *("--similar", "邮政编码", "--json"),
    ).json
    assert (answered["question"], answered["similar"], answered["category"]) == ("邮编多少", ["邮政编码"], "网点")
    assert imported("unanswered", "dismiss", groups[2]["id"], "-c", "bank").out == "dismissed queries: 1\n"
    assert imported("unanswered", "list", "-c", "bank", "--json").json == {"corpus": "bank", "groups": []}


def test_one_query_of_a_group_can_be_dealt_with_alone(imported: Run) -> None:
    ids = [imported("search", "天气好吗", "-c", "bank", "--json", "--with-query-id").json["query_id"] for _ in range(3)]
    done = imported("unanswered", "dismiss", *ids[:2], "-c", "bank", "--only", "--json")
    assert done.json == {"dismissed": ids[:2]}
    (group,) = imported("unanswered", "list", "-c", "bank", "--json").json["groups"]
    assert [query["query_id"] for query in group["queries"]] == ids[2:]


def test_a_beginning_that_several_queries_share_is_refused(imported: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter("abc1" + "0" * 28 + end for end in "xy")
    monkeypatch.setattr("faqsearch.search.uuid.uuid4", lambda: SimpleNamespace(hex=next(ids)))
    imported("search", "天气好吗", "-c", "bank")
    imported("search", "股票涨吗", "-c", "bank")
    refused = imported("unanswered", "dismiss", "abc1", "-c", "bank")
    assert (refused.code, refused.err) == (
        1,
        "error: 'abc1' is the beginning of 2 queries' ids; give more of it (--json)\n",
    )


def test_stats_say_what_the_log_holds(imported: Run) -> None:
    for query in ("我要早点还钱", "提前结清", "额度不够用", "天气好吗"):
        imported("search", query, "-c", "bank")
    query_id = imported("search", "天气好吗", "-c", "bank", "--with-query-id").out.split()[-1]
    imported("feedback", query_id, "right")
    lines = imported("stats", "-c", "bank", "--days", "1", "--top", "1").out.splitlines()
    assert lines[:2] == [
        "bank, last 1 days: 5 queries: 2 answer (40 %), 1 suggest (20 %), 2 none (40 %)",
        "feedback: 1 right, 0 wrong, 0 instead",
    ]
    assert [line.split() for line in lines[3:5]] == [
        ["day", "answer", "suggest", "none"],
        [datetime.now().date().isoformat(), "2", "1", "2"],
    ]
    assert [line.split() for line in lines[8:9]] == [["2", "1", "怎么提前还款"]]
    assert "never asked: 1 entries" in lines
    assert [line.split()[0] for line in lines[-4:]] == ["encode", "search", "fetch", "total"]
    report = imported("stats", "-c", "bank", "--json").json
    assert list(report) == [
        *("corpus", "days", "queries", "decisions", "feedback", "most_asked", "never_asked", "never_asked_total"),
        "stages",
    ]
    assert report["never_asked"] == [{"entry_id": 3, "question": "固定额度怎么申请", "count": 0}]


def test_stats_of_an_empty_log(imported: Run) -> None:
    lines = imported("stats", "-c", "bank").out.splitlines()
    assert lines[0] == "bank, last 30 days: 0 queries: 0 answer (0 %), 0 suggest (0 %), 0 none (0 %)"
    assert "never asked: 3 entries" in lines


# --- the web pages


@dataclass
class Started:
    """The program that would have taken this one's place."""

    command: list[str]
    environment: dict[str, str]


@pytest.fixture
def started(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Started]:
    """The program that `faqsearch ui` turns into."""

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        assert path == command[0]
        calls.append(Started(command, environment))
        raise SystemExit(0)

    calls: list[Started] = []
    monkeypatch.setattr(os, "execve", execve)

    def start(*args: object, **options: str) -> Started:
        assert run("ui", *args, **options).code == 0
        return calls.pop()

    return start


def test_ui_runs_the_installed_pages_for_this_home_on_loopback(
    started: Callable[..., Started], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # These do not count beside --home, neither here nor in the server.
    monkeypatch.setenv("FAQSEARCH_DATABASE_URL", "sqlite:///elsewhere.sqlite3")
    monkeypatch.setenv("FAQSEARCH_INDEX_DIR", "elsewhere")
    monkeypatch.setenv("FAQSEARCH_PERSON", "Anna")
    server = started()
    assert server.command[:4] == [sys.executable, "-m", "streamlit", "run"]
    assert Path(server.command[4]) == Path(cli.__file__).parent / "ui" / "__main__.py"
    assert Path(server.command[4]).is_file()
    assert {"--server.address=127.0.0.1", "--server.port=8501", "--browser.gatherUsageStats=false"} < set(
        server.command
    )
    assert Settings.load(environ=server.environment) == Settings.load(tmp_path / "home")
    assert Settings.load(environ=server.environment).person == "Anna"
    assert (tmp_path / "home" / "data" / "faqsearch.sqlite3").exists()  # the pages can import the first table


def test_ui_elsewhere_than_on_loopback_is_warned_of(
    run: Run, started: Callable[..., Started], capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"--server.address=0.0.0.0", "--server.port=80"} < set(started("--host", "0.0.0.0", "--port", 80).command)
    assert run("ui", "--host", "0.0.0.0").err == (
        "listening on 0.0.0.0: whoever reaches it can read and change everything, there is no login\n"
    )
    assert run("ui", "--host", "localhost").err == ""


def test_ui_without_streamlit_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = run("ui")
    assert (done.code, done.err) == (
        1,
        "error: the web pages need Streamlit, which is not installed; run `pip install streamlit altair`\n",
    )
    assert not (tmp_path / "home").exists()


def test_ui_tells_a_database_that_cannot_be_used_before_it_starts(
    started: Callable[..., Started], run: Run, tmp_path: Path
) -> None:
    started()
    (tmp_path / "home" / "faqsearch.toml").write_text("person = 1\nfoo = 2\n")
    refused = run("ui")
    assert (refused.code, "unknown setting 'foo'" in refused.err) == (1, True)


def test_export_and_import_give_the_same_corpus(imported: Run, tmp_path: Path) -> None:
    imported("export", "-c", "bank", "-o", tmp_path / "out.xlsx")
    assert imported("import", tmp_path / "out.xlsx", "-c", "copy").out.startswith("copy (new corpus): 3 added")
    first, second = (imported("export", "-c", name).out for name in ("bank", "copy"))
    assert first == second
    assert first.splitlines()[0] == "编号,标准问,相似问,答案,分类,启用,生效时间,失效时间"


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_template_imports_as_it_is(run: Run, tmp_path: Path, lang: str) -> None:
    assert run("template", "--lang", lang, "-o", tmp_path / "t.csv").code == 0
    assert run("import", tmp_path / "t.csv", "-c", "new").out.startswith("new (new corpus): 2 added, 0 updated")


def test_rebuild_says_what_it_did(imported: Run) -> None:
    assert imported("rebuild", "bank").out.startswith("bank: up to date, version 000001-")
    imported("entry", "delete", "2", "--yes")
    assert ", 4 kept, 0 encoded, 1 dropped, " in imported("rebuild", "--all").out
    report = imported("rebuild", "bank", "--full", "--json").json
    assert (report["failed"], report["rebuilt"][0]["encoded"], report["rebuilt"][0]["full"]) == ([], 4, True)


def test_index_versions_are_listed_verified_rolled_back_and_pruned(imported: Run, tmp_path: Path) -> None:
    imported("rebuild", "bank", "--full")
    versions = imported("index", "list", "-c", "bank", "--json").json["versions"]
    assert [version["current"] for version in versions] == [False, True]
    assert imported("index", "rollback", "-c", "bank", "--json").json["version"] == versions[0]["version"]
    assert imported("index", "verify", "-c", "bank").out.endswith(": 5 questions, 0 pending, 0 deleted since\n")
    assert imported("index", "prune", "-c", "bank", "--keep", "1", "--json").json["deleted"] == []
    folder = tmp_path / "home" / "indexes" / "bank" / "versions" / versions[0]["version"]
    (folder / "index.faiss").write_bytes(b"damaged")
    broken = imported("index", "verify", "-c", "bank")
    assert (broken.code, broken.out) == (1, "")
    assert "is damaged" in broken.err
    assert imported("search", "怎么提前还款", "-c", "bank").code == 1
    assert imported("rebuild", "bank").code == 0
    assert imported("index", "verify", "-c", "bank", "--json").json["ok"] is True


def test_status_reports_health_and_fails_with_a_problem(imported: Run, tmp_path: Path) -> None:
    report = imported("status", "--json")
    assert (report.code, report.json["ok"]) == (0, True)
    assert report.json["corpora"][0]["counts"] == {"entries": 3, "enabled": 3, "questions": 5}
    (tmp_path / "home" / "indexes" / "bank" / "current").write_text("nonsense")
    done = imported("status")
    assert done.code == 1
    assert "run `faqsearch rebuild bank`" in done.err


def test_hit_test_prints_figures_and_misses(imported: Run, write_table: Callable[..., Path]) -> None:
    tests = write_table(["query", "key"], ["我要早点还钱", "B1"], ["额度不够用", "B3"], ["天气好吗", ""], name="h.csv")
    done = imported("hit-test", tests, "-c", "bank")
    assert done.out.splitlines()[1].split() == [
        "bank",
        "3",
        "2",
        "50.0",
        "100.0",
        *done.out.splitlines()[1].split()[5:],
    ]
    assert "misses: 1" in done.out
    assert "  line 3: 额度不够用" in done.out
    report = imported("hit-test", tests, "-c", "bank", "--json").json
    assert (report["right"], report["suggested"], report["true_nones"], report["auc"]) == (1, 1, 1, 1.0)


def test_a_corpus_is_made_changed_and_deleted(imported: Run) -> None:
    made = imported("corpus", "create", "新卡", "--title", "新卡业务", "--json").json
    assert (made["name"], made["title"], made["encoder"]) == ("新卡", "新卡业务", "embedded")
    changed = imported("corpus", "set", "新卡", "--answer-threshold", "0.95", "--encoder", "other", "--json")
    assert changed.json["answer_threshold"] == 0.95
    assert "run `faqsearch rebuild 新卡`" in changed.err
    changed = imported("corpus", "set", "新卡", "--index-kind", "ivf", "--json")
    assert changed.json["index_kind"] == "ivf"
    assert changed.err == "run `faqsearch rebuild 新卡` to build that kind of index; nothing is encoded again\n"
    assert imported("corpus", "set", "新卡", "--index-kind", "hnsw").code == 2
    assert imported("corpus", "delete", "新卡").code == 2
    assert imported("corpus", "delete", "新卡", "--yes").out == "deleted 新卡, entries: 0\n"
    assert [row["name"] for row in imported("corpus", "list", "--json").json["corpora"]] == ["bank"]


def test_debug_shows_the_traceback_before_the_line(
    imported: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["faqsearch", "--debug", "--home", "home", "search", "x", "-c", "nope"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: no corpus 'nope'; there are bank"


def test_nothing_that_is_read_is_written_over(imported: Run, write_table: Callable[..., Path], tmp_path: Path) -> None:
    table = write_table(["q", "a"], ["好", "答"], ["坏", ""])
    before = table.read_bytes()
    refused = imported("import", table, "-c", "bank", "--rejects", table)
    assert (refused.code, table.read_bytes()) == (1, before)
    assert refused.err == f"error: {table} is the file that is read; name another one to write\n"
    assert imported("search", "--batch", table, "-c", "bank", "-o", table).code == 1
    assert table.read_bytes() == before
    assert imported("template", "-o", table).err.startswith(f"error: {table} exists already")
    missing = imported("import", table, "-c", "bank", "--rejects", tmp_path / "no" / "r.csv")
    assert missing.code == 1
    assert imported("corpus", "show", "bank", "--json").json["entries"] == 3


def test_a_failure_is_one_json_object_too(imported: Run, write_table: Callable[..., Path]) -> None:
    done = imported("search", "x", "-c", "nope", "--json")
    assert (done.code, done.json) == (1, {"error": "no corpus 'nope'; there are bank"})
    strict = imported("import", write_table(["q", "a"], ["坏", ""]), "-c", "bank", "--strict", "--json")
    assert (strict.code, strict.json["rejected"], strict.json["errors"][0]["reason"]) == (1, 1, "no answer")


@pytest.mark.parametrize("args", [("status",), ("corpus", "list"), ("rebuild", "--all"), ("export", "-c", "x")])
def test_reading_makes_no_database(run: Run, args: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*args, home="typo")
    assert (done.code, (tmp_path / "typo").exists()) == (1, False)
    assert "import a table first, or check --home" in done.err


def test_a_table_may_come_from_stdin(
    run: Run, write_table: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with write_table(["q", "a"], ["问", "答"]).open("r", encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("import", "-", "-c", "new").out.startswith("new (new corpus): 1 added")


def test_a_pipe_that_cannot_be_read_twice_is_told(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert run("import", tmp_path / "pipe", "-c", "new").err.startswith(f"error: {tmp_path / 'pipe'} is a pipe")


COMMANDS = (
    *("", "import", "search", "rebuild", "hit-test", "feedback", "stats", "ui", "entry add", "entry list"),
    *("entry restore", "index rollback", "unanswered", "unanswered attach"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.code == 0
    assert "Usage:" in done.out


def test_end_to_end_in_processes_of_their_own(tmp_path: Path) -> None:
    """The installed program with the embedded encoder, a pipe for a terminal and an ASCII locale."""
    environment = {**os.environ, "LC_ALL": "C"}

    def call(*args: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "faqsearch", "--home", str(tmp_path), *args]
        return subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, check=False)

    done = call("import", "data/finance.xlsx", "--corpus", "finance")
    assert (done.returncode, done.stdout.decode()) == (
        0,
        "finance (new corpus): 240 added, 0 updated, 0 unchanged, 0 removed, 0 rejected\n",
    )
    assert b"\x1b" not in done.stderr + done.stdout  # neither bars nor colours in a pipe
    assert call("import", "data/finance.csv", "--corpus", "finance").stdout.decode() == (
        "finance: 0 added, 0 updated, 240 unchanged, 0 removed, 0 rejected\n"
    )
    found = json.loads(call("search", "二类户咋变一类户", "--corpus", "finance", "--json").stdout)
    assert found["hits"][0]["key"] == "F005"
