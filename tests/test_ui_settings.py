"""The settings page: name, language, title, encoder and thresholds, and what the picture says of these."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from fakes import FakeEncoder
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch, evaluate
from faqsearch.errors import StoreError

HIT_TESTS = "query,key\n我要早点还钱,B1\n额度不够用,B2\n我要还钱,B2\n天气好吗,\n".encode()


@pytest.fixture
def bank(ui: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """Two entries, and queries at chosen scores: 0.95, 0.85, 0.93 and 0.51."""
    ui.create_corpus("bank", title="银行")
    ui.add_entry("bank", EntryDraft(key="B1", question="怎么提前还款", answer="打开贷款。"))
    ui.add_entry("bank", EntryDraft(key="B2", question="临时额度怎么申请", answer="在 App 申请。"))
    encoder.place("我要早点还钱", "怎么提前还款", 0.95)
    encoder.place("额度不够用", "临时额度怎么申请", 0.85)
    encoder.place("我要还钱", "怎么提前还款", 0.93)
    encoder.place("天气好吗", "怎么提前还款", 0.51)
    return ui


@pytest.fixture
def asked(bank: FaqSearch) -> FaqSearch:
    """Three queries in the log: 0.95, 0.85, 0.51."""
    bank.search_many(["我要早点还钱", "额度不够用", "天气好吗"], corpus="bank")
    return bank


def figures(app: AppTest) -> list[str]:
    return [metric.value for metric in app.metric]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The pictures as they were drawn last, by key: the rows of each layer."""
    found: dict[str, Any] = {}
    real = st.altair_chart

    def draw(chart: Any, **options: Any) -> Any:
        spec = chart.to_dict()
        found[options["key"]] = [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]
        return real(chart, **options)

    monkeypatch.setattr(st, "altair_chart", draw)
    return found


def answer(app: AppTest) -> Any:
    return app.slider(key="settings_answer_bank")


def suggest(app: AppTest) -> Any:
    return app.slider(key="settings_suggest_bank")


def put(app: AppTest, content: bytes) -> AppTest:
    app.file_uploader[0].set_value(("tests.csv", content, "text/csv")).run()
    assert not app.exception
    return app


# --- who is there -----------------------------------------------------------------------------------


def test_a_name_is_kept_in_session_and_address(ui: FaqSearch) -> None:
    app = open_page("settings")
    assert not app.exception
    assert app.text_input(key="settings_person").value == ""
    app.text_input(key="settings_person").set_value("  王芳 ")
    app.button(key="settings_person_save").click().run()
    assert app.session_state["person"] == "王芳"
    assert app.query_params["person"] == "王芳"
    assert app.toast[0].value == "已记住：王芳"
    app.text_input(key="settings_person").set_value("")
    app.button(key="settings_person_save").click().run()
    assert not app.session_state["person"]
    assert "person" not in app.query_params


def test_a_name_in_the_address_is_taken(bank: FaqSearch) -> None:
    app = open_page("settings", person="王芳")
    assert app.session_state["person"] == "王芳"
    assert app.text_input(key="settings_person").value == "王芳"


def test_the_language_is_switched(bank: FaqSearch) -> None:
    app = open_page("settings")
    assert app.text_input(key="settings_person").label == "你的名字"
    app.segmented_control(key="settings_language").set_value("en").run()
    assert app.text_input(key="settings_person").label == "Your name"
    assert app.session_state["language"] == "en"
    assert app.query_params["lang"] == "en"
    app.segmented_control(key="language").set_value("zh").run()
    assert app.segmented_control(key="settings_language").value == "zh"


def test_without_a_corpus_only_the_person_is_set_up(ui: FaqSearch) -> None:
    app = open_page("settings")
    assert "还没有知识库" in app.info[0].value
    assert not app.slider


# --- title and encoder ------------------------------------------------------------------------------


