"""The page for import and export: what is told before, during and after, and what is stored."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import FaqSearch, tables
from faqsearch.errors import StoreError
from faqsearch.ui import import_export, progress, reasons, upload

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEADER = "编号,标准问,相似问,答案,分类"
TWO = f"{HEADER}\nB1,怎么提前还款,提前结清,打开“贷款”。,贷款\nB2,临时额度怎么申请,,在 App 申请。,信用卡\n".encode()
BAD = f"{HEADER}\nB1,怎么提前还款,提前结清,改过了。,贷款\nB3,没有答案的问题,,,贷款\nB4,新的问题,,新的答案,其他\n"


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the download buttons of the last runs would give, by key: (bytes, file name)."""
    import streamlit as st

    found: dict[str, Any] = {}
    real = st.download_button

    def button(label: str, data: bytes, **options: Any) -> bool:
        found[options["key"]] = (data, options["file_name"])
        return real(label, data, **options)

    monkeypatch.setattr(st, "download_button", button)
    yield found


@pytest.fixture
def bank(ui: FaqSearch, tmp_path: Path) -> FaqSearch:
    """A corpus with two entries."""
    path = tmp_path / "bank.csv"
    path.write_bytes(TWO)
    ui.import_table(path, corpus="bank")
    return ui


def put(app: AppTest, content: bytes, name: str = "faq.csv") -> AppTest:
    app.file_uploader[0].set_value((name, content, "text/csv")).run()
    assert not app.exception
    return app


def figures(app: AppTest) -> list[str]:
    """Added, updated, unchanged, removed, rejected."""
    return [metric.value for metric in app.metric]


def questions(service: FaqSearch, corpus: str) -> dict[str, str]:
    return {entry.question: entry.answer for entry in service.entries(corpus)}


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))


# --- the first import -------------------------------------------------------------------------------


def test_a_first_corpus_is_named_checked_and_imported(ui: FaqSearch) -> None:
    app = open_page("import_export")
    assert not app.exception
    assert "还没有知识库" in app.info[0].value
    put(app, TWO)
    assert "请先填写新知识库的名称" in texts_of(app)
    assert not app.metric
    app.text_input(key="import_new_name").set_value("bank").run()
    assert figures(app) == ["2", "0", "0", "0", "0"]
    assert "新建 bank 会发生什么" in texts_of(app)
    assert ui.corpora() == []
    app.button(key="import_go").click().run()
    assert not app.exception and not app.error
    assert questions(ui, "bank") == {"怎么提前还款": "打开“贷款”。", "临时额度怎么申请": "在 App 申请。"}
    assert figures(app) == ["2", "0", "0", "0", "0"]
    assert app.success[0].value == r"faq\.csv 已导入 bank，现在就能搜到。"
    assert ui.search("提前结清", corpus="bank").decision == "answer"
    assert [toast.value for toast in app.toast] == ["已导入 2 条"]
    assert app.session_state["corpus"] == "bank"
    app.button(key="import_another").click().run()
    assert not app.success and app.file_uploader[0].value is None


def test_a_name_that_cannot_be_used_is_told_and_mended(ui: FaqSearch) -> None:
    app = put(open_page("import_export"), TWO)
    app.text_input(key="import_new_name").set_value("My Shop").run()
    assert "不能用作知识库名称" in app.error[0].value
    assert not app.metric
    app.text_input(key="import_new_name").set_value("shop").run()
    assert not app.error and figures(app)[0] == "2"
    assert ui.corpora() == []


def test_a_name_that_is_taken_is_told(bank: FaqSearch) -> None:
    app = put(open_page("import_export"), TWO)
    app.segmented_control(key="import_target").set_value("new").run()
    app.text_input(key="import_new_name").set_value("bank").run()
    assert "已有名为 bank 的知识库" in app.error[0].value
    assert not app.metric


