"""Pictures of measurements, as files. The one user of matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faqsearch.errors import FaqSearchError

if TYPE_CHECKING:
    from faqsearch.distill import Point
    from faqsearch.measure import PairScores

ENDINGS = (".png", ".svg", ".pdf")
_CHINESE = ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "WenQuanYi Micro Hei", "SimHei")
_MATCHING, _OTHERS, _INK = "#0f766e", "#c2410c", "#334155"


def check_plot(path: Path) -> None:
    """Refuse a picture that could not be drawn, before anything is measured for it.

    Raises:
        FaqSearchError: another ending, no such folder, or matplotlib is not installed.
    """
    if path.suffix.lower() not in ENDINGS:
        raise FaqSearchError(
            f"{path} is no picture that can be written; expected a name ending in {', '.join(ENDINGS)}"
        )
    if not path.absolute().parent.is_dir():
        raise FaqSearchError(f"there is no folder {path.absolute().parent} for the picture; make it first")
    try:
        import matplotlib  # noqa: F401 - whether it is there
    except ImportError as exc:
        raise FaqSearchError(
            "pictures need matplotlib, which is not installed; run `pip install 'faqsearch[evaluate]'`"
        ) from exc


def plot_pairs(scores: Sequence[PairScores], path: Path) -> None:
    """Draw the cosines of matching and other pairs: a row per encoder, a column per set.

    Sets with grades in place of yes and no are drawn as points, grade against cosine.
    """
    check_plot(path)
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.figure import Figure

    installed = set(font_manager.get_font_names())
    with matplotlib.rc_context({"font.family": ["DejaVu Sans", *(name for name in _CHINESE if name in installed)]}):
        _draw_pairs(Figure, scores, path)


def _draw_pairs(new_figure: Any, scores: Sequence[PairScores], path: Path) -> None:  # noqa: ANN401 - matplotlib's types
    encoders, sets = (list(dict.fromkeys(names)) for names in ([s.encoder for s in scores], [s.set for s in scores]))
    figure = new_figure(figsize=(1.2 + 3.2 * len(sets), 0.8 + 2.3 * len(encoders)), layout="constrained")
    axes = figure.subplots(len(encoders), len(sets), squeeze=False)
    low = min(min(item.cosines) for item in scores)
    for item in scores:
        axis = axes[encoders.index(item.encoder)][sets.index(item.set)]
        axis.set_xlim(max(-1.0, low - 0.02), 1.0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=_INK)
        if item.matching is None:
            _draw_grades(axis, item)
        else:
            _draw_labels(axis, item, np.linspace(low, 1.0, 41))
        figures = [] if item.spearman is None else [f"Spearman {100 * item.spearman:.1f}"]
        figures += [] if item.auc is None else [f"AUC {100 * item.auc:.1f}"]
        axis.set_title(
            f"{item.set}, {item.pairs:,} pairs   {', '.join(figures)}",
            fontsize=9,
            loc="left",
            color=_INK,
            parse_math=False,
        )
    for row, name in zip(axes, encoders, strict=True):
        row[0].set_ylabel(_short(name), fontsize=9, color=_INK, parse_math=False)
    handles, names = next(
        (axis.get_legend_handles_labels() for axis in axes.flat if axis.get_legend_handles_labels()[0]), ([], [])
    )
    if handles:
        figure.legend(handles, names, loc="outside upper left", ncols=3, fontsize=8, frameon=False)
    figure.supxlabel("cosine", fontsize=9, color=_INK)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # where no Chinese font is installed
        figure.savefig(path, dpi=150)


def plot_curves(points: Sequence[Point], path: Path) -> None:
    """Draw how a training went: what the judge said, and the loss, over the steps of each phase."""
    check_plot(path)
    from matplotlib.figure import Figure

    phases = [phase for phase in ("distil", "match", "average") if any(point.phase == phase for point in points)]
    figure = Figure(figsize=(1 + 3.6 * len(phases), 4.2), layout="constrained")
    axes = figure.subplots(2, len(phases), squeeze=False, sharex="col")
    for column, phase in enumerate(phases):
        of_phase = [point for point in points if point.phase == phase]
        steps = [point.step for point in of_phase]
        upper, lower = axes[0][column], axes[1][column]
        upper.plot(steps, [100 * point.figure for point in of_phase], color=_MATCHING, marker="o", markersize=3)
        upper.set_title(phase, fontsize=9, loc="left", color=_INK)
        if phase == "average":
            lower.set_axis_off()
            upper.set_xlabel("share of the matched weights, %", fontsize=8, color=_INK)
        else:
            lower.plot(steps[1:], [point.loss for point in of_phase][1:], color=_OTHERS, marker="o", markersize=3)
            lower.set_xlabel("steps", fontsize=8, color=_INK)
        for axis in (upper, lower):
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8, colors=_INK)
    axes[0][0].set_ylabel("judged ×100", fontsize=9, color=_INK)
    axes[1][0].set_ylabel("loss", fontsize=9, color=_INK)
    figure.savefig(path, dpi=150)


def _draw_labels(axis: Any, item: PairScores, bins: Any) -> None:  # noqa: ANN401 - matplotlib's types
    cosines, labels = np.array(item.cosines), np.array(item.labels)
    for label, colour, name in ((0, _OTHERS, "not matching"), (1, _MATCHING, "matching")):
        chosen = cosines[labels == label]
        axis.hist(chosen, bins, color=colour, alpha=0.35)
        axis.hist(chosen, bins, color=colour, histtype="step", linewidth=1.2, label=name)
    if item.threshold is not None:
        axis.axvline(item.threshold, color=_INK, linewidth=0.9, linestyle="--", label="best F1")
    axis.set_yticks([])


def _draw_grades(axis: Any, item: PairScores) -> None:  # noqa: ANN401
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(item.labels))  # equal grades would hide each other
    axis.scatter(item.cosines, np.array(item.labels) + jitter, s=3, color=_MATCHING, alpha=0.35, linewidths=0)
    axis.set_ylabel("grade", fontsize=8, color=_INK)


def _short(name: str) -> str:
    return name if len(name) <= 32 else "…" + name[-31:]
