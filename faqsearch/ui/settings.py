"""Settings: who is there and in which language, and a corpus's title, encoder and thresholds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import altair as alt
import streamlit as st

from faqsearch import evaluate
from faqsearch.errors import EncoderError, FaqSearchError, StoreError, TableError
from faqsearch.model import LABEL_LIMIT, Corpus, EncoderInfo, HitTestReport
from faqsearch.ui.common import LANGUAGES, choose_corpus, errors_shown, language, notify, person, plain, service, t
from faqsearch.ui.progress import ProgressBar
from faqsearch.ui.reasons import told
from faqsearch.ui.upload import Upload, upload_box

DAYS = 30
STEP = 0.005
_BIN = 0.02
_HEIGHT = 220
# Readable on light and on dark ground alike, and told apart without red and green too.
_COLOURS = {"right": "#2e9e5b", "other": "#d9902f", "without": "#c2504a"}
_LOG = "#5b8def"
_LINES = {"answer": "#2e9e5b", "suggest": "#d9902f"}
# Long options wrap where the window is narrow, and what is typed in is offered in the words of the page, not "Add: …".
_LIST = '[data-testid="stSelectboxVirtualDropdown"]'
_TYPED = f'{_LIST} [data-key="__creatable__"] > div'
_ENCODER_STYLE = (
    f"{_LIST} [role='option'], {_LIST} [data-item-hl] {{ height: auto; white-space: normal; }}"
    f"{_LIST} [data-item-hl] {{ line-height: 1.35; padding-block: 0.375rem; }}"
    f"{_TYPED} {{ font-size: 0; }} {_TYPED}::before {{ content: '%s'; font-size: 0.875rem; }}"
    ".st-key-settings_corpus [data-testid='stAlert'] code { font-size: 0.875em; }"
)

Picture: TypeAlias = alt.LayerChart | alt.FacetChart
Scored: TypeAlias = tuple[Sequence[float], Sequence[bool], Sequence[bool]]
"""Of hit tests: scores, whether there is an entry to find, whether it came first."""


def page() -> None:
    """Draw the page."""
    _personal()
    if not service().corpora():
        st.info(t("settings.no_corpus"), icon=":material/inbox:")
        return
    corpus = choose_corpus()
    if corpus is None:
        return
    _corpus(corpus)
    _thresholds_card(corpus)


# --- who is there ----------------------------------------------------------------------------------


def _personal() -> None:
    if person() is None and st.query_params.get("person"):
        st.session_state["person"] = st.query_params["person"][:LABEL_LIMIT]
    st.session_state["settings_language"] = language()
    with st.container(border=True):
        left, right = st.columns(2, gap="medium")
        with left, st.form("settings_person_form", border=False):
            name = st.text_input(
                t("settings.person"),
                value=person() or "",
                max_chars=LABEL_LIMIT,
                placeholder=service().settings.person or t("settings.person_example"),
                help=t("settings.person_help"),
                key="settings_person",
                persist_state="session",
            )
            if st.form_submit_button(t("settings.person_save"), icon=":material/badge:", key="settings_person_save"):
                _keep_person((name or "").strip())
        with right:
            st.segmented_control(
                t("settings.language"),
                list(LANGUAGES),
                format_func=LANGUAGES.__getitem__,
                required=True,
                key="settings_language",
                on_change=_switch_language,
            )
    if person():
        st.query_params["person"] = person() or ""


def _keep_person(name: str) -> None:
    st.session_state["person"] = name
    if not name:
        st.query_params.pop("person", None)
    notify(t("settings.person_saved", name=plain(name)) if name else t("settings.person_forgotten"))
    st.rerun()


def _switch_language() -> None:
    st.session_state["language"] = st.session_state["settings_language"]
    st.query_params["lang"] = st.session_state["language"]


# --- title and encoder -----------------------------------------------------------------------------


@st.fragment
def _corpus(corpus: Corpus) -> None:
    """A fragment: choosing an encoder, to read what it is, draws only this anew."""
    with errors_shown(), st.container(border=True, key="settings_corpus"):
        st.markdown(f"**{t('settings.corpus', name=plain(corpus.name))}**")
        left, right = st.columns(2, gap="medium")
        with left:
            title = st.text_input(
                t("settings.title"),
                max_chars=LABEL_LIMIT,
                help=t("settings.title_help"),
                key=_saved_in(f"settings_title_{corpus.name}", corpus.title),
                persist_state="session",
            )
        with right:
            encoder, lacking = _encoder_box(corpus)
        save = st.button(t("settings.save"), icon=":material/save:", key="settings_corpus_save")
        refused = save and lacking and encoder != corpus.encoder
        if lacking:
            (st.error if refused else st.warning)(_with_commands(lacking), icon=":material/download:")
        if save and not refused:
            _save_corpus(corpus, (title or "").strip(), encoder)


def _saved_in(key: str, saved: str) -> str:
    """The key of a widget, with what is saved put in: the first time, and after somebody has saved something else."""
    if st.session_state.get(f"{key}_saved") != saved:
        st.session_state[f"{key}_saved"] = st.session_state[key] = saved
    return key


def _encoder_box(corpus: Corpus) -> tuple[str, str | None]:
    """The encoder that is chosen or typed in, and what it lacks where a download mends that."""
    infos = {info.name: info for info in service().encoders()}
    texts = {ref: _described(info) for ref, info in infos.items()}
    key = _saved_in(f"settings_encoder_{corpus.name}", corpus.encoder)
    # The browser knows an option by its text, which another language or a download changes: so the reference that
    # the old text stood for is set again, or the old text would count as a name that was typed in.
    chosen = st.session_state[key] = st.session_state[key]
    st.html(f"<style>{_ENCODER_STYLE % t('settings.encoder_add')}</style>")
    chosen = st.selectbox(
        t("settings.encoder"),
        list(dict.fromkeys([*infos, chosen])),
        format_func=lambda ref: texts.get(ref, ref),
        help=t("settings.encoder_help"),
        accept_new_options=True,
        filter_mode="contains",
        key=key,
        persist_state="session",
    ).strip()
    info = infos.get(chosen)
    st.caption(" · ".join([*(_facts(info) if info else ()), t("settings.encoder_change")]))
    if info and info.where in ("missing", "incomplete") and info.source not in ("ours", "own"):
        return chosen, t(f"settings.encoder_is_{info.where}", name=info.name)
    return chosen, None


def _described(info: EncoderInfo) -> str:
    """An encoder as an option: what it is called, whether it is here, what it is for, how large it is."""
    gone = info.where == "missing" and info.source == "own"
    parts = [info.name, t(f"settings.encoder_{'gone' if gone else info.where}")]
    if info.role:
        parts.append(t(f"settings.encoder_for_{info.name}"))
    if info.parameters:
        size = info.parameters
        parts.append(t("settings.encoder_parameters", wan=f"{size / 1e4:,.0f}", millions=f"{size / 1e6:,.0f}"))
    return " · ".join(parts)


def _facts(info: EncoderInfo) -> Iterator[str]:
    own = info.source in ("ours", "own")
    yield t("settings.encoder_source", source=t(f"settings.encoder_{info.source}") if own else plain(info.source))
    if info.licence:
        yield t("settings.encoder_licence", licence=plain(told(info.licence)))
    if info.dim:
        yield t("settings.encoder_dim", dim=info.dim)


def _with_commands(text: str) -> str:
    """A text as it is, but for the commands in it, between backticks, which are shown as such."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if place % 2 else plain(part) for place, part in enumerate(parts))