def test_a_title_and_an_encoder_are_saved(bank: FaqSearch) -> None:
    app = open_page("settings")
    assert "重建索引才会生效" in texts_of(app)
    app.text_input(key="settings_title_bank").set_value("银行客服")
    app.button(key="settings_corpus_save").click().run()
    assert app.toast[0].value == "已保存"
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行客服", "embedded")
    app.text_input(key="settings_encoder_bank").set_value("other")
    app.button(key="settings_corpus_save").click().run()
    assert "新模型才会生效" in app.toast[0].value
    assert bank.corpus("bank").encoder == "other"


def test_an_encoder_that_is_missing_is_told_and_nothing_is_lost(bank: FaqSearch) -> None:
    app = open_page("settings")
    app.text_input(key="settings_title_bank").set_value("新标题")
    app.text_input(key="settings_encoder_bank").set_value("nowhere")
    app.button(key="settings_corpus_save").click().run()
    assert "nowhere" in app.error[0].value
    assert app.text_input(key="settings_title_bank").value == "新标题"
    assert app.text_input(key="settings_encoder_bank").value == "nowhere"
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行", "embedded")


def test_an_empty_title_is_told(bank: FaqSearch) -> None:
    app = open_page("settings")
    app.text_input(key="settings_title_bank").set_value("  ")
    app.button(key="settings_corpus_save").click().run()
    assert app.error[0].value == "标题应为 1 到 200 个字符，现在是 0 个"
    assert bank.corpus("bank").title == "银行"


# --- thresholds -------------------------------------------------------------------------------------


def test_the_log_says_what_thresholds_would_do(asked: FaqSearch) -> None:
    app = open_page("settings")
    assert (answer(app).value, suggest(app).value) == (0.9, 0.82)
    assert figures(app) == ["1", "1", "1"]
    assert "近 30 天 3 次" in texts_of(app)
    assert app.button(key="settings_thresholds_save").disabled
    answer(app).set_value(0.84).run()
    assert figures(app) == ["2", "0", "1"]
    assert "尚未保存。现在用的是：建议 0.820，回答 0.900" in texts_of(app)
    suggest(app).set_value(0.4).run()
    assert figures(app) == ["2", "1", "0"]
    assert asked.corpus("bank").answer_threshold == 0.9
    app.button(key="settings_thresholds_save").click().run()
    assert app.toast[0].value == "阈值已保存，立即生效"
    assert (asked.corpus("bank").answer_threshold, asked.corpus("bank").suggest_threshold) == (0.84, 0.4)
    assert asked.search("额度不够用", corpus="bank").decision == "answer"
    assert app.button(key="settings_thresholds_save").disabled


def test_a_slider_takes_the_other_along(bank: FaqSearch) -> None:
    app = open_page("settings")
    suggest(app).set_value(0.95).run()
    assert (answer(app).value, suggest(app).value) == (0.95, 0.95)
    answer(app).set_value(0.5).run()
    assert (answer(app).value, suggest(app).value) == (0.5, 0.5)


def test_thresholds_below_zero_have_their_place(bank: FaqSearch) -> None:
    bank.set_corpus("bank", suggest_threshold=-0.3)
    app = open_page("settings")
    assert not app.exception
    assert (suggest(app).value, suggest(app).min) == (-0.3, -1.0)


def test_what_somebody_else_saves_is_shown(bank: FaqSearch) -> None:
    app = open_page("settings")
    answer(app).set_value(0.99).run()
    bank.set_corpus("bank", answer_threshold=0.97)
    app.run()
    assert answer(app).value == 0.97


def test_each_corpus_has_its_own_sliders(bank: FaqSearch) -> None:
    bank.create_corpus("other")
    bank.set_corpus("other", answer_threshold=0.7, suggest_threshold=0.6)
    app = open_page("settings", corpus="bank")
    answer(app).set_value(0.99).run()
    app.selectbox(key="corpus_choice").set_value("other").run()
    assert app.slider(key="settings_answer_other").value == 0.7
    app.selectbox(key="corpus_choice").set_value("bank").run()
    assert answer(app).value == 0.99  # not saved, not lost


def test_thresholds_that_cannot_be_saved_stay_where_they_are(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the database is read-only")

    app = open_page("settings")
    answer(app).set_value(0.95).run()
    monkeypatch.setattr(FaqSearch, "set_corpus", refuse)
    app.button(key="settings_thresholds_save").click().run()
    assert app.error[0].value == r"the database is read\-only"
    assert answer(app).value == 0.95


def test_without_a_log_and_tests_the_page_says_so(bank: FaqSearch, drawn: dict[str, Any]) -> None:
    app = open_page("settings")
    assert "近 30 天没有提问记录" in texts_of(app)
    assert not app.metric and not drawn


# --- hit tests --------------------------------------------------------------------------------------


def test_hit_tests_say_how_many_would_be_right(asked: FaqSearch) -> None:
    app = put(open_page("settings"), HIT_TESTS)
    assert "4 个提问，其中 3 个有答案；首条命中率 66.7%" in texts_of(app)
    assert figures(app) == ["1", "1", "1", "2", "1", "1"]  # the log, then the hit tests
    captions = [caption.value for caption in app.caption]
    assert [text for text in captions if text.startswith("对 ")] == ["对 1 个", "对 1 个", "对 1 个"]
    assert any("合计 3 / 4 个处理得对" in text for text in captions)
    answer(app).set_value(0.94).run()
    assert figures(app)[3:] == ["1", "2", "1"]
    captions = [caption.value for caption in app.caption]
    assert [text for text in captions if text.startswith("对 ")] == ["对 1 个", "对 2 个", "对 1 个"]


def test_hit_tests_are_run_once_for_each_state_of_the_corpus(bank: FaqSearch, encoder: FakeEncoder) -> None:
    app = put(open_page("settings"), HIT_TESTS)
    encoder.encoded.clear()
    answer(app).set_value(0.94).run()
    app.run()
    assert encoder.encoded == []
    bank.edit_entry(1, answer="改了")
    app.run()
    assert encoder.encoded
    assert bank.statistics("bank").queries == 0  # hit tests are no queries


def test_hit_tests_that_do_not_fit_are_told(bank: FaqSearch) -> None:
    app = put(open_page("settings"), b"query,key\nx,Z9\n")
    assert app.error[0].value == r"tests\.csv：知识库 'bank' 里没有编号为 'Z9' \(line 2\) 的条目"
    app = put(open_page("settings"), b"a,b\n1,2\n")
    assert "命中测试需要 query（提问）和 key" in app.error[0].value
    assert app.slider and not app.metric


def test_the_picture_shows_the_scores_by_kind_and_both_thresholds(asked: FaqSearch, drawn: dict[str, Any]) -> None:
    put(open_page("settings"), HIT_TESTS)
    bars, *lines = drawn["settings_hit_chart"]
    assert [(row["from"], row["kind"], row["count"]) for row in bars] == [
        (0.5, "本无答案", 1),
        (0.84, "首条命中", 1),
        (0.92, "首条不对", 1),
        (0.94, "首条命中", 1),
    ]
    assert [rows[0]["at"] for rows in lines] == [0.82, 0.82, 0.9, 0.9]
    assert [row["count"] for row in drawn["settings_log_chart"][0]] == [1, 1, 1]


def test_rightly_at_agrees_with_a_hit_test_report(bank: FaqSearch, tmp_path: Path) -> None:
    path = tmp_path / "tests.csv"
    path.write_bytes(HIT_TESTS)
    report = bank.hit_test(path, corpus="bank")
    rightly = evaluate.rightly_at(
        [test.score for test in report.scored],
        [test.answerable for test in report.scored],
        [test.right for test in report.scored],
        report.answer_threshold,
        report.suggest_threshold,
    )
    assert rightly == (report.right, report.suggested, report.true_nones) == (1, 1, 1)


def test_english_has_no_chinese_of_the_page(asked: FaqSearch, drawn: dict[str, Any]) -> None:
    asked.set_corpus("bank", title="Bank")
    app = put(open_page("settings", lang="en"), HIT_TESTS)
    labels = [item.label for kind in (app.button, app.metric, app.slider, app.text_input) for item in kind]
    shown = texts_of(app) + "".join(labels) + json.dumps(drawn, ensure_ascii=False)
    assert not re.search(r"[\u4e00-\u9fff]", shown), shown
