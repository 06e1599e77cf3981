"""The pictures of pairs' cosines, as files."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEncoder

from faqsearch import plots
from faqsearch.distill import Point
from faqsearch.errors import FaqSearchError
from faqsearch.measure import PairScores, score_pairs
from faqsearch.pairs import Pairs
from faqsearch.plots import check_plot, plot_curves, plot_pairs

LABELS = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)
COSINES = (0.95, 0.9, 0.7, 0.75, 0.4, 0.1)


def scored(
    cosines: tuple[float, ...] = COSINES, labels: tuple[float, ...] = LABELS, name: str = "bank", encoder: str = "e"
) -> PairScores:
    matching = int(sum(labels)) if set(labels) <= {0, 1} else None
    f1 = None if matching is None else 0.8
    return PairScores(encoder, name, len(labels), matching, 0.5, 0.5, f1, f1, f1, f1, cosines, labels)


def drawn(path: Path, *scores: PairScores) -> bytes:
    plot_pairs(scores, path)
    return path.read_bytes()


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_a_picture_has_a_column_for_each_set_and_a_row_for_each_encoder(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.png", scored())
    four = drawn(tmp_path / "four.png", *(scored(name=name, encoder=encoder) for encoder in "ef" for name in "ab"))
    assert size(one) == (660, 465)  # 4.4 by 3.1 inches
    assert size(four) == (1140, 810)
    assert len(one) > 8_000


def test_the_picture_shows_the_scores(tmp_path: Path) -> None:
    pictures = [
        drawn(tmp_path / "a.png", scored()),
        drawn(tmp_path / "b.png", scored((0.3, *COSINES[1:]))),
        drawn(tmp_path / "c.png", scored(labels=LABELS[::-1])),
        drawn(tmp_path / "d.png", scored(labels=(5.0, 4.0, 3.0, 2.0, 1.0, 0.0))),
    ]
    assert len(set(pictures)) == 4
    assert drawn(tmp_path / "again.png", scored()) == pictures[0]


@pytest.mark.parametrize("text", [f"句{number}" for number in range(10)])
def test_a_set_of_equal_texts_is_drawn(tmp_path: Path, text: str) -> None:
    """All cosines are 1, and rounding puts some of them above it."""
    scores = score_pairs("e", FakeEncoder(), Pairs("bank", (text,), (text,), (1.0,)))
    assert size(drawn(tmp_path / "a.png", scores)) == (660, 465)


@pytest.mark.parametrize("ending", ["png", "PNG", "svg", "pdf"])
def test_the_ending_decides_the_format(tmp_path: Path, ending: str) -> None:
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending.lower()]
    assert drawn(tmp_path / f"图.{ending}", scored()).startswith(start)


@pytest.mark.parametrize("fonts", [plots._CHINESE, ()])
def test_a_set_with_a_chinese_name_draws_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fonts: tuple[str, ...]
) -> None:
    """Warnings are errors here; without a Chinese font the name cannot be shown, but the picture is drawn."""
    monkeypatch.setattr(plots, "_CHINESE", fonts)
    scores = [scored(name="银行客服", encoder="/模型/学生"), scored(labels=(5.0, 4.0, 3.0, 2.0, 1.0, 0.0), name="语义")]
    assert drawn(tmp_path / "a.png", *scores) != drawn(tmp_path / "b.png", scored(), scores[1])


def test_a_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    for scores in (scored(name="$\\bank$"), scored(encoder="/models/$\\bank$")):
        assert size(drawn(tmp_path / "a.png", scores)) == (660, 465)


def test_figures_that_there_are_not_are_left_out(tmp_path: Path) -> None:
    alone = PairScores("e", "bank", 1, 0, None, None, None, None, None, None, (0.3,), (0.0,))
    assert size(drawn(tmp_path / "a.png", alone)) == (660, 465)


@pytest.mark.parametrize("name", ["a.jpg", "a", "png", "a.tsv"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FaqSearchError, match=r"is no picture that can be written; expected a name ending in \.png"):
        check_plot(tmp_path / name)
    with pytest.raises(FaqSearchError, match="is no picture"):
        plot_pairs([scored()], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FaqSearchError, match=f"there is no folder {tmp_path}/none for the picture; make it first"):
        check_plot(tmp_path / "none" / "a.png")


def test_without_matplotlib_it_is_told_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(FaqSearchError, match=r"needs? matplotlib.*run `pip install 'faqsearch\[evaluate\]'`"):
        check_plot(tmp_path / "a.png")


# --- the curves of a training --------------------------------------------------------------------

POINTS = [
    Point("distil", 0, 0.0, 0.4), Point("distil", 10, 0.3, 0.5), Point("distil", 20, 0.1, 0.55),
    Point("match", 0, 0.0, 0.55), Point("match", 7, 4.0, 0.7),
    Point("average", 50, 0.0, 0.65), Point("average", 100, 0.0, 0.7),
]  # fmt: skip


def curves(path: Path, points: list[Point]) -> bytes:
    plot_curves(points, path)
    return path.read_bytes()


def test_a_training_has_a_column_for_each_of_its_phases(tmp_path: Path) -> None:
    widths = [size(curves(tmp_path / "a.png", points)) for points in (POINTS, POINTS[3:], POINTS[:3], POINTS[:1])]
    assert widths == [(1770, 630), (1230, 630), (690, 630), (690, 630)]  # 1 + 3.6 by 4.2 inches


def test_the_curves_show_what_the_judge_said_and_the_loss(tmp_path: Path) -> None:
    whole = curves(tmp_path / "whole.png", POINTS)
    assert curves(tmp_path / "again.png", POINTS) == whole
    for number in (1, 3, 4, 6):
        point = POINTS[number]
        higher = [*POINTS[:number], replace(point, figure=0.9), *POINTS[number + 1 :]]
        assert curves(tmp_path / "higher.png", higher) != whole
        # Where a phase starts there is no loss yet, and averaging has none.
        shown = point.step > 0 and point.phase != "average"
        steeper = [*POINTS[:number], replace(point, loss=2.0), *POINTS[number + 1 :]]
        assert (curves(tmp_path / "steeper.png", steeper) != whole) == shown


def test_curves_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaqSearchError, match="is no picture that can be written"):
        plot_curves(POINTS, tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []
