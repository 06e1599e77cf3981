"""The page "Entries": finding, editing, near-duplicates, two people, history; what is stored afterwards."""

from __future__ import annotations

from datetime import date, datetime, time

import pytest
from fakes import FakeEncoder, FakeSource
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Pagination
from ui_app import open_page, texts_of

from faqsearch import EntryDraft, FaqSearch
from faqsearch.errors import EntryInvalidError, EntryNotFoundError
from faqsearch.model import Entry
from faqsearch.ui.differences import mark

WITH_SIMILAR = EntryDraft(
    question="怎么还款",
    answer="在 App 里**还款**。\n\n- 一\n- 二",
    similar=("如何还钱", "还款方式"),
    key="F1",
    category="贷款",
)


@pytest.fixture
def bank(ui: FaqSearch) -> FaqSearch:
    ui.create_corpus("bank", title="银行")
    ui.set_corpus("bank", answer_threshold=0.9, suggest_threshold=0.5)
    return ui


@pytest.fixture
def loan(bank: FaqSearch) -> Entry:
    return bank.add_entry("bank", WITH_SIMILAR, who="甲")


def write(faq: FaqSearch, question: str, **fields: object) -> Entry:
    return faq.add_entry("bank", EntryDraft(question=question, answer="答", **fields), who="甲")  # type: ignore[arg-type] # its fields


def opened(entry: Entry | str, **query: str) -> AppTest:
    ref = entry if isinstance(entry, str) else str(entry.id)
    return clean(open_page("entries_page", entry=ref, corpus="bank", **query))


def listed(app: AppTest) -> list[str]:
    """The questions of the list, in its order."""
    return [button.label for button in app.button if str(button.key).startswith("open_")]


def clean(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].message
    return app


def press(app: AppTest, key: str) -> AppTest:
    return clean(app.button(key=key).click().run())


def address(app: AppTest, name: str = "entry") -> str:
    value = app.query_params.get(name, "")
    return value if isinstance(value, str) else value[0]


def pagination(app: AppTest) -> Pagination:
    found = app.get("pagination")[0]
    assert isinstance(found, Pagination)
    return found


def keys(app: AppTest) -> set[str]:
    return {str(button.key) for button in app.button}


def toasts(app: AppTest) -> list[str]:
    return [toast.value for toast in app.toast]


# --- the list ------------------------------------------------------------------------------------


def test_without_a_corpus_it_says_what_to_do(ui: FaqSearch) -> None:
    app = clean(open_page("entries_page"))
    assert "还没有知识库" in app.info[0].value


def test_an_empty_corpus_says_how_to_begin(bank: FaqSearch) -> None:
    app = clean(open_page("entries_page"))
    assert "还没有条目" in app.info[0].value
    press(app, "entries_add")
    assert address(app) == "new"


def test_the_list_shows_newest_change_first(bank: FaqSearch, loan: Entry) -> None:
    write(bank, "怎么 *开户*", enabled=False)
    app = clean(open_page("entries_page"))
    assert listed(app) == [r"怎么 \*开户\*", "怎么还款"]
    said = texts_of(app)
    assert "F1 · 贷款 · 2 个相似问 ·" in said
    assert ":gray-badge[已停用]" in said
    assert "共 2 条，已选 0 条" in said


def test_filters_by_text_category_and_state(bank: FaqSearch, loan: Entry) -> None:
    write(bank, "开户", category="账户")
    write(bank, "销户", enabled=False)
    write(bank, "旧活动", valid_to=datetime(2020, 1, 1))
    write(bank, "新活动", valid_from=datetime(2999, 1, 1))
    app = clean(open_page("entries_page"))

    def only(text: str = "", category: str = "\1", state: str | None = None) -> list[str]:
        app.text_input(key="entries_text").set_value(text)
        app.selectbox(key="entries_category").set_value(category)
        app.selectbox(key="entries_state").set_value(state)
        return listed(clean(app.run()))

    assert only(text="如何还") == ["怎么还款"]  # a similar question
    assert only(text="F1") == ["怎么还款"]
    assert only(category="账户") == ["开户"]
    assert only(category="") == ["新活动", "旧活动", "销户"]
    assert only(state="on") == ["开户", "怎么还款"]
    assert only(state="off") == ["销户"]
    assert only(state="expired") == ["旧活动"]
    assert only(state="upcoming") == ["新活动"]
    assert only(text="没有") == []
    assert app.info[0].value == "没有符合条件的条目。"
    press(app, "entries_clear")
    assert len(listed(app)) == 5
    assert app.text_input(key="entries_text").value == ""


