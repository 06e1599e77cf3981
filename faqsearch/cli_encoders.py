"""The commands about encoders: which there are, where they lie, and how good and fast they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from faqsearch import benchmark, measure, plots, printing, registry
from faqsearch.console import GLOBALS, GROUP, Json, open_service
from faqsearch.model import Progress
from faqsearch.pairs import read_pairs
from faqsearch.settings import Settings
from faqsearch.tables import read_queries

if TYPE_CHECKING:
    from faqsearch.encoder import TransformerEncoder

model_app = typer.Typer(
    help="Encoders: list, download and check them.\n\n"
    "`corpus set NAME --encoder ENCODER` and `rebuild NAME` put one in service.",
    **GROUP,  # type: ignore[arg-type] # Typer's parameters have one type each
)
evaluate_app = typer.Typer(
    help="Measure encoders: on labelled pairs, on retrieval, for speed, and on the published model cards' sets.",
    **GROUP,  # type: ignore[arg-type]
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A name of `model list`, a folder, or owner/name on the hub.", show_default=False
    ),
]
Encoders = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder", "-e", metavar="NAME", help="Name of `model list`, folder or hub name; may be given again.",
        show_default="embedded",
    ),
]  # fmt: skip
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown tables, unless with --json.")]


# --- models --------------------------------------------------------------------------------------


@model_app.command("list")
def model_list(as_json: Json = False) -> None:
    """List the encoders that have a name, and what else corpora use: what each is, and where it lies.

    embedded: ships with faqsearch. downloaded: in the Hugging Face cache. missing: `model pull NAME` downloads it.
    incomplete: files of it are missing; pull it again. folder, unusable: a checkpoint folder of your own.
    """
    if Settings.load(GLOBALS.home).database_path.exists():
        with open_service() as faq:
            infos = faq.encoders()
    else:
        infos = registry.encoders()
    if as_json:
        printing.print_json({"encoders": infos})
    else:
        printing.print_encoders(infos)


@model_app.command("pull")
def model_pull(name: Name, as_json: Json = False) -> None:
    """Download an encoder into the Hugging Face cache. Nothing else ever downloads one.

    `owner/name@revision` names a commit. What has arrived before is kept and completed; damaged files are fetched
    again. HF_HOME says where the cache is, HF_ENDPOINT names a mirror, HF_TOKEN is sent along, and HF_HUB_OFFLINE=1
    forbids downloads.
    """
    folder = registry.pull(name, bars=sys.stderr.isatty())
    if as_json:
        printing.print_json({"name": name, "folder": folder, "revision": folder.name})
    else:
        typer.echo(f"{name}: {folder}")
        printing.note(f"run `faqsearch model check {name}` to see that it works")


@model_app.command("check")
def model_check(name: Name, as_json: Json = False) -> None:
    """Load an encoder and encode its model card's two example sentences.

    Pickled weights (pytorch_model.bin) are converted to safetensors beside them, without running code that a pickle
    may hold; the encoder stays the same to every index that was built with it.
    """
    check = registry.check(name, device=_settings().device)
    if as_json:
        printing.print_json(check)
    else:
        printing.print_encoder_check(check)
    for text in check.notes:
        printing.note(f"note: {text}")


# --- evaluation ----------------------------------------------------------------------------------


@evaluate_app.command("pairs")
def evaluate_pairs(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Labelled pairs; a set each.", show_default=False)
    ],
    encoders: Encoders = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="OUT.png", help="Draw the cosines of each set.", show_default=False)
    ] = None,
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """How well cosines tell which pairs of sentences mean the same.

    FILE: TSV, CSV, XLSX or JSON Lines with the columns sentence1, sentence2 and label or score; three columns need no
    header. Labels are 1 and 0, or grades. Texts are encoded as they stand.

    Prints Spearman ×100 of cosine and label for each encoder and set, as model cards do, and then Pearson's
    correlation, ROC AUC, average precision (all ×100), and the threshold with the best F1.
    """
    if plot:
        plots.check_plot(plot)
    files = list(dict.fromkeys(files))
    sets = [read_pairs(file, name) for file, name in zip(files, _names(files), strict=True)]
    scores = []
    with printing.progress() as progress:
        for name, encoder in _each(encoders):
            scores += [measure.score_pairs(name, encoder, item, _named(progress, item.name)) for item in sets]
    if plot:
        plots.plot_pairs(scores, plot)
    if as_json:
        printing.print_json({"scores": [_without(item, "cosines", "labels") for item in scores]})
    else:
        printing.print_pair_scores(scores, markdown)
    if plot:
        printing.note(f"picture: {plot}")


@evaluate_app.command("retrieval")
def evaluate_retrieval(
    file: Annotated[Path, typer.Argument(help="Queries and the entries they should find.", show_default=False)],
    corpus: Annotated[
        str | None, typer.Option("--corpus", "-c", help="Search this corpus's questions.", show_default=False)
    ] = None,
    stored: Annotated[
        Path | None, typer.Option(metavar="FAQ", help="Search the questions of this FAQ table.", show_default=False)
    ] = None,
    from_pairs: Annotated[
        bool, typer.Option("--from-pairs", help="FILE holds labelled pairs; make queries and questions of them.")
    ] = False,
    encoders: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            "-e",
            metavar="NAME",
            help="May be given again.  [default: the corpus's, else embedded]",
            show_default=False,
        ),
    ] = None,
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """How well queries find the right entries among all others.

    FILE: hit tests, with the columns query and key (empty key: no entry). A query that should find several entries
    stands in several rows. With --from-pairs it holds labelled pairs: of each matching pair one text becomes a query
    and the other a stored question, beside all other texts of the file; for half of the queries what they should find
    is left out.

    accuracy@k: share of the answerable queries with a right entry among the first k. mrr@10: mean reciprocal rank of
    the first. recall@10: share of a query's right entries among the first 10. auc: how well the best score tells
    answerable queries from the others. In brackets: the middle 95% of 1,000 bootstrap samples of the queries.
    """  # fmt: skip
    if (corpus is not None) + (stored is not None) + from_pairs != 1:
        raise typer.BadParameter("give one of --corpus NAME, --stored FAQ and --from-pairs")
    scores = []
    with printing.progress() as progress:
        if corpus is not None and not encoders:
            with open_service() as faq:
                scores.append(faq.evaluate_retrieval(file, corpus=corpus, progress=progress))
                if scores[0].encoder != (wanted := faq.corpus(corpus).encoder):
                    printing.note(
                        f"note: {corpus} is to use {wanted}, but its index is not: run `faqsearch rebuild {corpus}`"
                    )
        else:
            task = _retrieval(file, corpus, stored)
            for name, encoder in _each(encoders):
                scores.append(measure.score_retrieval(name, encoder, task, _named(progress, name)))
    if as_json:
        printing.print_json({"scores": scores})
    else:
        printing.print_retrieval_scores(scores, markdown)


def _retrieval(file: Path, corpus: str | None, stored: Path | None) -> measure.Retrieval:
    if corpus is not None:
        with open_service() as faq:
            return faq.retrieval(file, corpus=corpus)
    if stored is not None:
        return measure.retrieval_from_tables(file, stored)
    return measure.retrieval_from_pairs(read_pairs(file))


@evaluate_app.command("speed")
def evaluate_speed(
    encoders: Encoders = None,
    texts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sentences to time with, one a line, instead of made-up questions."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many sentences.")] = measure.CARD_SENTENCES,
    device: Annotated[
        Literal["all", "cpu", "cuda"],
        typer.Option(help="Where to measure; all: on the CPU, and on a GPU if there is one."),
    ] = "all",
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """How fast encoders are: the published model cards' performance table.

    At the cards' batch size of 16 and at the fastest of several, with texts cut at 256 tokens: parameters, the cost of
    encoding all sentences, latency (the median time of one batch) and throughput. Two encoders are compared as the
    cards compare teacher and student. Timings depend on what else the machine does.
    """
    sentences = _sentences(texts, count)
    speeds = []
    with printing.progress() as progress:
        for place in _devices(device):
            for name, encoder in _each(encoders, device=place):
                speeds += measure.measure_speed(name, encoder, sentences, _named(progress, f"{name} {place}"))
    gaps = measure.gaps(speeds)
    if as_json:
        printing.print_json({
            "speeds": speeds,
            "gaps": [printing.gap_fields(gap) for gap in gaps],
            "published": benchmark.PUBLISHED_SPEED,
        })  # fmt: skip
    else:
        printing.print_speeds(speeds, gaps, markdown)


@evaluate_app.command("benchmark")
def evaluate_benchmark(
    encoders: Encoders = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of csts_dev.tsv, lcqmc.tsv …, instead of the hub's public copies."),
    ] = None,
    part: Annotated[
        Literal["dev", "test"] | None,
        typer.Option(help="Of the hub's copies: dev, on which the cards report, or test.  [default: dev]"),
    ] = None,
    markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """The seven columns of the published model cards: our figures beside theirs (Spearman ×100).

    The data are downloaded from the Hugging Face hub once (the extra `evaluate`), or read from --data DIR; a
    column without a file stays empty.
    """
    if data and part:
        raise typer.BadParameter("--part is of the hub's copies; it does not go with --data")
    _refs(encoders)  # what is missing is told before anything is downloaded
    with printing.progress() as progress:
        sets, notes = benchmark.from_folder(data) if data else benchmark.from_hub(part or "dev", progress)
        rows: dict[str, dict[str, float | None]] = {}
        for name, encoder in _each(encoders):
            rows[name] = {
                column: measure.score_pairs(name, encoder, pairs, _named(progress, column)).spearman
                for column, pairs in sets.items()
            }
            if part != "test":
                seen = [column for column in benchmark.TRAINED_ON_DEV.get(name, ()) if column in sets]
                notes += (
                    [f"{name} was trained on some of the dev parts of {', '.join(seen)}, which flatters it"]
                    if seen
                    else []
                )
    if as_json:
        printing.print_json({"unit": "Spearman x 100", **printing.benchmark_fields(rows), "notes": notes})
    else:
        printing.print_benchmark(rows, markdown)
        for text in notes:
            printing.note(f"note: {text}")


# --- what the commands share ---------------------------------------------------------------------


def _settings() -> Settings:
    return Settings.load(GLOBALS.home)


def _each(names: Sequence[str] | None, device: str | None = None) -> Iterator[tuple[str, TransformerEncoder]]:
    """(name, encoder) of each, loaded one after the other once all are found to be there."""
    settings = _settings()
    for ref in _refs(names):
        yield (
            ref,
            registry.load_encoder(
                ref,
                device=device or settings.device,
                precision=settings.precision,
                batch_size=settings.batch_size,
            ),
        )


def _refs(names: Sequence[str] | None) -> list[str]:
    """The encoders to measure, all of which are there."""
    refs = list(dict.fromkeys(names or [registry.DEFAULT_ENCODER]))
    for ref in refs:
        registry.require(ref)
    return refs


def _devices(device: str) -> list[str]:
    from faqsearch.encoder import resolve_device

    if device != "all":
        return [device]
    return list(dict.fromkeys(["cpu", resolve_device("auto")]))


def _sentences(file: Path | None, count: int) -> list[str]:
    if file is None:
        return measure.sample_questions(count)
    texts = [text for _, text in read_queries(file)]
    return (texts * (count // len(texts) + 1))[:count]


def _names(files: Sequence[Path]) -> list[str]:
    """What the sets are called: the files' names, with as much of their folders' as tells them apart."""
    paths = [file.absolute() for file in files]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    return [str(path) for path in paths]


def _named(progress: Progress | None, name: str) -> Progress | None:
    """Progress under a name of its own in place of the stage's."""
    if progress is None:
        return None
    return lambda stage, done, total: progress(name[-24:], done, total)


def _without(item: Any, *names: str) -> dict[str, Any]:  # noqa: ANN401 - a dataclass
    return {name: value for name, value in asdict(item).items() if name not in names}
