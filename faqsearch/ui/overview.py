"""What a team lead looks at: how the questions go, in pictures, and the state of corpora and indexes."""

from __future__ import annotations

from datetime import date, datetime, timezone

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from faqsearch.errors import FaqSearchError, IndexBusyError
from faqsearch.model import Corpus, CorpusStatus, IndexVersion, Statistics, VerifyReport
from faqsearch.ui import charts
from faqsearch.ui.common import choose_corpus, errors_shown, notify, plain, service, t
from faqsearch.ui.rebuilds import Rebuild, rebuilds

PERIODS = (7, 30, 90)
_PER_ROW = 3
_POLL_SECONDS = 1.0

_STYLE = """<style>
[class*="st-key-overview_"] { overflow-wrap: anywhere; }
[data-testid="stElementToolbar"] { display: none; }
</style>"""


def page() -> None:
    """Draw the page."""
    st.html(_STYLE)
    corpus = choose_corpus()
    if corpus is None:
        return
    periods = {days: t("overview.days", days=days) for days in PERIODS}
    days = st.segmented_control(
        t("overview.period"),
        list(periods),
        format_func=periods.__getitem__,
        default=30,
        required=True,
        key="overview_days",
        label_visibility="collapsed",
        persist_state="session",
    )
    _usage(corpus, service().statistics(corpus.name, days=days or 30))
    st.subheader(t("overview.index"), divider="gray")
    with errors_shown():
        status = service().status()
        _corpora(status.corpora)
        _index(corpus)
        _machine(corpus, status.device, status.faiss, status.version)


# --- how the questions go --------------------------------------------------------------------------


def _usage(corpus: Corpus, found: Statistics) -> None:
    days = charts.days_until(date.today(), found.days)
    if found.queries:
        _figures(found)
        left, right = st.columns(2)
        _card(left, "per_day", charts.by_day(found.decisions, days, charts.DECISIONS, "overview.decision"))
        _card(right, "share", charts.share_answered(found.decisions, days))
        left, right = st.columns(2)
        _card(left, "most_asked", charts.most_asked(found.most_asked) if found.most_asked else None)
        _never_asked(right, corpus, found)
        left, right = st.columns(2)
        _card(left, "scores", _scores(corpus, found))
        _card(right, "stages", charts.stages(found.stages) if found.stages else None)
    else:
        key = "no_queries" if service().settings.query_log else "no_log"
        st.info(t(f"overview.{key}", days=found.days), icon=":material/bar_chart_off:")
    if found.queries or found.feedback:
        chart = charts.by_day(found.feedback, days, charts.FEEDBACK, "overview.feedback") if found.feedback else None
        _card(st.container(), "feedback", chart)


def _scores(corpus: Corpus, found: Statistics) -> charts.Picture | None:
    if not found.scores:
        return None
    return charts.scores(found.scores, corpus.answer_threshold, corpus.suggest_threshold)


def _figures(found: Statistics) -> None:
    """The few numbers that are asked for first."""
    decided = dict.fromkeys(charts.DECISIONS, 0)
    for item in found.decisions:
        decided[item.kind] = decided.get(item.kind, 0) + item.count
    judged = sum(item.count for item in found.feedback)
    right = sum(item.count for item in found.feedback if item.kind == "right")
    figures = [
        ("queries", f"{found.queries:,}"),
        *((f"share_{kind}", f"{decided[kind] / found.queries:.0%}") for kind in charts.DECISIONS),
        ("share_right", f"{right / judged:.0%}" if judged else "–"),
    ]
    with st.container(horizontal=True, gap="small"):
        for name, value in figures:
            st.metric(t(f"overview.{name}"), value, border=True, width=150)


def _card(place: DeltaGenerator, name: str, chart: charts.Picture | None) -> None:
    """One picture under its title, or a friendly line where there is nothing to draw."""
    with place, st.container(border=True, height="stretch", key=f"overview_card_{name}"):
        st.markdown(f"**{t(f'overview.title_{name}')}**")
        if chart is None:
            st.caption(t(f"overview.nothing_{name}"))
        else:
            st.altair_chart(chart, key=f"overview_chart_{name}", alt=t(f"overview.title_{name}"))


