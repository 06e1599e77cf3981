"""The first page: what a person sees for an answer, a suggestion, nothing, and when something is wrong."""

from __future__ import annotations

import pytest
from fakes import FakeEncoder, FakeSource
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch
from faqsearch.ui.common import plain, safe_markdown


@pytest.fixture
def bank(ui: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """A corpus with three entries, and queries at chosen scores."""
    ui.create_corpus("bank", title="银行")
    ui.add_entry(
        "bank",
        EntryDraft(
            question="怎么提前还款",
            similar=("提前结清",),
            answer="打开“贷款”。\n点提前还款。",
            category="贷款",
            key="B1",
        ),
    )
    ui.add_entry("bank", EntryDraft(question="临时额度怎么申请", answer="在 App 申请。"))
    ui.add_entry("bank", EntryDraft(question="固定额度怎么申请", answer="满半年后申请。"))
    encoder.place("我要早点还钱", "提前结清", 0.95)
    encoder.place("额度不够用", "临时额度怎么申请", 0.85)
    encoder.place("天气好吗", "怎么提前还款", 0.5)
    return ui


def ask(query: str, **params: str) -> AppTest:
    app = open_page("ask", **params)
    return app.text_input(key="query").set_value(query).run()


def log(faq: FaqSearch) -> list[tuple[object, ...]]:
    corpus = faq.corpus("bank")
    return [(row["query"], row["decision"], row["feedback"], row["queued"]) for row in faq._store.query_log(corpus.id)]


def test_a_sure_answer_is_shown_large_with_what_matched(bank: FaqSearch) -> None:
    app = ask("我要早点还钱")
    assert [box.value for box in app.success] == ["**有答案**"]
    assert not app.warning and not app.error
    said = [element.value for element in app.markdown]
    assert "### 怎么提前还款" in said
    assert "打开“贷款”。  \n点提前还款。" in said
    assert "匹配到：提前结清" in [element.value for element in app.caption]
    assert app.button(key="copy").label == "复制答案"
    assert app.query_params["q"] == "我要早点还钱"


def test_something_near_is_said_to_be_only_that(bank: FaqSearch) -> None:
    app = ask("额度不够用")
    assert [box.value for box in app.warning] == ["**没有确定的答案** — 下面是最接近的问题，请核对后再用"]
    assert not app.success and not app.error
    assert [item.label.split(" · ")[0] for item in app.expander][0] == "临时额度怎么申请"


def test_nothing_is_said_to_be_nothing_with_the_nearest_below_a_fold(bank: FaqSearch) -> None:
    app = ask("天气好吗")
    assert [box.value for box in app.error] == ["**没有找到答案**"]
    assert app.expander[0].label == "看看最接近的问题"
    app.button(key="queue").click().run()
    assert "已放入“未解答”" in texts_of(app)
    assert log(bank) == [("天气好吗", "none", None, True)]
    assert [group.queries[0].query for group in bank.unanswered("bank")] == ["天气好吗"]


def test_one_click_says_right_wrong_or_which_instead(bank: FaqSearch) -> None:
    app = ask("我要早点还钱")
    app.button(key="right").click().run()
    assert "已记录：答得对" in texts_of(app)
    assert log(bank) == [("我要早点还钱", "answer", "right", False)]
    app.button(key="wrong").click().run()
    assert log(bank) == [("我要早点还钱", "answer", "wrong", False)]  # one query still, and the last word counts
    app.button(key="instead_2").click().run()
    assert log(bank) == [("我要早点还钱", "answer", "instead", False)]
    row = bank._store.query_log(bank.corpus("bank").id)[0]
    assert row["feedback_entry_id"] == 2


def test_a_link_opens_with_its_result_and_the_corpus_is_remembered(bank: FaqSearch) -> None:
    bank.create_corpus("another")
    app = open_page("ask", corpus="bank", q="我要早点还钱")
    assert app.selectbox(key="corpus_choice").value == "bank"
    assert [box.value for box in app.success] == ["**有答案**"]
    app.selectbox(key="corpus_choice").set_value("another").run()
    assert app.query_params["corpus"] == "another"


def test_a_link_to_a_corpus_that_is_not_there_answers_from_no_other(bank: FaqSearch) -> None:
    app = open_page("ask", corpus="nope", q="我要早点还钱")
    assert "没有名为“nope”的知识库" in texts_of(app)
    assert not app.success and log(bank) == []
    app.button(key="corpus_other").click().run()
    assert app.selectbox(key="corpus_choice").value == "bank"


def test_a_bug_is_one_line_in_the_page(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_values: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(FaqSearch, "search", fail)
    app = ask("我要早点还钱")
    assert [box.value for box in app.error] == [
        "页面出错了，内容没有丢失。请刷新重试；如再次出现，请把操作步骤告诉管理员。"
    ]
    assert not app.exception


def test_recent_questions_are_one_click_away(bank: FaqSearch) -> None:
    app = ask("我要早点还钱")
    app.text_input(key="query").set_value("天气好吗").run()
    app.button_group(key="recent").set_value("我要早点还钱").run()
    assert app.text_input(key="query").value == "我要早点还钱"
    assert [box.value for box in app.success] == ["**有答案**"]


def test_a_rerun_neither_searches_nor_logs_again(bank: FaqSearch, encoder: FakeEncoder) -> None:
    app = ask("我要早点还钱")
    encoder.encoded.clear()
    app.button(key="right").click().run()
    app.run()
    assert encoder.encoded == []
    assert len(log(bank)) == 1


def test_the_english_page_has_no_chinese_of_its_own(bank: FaqSearch) -> None:
    app = ask("我要早点还钱", lang="en")
    assert [box.value for box in app.success] == ["**Answer**"]
    assert [button.label for button in app.button][:3] == ["Copy answer", "Right", "Wrong"]


def test_no_corpus_and_an_empty_one_say_what_to_do(ui: FaqSearch) -> None:
    assert "还没有知识库" in texts_of(open_page("ask"))
    ui.create_corpus("empty")
    assert "这个知识库里还没有条目" in texts_of(open_page("ask"))


def test_a_damaged_index_and_a_missing_encoder_are_explained(bank: FaqSearch, source: FakeSource) -> None:
    bank.rebuild("bank")
    (bank.settings.index_dir / "bank" / "current").write_text("nonsense")
    assert "索引已损坏或缺失" in texts_of(ask("我要早点还钱"))
    (bank.settings.index_dir / "bank" / "current").unlink()
    del source.encoders["embedded"]
    bank._searcher._encoders._loaded.clear()
    bank._searcher._states.clear()
    assert "编码模型不可用" in texts_of(ask("我要早点还钱"))


def test_without_a_query_log_there_is_no_feedback(bank: FaqSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(bank.settings), "query_log", property(lambda self: False), raising=False)
    app = ask("我要早点还钱")
    assert app.button(key="right").disabled
    assert "查询日志已关闭" in texts_of(app)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("一\n二", "一  \n二  "),
        ("- 甲\n- 乙", "- 甲  \n- 乙  "),
        ("[官网](https://example.com/a?b=1)", "[官网](https://example.com/a?b=1)  "),
        ("[点我](javascript:alert(1))", "[点我](#))  "),
        ("[点我]( JavaScript:alert(1))", "[点我](#))  "),
        ("[点我](data:text/html,x)", "[点我](#)  "),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>  "),
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)>  "),
        ("![x](http://example.com/pixel.png)", "!\\[x](http://example.com/pixel.png)  "),
        ("$5 和 $6", "\\$5 和 \\$6  "),
        ("[点我][1]\n[1]: javascript:alert(1)", "[点我][1]  \n\\[1]: javascript:alert(1)  "),
        (":red[不要变色]", "\\:red[不要变色]  "),
    ],
)
def test_an_answer_keeps_its_form_and_can_run_nothing(written: str, shown: str) -> None:
    assert safe_markdown(written) == shown


def test_a_question_is_shown_as_it_is_written() -> None:
    assert plain("*费用* [多少] <b>? #1") == "\\*费用\\* \\[多少\\] &lt;b\\>? \\#1"