def test_a_second_corpus_beside_the_first(bank: FaqSearch) -> None:
    app = put(open_page("import_export", corpus="bank"), TWO)
    app.segmented_control(key="import_target").set_value("new").run()
    app.text_input(key="import_new_name").set_value("other").run()
    app.button(key="import_go").click().run()
    assert [corpus.name for corpus in bank.corpora()] == ["bank", "other"]
    assert app.query_params["corpus"] == "other"
    assert app.selectbox(key="corpus_choice").value == "other"


# --- merge, replace, rejected rows ------------------------------------------------------------------


def test_the_dry_run_saves_nothing_and_names_the_rejected_rows(bank: FaqSearch, downloads: dict[str, Any]) -> None:
    app = put(open_page("import_export"), BAD.encode("gb18030"))
    assert figures(app) == ["1", "1", "0", "0", "1"]
    assert bank.counts("bank").entries == 2
    shown = app.dataframe[-1].value
    assert shown.to_dict("records") == [
        {"line": 3, "column": "答案", "reason": "没有答案", "row": "B3 · 没有答案的问题"}
    ]
    assert "GB18030" in texts_of(app) and "逗号分隔" in texts_of(app)
    content, name = downloads["import_rejects_check"]
    assert name == "faq-未导入.csv"
    assert rows(content)[1] == ["3", "答案", "no answer", "B3", "没有答案的问题", "", "", "贷款"]


def test_merging_keeps_the_others_and_gives_the_rejected_rows(bank: FaqSearch, downloads: dict[str, Any]) -> None:
    app = put(open_page("import_export"), BAD.encode("gb18030"))
    app.session_state["person"] = "小王"
    app.button(key="import_go").click().run()
    assert figures(app) == ["1", "1", "0", "0", "1"]
    assert questions(bank, "bank") == {
        "怎么提前还款": "改过了。",
        "临时额度怎么申请": "在 App 申请。",
        "新的问题": "新的答案",
    }
    assert {change.who for change in bank.history(1)[:1]} == {"小王"}
    assert app.dataframe[0].value["reason"].tolist() == ["没有答案"]
    assert rows(downloads["import_rejects_done"][0])[0][:3] == ["line", "column", "reason"]
    # Mended, the downloaded file can be uploaded as it is.
    mended = downloads["import_rejects_done"][0].decode("utf-8-sig").replace("题,,,", "题,,现在有了,")
    app.button(key="import_another").click().run()
    put(app, mended.encode())
    assert figures(app) == ["1", "0", "0", "0", "0"]


def test_replacing_removes_only_after_a_second_word(bank: FaqSearch) -> None:
    table = f"{HEADER}\nB2,临时额度怎么申请,,在 App 申请。,信用卡\n".encode()
    app = put(open_page("import_export"), table)
    assert figures(app) == ["0", "0", "1", "0", "0"]
    assert "没有需要导入的内容" in texts_of(app)
    app.radio(key="import_mode").set_value("replace").run()
    assert figures(app) == ["0", "0", "1", "1", "0"]
    assert "替换会删除 1 个" in app.warning[0].value
    assert app.button(key="import_go").disabled
    app.checkbox(key="import_sure").check().run()
    app.button(key="import_go").click().run()
    assert questions(bank, "bank") == {"临时额度怎么申请": "在 App 申请。"}