def _save_corpus(corpus: Corpus, title: str, encoder: str) -> None:
    try:
        saved = service().set_corpus(
            corpus.name,
            title=title if title != corpus.title else None,
            encoder=encoder if encoder != corpus.encoder else None,
        )
    except (StoreError, EncoderError) as exc:
        st.error(_with_commands(told(str(exc))), icon=":material/error:")
        return
    changed = saved.encoder != corpus.encoder
    notify(t("settings.saved_encoder" if changed else "settings.saved"))
    st.rerun()


# --- thresholds ------------------------------------------------------------------------------------


def _thresholds_card(corpus: Corpus) -> None:
    with st.container(border=True):
        st.markdown(f"**{t('settings.thresholds')}**")
        st.caption(t("settings.thresholds_help"))
        report = _hit_test(corpus)
        scored: Scored | None = None
        if report is not None:
            scored = (
                [test.score for test in report.scored],
                [test.answerable for test in report.scored],
                [test.right for test in report.scored],
            )
        _thresholds(corpus, service().statistics(corpus.name, days=DAYS).scores, scored)


def _hit_test(corpus: Corpus) -> HitTestReport | None:
    """The hit tests that were uploaded, run once for each state of the corpus."""
    with st.expander(t("settings.hit_test"), icon=":material/fact_check:", key="settings_hit_test"):
        st.caption(t("settings.hit_test_help"))
        upload = upload_box(t("settings.hit_test_file"), key="settings_hit_file", slot="settings_hit_upload")
        if upload is None:
            st.session_state.pop("settings_hit_report", None)
            return None
        wanted = (upload.id, corpus.name, corpus.revision, corpus.encoder)
        kept = st.session_state.get("settings_hit_report")
        if kept is None or kept[0] != wanted:
            kept = st.session_state["settings_hit_report"] = (wanted, _run_hit_test(corpus, upload))
        result: HitTestReport | str = kept[1]
        if isinstance(result, str):
            st.error(plain(told(result)), icon=":material/table:")
            return None
        st.markdown(
            t(
                "settings.hit_test_done",
                file=plain(upload.name),
                queries=result.queries,
                answerable=result.answerable,
                accuracy=f"{result.accuracy_at_1:.1%}",
            )
        )
        return result


def _run_hit_test(corpus: Corpus, upload: Upload) -> HitTestReport | str:
    """The report, or what is wrong with the file."""
    bar = ProgressBar(t("progress.starting"))
    try:
        report = service().hit_test(upload.path, corpus=corpus.name, progress=bar)
    except TableError as exc:
        bar.finish()
        return upload.named(str(exc))
    bar.finish()
    return report


@st.fragment
def _thresholds(corpus: Corpus, scores: Sequence[float], scored: Scored | None) -> None:
    """The two sliders and what they would do. A fragment: moving them draws only this anew."""
    with errors_shown():
        answer, suggest = _sliders(corpus)
        columns = st.columns(2, gap="medium") if scores and scored else [st.container()] * 2
        if scores:
            with columns[0]:
                st.markdown(t("settings.from_log", count=f"{len(scores):,}", days=DAYS))
                _draw(_picture([(score, "log") for score in scores], answer, suggest), key="settings_log_chart")
                _show_counts(evaluate.decisions_at(scores, answer, suggest), None, len(scores), "log")
        if scored:
            with columns[1]:
                values, answerable, right = scored
                kinds = [
                    "right" if hit else "other" if wanted else "without"
                    for wanted, hit in zip(answerable, right, strict=True)
                ]
                st.markdown(t("settings.from_hit_test", count=f"{len(values):,}"))
                points = list(zip(values, kinds, strict=True))
                _draw(_picture(points, answer, suggest), key="settings_hit_chart")
                rightly = evaluate.rightly_at(values, answerable, right, answer, suggest)
                _show_counts(evaluate.decisions_at(values, answer, suggest), rightly, len(values), "hit")
        if not scores and not scored:
            st.info(t("settings.no_scores", days=DAYS), icon=":material/bar_chart_off:")
        _save_thresholds(corpus, answer, suggest)


def _sliders(corpus: Corpus) -> tuple[float, float]:
    """The two sliders; one that is moved past the other takes it along."""
    keys = {name: f"settings_{name}_{corpus.name}" for name in ("answer", "suggest")}
    saved = (corpus.answer_threshold, corpus.suggest_threshold)
    basis = f"settings_thresholds_of_{corpus.name}"
    if st.session_state.get(basis) != saved:  # the first time, or somebody has saved other ones
        st.session_state[basis] = saved
        st.session_state[keys["answer"]], st.session_state[keys["suggest"]] = saved
    low = -1.0 if corpus.suggest_threshold < 0 else 0.0
    left, right = st.columns(2, gap="medium")
    values = []
    for place, name in ((left, "suggest"), (right, "answer")):
        with place:
            values.append(
                st.slider(
                    t(f"settings.{name}_threshold"),
                    low,
                    1.0,
                    step=STEP,
                    format="%.3f",
                    help=t(f"settings.{name}_threshold_help"),
                    key=keys[name],
                    on_change=_take_along,
                    args=(keys, name),
                    persist_state="session",
                )
            )
    suggest, answer = values
    return float(answer), float(suggest)


def _take_along(keys: dict[str, str], moved: str) -> None:
    answer, suggest = st.session_state[keys["answer"]], st.session_state[keys["suggest"]]
    if suggest > answer:
        other = "suggest" if moved == "answer" else "answer"
        st.session_state[keys[other]] = st.session_state[keys[moved]]


