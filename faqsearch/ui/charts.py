"""The pictures of the pages: each takes what the service found or counted and gives an Altair chart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, TypeAlias

import altair as alt
import numpy as np

from faqsearch.model import AskedEntry, DayCount, Hit, StageTime
from faqsearch.ui.common import t

Picture: TypeAlias = alt.Chart | alt.LayerChart
"""A finished chart."""

# Readable on light and on dark ground alike, and told apart without red and green too.
GOOD, MIDDLE, BAD, CALM = "#2e9e5b", "#d9902f", "#c2504a", "#5b8def"
DECISIONS = {"answer": GOOD, "suggest": MIDDLE, "none": BAD}
FEEDBACK = {"right": GOOD, "instead": MIDDLE, "wrong": BAD}
_HEIGHT = 230
_BIN = 0.02
_TICKS = 7


def days_until(last: date, count: int) -> list[str]:
    """The last days, today included, as the service names them."""
    return [(last - timedelta(days=back)).isoformat() for back in range(count - 1, -1, -1)]


def by_day(counts: Sequence[DayCount], days: Sequence[str], colours: dict[str, str], prefix: str) -> Picture:
    """Stacked bars: how many of each kind on each day; `prefix` leads to the kinds' names."""
    names = {kind: t(f"{prefix}_{kind}") for kind in colours}
    order = list(colours)
    rows = [
        {"day": item.day, "kind": names[item.kind], "count": item.count, "order": order.index(item.kind)}
        for item in counts
        if item.kind in names
    ]
    return _finish(
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=_day_axis(days),
            y=alt.Y("count:Q", title=t("overview.axis_count"), axis=alt.Axis(tickMinStep=1, format="d")),
            color=alt.Color("kind:N", title=None, scale=_scale(names, colours), legend=_legend()),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("day:N", title=t("overview.axis_day")),
                alt.Tooltip("kind:N", title=t("overview.axis_kind")),
                alt.Tooltip("count:Q", title=t("overview.axis_count")),
            ],
        )
    )


def share_answered(counts: Sequence[DayCount], days: Sequence[str]) -> Picture:
    """A line: the share of each day's queries that got an answer; days without queries have none."""
    total: dict[str, int] = {}
    answered: dict[str, int] = {}
    for item in counts:
        total[item.day] = total.get(item.day, 0) + item.count
        answered[item.day] = answered.get(item.day, 0) + (item.count if item.kind == "answer" else 0)
    rows = [{"day": day, "share": answered[day] / total[day], "count": total[day]} for day in days if day in total]
    return _finish(
        alt.Chart(_data(rows))
        .mark_line(point=alt.OverlayMarkDef(size=36, filled=True, color=GOOD), color=GOOD)
        .encode(
            x=_day_axis(days),
            y=alt.Y(
                "share:Q",
                title=t("overview.axis_share"),
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            tooltip=[
                alt.Tooltip("day:N", title=t("overview.axis_day")),
                alt.Tooltip("share:Q", title=t("overview.axis_share"), format=".0%"),
                alt.Tooltip("count:Q", title=t("overview.axis_count")),
            ],
        )
    )


def most_asked(entries: Sequence[AskedEntry]) -> Picture:
    """Bars: the entries that were asked for most, each with its number."""
    rows = [{"id": item.entry_id, "question": item.question, "count": item.count} for item in entries]
    base = alt.Chart(_data(rows)).encode(
        x=alt.X("count:Q", title=t("overview.axis_count"), axis=None),
        y=alt.Y("id:N", sort=None, title=None, axis=None),
        tooltip=[
            alt.Tooltip("question:N", title=t("overview.axis_entry")),
            alt.Tooltip("count:Q", title=t("overview.axis_count")),
        ],
    )
    # The question stands above its bar: it keeps its room on a narrow window.
    bars = base.mark_bar(size=7, cornerRadius=3, color=CALM, yOffset=8)
    names = base.mark_text(align="left", dy=-5, fontSize=12, limit=420).encode(
        x=alt.value(0), text=alt.Text("question:N"), color=_ink()
    )
    numbers = base.mark_text(align="left", dx=5, dy=8, fontSize=11).encode(text=alt.Text("count:Q"), color=_ink())
    return _finish(alt.layer(bars, names, numbers), height=34 * len(rows) + 10)


def asked_share(asked: int, never: int) -> Picture:
    """One bar: how many of the entries were asked for, and how many never."""
    names = {"asked": t("overview.asked"), "never": t("overview.never")}
    rows = [
        {"kind": names["asked"], "count": asked, "order": 0},
        {"kind": names["never"], "count": never, "order": 1},
    ]
    colours = {"asked": CALM, "never": "#9aa0a6"}
    return _finish(
        alt.Chart(_data(rows))
        .mark_bar(size=22)
        .encode(
            x=alt.X("count:Q", title=t("overview.axis_entries"), scale=alt.Scale(domain=[0, asked + never])),
            color=alt.Color("kind:N", title=None, scale=_scale(names, colours), legend=_legend()),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("kind:N", title=t("overview.axis_kind")),
                alt.Tooltip("count:Q", title=t("overview.axis_entries")),
            ],
        ),
        height=135,
    )


