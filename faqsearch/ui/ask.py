"""The first page: a customer's words in, and at a glance an answer, something near, or nothing."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from faqsearch.errors import FaqSearchError, QueryError
from faqsearch.model import QUERY_LIMIT, Corpus, Feedback, Hit, SearchResult
from faqsearch.ui import charts
from faqsearch.ui.common import choose_corpus, person, plain, safe_markdown, service, state, t

LINK_LIMIT = 500
"""Longest question, in characters, that the address carries."""
RECENT = 8
"""Questions that are kept for one click."""

_STYLE = """<style>
.st-key-query input { font-size: 1.3rem; padding: 0.9rem 1rem; }
.st-key-answer_text p, .st-key-answer_text li { font-size: 1.12rem; line-height: 1.75; overflow-wrap: anywhere; }
.st-key-answer h3 { padding-top: 0; }
</style>"""
# The same text for everybody: what is copied is read from the page, never written into the script.
_SCRIPT = """<script>
if (!window.faqsearchCopy) {
  window.faqsearchCopy = true;
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".st-key-copy button")) return;
    const source = document.querySelector(".st-key-answer_text");
    const text = source ? source.innerText : "";
    if (navigator.clipboard) { navigator.clipboard.writeText(text); return; }
    const area = document.createElement("textarea");
    area.value = text; document.body.appendChild(area); area.select();
    document.execCommand("copy"); area.remove();
  }, true);
}
const box = document.querySelector(".st-key-query input");
if (box && !box.value) box.focus();
</script>"""


def page() -> None:
    """Draw the page."""
    st.html(_STYLE)
    corpus = choose_corpus()
    if corpus is None:
        return
    if service().counts(corpus.name).entries == 0:
        st.info(t("ask.empty_corpus"), icon=":material/inbox:")
        return
    query = _ask()
    if query:
        result = _search(query, corpus)
        if result is not None:
            _show(result, corpus)
    else:
        st.caption(t("ask.start"))
    st.html(_SCRIPT, unsafe_allow_javascript=True)
    if not query:
        with suppress(FaqSearchError):  # whatever is wrong is told when somebody asks
            service().warm_up(corpus.name)  # while the person is typing


def _ask() -> str:
    """The box and the recent questions; the query, "" where there is none yet."""
    if "query" not in st.session_state:
        st.session_state["query"] = st.query_params.get("q", "")
    chosen = st.session_state.pop("recent", None)
    if chosen:
        st.session_state["query"] = chosen
    query = st.text_input(
        t("ask.box"),
        key="query",
        placeholder=t("ask.placeholder"),
        max_chars=QUERY_LIMIT,
        label_visibility="collapsed",
        autocomplete="off",
        icon=":material/search:",
    )
    query = (query or "").strip()
    recent = [text for text in state("recent_queries", []) if text != query]
    if recent:
        st.pills(t("ask.recent"), recent, key="recent", label_visibility="collapsed", format_func=_short)
    if query:
        if len(query) <= LINK_LIMIT:
            st.query_params["q"] = query
        st.session_state["recent_queries"] = [query, *recent][:RECENT]
    elif "q" in st.query_params:
        del st.query_params["q"]
    return query


def _search(query: str, corpus: Corpus) -> SearchResult | None:
    """The result of a query; a rerun for a click on the page neither searches nor logs it again."""
    asked = (query, corpus.name, corpus.revision, corpus.answer_threshold, corpus.suggest_threshold)
    if st.session_state.get("asked") != asked:
        try:
            with st.spinner(t("ask.searching"), show_time=False):
                st.session_state["result"] = service().search(query, corpus=corpus.name, k=6)
        except QueryError as exc:
            st.warning(t("common.error", detail=exc))
            return None
        st.session_state["asked"] = asked
    result: SearchResult = st.session_state["result"]
    return result


def _show(result: SearchResult, corpus: Corpus) -> None:
    if result.index_version is None:
        st.caption(t("ask.without_index"))
    if result.decision == "answer":
        st.success(t("ask.answer"), icon=":material/check_circle:")
        _show_answer(result.hits[0], result)
        if len(result.hits) > 1:
            st.markdown(f"**{t('ask.others')}**")
            _show_scores(result.hits[1:], corpus)
            _show_candidates(result.hits[1:], result)
    elif result.decision == "suggest":
        st.warning(t("ask.suggest"), icon=":material/help:")
        _show_candidates(result.hits, result, expanded=True)
        _show_scores(result.hits, corpus)
        _show_queue(result)
    else:
        st.error(t("ask.none"), icon=":material/block:")
        _show_queue(result)
        if result.hits:
            with st.expander(t("ask.nearest"), key="nearest"):
                _show_candidates(result.hits, result)
                _show_scores(result.hits, corpus)


def _show_answer(hit: Hit, result: SearchResult) -> None:
    with st.container(border=True, key="answer"):
        st.markdown(f"### {plain(hit.question)}")
        _show_labels(hit)
        with st.container(key="answer_text"):
            st.markdown(safe_markdown(hit.answer))
        with st.container(horizontal=True):
            if st.button(t("ask.copy"), key="copy", icon=":material/content_copy:", type="primary"):
                st.toast(t("ask.copied"), icon=":material/check:")
            _feedback_button("right", result, icon=":material/thumb_up:")
            _feedback_button("wrong", result, icon=":material/thumb_down:")
        _show_feedback(result)


def _show_labels(hit: Hit) -> None:
    with st.container(horizontal=True, gap="small"):
        st.badge(t("ask.score", score=hit.score), color="gray")
        if hit.category:
            st.badge(plain(hit.category), color="blue")
        if hit.key:
            st.badge(plain(hit.key), color="gray")
    if hit.matched_question != hit.question:
        st.caption(plain(t("ask.matched", text=hit.matched_question)))


def _show_candidates(hits: tuple[Hit, ...], result: SearchResult, *, expanded: bool = False) -> None:
    """Each candidate as a line that opens to its answer; the first one open if asked for."""
    for hit in hits:
        label = f"{plain(hit.question)} · {hit.score:.3f}"
        with st.expander(label, expanded=expanded and hit.rank == 1, key=f"candidate_{hit.entry_id}"):
            _show_labels(hit)
            st.markdown(safe_markdown(hit.answer))
            _feedback_button("instead", result, hit, icon=":material/how_to_reg:")
    if result.decision != "answer":
        _show_feedback(result)


def _show_scores(hits: tuple[Hit, ...], corpus: Corpus) -> None:
    """Scores as bars against the two thresholds."""
    picture = charts.candidates(hits, corpus.answer_threshold, corpus.suggest_threshold)
    st.altair_chart(picture, key="scores")


def _feedback_button(kind: Feedback, result: SearchResult, hit: Hit | None = None, *, icon: str) -> None:
    key = f"{kind}_{hit.entry_id}" if hit else kind
    clicked = st.button(t(f"ask.{kind}"), key=key, icon=icon, disabled=not result.query_id)
    if clicked:
        entry_id = hit.entry_id if hit else None
        service().give_feedback(result.query_id, kind, entry_id=entry_id, who=person())
        st.session_state["feedback"] = (result.query_id, kind, hit.question if hit else "")


def _show_feedback(result: SearchResult) -> None:
    """What was said of this result, or why nothing can be."""
    query_id, kind, question = st.session_state.get("feedback", ("", "", ""))
    if not result.query_id:
        st.caption(t("ask.no_log"))
    elif query_id == result.query_id:
        values = {"question": question} if kind == "instead" else {}
        st.caption(f":material/check: {plain(t(f'ask.thanks_{kind}', **values))}")


def _show_queue(result: SearchResult) -> None:
    """That the question waits for an answer, or the button that makes it wait."""
    if not result.query_id:
        st.caption(t("ask.no_log"))
        return
    if st.button(t("ask.queue"), key="queue", icon=":material/playlist_add:"):
        service().enqueue(result.query_id)
        st.session_state["queued"] = result.query_id
    if st.session_state.get("queued") == result.query_id:
        st.caption(f":material/check: {t('ask.queued')}")


def _short(text: str) -> str:
    return plain(text if len(text) <= 24 else text[:23] + "…")