def _show_counts(counts: Sequence[int], rightly: Sequence[int] | None, total: int, key: str) -> None:
    with st.container(horizontal=True, gap="xsmall", key=f"settings_counts_{key}"):
        for place, name in enumerate(("answer", "suggest", "none")):
            with st.container(border=True, width=112, gap=None):
                st.metric(t(f"settings.would_{name}"), f"{counts[place]:,}")
                st.caption(t("settings.share", share=f"{counts[place] / total:.0%}"))
                if rightly is not None:
                    st.caption(t("settings.rightly", count=f"{rightly[place]:,}"))
    if rightly is not None:
        st.caption(t("settings.rightly_help", right=f"{sum(rightly):,}", total=f"{total:,}"))


def _save_thresholds(corpus: Corpus, answer: float, suggest: float) -> None:
    changed = (answer, suggest) != (corpus.answer_threshold, corpus.suggest_threshold)
    with st.container(horizontal=True, vertical_alignment="center"):
        save = st.button(
            t("settings.thresholds_save"),
            type="primary",
            icon=":material/save:",
            disabled=not changed,
            key="settings_thresholds_save",
        )
        saved = {"answer": f"{corpus.answer_threshold:.3f}", "suggest": f"{corpus.suggest_threshold:.3f}"}
        st.caption(t("settings.thresholds_changed" if changed else "settings.thresholds_current", **saved))
    if not save:
        return
    try:
        service().set_corpus(corpus.name, answer_threshold=answer, suggest_threshold=suggest)
    except FaqSearchError as exc:
        st.error(plain(told(str(exc))), icon=":material/error:")
        return
    notify(t("settings.thresholds_saved"))
    st.rerun()


# --- the picture -----------------------------------------------------------------------------------


def _draw(picture: Picture, *, key: str) -> None:
    st.altair_chart(picture, key=key, width="stretch")


def _picture(points: Sequence[tuple[float, str]], answer: float, suggest: float) -> Picture:
    """How the scores are spread, by kind, with the two thresholds drawn in."""
    kinds = [kind for kind in ("log", "right", "other", "without") if any(kind == item for _, item in points)]
    counts: dict[tuple[int, str], int] = {}
    for score, kind in points:
        place = min(int(max(score, -1.0) // _BIN), round(1 / _BIN) - 1)
        counts[place, kind] = counts.get((place, kind), 0) + 1
    rows = [
        {
            "from": round(place * _BIN, 4),
            "to": round((place + 1) * _BIN, 4),
            "kind": t(f"settings.kind_{kind}"),
            "count": count,
            "order": kinds.index(kind),
        }
        for (place, kind), count in sorted(counts.items())
    ]
    low = min(0.6, suggest - 0.05, *(place * _BIN for place, _ in counts))
    scale = alt.Scale(domain=[max(-1.0, round(low, 4)), 1.0], nice=False, clamp=True)
    colours = {"log": _LOG, **_COLOURS}
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(opacity=0.85, binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", scale=scale, title=t("settings.score"), axis=alt.Axis(format=".2f")),
            x2="to:Q",
            y=alt.Y(
                "count:Q",
                stack="zero",
                title=t("settings.count"),
                axis=alt.Axis(tickMinStep=1, format="d", tickCount=5),
            ),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(
                    domain=[t(f"settings.kind_{kind}") for kind in kinds], range=[colours[kind] for kind in kinds]
                ),
                legend=None
                if kinds == ["log"]
                else alt.Legend(orient="bottom", columns=3, symbolType="square", offset=8, labelLimit=240),
            ),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("from:Q", title=t("settings.from"), format=".2f"),
                alt.Tooltip("to:Q", title=t("settings.to"), format=".2f"),
                alt.Tooltip("kind:N", title=t("settings.kind")),
                alt.Tooltip("count:Q", title=t("settings.count")),
            ],
        )
    )
    layers: list[alt.Chart] = [bars]
    for name, at in (("suggest", suggest), ("answer", answer)):
        line = alt.Chart(alt.InlineData(values=[{"at": at, "name": t(f"settings.line_{name}")}]))
        layers.append(
            line.mark_rule(strokeDash=[5, 3], size=2, color=_LINES[name]).encode(x=alt.X("at:Q", scale=scale))
        )
        # Both names above the picture: one to the left of its line, the other to the right, so that they never meet.
        layers.append(
            line.mark_text(
                align="right" if name == "suggest" else "left",
                baseline="bottom",
                dx=-4 if name == "suggest" else -6,
                dy=-4,
                fontSize=12,
                color=_LINES[name],
            ).encode(x=alt.X("at:Q", scale=scale), y=alt.value(0), text="name:N")
        )
    return alt.layer(*layers).properties(
        height=_HEIGHT + (0 if kinds == ["log"] else 30), usermeta={"embedOptions": {"actions": False}}
    )
