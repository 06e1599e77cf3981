"""The queue of unanswered questions: what it shows, and what becomes of a group."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from fakes import FakeEncoder
from streamlit.testing.v1 import AppTest
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch
from faqsearch.errors import EntryNotFoundError, QueryNotFoundError
from faqsearch.ui import unanswered


@pytest.fixture
def bank(ui: FaqSearch, encoder: FakeEncoder) -> FaqSearch:
    """Two groups in the queue: two wordings asked three times, and one asked once."""
    ui.create_corpus("bank", title="银行")
    ui.add_entry("bank", EntryDraft(question="怎么提前还款", answer="点“贷款”。\n再点提前还款。", category="贷款"))
    ui.add_entry("bank", EntryDraft(question="怎么挂失", answer="打电话。", category="卡"))
    encoder.place("今天天气怎样啊", "今天天气怎么样", 0.97)
    for text in ("猫能抵押吗", "今天天气怎样啊", "今天天气怎样啊", "今天天气怎么样"):
        assert ui.search(text, corpus="bank").decision == "none"
    return ui


def group_names(faq: FaqSearch) -> list[str]:
    return [unanswered._name(group) for group in faq.unanswered("bank")]


def handled(faq: FaqSearch) -> dict[str, set[tuple[Any, Any]]]:
    found: dict[str, set[tuple[Any, Any]]] = {}
    for row in faq._store.query_log(faq.corpus("bank").id):
        found.setdefault(row["query"], set()).add((row["handled"], row["handled_who"]))
    return found


def act(name: str, action: str, **params: str) -> AppTest:
    app = open_page("unanswered", **params)
    return app.segmented_control(key=f"unanswered_action_{name}").set_value(action).run()


def headings(app: AppTest) -> list[str]:
    return [item.value for item in app.markdown if item.value.startswith("#####")]


def test_groups_stand_with_count_time_reason_and_other_wordings(bank: FaqSearch) -> None:
    app = open_page("unanswered")
    assert not app.exception and not app.error
    assert headings(app) == ["##### 今天天气怎么样", "##### 猫能抵押吗"]
    at = bank.unanswered("bank")[0].queries[0].at
    captions = [item.value for item in app.caption]
    assert captions[0] == f"问过 3 次 · 最近 今天 {at:%H:%M} · 没有答案"
    assert captions[1] == "也有人这样问：今天天气怎样啊 ×2"
    assert captions[2].startswith("问过 1 次 · ")
    assert "**2 组问题待处理** · 共 4 次提问" in texts_of(app)


def test_the_page_speaks_english_too(bank: FaqSearch) -> None:
    app = act(group_names(bank)[1], "attach", lang="en")
    assert "**2 groups to deal with** · asked 4 times" in texts_of(app)
    assert [box.label for box in app.radio] == ["Nearest entries"]
    assert "Dismiss" in [button.label for button in app.button]


@pytest.mark.parametrize(
    ("mark", "said"), [("wrong", "被标为不对"), ("instead", "改选了其他条目"), ("queue", "手动放入")]
)
def test_why_a_query_is_in_the_queue(bank: FaqSearch, mark: str, said: str) -> None:
    result = bank.search("怎么挂失", corpus="bank")
    if mark == "queue":
        bank.enqueue(result.query_id)
    elif mark == "wrong":
        bank.give_feedback(result.query_id, "wrong")
    else:
        bank.give_feedback(result.query_id, "instead", entry_id=1)
    app = open_page("unanswered")
    assert any(item.value.endswith(f" · {said}") for item in app.caption)


def test_many_wordings_lie_below_a_fold(bank: FaqSearch, encoder: FakeEncoder) -> None:
    for number in range(5):
        encoder.place(f"天气 {number}", "今天天气怎么样", 0.96)
        bank.search(f"天气 {number}", corpus="bank")
    # The newest stands for the group, the six others are below.
    app = open_page("unanswered")
    assert [fold.label for fold in app.expander] == ["另有 6 种问法"]
    assert "- 天气 0" in texts_of(app)


def test_attach_to_one_of_the_nearest_entries(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = act(name, "attach")
    choice = app.radio(key=f"unanswered_entry_{name}_")
    assert set(choice.options) == {f"{hit.question} · {hit.score:.2f}" for hit in bank.unanswered("bank")[0].nearest}
    phrasing = app.text_input(key=f"unanswered_phrasing_{name}")
    assert phrasing.value == "今天天气怎么样"
    choice.set_value(2)
    phrasing.set_value("天气如何")
    app.session_state["person"] = "小李"
    app.button(key=f"unanswered_attach_{name}").click()
    app.run()
    assert not app.exception and not app.error
    assert bank.entry(2).similar == ("天气如何",)
    assert bank.entry(2).version == 2
    assert bank.history(2)[0].who == "小李"
    assert handled(bank)["今天天气怎样啊"] == handled(bank)["今天天气怎么样"] == {("attached", "小李")}
    assert handled(bank)["猫能抵押吗"] == {(None, None)}
    assert [item.value for item in app.toast] == ["已归到“怎么挂失”，立即可搜到"]
    assert headings(app) == ["##### 猫能抵押吗"]
    result = bank.search("天气如何", corpus="bank")
    assert (result.decision, result.hits[0].entry_id) == ("answer", 2)


def test_attach_to_an_entry_that_was_searched_for(bank: FaqSearch) -> None:
    for number in range(8):
        bank.add_entry("bank", EntryDraft(question=f"别的问题{number}", answer="答"))
    far = bank.add_entry("bank", EntryDraft(question="天气预报在哪里看", answer="答"))
    name = group_names(bank)[0]
    app = act(name, "attach")
    app.text_input(key=f"unanswered_search_{name}").set_value("天气预报在哪里看").run()
    choice = app.radio(key=f"unanswered_entry_{name}_天气预报在哪里看")
    assert choice.label == "找到的条目"
    assert choice.value == far.id
    assert choice.options[0] == "天气预报在哪里看 · 1.00"
    app.button(key=f"unanswered_attach_{name}").click()
    app.run()
    assert bank.entry(far.id).similar == ("今天天气怎么样",)
    assert headings(app) == ["##### 猫能抵押吗"]


def test_a_taken_phrasing_is_told_beside_the_group_and_nothing_typed_is_lost(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = act(name, "attach")
    app.radio(key=f"unanswered_entry_{name}_").set_value(2)
    app.text_input(key=f"unanswered_phrasing_{name}").set_value("怎么提前还款")
    app.button(key=f"unanswered_attach_{name}").click()
    app.run()
    assert [box.value for box in app.error] == ["这个问法已属于条目“怎么提前还款”。请改写，或忽略这组问题。"]
    assert app.text_input(key=f"unanswered_phrasing_{name}").value == "怎么提前还款"
    assert app.radio(key=f"unanswered_entry_{name}_").value == 2
    assert bank.entry(2).similar == ()
    assert handled(bank)["今天天气怎样啊"] == {(None, None)}


def test_an_empty_phrasing_is_not_saved(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = act(name, "attach")
    app.text_input(key=f"unanswered_phrasing_{name}").set_value("  ")
    app.button(key=f"unanswered_attach_{name}").click()
    app.run()
    assert [box.value for box in app.warning] == ["请填写相似问。"]
    assert len(group_names(bank)) == 2


def test_a_new_entry_answers_the_group(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = act(name, "write")
    assert app.text_input(key=f"unanswered_question_{name}").value == "今天天气怎么样"
    assert app.selectbox(key=f"unanswered_category_{name}").options == ["无", "卡", "贷款"]
    app.text_area(key=f"unanswered_answer_{name}").set_value("看窗外。\n或看预报。")
    app.selectbox(key=f"unanswered_category_{name}").set_value("卡")
    app.button(key=f"unanswered_write_{name}").click()
    app.run()
    assert not app.exception and not app.error
    entry = bank.search("今天天气怎么样", corpus="bank", log=False).hits[0]
    assert (entry.score, entry.answer, entry.category) == (1.0, "看窗外。\n或看预报。", "卡")
    assert {how for how, _ in handled(bank)["今天天气怎样啊"]} == {"added"}
    assert [item.value for item in app.toast] == ["已新建“今天天气怎么样”，立即可搜到"]
    assert headings(app) == ["##### 猫能抵押吗"]


def test_a_new_category_takes_the_place_of_the_chosen_one(bank: FaqSearch) -> None:
    name = group_names(bank)[1]
    app = act(name, "write")
    app.text_area(key=f"unanswered_answer_{name}").set_value("不能。")
    app.selectbox(key=f"unanswered_category_{name}").set_value("卡")
    app.text_input(key=f"unanswered_new_category_{name}").set_value("抵押")
    app.button(key=f"unanswered_write_{name}").click()
    app.run()
    assert bank.categories("bank") == {"卡": 1, "抵押": 1, "贷款": 1}


@pytest.mark.parametrize(
    ("question", "answer", "kind", "said"),
    [
        ("今天天气怎么样", "", "warning", "请填写问题和回答。"),
        (" ", "答", "warning", "请填写问题和回答。"),
        ("怎么挂失", "新回答", "error", "这个问法已属于条目“怎么挂失”。请改写，或忽略这组问题。"),
    ],
)
def test_what_was_written_stays_when_it_cannot_be_saved(
    bank: FaqSearch, question: str, answer: str, kind: str, said: str
) -> None:
    name = group_names(bank)[0]
    app = act(name, "write")
    app.text_input(key=f"unanswered_question_{name}").set_value(question)
    app.text_area(key=f"unanswered_answer_{name}").set_value(answer)
    app.text_input(key=f"unanswered_new_category_{name}").set_value("新")
    app.button(key=f"unanswered_write_{name}").click()
    app.run()
    assert [box.value for box in (app.warning if kind == "warning" else app.error)] == [said]
    assert app.text_input(key=f"unanswered_question_{name}").value == question
    assert app.text_area(key=f"unanswered_answer_{name}").value == answer
    assert app.text_input(key=f"unanswered_new_category_{name}").value == "新"
    assert bank.counts("bank").entries == 2
    assert len(group_names(bank)) == 2


def test_a_draft_outlives_another_action_and_newer_queries(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = act(name, "write")
    app.text_area(key=f"unanswered_answer_{name}").set_value("还没写完").run()
    bank.search("今天天气怎样啊", corpus="bank")
    app.segmented_control(key=f"unanswered_action_{name}").set_value("attach").run()
    assert [area.key for area in app.text_area] == []
    app.segmented_control(key=f"unanswered_action_{name}").set_value("write").run()
    assert app.text_area(key=f"unanswered_answer_{name}").value == "还没写完"
    assert any(item.value.startswith("问过 4 次") for item in app.caption)


def test_dismiss_and_take_it_back(bank: FaqSearch) -> None:
    name = group_names(bank)[0]
    app = open_page("unanswered")
    app.button(key=f"unanswered_dismiss_{name}").click()
    app.run()
    assert headings(app) == ["##### 猫能抵押吗"]
    assert {how for how, _ in handled(bank)["今天天气怎样啊"]} == {"dismissed"}
    assert "已忽略“今天天气怎么样”" in texts_of(app)
    app.button(key="unanswered_undo").click()
    app.run()
    assert headings(app) == ["##### 今天天气怎么样", "##### 猫能抵押吗"]
    assert handled(bank)["今天天气怎样啊"].pop()[0] is None
    assert "已忽略" not in texts_of(app)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EntryNotFoundError("gone"), "这个条目刚刚被删除，请另选一个。"),
        (QueryNotFoundError("gone"), "这组问题已不在记录中，请刷新。"),
    ],
)
def test_what_others_deleted_meanwhile_is_told(
    bank: FaqSearch, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def refuse(*args: object, **values: object) -> None:
        raise error

    name = group_names(bank)[0]
    app = act(name, "attach")
    monkeypatch.setattr(FaqSearch, "attach_queries", refuse)
    app.button(key=f"unanswered_attach_{name}").click()
    app.run()
    assert said in texts_of(app)
    assert headings(app) == ["##### 今天天气怎么样", "##### 猫能抵押吗"]


def test_a_group_without_entries_is_answered_by_a_new_one(ui: FaqSearch) -> None:
    ui.create_corpus("new")
    ui.search("有人吗", corpus="new")
    name = unanswered._name(ui.unanswered("new")[0])
    app = act(name, "attach")
    assert [box.value for box in app.info] == ["没有可归入的条目，请新建一条。"]


def test_groups_come_ten_at_a_time(bank: FaqSearch) -> None:
    for number in range(12):
        bank.search(f"没人知道的问题 {number}", corpus="bank")
    app = open_page("unanswered")
    assert len(headings(app)) == 10
    app.button(key="unanswered_more").click()
    app.run()
    assert len(headings(app)) == 14
    assert "unanswered_more" not in [button.key for button in app.button]


def test_an_empty_queue_is_good_news(ui: FaqSearch) -> None:
    ui.create_corpus("bank")
    app = open_page("unanswered")
    assert [box.value for box in app.success] == ["全部处理完了，没有未解答的问题。"]
    app = open_page("unanswered", lang="en")
    assert [box.value for box in app.success] == ["All done: there are no unanswered questions."]


def test_without_a_query_log_the_queue_says_why_it_is_empty(ui: FaqSearch) -> None:
    ui.create_corpus("bank")
    object.__setattr__(ui.settings, "query_log", False)
    app = open_page("unanswered")
    assert [box.value for box in app.info] == [
        "查询日志已关闭，因此收集不到未解答的问题。管理员可在设置中打开 query_log。"
    ]


def test_without_a_corpus(ui: FaqSearch) -> None:
    app = open_page("unanswered")
    assert not app.exception
    assert app.info[0].value.startswith("还没有知识库")


def test_a_customers_markdown_and_html_are_shown_as_written(bank: FaqSearch) -> None:
    bank.search("<script>alert(1)</script> **粗** $x$", corpus="bank")
    app = open_page("unanswered")
    heading = next(item for item in headings(app) if "script" in item)
    assert heading == "##### &lt;script\\>alert\\(1\\)&lt;/script\\> \\*\\*粗\\*\\* \\$x\\$"


def test_times_are_told_as_people_say_them() -> None:
    now = datetime(2026, 3, 1, 9, 30)
    assert unanswered._when(now - timedelta(hours=1), now) == "今天 08:30"
    assert unanswered._when(now - timedelta(hours=12), now) == "昨天 21:30"
    assert unanswered._when(now - timedelta(days=3), now) == "2026-02-26 09:30"
