"""The command that trains an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from faqsearch import measure, plots, printing, registry
from faqsearch.console import Json, open_service
from faqsearch.measure import Figure, RetrievalScores
from faqsearch.pairs import Pairs, read_pairs
from faqsearch.tables import read_queries

if TYPE_CHECKING:
    from faqsearch.distill import Job, Outcome

_PANEL = {"data": "What it learns from", "how": "How", "team": "From a corpus's own log"}
_TIMED = 1_000


def distill(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write the encoder to.", show_default=False)
    ],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            "-t",
            metavar="REF",
            help="An encoder to learn from; may be given again.",
            rich_help_panel=_PANEL["data"],
            show_default=False,
        ),
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Texts without labels, one a line; may be given again.",
            rich_help_panel=_PANEL["data"],
            show_default=False,
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled pairs, as for `evaluate pairs`; may be given again, a source each.",
            rich_help_panel=_PANEL["data"],
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled pairs to judge by alone.  [default: a tenth of the pairs, held out]",
            rich_help_panel=_PANEL["data"],
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int, typer.Option(min=1, help="Layers that are cut out of the teacher.", rich_help_panel=_PANEL["how"])
    ] = 4,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Start as this encoder instead.", rich_help_panel=_PANEL["how"], show_default=False
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Keep only pieces that the texts use, and single characters.", rich_help_panel=_PANEL["how"]
        ),
    ] = False,
    epochs: Annotated[float, typer.Option(min=0, help="Passes over the texts.", rich_help_panel=_PANEL["how"])] = 1.0,
    pair_epochs: Annotated[
        float, typer.Option(min=0, help="Passes over the pairs.", rich_help_panel=_PANEL["how"])
    ] = 1.0,
    rate: Annotated[
        float, typer.Option(min=0, help="Peak learning rate on the texts.", rich_help_panel=_PANEL["how"])
    ] = 4e-4,
    pair_rate: Annotated[
        float, typer.Option(min=0, help="Peak learning rate on the pairs.", rich_help_panel=_PANEL["how"])
    ] = 6e-5,
    judge_every: Annotated[
        int, typer.Option(min=1, help="Steps between judgements.", rich_help_panel=_PANEL["how"])
    ] = 500,
    seed: Annotated[int, typer.Option(help="Of all that is random.", rich_help_panel=_PANEL["how"])] = 0,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.", rich_help_panel=_PANEL["how"])
    ] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was killed.", rich_help_panel=_PANEL["how"])
    ] = False,
    from_log: Annotated[
        str | None,
        typer.Option(
            metavar="CORPUS",
            help="Learn from this corpus, too: confirmed and corrected hits, and its similar questions.",
            rich_help_panel=_PANEL["team"],
            show_default=False,
        ),
    ] = None,
    hit_tests: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare on the corpus's hit tests with the encoder that it has.",
            rich_help_panel=_PANEL["team"],
            show_default=False,
        ),
    ] = None,
    put_in_service: Annotated[
        bool,
        typer.Option(
            "--put-in-service",
            help="Let the corpus use it, unless accuracy@1 on the hit tests is lower, or its mean with AUC.",
            rich_help_panel=_PANEL["team"],
        ),
    ] = False,
    plot: Annotated[Path | None, typer.Option(metavar="OUT.png", help="Draw how it went.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Train a small encoder from a large one, and from labelled pairs.

    First the student's embeddings are drawn towards the teacher's on the texts, then it is trained on the pairs, and
    the weights before and after that are averaged; at each judgement the best is kept. Several teachers are mixed.
    Without a teacher, --init is trained on the pairs alone.

    Judged by Spearman on each set of pairs, and by accuracy@1 and AUC of a retrieval made of it. The result is an
    ordinary checkpoint folder: `corpus set NAME --encoder DIR` and `rebuild NAME` put it in service. A run that was
    killed goes on with --resume to the result that it would have had.
    """
    if put_in_service and not (from_log and hit_tests):
        raise typer.BadParameter("--put-in-service goes with --from-log CORPUS and --hit-tests FILE")
    if hit_tests and not from_log:
        raise typer.BadParameter("--hit-tests goes with --from-log CORPUS")
    if plot:
        plots.check_plot(plot)
    sources = [read_pairs(file) for file in pairs or ()]
    judged = [read_pairs(file) for file in judge or ()]
    task, old = None, ""
    if from_log:
        with open_service() as faq:
            own = faq.labelled_pairs(from_log)
            old = faq.corpus(from_log).encoder
            if hit_tests:
                registry.require(old)  # told now, not after hours
            task = faq.retrieval(hit_tests, corpus=from_log) if hit_tests else None
        printing.note(f"from {from_log}: {len(own)} labelled pairs")
        sources += [own] if len(own) else []
    if not judged:
        split = [measure.hold_out(source, seed=seed) for source in sources]
        sources, judged = [kept for kept, _ in split], [held for _, held in split if len(held)]
        if judged:
            held_out = ", ".join(f"{len(held)} pairs of {held.name}" for held in judged)
            printing.note(f"judged by what is held out: {held_out}")
    from faqsearch import distill as training

    job = training.Job(
        teachers=tuple(teacher or ()),
        texts=tuple(text for file in texts or () for _, text in read_queries(file)),
        pairs=tuple(_distinct(training.without(sources, judged))),
        judged=tuple(_distinct(judged)),
        output=output,
        layers=layers,
        init=init,
        prune=prune,
        device=device,
        recipe=training.Recipe(
            distil_epochs=epochs,
            match_epochs=pair_epochs,
            distil_rate=rate,
            match_rate=pair_rate,
            judge_every=judge_every,
            seed=seed,
        ),
    )
    with printing.progress() as progress:
        outcome = training.distil(job, resume=resume, progress=progress, tell=printing.note)
    if plot:
        plots.plot_curves(outcome.points, plot)
    scores: list[RetrievalScores] = []
    if task is not None:
        for ref in (old, str(output)):
            scores.append(measure.score_retrieval(ref, registry.load_encoder(ref, device=device), task))
    served = _put_in_service(from_log, output, scores) if put_in_service and from_log else None
    _report(job, outcome, scores, served, as_json)