def _never_asked(place: DeltaGenerator, corpus: Corpus, found: Statistics) -> None:
    enabled = service().counts(corpus.name).enabled
    with place, st.container(border=True, height="stretch", key="overview_card_never_asked"):
        st.markdown(f"**{t('overview.title_never_asked')}**")
        if not enabled:
            st.caption(t("overview.no_entries"))
            return
        chart = charts.asked_share(enabled - found.never_asked_total, found.never_asked_total)
        st.altair_chart(chart, key="overview_chart_never_asked", alt=t("overview.title_never_asked"))
        if not found.never_asked_total:
            st.caption(t("overview.all_asked"))
            return
        st.caption("\n".join(f"- {plain(item.question)}" for item in found.never_asked))
        if rest := found.never_asked_total - len(found.never_asked):
            st.caption(t("overview.never_more", count=rest))


# --- corpora and indexes ---------------------------------------------------------------------------


def _corpora(corpora: tuple[CorpusStatus, ...]) -> None:
    for start in range(0, len(corpora), _PER_ROW):
        for place, item in zip(st.columns(_PER_ROW), corpora[start : start + _PER_ROW], strict=False):
            with place, st.container(border=True, height="stretch", key=f"overview_corpus_{item.name}"):
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.markdown(f"**{plain(item.title)}**", width="content")
                    _state(item)
                st.caption(
                    t(
                        "overview.corpus_counts",
                        entries=f"{item.counts.entries:,}",
                        enabled=f"{item.counts.enabled:,}",
                        questions=f"{item.counts.questions:,}",
                    )
                )
                if item.index_age_seconds is not None:
                    age = _age(item.index_age_seconds)
                    st.caption(t("overview.corpus_index", age=age, indexed=f"{item.indexed:,}"))
                if item.pending and item.index_version:
                    st.caption(t("overview.corpus_pending", count=f"{item.pending:,}"))
                _details(item.problems)


def _state(item: CorpusStatus) -> None:
    if not item.counts.questions:
        st.badge(t("overview.state_empty"), icon=":material/inbox:", color="gray")
    elif item.index_version is None and item.problems:
        st.badge(t("overview.state_rebuild"), icon=":material/build:", color="red")
    elif item.problems:
        st.badge(t("overview.state_problem"), icon=":material/error:", color="red")
    else:
        st.badge(t("overview.state_ok"), icon=":material/check:", color="green")


def _details(problems: tuple[str, ...]) -> None:
    """The program's own words, for whoever mends it."""
    if problems:
        with st.expander(t("overview.details")):
            st.code("\n".join(problems), language=None, wrap_lines=True)


def _index(corpus: Corpus) -> None:
    """The index versions of the corpus; looked at again and again only while one is being built."""
    job = rebuilds().last(corpus.name)
    running = job is not None and job.running
    panel = st.fragment(_index_panel, run_every=_POLL_SECONDS if running else None)
    panel(corpus.name, corpus.title, running)


def _index_panel(corpus: str, title: str, drawn_running: bool) -> None:
    job = rebuilds().last(corpus)
    running = job is not None and job.running
    if running != drawn_running:
        if job is not None and job.report is not None:
            notify(t("overview.rebuilt_short"))
        st.rerun()  # the whole page: what it says of the index has changed, and so has what is to be polled
    with errors_shown(), st.container(border=True, key="overview_index"):
        st.markdown(f"**{t('overview.versions', title=plain(title))}**")
        _rebuild_controls(corpus, running)
        if job is not None:
            _rebuild_state(job)
        versions = service().index_versions(corpus)
        if not versions:
            st.caption(t("overview.no_versions"))
        for version in reversed(versions):
            _version(corpus, version, running)


