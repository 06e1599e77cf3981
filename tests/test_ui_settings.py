"""The settings page: name, language, title, encoder and thresholds, and what the picture says of these."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import streamlit as st
from fakes import FakeEncoder, FakeSource
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch, evaluate, registry
from faqsearch.errors import StoreError

HIT_TESTS = "query,key\n我要早点还钱,B1\n额度不够用,B2\n我要还钱,B2\n天气好吗,\n".encode()


CHECKPOINT = {
    "config.json": '{"num_hidden_layers": 4, "hidden_size": 768, "vocab_size": 21128}',
    "pytorch_model.bin": "weights, as far as the page knows",
    "vocab.txt": "[PAD]",
}


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache of its own, with nothing in it."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def checkpoint(folder: Path, files: dict[str, str] = CHECKPOINT) -> Path:
    """A checkpoint's folder."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def without(name: str) -> dict[str, str]:
    """The files of a checkpoint but for one."""
    return {other: content for other, content in CHECKPOINT.items() if other != name}


def download(hub: Path, name: str, files: dict[str, str] = CHECKPOINT) -> Path:
    """A checkpoint in the cache, as a download leaves it."""
    repository, commit = hub / f"models--{name.replace('/', '--')}", "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return checkpoint(repository / "snapshots" / commit, files)