def _distinct(sets: Sequence[Pairs]) -> list[Pairs]:
    """The sets, with a number after a name that is there already."""
    names: dict[str, int] = {}
    found = []
    for pairs in sets:
        names[pairs.name] = count = names.get(pairs.name, 0) + 1
        found.append(pairs if count == 1 else replace(pairs, name=f"{pairs.name} {count}"))
    return found


def _put_in_service(corpus: str, folder: Path, scores: Sequence[RetrievalScores]) -> bool:
    """Let the corpus use the encoder, unless it finds less than the one before.

    By what it is judged by in training, too: accuracy@1 must not be lower, nor its mean with AUC.
    """
    (accuracy, mean), (new_accuracy, new_mean) = ((_value(one.accuracy_at_1), _mean(one)) for one in scores)
    if new_accuracy < accuracy or new_mean < mean:
        return False
    with open_service() as faq, printing.progress() as progress:
        faq.set_corpus(corpus, encoder=str(folder))
        faq.rebuild(corpus, progress=progress)
    return True


def _value(figure: Figure | None) -> float:
    return figure.value if figure else 0.0


def _mean(scores: RetrievalScores) -> float:
    return (_value(scores.accuracy_at_1) + _value(scores.auc)) / 2


def _report(job: Job, outcome: Outcome, scores: Sequence[RetrievalScores], served: bool | None, as_json: bool) -> None:
    rows, speeds = [], []
    refs = [*job.teachers[:1], str(outcome.folder)]
    for ref in refs:
        encoder = registry.load_encoder(ref, device=job.device)
        rows += [measure.score_pairs(ref, encoder, pairs) for pairs in job.judged]
        speeds += measure.measure_speed(ref, encoder, measure.sample_questions(_TIMED))
    if as_json:
        printing.print_json({
            "folder": outcome.folder,
            "start": outcome.start,
            "best": outcome.best,
            "points": outcome.points,
            "pairs": [{"encoder": row.encoder, "set": row.set, "spearman": row.spearman} for row in rows],
            "gaps": [printing.gap_fields(gap) for gap in measure.gaps(speeds)],
            "hit_tests": scores,
            "in_service": served,
        })  # fmt: skip
        return
    typer.echo("")
    printing.print_pair_scores(rows, False)
    if len(refs) > 1:
        typer.echo("")
        printing.print_speeds(speeds, measure.gaps(speeds), False)
    if scores:
        typer.echo("")
        printing.print_retrieval_scores(scores, False)
    typer.echo(
        f"\n{outcome.folder}: judged {100 * outcome.best.figure:.2f}, at the start {100 * outcome.start.figure:.2f}"
    )
    if served is False:
        printing.note("not put in service: it is worse on the hit tests than the encoder that the corpus has")
    elif served:
        printing.note("in service; now choose thresholds for it")