def _rebuild_controls(corpus: str, running: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        clicked = st.button(
            t("overview.rebuild"),
            icon=":material/sync:",
            type="primary",
            key="overview_rebuild",
            disabled=running,
            help=t("overview.rebuild_help"),
        )
        full = st.checkbox(
            t("overview.full"), key="overview_full", disabled=running, help=t("overview.full_help"), width="content"
        )
    if clicked:
        rebuilds().start(service(), corpus, full=full)
        st.rerun()


def _rebuild_state(job: Rebuild) -> None:
    """How far the rebuild is, or how the last one ended."""
    if job.running:
        if job.total:
            text = t("overview.encoding", done=f"{job.done:,}", total=f"{job.total:,}")
        else:
            text = t("overview.preparing")
        st.progress(job.share, text=text)
        st.caption(t("overview.meanwhile"))
        return
    when = f"{job.finished_at:%H:%M}"
    if job.error is not None:
        key = "rebuild_busy" if isinstance(job.error, IndexBusyError) else "rebuild_failed"
        st.error(t(f"overview.{key}", when=when), icon=":material/error:")
        kind = "" if isinstance(job.error, FaqSearchError) else f"{type(job.error).__name__}: "
        _details((f"{kind}{job.error}",))
    elif job.report is not None and not job.report.changed:
        st.caption(t("overview.rebuilt_same", when=when))
    elif job.report is not None:
        report = job.report
        st.caption(
            t(
                "overview.rebuilt",
                when=when,
                encoded=f"{report.encoded:,}",
                kept=f"{report.kept:,}",
                dropped=f"{report.dropped:,}",
                seconds=f"{report.seconds:.1f}",
            )
        )


def _version(corpus: str, version: IndexVersion, running: bool) -> None:
    """One version: age, count, encoder; check it, or make it the current one."""
    name = version.version
    seconds = (datetime.now(timezone.utc) - version.created_at).total_seconds()
    with st.container(horizontal=True, vertical_alignment="center", key=f"overview_version_{name}"):
        built = version.created_at.astimezone()
        st.markdown(
            t("overview.version", number=int(name.split("-")[0]), when=f"{built:%Y-%m-%d %H:%M}", age=_age(seconds)),
            width="content",
        )
        if version.current:
            st.badge(t("overview.current"), icon=":material/check_circle:", color="green")
        st.caption(
            t("overview.version_facts", count=f"{version.count:,}", encoder=plain(version.encoder)), width="stretch"
        )
        if st.button(
            t("overview.verify"), icon=":material/fact_check:", key=f"overview_verify_{name}", type="tertiary"
        ):
            with st.spinner(t("overview.verifying"), show_time=False):
                _verified()[corpus, name] = service().verify_index(corpus, name)
        if not version.current and st.button(
            t("overview.roll_back"),
            icon=":material/history:",
            key=f"overview_roll_back_{name}",
            type="tertiary",
            disabled=running,
            help=t("overview.roll_back_help"),
        ):
            _roll_back(corpus, name)
    if report := _verified().get((corpus, name)):
        _show_verified(report)


def _roll_back(corpus: str, version: str) -> None:
    service().rollback_index(corpus, version)
    notify(t("overview.rolled_back", number=int(version.split("-")[0])))
    st.rerun()


def _verified() -> dict[tuple[str, str], VerifyReport]:
    """What this session has checked so far."""
    found: dict[tuple[str, str], VerifyReport] = st.session_state.setdefault("overview_verified", {})
    return found


def _show_verified(report: VerifyReport) -> None:
    values = {"count": f"{report.count:,}", "pending": f"{report.pending:,}", "stale": f"{report.stale:,}"}
    if report.ok:
        st.success(t("overview.verified", **values), icon=":material/verified:")
    else:
        st.error(t("overview.verify_failed"), icon=":material/error:")
        _details(report.problems)


def _machine(corpus: Corpus, device: str, faiss: str, version: str) -> None:
    """What searching runs on."""
    current = next((item for item in service().index_versions(corpus.name) if item.current), None)
    facts = [
        ("encoder", corpus.encoder),
        ("dim", str(current.dim) if current else "–"),
        ("device", t(f"overview.device_{device}")),
        ("faiss", faiss),
        ("program", version),
    ]
    with st.container(border=True, horizontal=True, gap="medium", key="overview_machine"):
        for name, value in facts:
            with st.container(width="content", gap=None):
                st.caption(t(f"overview.{name}"))
                st.text(value)


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= size:
            return t(f"overview.ago_{unit}", count=int(seconds // size))
    return t("overview.ago_now")