@pytest.fixture
def really(source: FakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder references are looked up as in service, instead of among the fake encoders."""
    monkeypatch.setattr(source, "fingerprint", registry.fingerprint)


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
    bank.set_corpus("bank", answer_threshold=0.88, suggest_threshold=0.8)
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


def encoder_box(app: AppTest) -> Any:
    return app.selectbox(key="settings_encoder_bank")


def type_in(app: AppTest, text: str) -> None:
    """Type a reference that is no option. AppTest looks each value up among the options; a browser just sends it."""
    encoder_box(app).options.append(text)
    encoder_box(app).set_value(text).run()


def save(app: AppTest) -> None:
    app.button(key="settings_corpus_save").click().run()
    assert not app.exception


def read(text: str) -> str:
    """What a person reads of Markdown with escaped signs."""
    return re.sub(r"\\(.)", r"\1", text)


def facts(app: AppTest) -> str:
    """What is said under the encoder, but for what a change of it entails."""
    (line,) = (read(caption.value) for caption in app.caption if "重建索引才会生效" in caption.value)
    return line.partition("更换模型后")[0]


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
    bank.create_corpus("shop", encoder="other")
    app = open_page("settings", corpus="bank")
    app.text_input(key="settings_title_bank").set_value(" 银行客服 ")
    save(app)
    assert app.toast[0].value == "已保存"
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行客服", "embedded")
    encoder_box(app).set_value("other").run()
    assert bank.corpus("bank").encoder == "embedded"  # choosing is not saving
    save(app)
    assert app.toast[0].value == "已保存。请到“概览”页重建索引，新模型才会生效"
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行客服", "other")


@pytest.mark.usefixtures("really")
@pytest.mark.parametrize(
    ("lang", "expected"),
    [
        (
            "zh",
            [
                "embedded · 随软件自带 · 各类知识库 · 2,035 万参数",
                "general · 未下载 · 通用 · 4,497 万参数",
                "general-teacher · 不完整 · 通用（教师模型） · 10,168 万参数",
                "open-domain · 未下载 · 开放领域 · 4,497 万参数",
                "open-domain-teacher · 未下载 · 开放领域（教师模型） · 10,168 万参数",
                "finance · 已下载 · 金融 · 4,497 万参数",
                "finance-teacher · 未下载 · 金融（教师模型） · 10,168 万参数",
                "{own} · 服务器上的文件夹",
                "{gone} · 找不到",
                "someone/bert · 已下载",
            ],
        ),
        (
            "en",
            [
                "embedded · built in · any corpus · 20M params",
                "general · not downloaded · general use · 45M params",
                "general-teacher · incomplete · general use (teacher) · 102M params",
                "open-domain · not downloaded · open domain · 45M params",
                "open-domain-teacher · not downloaded · open domain (teacher) · 102M params",
                "finance · downloaded · finance · 45M params",
                "finance-teacher · not downloaded · finance (teacher) · 102M params",
                "{own} · a folder on the server",
                "{gone} · not found",
                "someone/bert · downloaded",
            ],
        ),
    ],
)
def test_the_encoders_are_offered_with_what_they_are_and_where(
    bank: FaqSearch, hub: Path, tmp_path: Path, lang: str, expected: list[str]
) -> None:
    download(hub, "DMetaSoul/sbert-chinese-qmc-finance-v1-distill")
    download(hub, "DMetaSoul/sbert-chinese-general-v2", without("pytorch_model.bin"))
    download(hub, "someone/bert")
    own, gone = checkpoint(tmp_path / "自己的"), checkpoint(tmp_path / "gone")
    for name, ref in (("c1", own), ("c2", gone), ("c3", "someone/bert")):
        bank.create_corpus(name, encoder=str(ref))
    shutil.rmtree(gone)
    app = open_page("settings", corpus="bank", lang=lang)
    assert encoder_box(app).options == [option.format(own=own, gone=gone) for option in expected]
    assert encoder_box(app).value == "embedded"


@pytest.mark.usefixtures("really")
def test_under_the_choice_stands_where_it_comes_from(bank: FaqSearch, tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "own")
    bank.create_corpus("shop", encoder=str(own))
    app = open_page("settings", corpus="bank")
    assert facts(app) == "来源：本软件 · 许可：MIT · 384 维 · "
    encoder_box(app).set_value("finance-teacher").run()
    assert facts(app) == "来源：DMetaSoul/sbert-chinese-qmc-finance-v1 · 许可：未注明 · 768 维 · "
    encoder_box(app).set_value(str(own)).run()
    assert facts(app) == "来源：自备 · 768 维 · "
    type_in(app, "someone/bert")
    assert facts(app) == ""
    assert "换完请重新调整阈值" in texts_of(app)


MISSING = {
    "zh": "编码模型 general 还没有下载，请先在服务器上运行 `faqsearch model pull general`",
    "en": "The encoder general is not downloaded yet; first run `faqsearch model pull general` on the server",
}
INCOMPLETE = {
    "zh": "编码模型 finance-teacher 没有下载完整，请先在服务器上运行 `faqsearch model pull finance-teacher`",
    "en": "The encoder finance-teacher is not downloaded in full; first run `faqsearch model pull finance-teacher`"
    " on the server",
}


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize(("name", "line"), [("general", MISSING), ("finance-teacher", INCOMPLETE)])
def test_an_encoder_that_must_be_downloaded_is_refused_with_the_command(
    bank: FaqSearch, hub: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: dict[str, str], lang: str
) -> None:
    download(hub, "DMetaSoul/sbert-chinese-qmc-finance-v1", without("vocab.txt"))
    before = bank.corpus("bank")
    app = open_page("settings", lang=lang)
    assert not app.warning
    app.text_input(key="settings_title_bank").set_value("新标题")
    encoder_box(app).set_value(name).run()
    assert [read(warning.value) for warning in app.warning] == [line[lang]]
    assert "`" in app.warning[0].value and "\\" not in app.warning[0].value.split("`")[1]  # to be copied as it is
    assert not app.error
    save(app)
    assert [read(error.value) for error in app.error] == [line[lang]]
    assert not app.warning
    assert app.text_input(key="settings_title_bank").value == "新标题"
    assert encoder_box(app).value == name
    assert bank.corpus("bank") == before


@pytest.mark.usefixtures("really")
def test_an_encoder_that_was_downloaded_meanwhile_is_saved(bank: FaqSearch, source: FakeSource, hub: Path) -> None:
    app = open_page("settings")
    encoder_box(app).set_value("general").run()
    save(app)
    assert len(app.error) == 1
    download(hub, "DMetaSoul/sbert-chinese-general-v2-distill")
    save(app)
    assert not app.error and not app.warning
    assert encoder_box(app).value == bank.corpus("bank").encoder == "general"
    assert "general · 已下载 · 通用 · 4,497 万参数" in encoder_box(app).options
    assert source.loads == []


def test_a_choice_stays_when_the_language_changes(bank: FaqSearch) -> None:
    app = open_page("settings")
    encoder_box(app).set_value("general").run()
    app.segmented_control(key="language").set_value("en").run()
    assert encoder_box(app).value == "general"
    # The browser holds the option's Chinese text; it must be told the English one, or it would send that as a name.
    assert encoder_box(app).proto.raw_value == "general · not downloaded · general use · 45M params"
    assert len(encoder_box(app).options) == 7
    assert read(app.warning[0].value) == MISSING["en"]


def test_a_corpus_whose_encoder_has_gone_is_told_and_can_be_named_anew(bank: FaqSearch, source: FakeSource) -> None:
    source.encoders["general"], source.fingerprints["general"] = FakeEncoder("general"), "of general"
    bank.set_corpus("bank", encoder="general")
    del source.encoders["general"]
    app = open_page("settings")
    assert read(app.warning[0].value) == MISSING["zh"]
    app.text_input(key="settings_title_bank").set_value("银行客服")
    save(app)
    assert app.toast[0].value == "已保存"
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行客服", "general")


@pytest.mark.usefixtures("really")
def test_a_folder_of_ones_own_is_typed_in(bank: FaqSearch, tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "模型" / "bert_base*")
    app = open_page("settings")
    type_in(app, f" {own.parent}/../模型/bert_base*/ ")
    assert not app.warning and not app.error
    save(app)
    assert not app.error
    assert bank.corpus("bank").encoder == str(own)
    assert encoder_box(app).value == str(own)
    assert encoder_box(app).options[7:] == [f"{own} · 服务器上的文件夹"]


CONVERTED = {"model.safetensors": "others", "conversion.json": "{}"}
UNKNOWN = "没有编码模型 {}。请从列表中选择，或填模型文件夹的路径，或已下载的 Hugging Face 模型名（所有者/名称）"


@pytest.mark.usefixtures("really")
@pytest.mark.parametrize(
    ("lang", "typed", "told"),
    [
        ("zh", "a_b/bert", "服务器上没有编码模型 'a_b/bert'，请先在服务器上运行 `faqsearch model pull a_b/bert`"),
        ("en", "a_b/bert", "encoder 'a_b/bert' is not on this machine; run `faqsearch model pull a_b/bert`"),
        ("zh", "nowhere", UNKNOWN.format("'nowhere'")),
        ("zh", "*a`b", UNKNOWN.format("'*a`b'")),
    ],
)
def test_a_name_that_is_not_here_is_told_and_nothing_is_lost(bank: FaqSearch, lang: str, typed: str, told: str) -> None:
    before = bank.corpus("bank")
    app = open_page("settings", lang=lang)
    app.text_input(key="settings_title_bank").set_value("新标题")
    type_in(app, typed)
    save(app)
    assert [read(error.value) for error in app.error] == [told]
    assert app.text_input(key="settings_title_bank").value == "新标题"
    assert encoder_box(app).value == typed
    assert bank.corpus("bank") == before


@pytest.mark.usefixtures("really")
@pytest.mark.parametrize(
    ("files", "told"),
    [
        (without("config.json"), "模型文件夹 {folder} 不完整，缺少文件：config.json；请重新复制"),
        ({**CHECKPOINT, "modules.json": '[{"type": "x.Pooling", "path": "1_Pooling"}]'},
         "模型文件夹 {folder} 不完整，缺少文件：1_Pooling/config.json；请重新复制"),
        ({**CHECKPOINT, "modules.json": "{"}, "模型的文件 {folder}/modules.json 已损坏；请重新复制"),
        ({**CHECKPOINT, "modules.json": '[{"type": "x.Dense"}]'},
         "模型文件夹 {folder} 含有不支持的模块 'Dense'；只支持 Transformer、Pooling 和 Normalize"),
        ({**CHECKPOINT, "pytorch_model.bin": "version https://git-lfs.github.com/spec/v1"},
         "{folder}/pytorch_model.bin 只是 Git LFS 指针，不是模型权重；请在它的仓库里运行 `git lfs pull`"),
        ({**without("pytorch_model.bin"), **CONVERTED},
         "模型文件夹 {folder} 不完整，缺少 pytorch_model.bin（model.safetensors 由它转换而来）；请重新复制"),
        ({**CHECKPOINT, **CONVERTED},
         "{folder}/model.safetensors 与转换前的 pytorch_model.bin 已不一致；请删除它和同目录下的 conversion.json"),
    ],
)  # fmt: skip
def test_a_folder_that_holds_no_whole_checkpoint_is_told_in_chinese(
    bank: FaqSearch, tmp_path: Path, files: dict[str, str], told: str
) -> None:
    folder = checkpoint(tmp_path / "own", files)
    app = open_page("settings")
    type_in(app, str(folder))
    save(app)
    assert [read(error.value) for error in app.error] == [told.format(folder=folder)]
    assert bank.corpus("bank").encoder == "embedded"


def test_what_somebody_else_saves_of_a_corpus_is_not_taken_back(bank: FaqSearch) -> None:
    app = open_page("settings")
    bank.set_corpus("bank", title="银行客服", encoder="other")
    app.run()
    assert (app.text_input(key="settings_title_bank").value, encoder_box(app).value) == ("银行客服", "other")
    save(app)
    assert (bank.corpus("bank").title, bank.corpus("bank").encoder) == ("银行客服", "other")


def test_an_empty_title_is_told(bank: FaqSearch) -> None:
    app = open_page("settings")
    app.text_input(key="settings_title_bank").set_value("  ")
    app.button(key="settings_corpus_save").click().run()
    assert app.error[0].value == "标题应为 1 到 200 个字符，现在是 0 个"
    assert bank.corpus("bank").title == "银行"


# --- thresholds -------------------------------------------------------------------------------------


def test_the_log_says_what_thresholds_would_do(asked: FaqSearch) -> None:
    app = open_page("settings")
    assert (answer(app).value, suggest(app).value) == (0.88, 0.80)
    assert figures(app) == ["1", "1", "1"]
    assert "近 30 天 3 次" in texts_of(app)
    assert app.button(key="settings_thresholds_save").disabled
    answer(app).set_value(0.84).run()
    assert figures(app) == ["2", "0", "1"]
    assert "尚未保存。现在用的是：建议 0.800，回答 0.880" in texts_of(app)
    suggest(app).set_value(0.4).run()
    assert figures(app) == ["2", "1", "0"]
    assert asked.corpus("bank").answer_threshold == 0.88
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
    assert [rows[0]["at"] for rows in lines] == [0.80, 0.80, 0.88, 0.88]
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
    labels += [text for box in app.selectbox for text in (box.label, box.help or "", *box.options)]
    shown = texts_of(app) + "".join(labels) + json.dumps(drawn, ensure_ascii=False)
    assert not re.search(r"[\u4e00-\u9fff]", shown), shown
