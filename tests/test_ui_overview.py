"""The overview: its pictures, and index versions with their rebuilds."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch
from faqsearch.errors import IndexBusyError
from faqsearch.model import AskedEntry, DayCount, StageTime
from faqsearch.ui import charts, overview
from faqsearch.ui.common import texts
from faqsearch.ui.rebuilds import Rebuild, rebuilds

CHARTS = ["per_day", "share", "most_asked", "never_asked", "scores", "stages", "feedback"]


@pytest.fixture
def bank(ui: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """Three entries with an index; queries that got an answer, a suggestion and nothing, one of them judged."""
    ui.create_corpus("bank", title="银行")
    for question in ("怎么提前还款", "怎么挂失", "怎么开户"):
        ui.add_entry("bank", EntryDraft(question=question, answer="答"))
    ui.rebuild("bank")
    ui.set_corpus("bank", answer_threshold=0.9, suggest_threshold=0.8)
    encoder.place("丢了卡怎么挂失", "怎么挂失", 0.85)
    ui.search("怎么提前还款", corpus="bank")
    result = ui.search("怎么提前还款", corpus="bank")
    ui.give_feedback(result.query_id, "right")
    ui.search("丢了卡怎么挂失", corpus="bank")
    ui.search("今天天气怎么样", corpus="bank")
    return ui


@pytest.fixture
def gate(encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Rebuilds wait for it after the first half of their questions; searches do not."""
    opened, encode = threading.Event(), encoder.encode

    def wait(texts: Any, *, query: bool = False, progress: Callable[[str, int, int | None], None] | None = None) -> Any:
        if threading.current_thread().name.startswith("rebuild"):
            if progress:
                progress("encoding", len(texts) // 2, len(texts))
            HALF.set()
            assert opened.wait(20)
        return encode(texts, progress=progress)

    HALF.clear()
    monkeypatch.setattr(encoder, "encode", wait)
    yield opened
    opened.set()
    if job := rebuilds().last("bank"):
        finish(job)


HALF = threading.Event()
"""The rebuild waits at the gate."""


def finish(job: Rebuild | None) -> Rebuild:
    assert job is not None and job.thread is not None
    job.thread.join(20)
    assert not job.running
    return job


def pictures(app: AppTest) -> dict[str, dict[str, Any]]:
    """The charts of the page by their names, each with its data beside it."""
    found = {}
    for item in app.get("vega_lite_chart"):
        proto = item.proto
        name = next(name for name in CHARTS if proto.alt in texts()[f"overview.title_{name}"])
        spec = json.loads(proto.spec)
        frames = {data.name: convert_arrow_bytes_to_pandas_df(data.data.data) for data in proto.datasets}
        spec["datasets"] = {data: frame.to_dict("records") for data, frame in frames.items()}
        found[name] = spec
    return found


def rows_of(spec: dict[str, Any], layer: int = 0) -> list[dict[str, Any]]:
    source = spec.get("data") or spec["layer"][layer]["data"]
    rows: list[dict[str, Any]] = spec["datasets"][source["name"]]
    return rows


def captions(app: AppTest) -> list[str]:
    return [item.value for item in app.caption]


# --- how the questions go ---------------------------------------------------------------------------


def test_the_page_draws_every_picture_with_chinese_words(bank: FaqSearch) -> None:
    app = open_page("overview")
    assert not app.exception and not app.error and not app.warning
    drawn = pictures(app)
    assert sorted(drawn) == sorted(CHARTS)
    today = date.today().isoformat()
    per_day = [(row["day"], row["kind"], row["count"]) for row in rows_of(drawn["per_day"])]
    assert sorted(per_day) == sorted([(today, "直接回答", 2), (today, "给出建议", 1), (today, "没有答案", 1)])
    assert rows_of(drawn["share"]) == [{"day": today, "share": 0.5, "count": 4}]
    asked = [(row["question"], row["count"]) for row in rows_of(drawn["most_asked"])]
    assert asked == [("怎么提前还款", 2), ("怎么挂失", 1)]
    assert [(row["kind"], row["count"]) for row in rows_of(drawn["never_asked"])] == [("问到过", 2), ("从未问到", 1)]
    assert "- 怎么开户" in captions(app)
    assert [(row["kind"], row["count"]) for row in rows_of(drawn["feedback"])] == [("答得对", 1)]
    assert {row["stage"] for row in rows_of(drawn["stages"])} == {"编码", "检索", "取条目", "合计"}
    assert [(item.label, item.value) for item in app.metric] == [
        ("提问", "4"),
        ("直接回答", "50%"),
        ("给出建议", "25%"),
        ("没有答案", "25%"),
        ("反馈答得对", "100%"),
    ]


def test_scores_are_drawn_with_the_thresholds_of_the_corpus(bank: FaqSearch) -> None:
    spec = pictures(open_page("overview"))["scores"]
    assert sum(row["count"] for row in rows_of(spec)) == 4
    assert {"from": 0.98, "to": 1.0, "count": 2} in rows_of(spec)
    assert rows_of(spec, 1) == [{"at": 0.8, "name": "建议线 0.80"}, {"at": 0.9, "name": "回答线 0.90"}]


def test_the_pictures_speak_english_too(bank: FaqSearch) -> None:
    app = open_page("overview", lang="en")
    drawn = pictures(app)
    assert {row["kind"] for row in rows_of(drawn["per_day"])} == {"Answered", "Suggested", "None"}
    assert drawn["per_day"]["encoding"]["y"]["title"] == "Times"
    assert "**Queries per day**" in texts_of(app)


def test_the_period_can_be_switched(bank: FaqSearch) -> None:
    app = open_page("overview")
    assert app.segmented_control(key="overview_days").value == 30
    assert len(pictures(app)["per_day"]["encoding"]["x"]["scale"]["domain"]) == 30
    app.segmented_control(key="overview_days").set_value(7).run()
    assert len(pictures(app)["per_day"]["encoding"]["x"]["scale"]["domain"]) == 7


def test_nothing_is_drawn_of_nothing(ui: FaqSearch) -> None:
    ui.create_corpus("bank", title="银行")
    app = open_page("overview")
    assert not app.exception
    assert pictures(app) == {}
    assert [box.value for box in app.info] == ["最近 30 天还没有人提问。有了提问，这里会画出使用情况。"]
    assert "还没有索引版本。搜索会逐条比较；建好索引后更快。" in captions(app)
    assert "没有条目" in texts_of(app)


def test_without_a_query_log_the_page_says_so(ui: FaqSearch) -> None:
    ui.create_corpus("bank")
    object.__setattr__(ui.settings, "query_log", False)
    assert open_page("overview").info[0].value.startswith("查询日志已关闭")


def test_queries_without_entries_and_feedback_get_friendly_lines(ui: FaqSearch) -> None:
    ui.create_corpus("bank")
    ui.search("有人吗", corpus="bank")
    app = open_page("overview")
    assert not app.exception
    said = captions(app)
    assert "还没有条目被问到。" in said
    assert "还没有启用的条目。" in said
    assert "这段时间没有匹配到任何条目。" in said
    assert "这段时间没有反馈。在“提问”页点“答得对”或“不对”即可。" in said
    assert app.metric[-1].value == "–"
    assert len(pictures(app)) == 3


def test_when_every_entry_was_asked_for(ui: FaqSearch) -> None:
    ui.create_corpus("bank")
    ui.add_entry("bank", EntryDraft(question="怎么挂失", answer="答"))
    ui.search("怎么挂失", corpus="bank")
    assert "每个条目都有人问到。" in captions(open_page("overview"))


def test_without_a_corpus(ui: FaqSearch) -> None:
    app = open_page("overview")
    assert not app.exception
    assert app.info[0].value.startswith("还没有知识库")


# --- charts by themselves ---------------------------------------------------------------------------


def test_days_end_today() -> None:
    assert charts.days_until(date(2026, 3, 2), 4) == ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"]


def test_a_day_without_queries_has_no_share() -> None:
    counts = [DayCount("2026-03-01", "none", 3), DayCount("2026-03-01", "answer", 1), DayCount("2026-03-03", "none", 2)]
    spec = charts.share_answered(counts, ["2026-03-01", "2026-03-02", "2026-03-03"]).to_dict()
    assert rows_of(spec) == [
        {"day": "2026-03-01", "share": 0.25, "count": 4},
        {"day": "2026-03-03", "share": 0.0, "count": 2},
    ]


def test_ninety_days_have_a_handful_of_labels() -> None:
    days = charts.days_until(date(2026, 3, 2), 90)
    spec = charts.by_day([], days, charts.DECISIONS, "overview.decision").to_dict()
    ticks = spec["encoding"]["x"]["axis"]["values"]
    assert len(ticks) == 7
    assert ticks[0] == "2026-03-02"


def test_scores_below_nought_and_at_one_are_counted() -> None:
    spec = charts.scores([-0.31, 0.0, 0.5, 1.0], 0.9, 0.8).to_dict()
    rows = rows_of(spec)
    assert [(row["from"], row["count"]) for row in rows] == [(-0.32, 1), (0.0, 1), (0.5, 1), (0.98, 1)]


def test_the_slowest_stage_stands_first() -> None:
    spec = charts.stages([StageTime("search", 1, 2), StageTime("encode", 4, 9)]).to_dict()
    assert [row["stage"] for row in rows_of(spec)] == ["编码", "编码", "检索", "检索"]


def test_two_entries_of_one_question_keep_two_bars() -> None:
    spec = charts.most_asked([AskedEntry(1, "同", 2), AskedEntry(2, "同", 1)]).to_dict()
    assert [row["id"] for row in rows_of(spec)] == [1, 2]


# --- corpora and indexes ----------------------------------------------------------------------------


def test_corpora_and_what_searching_runs_on(bank: FaqSearch) -> None:
    bank.add_entry("bank", EntryDraft(question="新问题", answer="答"))
    app = open_page("overview")
    said = captions(app)
    assert "4 条（启用 4）· 4 个问法" in said
    assert "索引建于刚刚，含 3 个问法" in said
    assert "1 个新问法待编入索引（已能搜到）" in said
    facts = [item.value for item in app.text]
    assert facts[:2] == ["embedded", "256"]
    assert facts[2] in ("处理器（CPU）", "显卡（CUDA）")
    assert any("正常" in item.value for item in app.markdown)


def test_a_rebuild_runs_beside_the_page_and_blocks_nobody(bank: FaqSearch, gate: threading.Event) -> None:
    bank.add_entry("bank", EntryDraft(question="新问题", answer="答", similar=("新问法",)))
    app = open_page("overview")
    app.button(key="overview_rebuild").click()
    app.run()
    assert HALF.wait(20)
    app.run()
    assert not app.exception and not app.error
    bar = app.get("progress")[0].proto
    assert (bar.value, bar.text) == (50, "正在编码：1 / 2 个问法")
    assert "可以离开本页，搜索不受影响。" in captions(app)
    assert app.button(key="overview_rebuild").disabled
    # Somebody else, meanwhile: their page shows the same rebuild, and their search is answered.
    other = open_page("overview")
    assert other.get("progress")[0].proto.value == 50
    assert bank.search("怎么挂失", corpus="bank", log=False).decision == "answer"
    gate.set()
    job = finish(rebuilds().last("bank"))
    assert job.report is not None and (job.report.encoded, job.report.kept) == (2, 3)
    app.run()
    assert not app.get("progress")
    assert captions_with(app, "上次重建")[0].startswith(f"上次重建 {job.finished_at:%H:%M}：新编入 2，保留 3，去掉 0")
    assert [item.version[:6] for item in bank.index_versions("bank") if item.current] == ["000002"]
    assert not app.button(key="overview_rebuild").disabled


def captions_with(app: AppTest, start: str) -> list[str]:
    return [text for text in captions(app) if text.startswith(start)]


def rebuild(app: AppTest, *, full: bool = False) -> AppTest:
    app.checkbox(key="overview_full").set_value(full)
    app.button(key="overview_rebuild").click()
    app.run()
    finish(rebuilds().last("bank"))
    return app.run()


def test_a_rebuild_of_an_index_that_is_up_to_date_says_so(bank: FaqSearch) -> None:
    app = rebuild(open_page("overview"))
    assert captions_with(app, "上次重建")[0].endswith("索引已是最新，无需改动")
    assert len(bank.index_versions("bank")) == 1


def test_everything_can_be_encoded_again(bank: FaqSearch) -> None:
    app = rebuild(open_page("overview"), full=True)
    assert "新编入 3，保留 0" in captions_with(app, "上次重建")[0]
    assert len(bank.index_versions("bank")) == 2


def test_only_one_rebuild_of_a_corpus_at_a_time(bank: FaqSearch, gate: threading.Event) -> None:
    first = rebuilds().start(bank, "bank", full=True)
    assert rebuilds().start(bank, "bank") is first


@pytest.mark.parametrize(
    ("error", "said", "details"),
    [
        (
            IndexBusyError("somebody is at it"),
            "未能重建：另一个进程正在重建这个索引，请稍候再试。",
            "somebody is at it",
        ),
        (MemoryError("too big"), "重建失败，原有索引仍在使用。请把下面的技术细节告诉管理员。", "MemoryError: too big"),
    ],
)
def test_a_rebuild_that_fails_is_told(
    bank: FaqSearch, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, details: str
) -> None:
    def fail(*args: object, **values: object) -> None:
        raise error

    monkeypatch.setattr(FaqSearch, "rebuild", fail)
    app = rebuild(open_page("overview"))
    assert [box.value.split(" ", 1)[1] for box in app.error] == [said]
    assert [box.value for box in app.code] == [details]
    assert not app.button(key="overview_rebuild").disabled


def test_versions_are_checked_and_changed(bank: FaqSearch) -> None:
    bank.add_entry("bank", EntryDraft(question="新问题", answer="答"))
    bank.rebuild("bank")
    first, second = (item.version for item in bank.index_versions("bank"))
    app = open_page("overview")
    app.button(key=f"overview_verify_{first}").click()
    app.run()
    assert [box.value for box in app.success] == ["校验通过：3 个问法，待编入 1，已失效 0"]
    assert f"overview_roll_back_{second}" not in [button.key for button in app.button]
    app.button(key=f"overview_roll_back_{first}").click()
    app.run()
    assert not app.exception and not app.error
    assert [item.version for item in bank.index_versions("bank") if item.current] == [first]
    assert [item.value for item in app.toast] == ["已换用第 1 版"]
    assert f"overview_roll_back_{second}" in [button.key for button in app.button]
    # The new entry is found all the same.
    assert bank.search("新问题", corpus="bank", log=False).hits[0].question == "新问题"


def test_a_damaged_index_is_told_and_can_be_rebuilt(bank: FaqSearch) -> None:
    version = bank.index_versions("bank")[0].version
    folder = Path(bank.settings.index_dir) / "bank" / "versions" / version
    file = next(path for path in folder.iterdir() if path.suffix != ".json")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    app = open_page("overview")
    app.button(key=f"overview_verify_{version}").click()
    app.run()
    assert [box.value for box in app.error] == ["校验未通过，请重建索引。"]
    assert "is damaged" in app.code[0].value
    app = rebuild(app)
    assert not app.exception
    assert bank.verify_index("bank").ok


def test_a_missing_index_asks_for_a_rebuild(bank: FaqSearch) -> None:
    (Path(bank.settings.index_dir) / "bank" / "current").unlink()
    app = open_page("overview")
    assert any("需要重建" in item.value for item in app.markdown)
    assert [fold.label for fold in app.expander] == ["技术细节"]


def test_the_page_can_be_drawn_when_no_encoder_is_left(bank: FaqSearch, source: Any) -> None:
    source.fingerprints["embedded"] = "another one"
    app = open_page("overview")
    assert not app.exception
    assert any("需要" in item.value for item in app.markdown)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "刚刚"), (59, "刚刚"), (61, "1 分钟前"), (7_300, "2 小时前"), (400_000, "4 天前")]
)
def test_ages(seconds: float, said: str) -> None:
    assert overview._age(seconds) == said


def test_older_queries_are_left_out(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(date):
        @classmethod
        def today(cls) -> Later:
            tomorrow = datetime.now() + timedelta(days=1)
            return cls(tomorrow.year, tomorrow.month, tomorrow.day)

    monkeypatch.setattr(overview, "date", Later)
    domain = pictures(open_page("overview"))["per_day"]["encoding"]["x"]["scale"]["domain"]
    assert domain[-2] == date.today().isoformat()
