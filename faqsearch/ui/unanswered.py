"""The queue of questions that found no answer: give each group to an entry, write one, or dismiss it."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import streamlit as st

from faqsearch.errors import EntryInvalidError, EntryNotFoundError, FaqSearchError, QueryNotFoundError
from faqsearch.model import ANSWER_LIMIT, LABEL_LIMIT, QUESTION_LIMIT, Corpus, EntryDraft, Hit, LoggedQuery, QueryGroup
from faqsearch.ui.common import choose_corpus, errors_shown, notify, person, plain, service, t

SHOWN = 10
"""Groups that are drawn at first, and more for each click."""
LIMIT = 100
"""Groups that are asked for."""
_WORDINGS = 4
_PREVIEW = 90

# Streamlit's own English hints below boxes go; long words break.
_STYLE = """<style>
[data-testid="InputInstructions"] { display: none; }
[class*="st-key-unanswered_card_"] { overflow-wrap: anywhere; }
[class*="st-key-unanswered_card_"] h5 { padding: 0; }
</style>"""


def page() -> None:
    """Draw the page."""
    st.html(_STYLE)
    corpus = choose_corpus()
    if corpus is None:
        return
    with st.spinner(t("unanswered.loading"), show_time=False):
        groups = service().unanswered(corpus.name, limit=LIMIT)
    _undo(corpus)
    if not groups:
        _empty()
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        count = t("unanswered.many" if len(groups) == LIMIT else "unanswered.count", groups=len(groups))
        st.markdown(f"**{count}** · {t('unanswered.asked', count=sum(group.count for group in groups))}")
        st.button(t("unanswered.refresh"), icon=":material/refresh:", key="unanswered_refresh", type="tertiary")
    shown = st.session_state.setdefault("unanswered_shown", SHOWN)
    categories = list(service().categories(corpus.name))
    for group in groups[:shown]:
        _card(corpus.name, group, categories)
    if len(groups) > shown and st.button(
        t("unanswered.more", count=min(SHOWN, len(groups) - shown)), key="unanswered_more", width="stretch"
    ):
        st.session_state["unanswered_shown"] = shown + SHOWN
        st.rerun()


def _empty() -> None:
    if service().settings.query_log:
        st.success(t("unanswered.empty"), icon=":material/task_alt:")
        st.caption(t("unanswered.empty_hint"))
    else:
        st.info(t("unanswered.no_log"), icon=":material/visibility_off:")


def _undo(corpus: Corpus) -> None:
    """The group that was dismissed last can be taken back."""
    name, query_ids, text = st.session_state.get("unanswered_dismissed", ("", (), ""))
    if name != corpus.name:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(t("unanswered.dismissed", question=plain(_short(text))))
        if st.button(t("unanswered.undo"), icon=":material/undo:", key="unanswered_undo", type="tertiary"):
            del st.session_state["unanswered_dismissed"]
            for query_id in query_ids:
                service().enqueue(query_id)
            st.rerun()


@st.fragment
def _card(corpus: str, group: QueryGroup, categories: list[str]) -> None:
    """One group: a fragment, so that work on it neither groups the queue again nor redraws the others."""
    name = _name(group)
    text = group.queries[0].query
    with errors_shown(), st.container(border=True, key=f"unanswered_card_{name}", gap="small"):
        left, right = st.columns([3, 2], vertical_alignment="center")
        with left:
            st.markdown(f"##### {plain(text)}")
            st.caption(_facts(group))
        with right, st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
            actions = {item: t(f"unanswered.{item}") for item in ("attach", "write")}
            action = st.segmented_control(
                t("unanswered.action"),
                list(actions),
                format_func=actions.__getitem__,
                key=f"unanswered_action_{name}",
                label_visibility="collapsed",
                persist_state="session",
            )
            dismissed = st.button(
                t("unanswered.dismiss"),
                icon=":material/do_not_disturb_on:",
                key=f"unanswered_dismiss_{name}",
                type="tertiary",
                help=t("unanswered.dismiss_help"),
            )
        if dismissed:
            _dismiss(corpus, group)
        _wordings(group)
        if action == "attach":
            _attach(corpus, group)
        elif action == "write":
            _write(corpus, group, categories)


def _facts(group: QueryGroup) -> str:
    kinds = [t(f"unanswered.reason_{reason}") for reason in dict.fromkeys(map(_reason, group.queries))]
    last = t("unanswered.last", when=_when(group.queries[0].at, datetime.now()))
    return " · ".join([t("unanswered.times", count=group.count), last, *kinds])


def _reason(query: LoggedQuery) -> str:
    """Why a query is in the queue."""
    if query.feedback in ("wrong", "instead"):
        return query.feedback
    return "none" if query.decision == "none" else "queued"


def _wordings(group: QueryGroup) -> None:
    """How else it was asked."""
    counts = Counter(query.query for query in group.queries)
    del counts[group.queries[0].query]
    lines = [plain(text) + (f" ×{count}" if count > 1 else "") for text, count in counts.most_common()]
    if not lines:
        return
    if len(lines) <= _WORDINGS:
        st.caption(t("unanswered.others", texts=t("unanswered.separator").join(lines)))
    else:
        with st.expander(t("unanswered.others_many", count=len(lines))):
            st.markdown("\n".join(f"- {line}" for line in lines))


# --- what can be done with a group -----------------------------------------------------------------


# No forms here: what stands in a form is lost when its group is folded up before it is saved.


def _attach(corpus: str, group: QueryGroup) -> None:
    name = _name(group)
    wanted = st.text_input(
        t("unanswered.search"),
        key=f"unanswered_search_{name}",
        placeholder=t("unanswered.search_hint"),
        icon=":material/search:",
        autocomplete="off",
        max_chars=QUESTION_LIMIT,
        persist_state="session",
    ).strip()
    hits = {hit.entry_id: hit for hit in (service().neighbours(wanted, corpus=corpus) if wanted else group.nearest)}
    if not hits:
        st.info(t("unanswered.no_entries"), icon=":material/inbox:")
        return
    labels = {hit.entry_id: _label(hit) for hit in hits.values()}
    entry_id = st.radio(
        t("unanswered.found" if wanted else "unanswered.nearest"),
        list(hits),
        format_func=labels.__getitem__,
        captions=[_preview(hit) for hit in hits.values()],
        # Another search offers other entries: none of them may seem to have been chosen before.
        key=f"unanswered_entry_{name}_{wanted}",
    )
    phrasing = st.text_input(
        t("unanswered.phrasing"),
        value=group.queries[0].query,
        key=f"unanswered_phrasing_{name}",
        help=t("unanswered.phrasing_help"),
        max_chars=QUESTION_LIMIT,
        persist_state="session",
    )
    if not st.button(
        t("unanswered.attach_save"), type="primary", icon=":material/add_link:", key=f"unanswered_attach_{name}"
    ):
        return
    if not phrasing.strip():
        st.warning(t("unanswered.phrasing_empty"), icon=":material/edit:")
        return
    try:
        entry = service().attach_queries(_ids(group), entry_id, phrasing, who=person())
    except FaqSearchError as exc:
        _explain(exc)
        return
    notify(t("unanswered.attached", question=plain(_short(entry.question))))
    st.rerun()


def _write(corpus: str, group: QueryGroup, categories: list[str]) -> None:
    name = _name(group)
    question = st.text_input(
        t("unanswered.question"),
        value=group.queries[0].query,
        key=f"unanswered_question_{name}",
        max_chars=QUESTION_LIMIT,
        persist_state="session",
    )
    answer = st.text_area(
        t("unanswered.answer"),
        key=f"unanswered_answer_{name}",
        placeholder=t("unanswered.answer_hint"),
        height=160,
        max_chars=ANSWER_LIMIT,
        persist_state="session",
    )
    known, new = st.columns(2)
    choices = {"": t("unanswered.no_category"), **{item: item for item in categories if item}}
    category = known.selectbox(
        t("unanswered.category"),
        list(choices),
        format_func=choices.__getitem__,
        key=f"unanswered_category_{name}",
        persist_state="session",
    )
    new_category = new.text_input(
        t("unanswered.new_category"),
        key=f"unanswered_new_category_{name}",
        placeholder=t("unanswered.new_category_hint"),
        max_chars=LABEL_LIMIT,
        persist_state="session",
    )
    if not st.button(t("unanswered.write_save"), type="primary", icon=":material/add:", key=f"unanswered_write_{name}"):
        return
    if not question.strip() or not answer.strip():
        st.warning(t("unanswered.incomplete"), icon=":material/edit:")
        return
    draft = EntryDraft(question=question, answer=answer, category=new_category.strip() or category or "")
    try:
        entry = service().answer_queries(_ids(group), corpus, draft, who=person())
    except FaqSearchError as exc:
        _explain(exc)
        return
    notify(t("unanswered.written", question=plain(_short(entry.question))))
    st.rerun()


def _dismiss(corpus: str, group: QueryGroup) -> None:
    try:
        service().dismiss_queries(_ids(group), who=person())
    except QueryNotFoundError:
        st.warning(t("unanswered.gone"), icon=":material/history:")
        return
    st.session_state["unanswered_dismissed"] = (corpus, _ids(group), group.queries[0].query)
    st.rerun()


def _explain(error: FaqSearchError) -> None:
    """Say beside the group why it was not saved."""
    if isinstance(error, EntryInvalidError) and error.entry_id is not None:
        other = service().entry(error.entry_id)
        st.error(t("unanswered.taken", question=plain(other.question)), icon=":material/link_off:")
        return
    if isinstance(error, EntryNotFoundError):
        st.error(t("unanswered.entry_gone"), icon=":material/link_off:")
    elif isinstance(error, QueryNotFoundError):
        st.warning(t("unanswered.gone"), icon=":material/history:")
    else:
        st.error(t("unanswered.not_saved", detail=plain(str(error))), icon=":material/error:")


# --- words -----------------------------------------------------------------------------------------


def _name(group: QueryGroup) -> str:
    """What widgets know a group by: its oldest query, which stays while newer ones join."""
    return group.queries[-1].query_id


def _ids(group: QueryGroup) -> list[str]:
    return [query.query_id for query in group.queries]


def _label(hit: Hit) -> str:
    return f"{plain(hit.question)} · {hit.score:.2f}"


def _preview(hit: Hit) -> str:
    text = plain(_short(" ".join(hit.answer.split()), _PREVIEW))
    return text.replace("//", "/\u2060/")  # or Markdown makes links of bare addresses


def _short(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _when(at: datetime, now: datetime) -> str:
    if at.date() == now.date():
        return t("unanswered.today", time=f"{at:%H:%M}")
    if at.date() == now.date() - timedelta(days=1):
        return t("unanswered.yesterday", time=f"{at:%H:%M}")
    return f"{at:%Y-%m-%d %H:%M}"