def test_pages_and_their_size(bank: FaqSearch) -> None:
    for number in range(45):
        write(bank, f"问题{number:02}")
    app = clean(open_page("entries_page"))
    assert listed(app) == [f"问题{number:02}" for number in range(44, 24, -1)]
    clean(pagination(app).set_value(3).run())
    assert listed(app) == [f"问题{number:02}" for number in range(4, -1, -1)]
    clean(app.selectbox(key="entries_size").set_value(50).run())
    assert len(listed(app)) == 45
    clean(app.selectbox(key="entries_size").set_value(20).run())
    clean(pagination(app).set_value(3).run())
    clean(app.text_input(key="entries_text").set_value("问题1").run())
    assert listed(app) == [f"问题{number}" for number in range(19, 9, -1)]


def test_the_filter_and_page_outlive_a_visit_to_an_entry(bank: FaqSearch) -> None:
    for number in range(25):
        write(bank, f"问题{number:02}")
    app = clean(open_page("entries_page"))
    clean(app.text_input(key="entries_text").set_value("问题").run())
    clean(pagination(app).set_value(2).run())
    first = bank.entry_page("bank", offset=20).entries[0]
    press(app, f"open_{first.id}")
    assert address(app) == str(first.id)
    press(app, "entry_back")
    assert address(app) == ""
    assert listed(app) == [f"问题{number:02}" for number in range(4, -1, -1)]
    assert app.text_input(key="entries_text").value == "问题"


def test_several_are_switched_and_given_a_category(bank: FaqSearch) -> None:
    one, two, three = (write(bank, text) for text in ("一", "二", "三"))
    app = clean(open_page("entries_page"))
    assert app.button(key="entries_disable").disabled
    clean(app.checkbox(key=f"pick_{one.id}").check().run())
    clean(app.checkbox(key=f"pick_{two.id}").check().run())
    assert "已选 2 条" in texts_of(app)
    press(app, "entries_disable")
    assert [bank.entry(item.id).enabled for item in (one, two, three)] == [False, False, True]
    assert toasts(app) == ["已修改 2 条"]
    assert "已选 0 条" in texts_of(app)
    clean(app.checkbox(key="pick_page").check().run())
    assert "已选 3 条" in texts_of(app)
    clean(app.checkbox(key=f"pick_{three.id}").uncheck().run())
    assert not app.checkbox(key="pick_page").value
    press(app, "entries_enable")
    assert bank.entry(one.id).enabled and bank.entry(two.id).enabled
    clean(app.checkbox(key="pick_page").check().run())
    clean(app.selectbox(key="entries_new_category").set_value("\0").run())
    clean(app.text_input(key="entries_category_name").set_value("新类").run())
    press(app, "entries_category_apply")
    assert bank.categories("bank") == {"新类": 3}
    clean(app.checkbox(key=f"pick_{one.id}").check().run())
    clean(app.selectbox(key="entries_new_category").set_value("").run())
    press(app, "entries_category_apply")
    assert bank.categories("bank") == {"": 1, "新类": 2}


def test_another_filter_forgets_what_is_out_of_sight(bank: FaqSearch) -> None:
    one = write(bank, "一")
    write(bank, "二")
    app = clean(open_page("entries_page"))
    clean(app.checkbox(key=f"pick_{one.id}").check().run())
    clean(app.text_input(key="entries_text").set_value("二").run())
    assert app.button(key="entries_disable").disabled


# --- one entry -----------------------------------------------------------------------------------