def scores(values: Sequence[float], answer: float, suggest: float) -> Picture:
    """A histogram of the best hits' scores, with the corpus's two thresholds as lines."""
    low = min([0.0, *values])
    edges = np.arange(np.floor(low / _BIN), round(1 / _BIN) + 1) * _BIN
    counted, _ = np.histogram(np.clip(values, edges[0], 1.0), bins=edges)
    rows = [
        {"from": round(float(start), 4), "to": round(float(start) + _BIN, 4), "count": int(count)}
        for start, count in zip(edges[:-1], counted, strict=True)
        if count
    ]
    first = min([row["from"] for row in rows] + [suggest]) - _BIN
    scale = alt.Scale(domain=[round(first, 4), 1.0], nice=False)
    bars = (
        alt.Chart(_data(rows))
        .mark_bar(color=CALM, opacity=0.85, binSpacing=1)
        .encode(
            x=alt.X("from:Q", bin="binned", scale=scale, title=t("overview.axis_score"), axis=alt.Axis(format=".2f")),
            x2="to:Q",
            y=alt.Y("count:Q", title=t("overview.axis_count"), axis=alt.Axis(tickMinStep=1, format="d")),
            tooltip=[
                alt.Tooltip("from:Q", title=t("overview.axis_from"), format=".2f"),
                alt.Tooltip("to:Q", title=t("overview.axis_to"), format=".2f"),
                alt.Tooltip("count:Q", title=t("overview.axis_count")),
            ],
        )
    )
    return _finish(alt.layer(bars, _thresholds(answer, suggest, scale)))


def candidates(hits: Sequence[Hit], answer: float, suggest: float) -> Picture:
    """Bars: the scores of hits against the corpus's two thresholds."""
    low = max(-1.0, min(suggest - 0.1, *(hit.score for hit in hits)) - _BIN)
    rows = [{"id": hit.entry_id, "question": hit.question, "score": hit.score, "low": low} for hit in hits]
    scale = alt.Scale(domain=[round(low, 4), 1.0], nice=False)
    base = alt.Chart(_data(rows)).encode(y=alt.Y("id:N", sort=None, title=None, axis=None))
    bars = base.mark_bar(size=7, cornerRadius=3, color=CALM, yOffset=8).encode(
        x=alt.X("score:Q", scale=scale, title=None, axis=alt.Axis(format=".2f", grid=False, tickCount=4)),
        x2="low:Q",
        tooltip=[
            alt.Tooltip("question:N", title=t("overview.axis_entry")),
            alt.Tooltip("score:Q", title=t("overview.axis_score"), format=".3f"),
        ],
    )
    names = base.mark_text(align="left", dy=-5, fontSize=12, limit=420).encode(
        x=alt.value(0), text=alt.Text("question:N"), color=_ink()
    )
    return _finish(alt.layer(bars, names, _thresholds(answer, suggest, scale)), height=34 * len(rows) + 60)


def _thresholds(answer: float, suggest: float, scale: alt.Scale) -> alt.Chart:
    """The two thresholds of a corpus as lines over a picture of scores."""
    names = {
        "suggest": t("overview.line_suggest", value=suggest),
        "answer": t("overview.line_answer", value=answer),
    }
    lines = [{"at": suggest, "name": names["suggest"]}, {"at": answer, "name": names["answer"]}]
    rules: alt.Chart = (
        alt.Chart(_data(lines))
        .mark_rule(strokeDash=[5, 3], size=2)
        .encode(
            x=alt.X("at:Q", scale=scale),
            color=alt.Color("name:N", title=None, scale=_scale(names, DECISIONS), legend=_legend()),
            tooltip=[alt.Tooltip("name:N", title=t("overview.axis_kind"))],
        )
    )
    return rules


def stages(times: Sequence[StageTime]) -> Picture:
    """Bars: what the stages of a search take, usually and at worst; the slowest first."""
    names = {"median": t("overview.median"), "p95": t("overview.p95")}
    ordered = sorted(times, key=lambda item: -item.p95)
    rows: list[dict[str, Any]] = [
        {"stage": t(f"overview.stage_{item.stage}"), "kind": names[kind], "ms": value, "order": place}
        for item in ordered
        for place, (kind, value) in enumerate((("median", item.median), ("p95", item.p95)))
    ]
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("stage:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)),
        yOffset=alt.YOffset("order:O"),
        x=alt.X("ms:Q", title=t("overview.axis_ms")),
        tooltip=[
            alt.Tooltip("stage:N", title=t("overview.axis_stage")),
            alt.Tooltip("kind:N", title=t("overview.axis_kind")),
            alt.Tooltip("ms:Q", title=t("overview.axis_ms"), format=".2f"),
        ],
    )
    colours = {"median": CALM, "p95": MIDDLE}
    bars = base.mark_bar(cornerRadius=2).encode(
        color=alt.Color("kind:N", title=None, scale=_scale(names, colours), legend=_legend())
    )
    numbers = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("ms:Q", format=".2f"), color=_ink())
    return _finish(alt.layer(bars, numbers))


# --- what they share -------------------------------------------------------------------------------


def _data(rows: Sequence[dict[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _day_axis(days: Sequence[str]) -> alt.X:
    """All days of the period, those without a count too, with a handful of labels."""
    step = max(1, -(-len(days) // _TICKS))
    ticks = list(days[::-1][::step])
    return alt.X(
        "day:O",
        title=None,
        scale=alt.Scale(domain=list(days)),
        axis=alt.Axis(values=ticks, labelExpr="slice(datum.value, 5)", labelAngle=0, ticks=False),
    )


def _scale(names: dict[str, str], colours: dict[str, str]) -> alt.Scale:
    return alt.Scale(domain=list(names.values()), range=[colours[kind] for kind in names])


def _legend() -> alt.Legend:
    return alt.Legend(orient="bottom", direction="horizontal", symbolType="square", offset=12, padding=0)


def _ink() -> Any:  # noqa: ANN401 - one of Altair's many value types
    """A grey that is read on white and on black."""
    return alt.value("#868b94")


def _finish(chart: Any, height: int = _HEIGHT) -> Picture:  # noqa: ANN401 - a chart of any kind
    finished: Picture = chart.properties(height=height, usermeta={"embedOptions": {"actions": False}})
    return finished