def test_the_dry_run_is_made_once_for_each_choice(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    real = FaqSearch.import_table

    def counted(self: FaqSearch, *args: Any, **options: Any) -> Any:
        calls.append(options["dry_run"])
        return real(self, *args, **options)

    monkeypatch.setattr(FaqSearch, "import_table", counted)
    app = put(open_page("import_export"), BAD.encode())
    app.run()
    app.run()
    assert calls == [True]
    app.radio(key="import_mode").set_value("replace").run()
    assert calls == [True, True]


def test_an_import_that_fails_keeps_the_file_and_says_why(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    app = put(open_page("import_export"), BAD.encode())
    real = FaqSearch.import_table

    def refuse(self: FaqSearch, *args: Any, **options: Any) -> Any:
        if not options["dry_run"]:
            raise StoreError("database is locked")
        return real(self, *args, **options)

    monkeypatch.setattr(FaqSearch, "import_table", refuse)
    app.button(key="import_go").click().run()
    assert not app.exception
    assert app.error[0].value == "database is locked"
    assert figures(app) == ["1", "1", "0", "0", "1"]
    assert bank.counts("bank").entries == 2


# --- what was understood, and changing it -----------------------------------------------------------


def test_columns_are_chosen_by_hand_where_none_is_known(bank: FaqSearch) -> None:
    table = "客户怎么问,标准答复,备注\n怎么退款,七天内可退,甲\n".encode("gb18030")
    app = put(open_page("import_export"), table, "表.csv")
    assert "找不到“标准问”列" in app.error[0].value and "表\\.csv" in app.error[0].value
    assert not app.metric
    boxes = {box.label: box for box in app.main.selectbox}
    assert list(boxes["标准问"].options) == ["不使用", "客户怎么问", "标准答复", "备注"]
    boxes["标准问"].set_value("客户怎么问")
    boxes["答案"].set_value("标准答复")
    next(button for button in app.button if button.label == "应用").click().run()
    assert not app.error
    assert figures(app) == ["1", "0", "0", "0", "0"]
    app.button(key="import_go").click().run()
    assert questions(bank, "bank")["怎么退款"] == "七天内可退"


def test_a_column_can_be_left_out_and_another_taken(bank: FaqSearch) -> None:
    table = "问题,答案,回复,分类\n问一,甲,乙,丙\n".encode()
    app = put(open_page("import_export"), table)
    boxes = {box.label: box for box in app.main.selectbox}
    assert (boxes["答案"].value, boxes["分类"].value) == ("答案", "分类")
    boxes["答案"].set_value("回复")
    boxes["分类"].set_value("")
    next(button for button in app.button if button.label == "应用").click().run()
    app.button(key="import_go").click().run()
    entry = next(entry for entry in bank.entries("bank") if entry.question == "问一")
    assert (entry.answer, entry.category) == ("乙", "")


def test_numbered_columns_stay_whole_when_another_column_is_changed(bank: FaqSearch) -> None:
    table = "问题,相似问1,相似问2,答案,备注\n问一,甲|乙,丙,答一,丁\n".encode()
    app = put(open_page("import_export"), table)
    next(box for box in app.main.selectbox if box.label == "分类").set_value("备注")
    next(button for button in app.button if button.label == "应用").click().run()
    app.button(key="import_go").click().run()
    entry = next(entry for entry in bank.entries("bank") if entry.question == "问一")
    assert (entry.similar, entry.category) == (("甲|乙", "丙"), "丁")


def test_another_encoding_is_tried(bank: FaqSearch) -> None:
    app = put(open_page("import_export"), "question,answer\n怎麼退款,七天內\n".encode("big5"))
    next(box for box in app.main.selectbox if box.label == "文字编码").set_value("big5")
    next(button for button in app.button if button.label == "应用").click().run()
    assert "BIG5" in texts_of(app)
    app.button(key="import_go").click().run()
    assert questions(bank, "bank")["怎麼退款"] == "七天內"


def test_an_xlsx_file_is_previewed_and_imported(bank: FaqSearch, tmp_path: Path) -> None:
    tables.write_template(tmp_path / "t.xlsx", "zh")
    app = put(open_page("import_export"), (tmp_path / "t.xlsx").read_bytes(), "t.xlsx")
    assert "XLSX" in texts_of(app)
    assert not [box for box in app.main.selectbox if box.label == "文字编码"]
    assert figures(app) == ["2", "0", "0", "0", "0"]


def test_a_file_that_is_no_table_is_told_in_the_language_of_the_page(bank: FaqSearch) -> None:
    app = put(open_page("import_export"), bytes(range(256)) * 20, "x.csv")
    assert app.error[0].value == r"x\.csv 不是表格文件；请上传 CSV、TSV 或 XLSX"
    app = put(open_page("import_export", lang="en"), bytes(range(256)) * 20, "x.csv")
    assert app.error[0].value.startswith(r"x\.csv is a binary file; expected a CSV")


def test_nothing_in_a_file_is_taken_for_markdown(bank: FaqSearch) -> None:
    table = "问题,答案,<b>备注</b> **粗**\n问一,答一,x\n".encode()
    app = put(open_page("import_export"), table, "<i>a</i>.csv")
    assert r"没有用到的列：&lt;b\>备注&lt;/b\> \*\*粗\*\*" in texts_of(app)
    app.button(key="import_go").click().run()
    assert "&lt;i" in app.success[0].value


# --- size, progress ---------------------------------------------------------------------------------


def test_the_limit_on_the_size_is_told_and_kept(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    real = st.file_uploader
    config = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert config["server"]["maxUploadSize"] == upload.MAX_UPLOAD_MB
    app = open_page("import_export")
    assert "每个不超过 50 MB" in texts_of(app)
    assert app.file_uploader[0].proto.max_upload_size_mb == 50
    assert "这个文件没有接收：只接受不超过 50 MB" in "".join(item.proto.body for item in app.get("html"))
    table = b"question,answer\nfirst,a\nsecond," + b"a" * 1_250_000
    put(app, table)
    assert not app.error and figures(app) == ["1", "0", "0", "0", "1"]
    monkeypatch.setattr(upload, "MAX_UPLOAD_MB", 1)
    monkeypatch.setattr(st, "file_uploader", lambda label, **options: real(label, **{**options, "max_upload_size": 50}))
    app.run()
    assert "文件有 1.2 MB，超过了 1 MB 的上限" in app.error[0].value


def test_an_upload_is_gone_with_its_session(bank: FaqSearch) -> None:
    app = put(open_page("import_export"), TWO)
    kept = app.session_state["import_upload"]
    assert kept.path.read_bytes() == TWO
    app.file_uploader[0].set_value(None).run()
    assert "import_upload" not in app.session_state


def test_the_bar_puts_an_interruption_off_until_the_job_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamlit as st

    class Stop(BaseException):
        pass

    class Bar:
        shown: list[tuple[int, str]] = []

        def progress(self, percent: int, text: str) -> None:
            self.shown.append((percent, text))
            if percent >= 50:
                raise Stop

    monkeypatch.setattr(st, "progress", lambda value, text: Bar())
    bar = progress.ProgressBar("")
    for done in (0, 1, 50, 60, 100):
        bar("encoding", done, 100)
    assert [percent for percent, _ in Bar.shown] == [0, 1, 50]
    with pytest.raises(Stop):
        bar.finish()


# --- what the service says, in Chinese --------------------------------------------------------------


def test_every_known_message_is_the_services_own() -> None:
    """The texts fit what is said: each piece of a message stands in the code."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "faqsearch").glob("*.py") if path.stem != "cli")
    code = re.sub(r'"\s*\n\s*f?"', "", code).replace("\\\\", "\\")
    said = tomllib.loads((ROOT / "faqsearch/assets/texts/reasons.toml").read_text(encoding="utf-8"))
    for key, (_, english) in said.items():
        if key.startswith("taken"):
            continue  # put together from parts; seen below
        for piece in re.split(r"\{\w+\}", english):
            assert piece.strip(" ,:;()") in code, f"{key}: {piece!r}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["", "x"], "没有问题"),
        (["q" * 1001, "a"], "有 1,001 个字符，最多 1,000 个"),
        (["q", "a", "", "", "soon"], "'soon' 不是日期，应形如 2026-01-31 或 2026-01-31 18:00"),
        (["q", "a", "maybe"], "'maybe' 看不出是启用还是停用，可写 1 或 0、是 或 否、启用 或 停用"),
        (["q\x07", "a"], "含有控制字符 U+0007"),
        (["提前结清", "a"], "'提前结清' 已属于条目 1（编号 'B1'）"),
        (["first", "a"], "'first' 已属于本文件第 2 行的条目"),
        (["q", "a", "", "2026-02-01", "2026-01-01"], "失效时间 2026-01-01 23:59 早于生效时间 2026-02-01 00:00"),
        (["q", "a", "", "", "", "x", "extra"], "这一行有 7 个单元格，而表头只有 5 个；多出来的第一个是 'x'"),
    ],
)
def test_the_reasons_of_rejected_rows_are_chinese_in_chinese(
    bank: FaqSearch, write_table: Callable[..., Path], row: list[str], reason: str
) -> None:
    header = ["问题", "答案", "启用", "生效时间", "失效时间"]
    table = write_table(header, ["first", "a"], row).read_bytes()
    app = put(open_page("import_export"), table)
    assert app.dataframe[-1].value["reason"].tolist() == [reason]


def test_a_message_that_is_not_known_is_shown_as_it_is() -> None:
    assert reasons.told("something new") == "something new"
    nested = reasons.told("imported, but the index was not synced: the encoder is now 'x'")
    assert nested == "已导入，但索引没有更新（搜索仍能找到新内容）：编码模型已换成 'x'"


# --- export and templates ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
@pytest.mark.parametrize(("lang", "title"), [("zh", "标准问"), ("en", "question")])
def test_a_corpus_is_exported_and_comes_back_the_same(
    bank: FaqSearch, downloads: dict[str, Any], tmp_path: Path, kind: str, lang: str, title: str
) -> None:
    app = open_page("import_export")
    assert "2 个条目，3 个问法" in texts_of(app)
    app.segmented_control(key="export_format").set_value(kind).run()
    app.segmented_control(key="export_lang").set_value(lang).run()
    app.button(key="export_prepare").click().run()
    content, name = downloads["export_download"]
    assert re.fullmatch(rf"bank-\d{{8}}\.{kind}", name)
    path = tmp_path / f"out.{kind}"
    path.write_bytes(content)
    preview = bank.preview_table(path)
    assert title in preview.header and len(preview.rows) == 2
    report = bank.import_table(path, corpus="bank", dry_run=True)
    assert (report.unchanged, report.added, report.updated) == (2, 0, 0)


def test_an_export_is_made_anew_once_the_corpus_has_changed(bank: FaqSearch) -> None:
    app = open_page("import_export")
    app.button(key="export_prepare").click().run()
    assert app.download_button(key="export_download").label.startswith("下载（")
    bank.delete_entry(1)
    app.run()
    assert [button for button in app.download_button if button.key == "export_download"] == []


def test_what_no_xlsx_cell_can_hold_is_told(bank: FaqSearch) -> None:
    bank.edit_entry(1, answer="长" * 40_000)
    app = open_page("import_export")
    app.button(key="export_prepare").click().run()
    assert app.error[0].value == "有单元格超过 XLSX 的 32,767 个字符上限（40,000 个），请改用 CSV 导出"


def test_there_is_nothing_to_export_without_a_corpus(ui: FaqSearch) -> None:
    app = open_page("import_export")
    assert "还没有可以导出的知识库" in texts_of(app)


def test_the_templates_are_those_of_the_command_line(ui: FaqSearch, downloads: dict[str, Any], tmp_path: Path) -> None:
    open_page("import_export")
    for lang in ("zh", "en"):
        for kind in ("csv", "xlsx"):
            path = tmp_path / f"{lang}.{kind}"
            path.write_bytes(downloads[f"template_{lang}_{kind}"][0])
            tables.write_template(tmp_path / f"now.{kind}", lang)
            given, now = (ui.preview_table(item, rows=10) for item in (path, tmp_path / f"now.{kind}"))
            assert (given.header, given.rows) == (now.header, now.rows)
    assert downloads["template_zh_csv"][1] == "FAQ模板.csv"


def test_english_has_no_chinese_of_the_page(bank: FaqSearch) -> None:
    app = put(open_page("import_export", lang="en"), b"question,answer\nfirst,\nsecond,a\n")
    labels = [item.label for kind in (app.button, app.metric, app.radio, app.tabs) for item in kind]
    shown = re.sub("中文|bank", "", texts_of(app) + "".join(labels))
    assert not re.search(r"[\u4e00-\u9fff]", shown), shown
    assert import_export.FIELDS and figures(app) == ["1", "0", "0", "0", "1"]