def test_the_address_opens_an_entry_of_any_corpus(bank: FaqSearch, loan: Entry) -> None:
    bank.create_corpus("another")
    app = clean(open_page("entries_page", entry=str(loan.id)))
    assert app.text_input(key="entry_question").value == "怎么还款"
    assert app.text_area(key="entry_similar").value == "如何还钱\n还款方式"
    assert app.text_input(key="entry_key").value == "F1"
    assert app.selectbox(key="entry_category").value == "贷款"
    assert address(app, "corpus") == "bank"
    assert app.button(key="entry_discard").disabled
    # Switching the corpus closes it.
    clean(app.sidebar.selectbox(key="corpus_choice").set_value("another").run())
    assert address(app) == ""
    assert "还没有条目" in app.info[0].value


def test_the_corpus_switch_follows_the_address(bank: FaqSearch, loan: Entry) -> None:
    bank.create_corpus("another")
    there = bank.add_entry("another", EntryDraft(question="别处", answer="答"))
    app = clean(open_page("entries_page", corpus="another"))
    for entry in (loan, there, loan):
        app.query_params["entry"] = str(entry.id)
        clean(app.run())
        assert app.text_input(key="entry_question").value == entry.question
        assert app.sidebar.selectbox(key="corpus_choice").value == address(app, "corpus") == entry.corpus
        assert not app.warning


def test_an_address_of_nothing_is_told(bank: FaqSearch) -> None:
    for ref in ("999", "x", "9" * 40):
        app = opened(ref)
        assert "没有 ID 为" in app.warning[0].value
    press(app, "entry_back")
    assert address(app) == ""


def test_every_field_is_edited_and_found_at_once(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    app.text_input(key="entry_question").set_value("怎么提前还款")
    app.text_area(key="entry_similar").set_value("如何还钱\n\n  早点还 \n")
    app.text_area(key="entry_answer").set_value("新答案\n第二行")
    app.selectbox(key="entry_category").set_value("\0")
    app.text_input(key="entry_key").set_value("F9")
    app.toggle(key="entry_enabled").set_value(True)
    app.date_input(key="entry_valid_from").set_value(date(2020, 1, 1))
    app.date_input(key="entry_valid_to").set_value(date(2999, 12, 31))
    clean(app.run())
    clean(app.text_input(key="entry_category_new").set_value("新类").run())
    clean(app.time_input(key="entry_valid_from_time").set_value(time(8, 30)).run())
    assert "未保存" in texts_of(app)
    press(app, "entry_save")
    saved = bank.entry(loan.id)
    assert saved.draft == EntryDraft(
        question="怎么提前还款",
        similar=("如何还钱", "早点还"),
        answer="新答案\n第二行",
        category="新类",
        key="F9",
        valid_from=datetime(2020, 1, 1, 8, 30),
        valid_to=datetime(2999, 12, 31, 23, 59, 59),
    )
    assert toasts(app) == ["已保存"]
    assert "未保存" not in texts_of(app)
    assert app.selectbox(key="entry_category").value == "新类"
    assert app.text_area(key="entry_similar").value == "如何还钱\n早点还"
    assert bank.search("早点还", corpus="bank").decision == "answer"


def test_what_the_fields_cannot_show_stays_as_it_is(bank: FaqSearch) -> None:
    entry = write(bank, "活动", valid_from=datetime(2020, 1, 1, 8, 0, 30), similar=("两\n行",))
    app = opened(entry)
    assert app.button(key="entry_discard").disabled
    clean(app.text_area(key="entry_answer").set_value("改了").run())
    press(app, "entry_save")
    saved = bank.entry(entry.id)
    assert (saved.answer, saved.valid_from, saved.similar) == ("改了", datetime(2020, 1, 1, 8, 0, 30), ("两\n行",))


def test_saving_what_nobody_changed_changes_nothing(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    press(app, "entry_save")
    assert bank.entry(loan.id) == loan
    press(app, "entry_back")
    press(app, "entries_add")
    press(app, "entry_save")
    assert [error.value for error in app.error] == ["请填写问题。"]


def test_the_preview_runs_nothing(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("<script>x</script>\n- [l](javascript:x)").run())
    assert "&lt;script>x&lt;/script>  \n- [l](#)" in [item.value for item in app.markdown]


def test_who_saves_is_in_the_history(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    app.session_state["person"] = "小王"
    clean(app.text_area(key="entry_answer").set_value("改了").run())
    press(app, "entry_save")
    assert [(change.who, change.action) for change in bank.history(loan.id)] == [("小王", "edit"), ("甲", "add")]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("question", " ", "请填写问题。"),
        ("answer", "", "请填写答案。"),
        ("similar", "x" * 1001, "太长，最多 1,000 个字符。"),
        ("answer", "a\x01b", "含有无法保存的字符（如控制字符），请删去。"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_lost(bank: FaqSearch, loan: Entry, field: str, value: str, says: str) -> None:
    app = opened(loan)
    kind = app.text_input if field == "question" else app.text_area
    clean(kind(key=f"entry_{field}").set_value(value).run())
    press(app, "entry_save")
    assert [error.value for error in app.error] == [says]
    assert kind(key=f"entry_{field}").value == value
    assert bank.entry(loan.id) == loan


def test_a_period_that_ends_before_it_begins(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    app.date_input(key="entry_valid_from").set_value(date(2026, 2, 1))
    clean(app.date_input(key="entry_valid_to").set_value(date(2026, 1, 1)).run())
    press(app, "entry_save")
    assert [error.value for error in app.error] == ["失效时间早于生效时间。"]


def test_adding(bank: FaqSearch, loan: Entry) -> None:
    app = clean(open_page("entries_page"))
    press(app, "entries_add")
    assert app.button(key="entry_discard").disabled
    app.text_input(key="entry_question").set_value("怎么开户")
    app.selectbox(key="entry_category").set_value("贷款")
    clean(app.text_area(key="entry_answer").set_value("去网点").run())
    press(app, "entry_save")
    added = bank.entry_page("bank", text="怎么开户").entries[0]
    assert (added.question, added.answer, added.category, added.enabled) == ("怎么开户", "去网点", "贷款", True)
    assert toasts(app) == ["已新增"]
    assert address(app) == str(added.id)
    press(app, "entry_back")
    press(app, "entries_add")
    assert app.text_input(key="entry_question").value == ""


def test_a_draft_outlives_going_elsewhere(bank: FaqSearch, loan: Entry) -> None:
    other = write(bank, "开户")
    app = opened(loan)
    app.text_area(key="entry_answer").set_value("写到一半")
    press(app, "entry_back")  # in one go with the typing
    assert "未保存" in texts_of(app)
    press(app, f"open_{other.id}")
    assert app.text_area(key="entry_answer").value == "答"
    press(app, "entry_back")
    press(app, f"open_{loan.id}")
    assert app.text_area(key="entry_answer").value == "写到一半"
    assert bank.entry(loan.id) == loan


def test_a_draft_outlives_another_language(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("写到一半").run())
    app.session_state["language"] = "en"
    clean(app.run())
    assert app.text_area(key="entry_answer").value == "写到一半"
    assert app.button(key="entry_save").label == "Save"


def test_discarded_changes_can_be_taken_back(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("不要了").run())
    press(app, "entry_discard")
    assert app.text_area(key="entry_answer").value == loan.answer
    press(app, "entry_aside_back")
    assert app.text_area(key="entry_answer").value == "不要了"
    assert "entry_aside_back" not in keys(app)


def test_deleting_asks_and_can_be_undone(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    press(app, "entry_delete_yes")
    with pytest.raises(EntryNotFoundError):
        bank.entry(loan.id)
    assert "已删除“怎么还款”" in texts_of(app)
    press(app, "entries_deleted_open")
    assert "删除。" in app.warning[0].value
    press(app, "entry_undelete")
    back = bank.entry_page("bank").entries[0]
    assert back.draft == WITH_SIMILAR
    assert address(app) == str(back.id)
    assert toasts(app) == ["已恢复"]


def test_an_entry_that_somebody_deletes_meanwhile_leaves_what_was_written(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("我写的").run())
    bank.delete_entry(loan.id, who="乙")
    press(app, "entry_save")
    assert "已被 乙 于" in app.warning[0].value
    assert "我写的" in texts_of(app)
    press(app, "entry_mine_as_new")
    assert app.text_area(key="entry_answer").value == "我写的"
    press(app, "entry_save")
    assert [entry.answer for entry in bank.entries("bank")] == ["我写的"]


# --- near-duplicates -----------------------------------------------------------------------------


def test_near_questions_are_shown_while_one_is_written(bank: FaqSearch, loan: Entry, encoder: FakeEncoder) -> None:
    encoder.place("怎样还贷", "如何还钱", 0.7)
    app = opened("new")
    clean(app.text_input(key="entry_question").set_value("怎样还贷").run())
    assert app.button(key=f"near_{loan.id}").label == "如何还钱"
    assert "0.70" in texts_of(app)
    before = len(encoder.encoded)
    clean(app.text_area(key="entry_answer").set_value("答").run())
    assert len(encoder.encoded) == before  # asked once
    press(app, "entry_save")
    assert len(list(bank.entries("bank"))) == 2  # near, but not so near that it is asked


def test_a_similar_question_is_compared_too_but_not_what_was_there(
    bank: FaqSearch, loan: Entry, encoder: FakeEncoder
) -> None:
    other = write(bank, "开户")
    encoder.place("办卡", "开户", 0.8)
    app = opened(loan)
    assert not [key for key in keys(app) if key.startswith("near_")]
    clean(app.text_area(key="entry_similar").set_value("如何还钱\n办卡").run())
    assert [key for key in keys(app) if key.startswith("near_")] == [f"near_{other.id}"]
    press(app, f"near_{other.id}")
    assert address(app) == str(other.id)


def test_a_question_that_is_nearly_the_same_is_saved_when_confirmed(
    bank: FaqSearch, loan: Entry, encoder: FakeEncoder
) -> None:
    encoder.place("怎样还贷", "如何还钱", 0.95)
    app = opened("new")
    app.text_input(key="entry_question").set_value("怎样还贷")
    clean(app.text_area(key="entry_answer").set_value("答").run())
    press(app, "entry_save")
    assert "有 1 个已有条目与它几乎相同" in app.warning[0].value
    assert len(list(bank.entries("bank"))) == 1
    press(app, "entry_save_anyway")
    assert len(list(bank.entries("bank"))) == 2


@pytest.mark.parametrize("enabled", [True, False])
def test_the_same_phrasing_is_refused_with_the_way_to_its_entry(bank: FaqSearch, loan: Entry, enabled: bool) -> None:
    bank.set_enabled(loan.id, enabled)
    app = opened("new")
    app.text_input(key="entry_question").set_value("还款")
    app.text_area(key="entry_similar").set_value("如何還錢")
    clean(app.text_area(key="entry_answer").set_value("答").run())
    press(app, "entry_save")
    if enabled:
        assert "问法完全相同" in texts_of(app)  # and nobody is asked whether to save it all the same
    assert [error.value for error in app.error] == ["“如何還錢”已是另一条目的问法，不能重复。"]
    assert app.button(key="entry_open_other").label == "打开：怎么还款"
    press(app, "entry_open_other")
    assert address(app) == str(loan.id)
    press(app, "entry_back")
    press(app, "entries_add")
    assert app.text_area(key="entry_similar").value == "如何還錢"  # still there


def test_a_key_that_is_taken_is_refused_with_the_way_to_its_entry(bank: FaqSearch, loan: Entry) -> None:
    other = write(bank, "开户")
    app = opened(other)
    clean(app.text_input(key="entry_key").set_value("F1").run())
    press(app, "entry_save")
    assert [error.value for error in app.error] == ["编号“F1”已被另一条目使用。"]
    press(app, "entry_open_other")
    assert address(app) == str(loan.id)


def test_an_entry_can_be_saved_while_the_encoder_is_missing(bank: FaqSearch, loan: Entry, source: FakeSource) -> None:
    del source.encoders["embedded"]
    app = opened(loan)
    clean(app.text_input(key="entry_question").set_value("怎么提前还款").run())
    assert "暂时无法查找相近的问题" in texts_of(app)
    press(app, "entry_save")
    assert bank.entry(loan.id).question == "怎么提前还款"


# --- two people ----------------------------------------------------------------------------------


@pytest.fixture
def both(bank: FaqSearch, loan: Entry) -> AppTest:
    """A person wrote another answer and pressed Save, after somebody else had saved theirs."""
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("我的答案").run())
    bank.edit_entry(loan.id, who="乙", answer="他的答案", category="还款")
    press(app, "entry_save")
    return app


def test_a_second_save_is_told_with_both_texts(bank: FaqSearch, loan: Entry, both: AppTest) -> None:
    assert "没有保存：你编辑期间，乙 于" in both.warning[0].value
    said = texts_of(both)
    assert ":red-background[他]的答案" in said
    assert ":green-background[我]的答案" in said
    assert "对方的（乙）" in said
    assert bank.entry(loan.id).answer == "他的答案"
    assert both.text_area(key="entry_answer").value == "我的答案"


def test_save_mine_over_it(bank: FaqSearch, loan: Entry, both: AppTest) -> None:
    press(both, "entry_keep_mine")
    saved = bank.entry(loan.id)
    assert (saved.answer, saved.category, saved.version) == ("我的答案", "贷款", 3)
    assert bank.history(loan.id)[0].before == bank.history(loan.id)[1].after  # theirs is in the history
    assert not both.warning


def test_take_theirs(bank: FaqSearch, loan: Entry, both: AppTest) -> None:
    press(both, "entry_take_theirs")
    assert both.text_area(key="entry_answer").value == "他的答案"
    assert both.selectbox(key="entry_category").value == "还款"
    assert not both.warning
    assert bank.entry(loan.id).version == 2
    press(both, "entry_aside_back")
    assert both.text_area(key="entry_answer").value == "我的答案"


def test_a_third_save_in_between_is_told_again(bank: FaqSearch, loan: Entry, both: AppTest) -> None:
    current = bank.entry(loan.id)
    with pytest.MonkeyPatch.context() as patch:
        real = bank.edit_entry

        def slow(entry_id: int, **options: object) -> Entry:
            patch.undo()
            real(entry_id, version=current.version, who="丙", answer="第三个")
            return real(entry_id, **options)  # type: ignore[arg-type] # handed on

        patch.setattr(bank, "edit_entry", slow)
        press(both, "entry_keep_mine")
    assert "丙" in both.warning[0].value
    assert bank.entry(loan.id).answer == "第三个"
    assert both.text_area(key="entry_answer").value == "我的答案"


def test_what_somebody_saved_is_shown_where_nothing_was_written(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    bank.edit_entry(loan.id, who="乙", answer="他的答案")
    clean(app.run())
    assert app.text_area(key="entry_answer").value == "他的答案"
    assert not app.warning


def test_the_same_change_by_two_people_is_no_conflict(bank: FaqSearch, loan: Entry) -> None:
    app = opened(loan)
    clean(app.text_area(key="entry_answer").set_value("一样").run())
    bank.edit_entry(loan.id, who="乙", answer="一样")
    clean(app.run())
    assert not app.warning
    assert app.button(key="entry_discard").disabled


# --- history -------------------------------------------------------------------------------------


def history(entry: Entry, **query: str) -> AppTest:
    app = opened(entry, **query)
    return clean(app.segmented_control(key="entry_view").set_value("history").run())


def test_the_history_says_who_when_and_what(bank: FaqSearch, loan: Entry) -> None:
    bank.edit_entry(loan.id, who="乙", question="怎么提前还款", valid_to=datetime(2999, 1, 1))
    bank.set_enabled(loan.id, False, who="丙")
    app = history(loan)
    heads = [item.value for item in app.markdown if " · " in item.value and item.value.startswith("**")]
    assert [head.rsplit(" · ", 1)[0] for head in heads] == ["**停用** · 丙", "**编辑** · 乙", "**新增** · 甲"]
    said = texts_of(app)
    assert "怎么:green-background[提前]还款" in said
    assert ":green-background[2999\\-01\\-01 00\\:00]" in said


def test_an_earlier_state_is_restored(bank: FaqSearch, loan: Entry) -> None:
    bank.edit_entry(loan.id, who="乙", answer="改坏了")
    app = history(loan)
    change = bank.history(loan.id)[0]
    press(app, f"restore_{change.id}")
    assert bank.entry(loan.id).draft == WITH_SIMILAR
    assert bank.history(loan.id)[0].action == "restore"
    assert toasts(app) == ["已恢复"]
    assert f"restore_{change.id}" not in keys(app)  # it is that state already


def test_a_state_whose_phrasing_leads_elsewhere_by_now_is_refused(bank: FaqSearch, loan: Entry) -> None:
    bank.edit_entry(loan.id, similar=())
    other = write(bank, "还款方式")
    app = history(loan)
    press(app, f"restore_{bank.history(loan.id)[0].id}")
    assert [error.value for error in app.error] == ["“还款方式”已是另一条目的问法，不能重复。"]
    press(app, "entry_open_other")
    assert address(app) == str(other.id)
    assert app.text_input(key="entry_question").value == "还款方式"  # the fields, not its history


def test_a_long_history_is_shown_in_parts(bank: FaqSearch, loan: Entry) -> None:
    for number in range(25):
        bank.edit_entry(loan.id, answer=f"第 {number} 版")
    app = history(loan)
    assert len([key for key in keys(app) if key.startswith("restore_")]) == 20
    assert app.button(key="entry_history_more").label == "再显示（还有 6 条）"
    press(app, "entry_history_more")
    assert len([key for key in keys(app) if key.startswith("restore_")]) == 25


# --- in English ----------------------------------------------------------------------------------


def test_in_english(bank: FaqSearch, loan: Entry) -> None:
    bank.edit_entry(loan.id, answer="x")
    app = clean(open_page("entries_page", lang="en"))
    assert app.button(key="entries_add").label == "New"
    press(app, f"open_{loan.id}")
    assert app.text_input(key="entry_question").label == "Question"
    clean(app.segmented_control(key="entry_view").set_value("history").run())
    assert "**Edited**" in texts_of(app)
    labels = [button.label for button in app.button]
    assert "Restore the state before" in labels
    assert not [label for label in labels if any("\u4e00" <= letter <= "\u9fff" for letter in label)]


# --- what the page relies on ---------------------------------------------------------------------


def test_an_invalid_entry_names_the_field_and_the_other_entry(bank: FaqSearch, loan: Entry) -> None:
    def problem(**fields: object) -> tuple[str, int | None, str]:
        with pytest.raises(EntryInvalidError) as caught:
            write(bank, **{"question": "x", **fields})  # type: ignore[arg-type] # its fields
        return caught.value.field, caught.value.entry_id, caught.value.phrasing

    assert problem(question="") == ("question", None, "")
    assert problem(key="F1") == ("key", loan.id, "")
    assert problem(question="怎么还款？ ".strip("？ ")) == ("question", loan.id, "怎么还款")
    assert problem(similar=("y", "还款方式")) == ("similar", loan.id, "还款方式")


def test_the_state_of_an_entry_at_a_moment(bank: FaqSearch) -> None:
    entry = write(bank, "x", valid_from=datetime(2026, 1, 1), valid_to=datetime(2026, 1, 31, 23, 59, 59))
    assert entry.state_at(datetime(2025, 12, 31)) == "upcoming"
    assert entry.state_at(datetime(2026, 1, 1)) == "on"
    assert entry.state_at(datetime(2026, 1, 31, 23, 59, 59)) == "on"
    assert entry.state_at(datetime(2026, 2, 1)) == "expired"
    assert bank.set_enabled(entry.id, False).state_at(datetime(2026, 1, 2)) == "off"


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("一样", "一样", "一样", "一样"),
        ("", "新", "", ":green-background[新]"),
        ("甲\n乙", "甲", "甲  \n:red-background[乙]", "甲"),
        ("a*b", "a*c", "a\\*:red-background[b]", "a\\*:green-background[c]"),
        ("退款没到我的卡里", "奖励的日子", ":red-background[退款没到我的卡里]", ":green-background[奖励的日子]"),
        ("x\n===", "x\n===", "x  \n\\=\\=\\=", "x  \n\\=\\=\\="),
        ("    码", "    码", "\xa0 \xa0 码", "\xa0 \xa0 码"),
        ("a" * 2000, "b" * 2000, f":red-background[{'a' * 2000}]", f":green-background[{'b' * 2000}]"),
    ],
)
def test_differences_are_marked(before: str, after: str, left: str, right: str) -> None:
    assert mark(before, after) == (left, right)
