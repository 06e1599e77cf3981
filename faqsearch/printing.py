"""What the command line prints: results on stdout, everything else on stderr.

Plain text in columns for people, one JSON object for programs. No command is here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import typer

from faqsearch import benchmark, measure
from faqsearch.measure import Figure, Gap, PairScores, RetrievalScores, Speed
from faqsearch.model import (
    Change,
    EncoderCheck,
    EncoderInfo,
    Entry,
    EntryDraft,
    Feedback,
    Hit,
    HitTestReport,
    ImportReport,
    Progress,
    QueryGroup,
    SearchResult,
    Statistics,
    Status,
)
from faqsearch.service import FaqSearch

SHOWN = 20
"""Rejected rows and missed hit tests that are printed before the rest is only counted."""
SHORT_ID = 8
"""Characters of a query's id that are printed where the beginning of one is enough."""


def note(text: str) -> None:
    """A line for the person, beside the result."""
    typer.echo(text, err=True)


def error(text: str) -> None:
    """A line that says what failed."""
    typer.echo(f"error: {text}", err=True)


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Dataclasses, dates and paths as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    """One JSON object on stdout."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False))


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Names and values, one a line, or as a JSON object."""
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name + ':':<18} {value}")


def print_table(header: tuple[str, ...], rows: list[tuple[Any, ...]], markdown: bool = False) -> None:
    """Rows in columns, or as a Markdown table."""
    from rich.cells import cell_len  # Chinese characters are two columns wide

    table = [tuple(map(str, row)) for row in (header, *rows)]
    if markdown:
        table.insert(1, ("---",) * len(header))
        for row in table:
            typer.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        return
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def print_errors(report: ImportReport) -> None:
    """The rejected rows of an import, the first of them by line."""
    for row in report.errors[:SHOWN]:
        column = f", {row.column}" if row.column else ""
        note(f"line {row.line}{column}: {row.reason}")
    if len(report.errors) > SHOWN:
        note(f"… and {len(report.errors) - SHOWN} more; --rejects OUT.csv writes them all")


def print_import(report: ImportReport, no_sync: bool) -> None:
    """What an import did."""
    for text in report.notes:
        note(text)
    print_errors(report)
    made = " (new corpus)" if report.created else ""
    typer.echo(
        f"{report.corpus}{made}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged,"
        f" {report.removed} removed, {report.rejected} rejected"
    )
    if report.dry_run:
        note("dry run: nothing was saved")
    elif report.index_version:
        note(f"index version {report.index_version}")
    elif no_sync:
        note(f"the index was not synced; run `faqsearch rebuild {report.corpus}` (the entries are found already)")


def print_result(result: SearchResult) -> None:
    """What a search found."""
    if not result.hits:
        typer.echo("none: no entry to show")
        return
    meaning = {
        "answer": "answer",
        "suggest": "suggest: nothing matched surely; near are",
        "none": "none; the nearest are",
    }
    typer.echo(meaning[result.decision])
    for hit in result.hits:
        label = ", ".join(filter(None, (f"entry {hit.entry_id}", hit.key, hit.category)))
        typer.echo(f"\n{hit.rank}. {hit.question}  [{hit.score:.3f}] ({label})")
        if hit.matched_question != hit.question:
            typer.echo(f"   matched: {hit.matched_question}")
        # An answer is shown where it may be the one: below a sure answer, and with nothing near, none is.
        if (result.decision == "answer" and hit.rank == 1) or result.decision == "suggest":
            typer.echo("\n".join(f"   {line}" for line in hit.answer.splitlines()))


def print_hit_test(report: HitTestReport) -> None:
    """Figures and misses of hit tests."""
    unanswerable = report.queries - report.answerable
    auc = f"{100 * report.auc:.1f}" if report.auc is not None else "-"
    print_table(
        ("corpus", "queries", "answerable", "accuracy@1", "accuracy@5", "mrr@10", "auc"),
        [
            (report.corpus, report.queries, report.answerable, f"{100 * report.accuracy_at_1:.1f}",
             f"{100 * report.accuracy_at_5:.1f}", f"{100 * report.mrr_at_10:.1f}", auc),
        ],
    )  # fmt: skip
    typer.echo(
        f"\nat the thresholds answer {report.answer_threshold:.2f}, suggest {report.suggest_threshold:.2f}:\n"
        f"  {report.answerable} with an entry: {report.right} answered rightly, {report.wrong} wrongly,"
        f" {report.suggested} suggested, {report.refused} refused\n"
        f"  {unanswerable} without one: {report.true_nones} refused rightly, {report.false_suggestions} suggested,"
        f" {report.false_answers} answered wrongly"
    )
    if report.misses:
        typer.echo(f"\nmisses: {len(report.misses)}")
    for miss in report.misses:
        place = f"came {miss.expected_rank}." if miss.expected_rank else "did not come"
        wanted = f"{miss.expected} {place}" if miss.expected else "no entry"
        typer.echo(f"  line {miss.line}: {miss.query}")
        typer.echo(f"    {miss.decision} {miss.score:.3f} {miss.found}: {miss.matched_question}; expected {wanted}")


def print_status(report: Status) -> None:
    """The health report."""
    typer.echo(f"faqsearch {report.version}, device {report.device}, faiss {report.faiss}")
    typer.echo(f"database {report.database}\nindexes  {report.index_dir}\n")
    if not report.corpora:
        note("there is no corpus yet; import a table first")
        return
    print_table(
        ("corpus", "entries", "on", "questions", "indexed", "pending", "version", "age", "encoder"),
        [
            (c.name, c.counts.entries, c.counts.enabled, c.counts.questions, c.indexed, c.pending,
             c.index_version or "-", age(c.index_age_seconds),
             f"{c.serving} → {c.encoder} (rebuild is due)" if c.serving not in (None, c.encoder) else c.encoder)
            for c in report.corpora
        ],
    )  # fmt: skip
    for corpus in report.corpora:
        for problem in corpus.problems:
            error(f"{corpus.name}: {problem}")


def print_encoders(infos: Sequence[EncoderInfo]) -> None:
    """The encoders that there are."""
    print_table(
        ("name", "role", "parameters", "dim", "where", "licence", "corpora", "checkpoint"),
        [
            (i.name, i.role or "-", _millions(i.parameters), i.dim or "-", i.where, i.licence or "-",
             ", ".join(i.corpora) or "-", {"ours": "ships with faqsearch", "own": "a folder"}.get(i.source, i.source))
            for i in infos
        ],
    )  # fmt: skip


def print_encoder_check(check: EncoderCheck) -> None:
    """What checking an encoder found."""
    print_fields(
        {
            "name": check.name,
            "folder": check.folder,
            "shape": f"{check.layers} layers, hidden {check.dim}, vocabulary {check.vocabulary:,}",
            "parameters": f"{check.parameters:,}",
            "pooling": f"{check.pooling}, at most {check.max_length} tokens",
            **({"query prefix": repr(check.query_prefix)} if check.query_prefix else {}),
            **({"stored prefix": repr(check.stored_prefix)} if check.stored_prefix else {}),
            "weights": f"{check.weights}, converted now" if check.converted else check.weights,
            "sentences": " / ".join(check.sentences),
            "norms": ", ".join(f"{norm:.4f}" for norm in check.norms),
            "similarity": f"{check.similarity:.4f}",
        },
        as_json=False,
    )


def print_pair_scores(scores: Sequence[PairScores], markdown: bool) -> None:
    """Spearman by encoder and set, as model cards print it; then every figure."""
    encoders, sets = (list(dict.fromkeys(names)) for names in ([s.encoder for s in scores], [s.set for s in scores]))
    found = {(score.encoder, score.set): score.spearman for score in scores}
    rows = []
    for encoder in encoders:
        row = [found[encoder, name] for name in sets]
        known = [value for value in row if value is not None]
        average = sum(known) / len(known) if len(known) == len(row) else None
        rows.append((encoder, *map(_percent, (*row, average))))
    typer.echo("Spearman ×100\n")
    print_table(("encoder", *sets, "average"), rows, markdown)
    typer.echo("\nAll ×100 but the cosine from which a pair counts as matching for the best F1; -: no meaning here\n")
    print_table(
        ("encoder", "set", "pairs", "matching", "spearman", "pearson", "auc", "average precision", "best F1",
         "threshold"),
        [
            (s.encoder, s.set, s.pairs, s.matching if s.matching is not None else "graded", _percent(s.spearman),
             _percent(s.pearson), _percent(s.auc), _percent(s.average_precision), _percent(s.best_f1),
             "-" if s.threshold is None else f"{s.threshold:.3f}")
            for s in scores
        ],
        markdown,
    )  # fmt: skip


def print_retrieval_scores(scores: Sequence[RetrievalScores], markdown: bool) -> None:
    """Retrieval by encoder, each figure with its interval."""
    first = scores[0]
    typer.echo(
        f"{first.queries:,} queries, {first.answerable:,} of them answerable; {first.stored:,} stored questions."
        " ×100, in brackets the middle 95% of 1,000 bootstrap samples\n"
    )
    names = ("accuracy_at_1", "accuracy_at_5", "accuracy_at_10", "mrr_at_10", "recall_at_10", "auc")
    print_table(
        ("encoder", *(name.replace("_at_", "@") for name in names)),
        [(score.encoder, *(_figure(getattr(score, name)) for name in names)) for score in scores],
        markdown,
    )


def print_speeds(speeds: Sequence[Speed], gaps: Sequence[Gap], markdown: bool) -> None:
    """Speed by encoder, and beside it what the model cards publish; for two encoders the cards' own table."""
    rows: list[tuple[Any, ...]] = [
        (s.encoder, f"{s.device}, {s.precision}", f"{s.batch_size} (fastest)" if s.best else s.batch_size,
         _millions(s.parameters), f"{s.seconds:.1f} s", f"{1000 * s.latency:.1f} ms", f"{s.throughput:,.0f}/s")
        for s in speeds
        if s.best or replace(s, best=True) not in speeds  # one line where the cards' batch size is the fastest
    ]  # fmt: skip
    rows += [
        (f"{name}, published", "V100", measure.CARD_BATCH_SIZE, _millions(p.parameters), f"{p.seconds:.0f} s",
         f"{1000 * p.latency:.0f} ms", f"{p.throughput:,.0f}/s")
        for name, p in benchmark.PUBLISHED_SPEED.items()
    ]  # fmt: skip
    typer.echo(
        f"{speeds[0].sentences:,} sentences here, {measure.CARD_SENTENCES:,} others for the published rows; what ran on"
        " other hardware is not comparable row by row\n"
    )
    print_table(("encoder", "device", "batch", "parameters", "cost", "latency", "throughput"), rows, markdown)
    for gap in gaps:
        t, s = gap.teacher, gap.student
        if t.best and replace(t, best=False) in speeds and replace(s, best=False) in speeds:
            continue  # the same as at the cards' batch size
        names = ("teacher", "student") if t.encoder == f"{s.encoder}-teacher" else ("larger", "smaller")
        typer.echo(f"\n{t.device}, batch {t.batch_size}" + (f" and {s.batch_size} (fastest)" if t.best else "") + "\n")
        print_table(
            ("", f"{names[0]}: {t.encoder}", f"{names[1]}: {s.encoder}", "gap"),
            [
                ("model", f"{t.layers} layers ({_millions(t.parameters)})",
                 f"{s.layers} layers ({_millions(s.parameters)})", f"{gap.size:.2f}x"),
                ("cost", f"{t.seconds:.1f} s", f"{s.seconds:.1f} s", f"{100 * gap.cost:+.0f}%"),
                ("latency", f"{1000 * t.latency:.1f} ms", f"{1000 * s.latency:.1f} ms",
                 f"{100 * gap.latency:+.0f}%" if t.batch_size == s.batch_size else "-"),  # else not of the same work
                ("throughput", f"{t.throughput:,.0f}/s", f"{s.throughput:,.0f}/s", f"{gap.throughput:.1f}x"),
            ],
            markdown,
        )  # fmt: skip


def gap_fields(gap: Gap) -> dict[str, Any]:
    """A comparison of teacher and student as it is printed."""
    return {
        "teacher": gap.teacher.encoder,
        "student": gap.student.encoder,
        "device": gap.teacher.device,
        "best": gap.teacher.best,
        **{name: getattr(gap, name) for name in ("size", "cost", "latency", "throughput")},
    }


def benchmark_fields(rows: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """Our figures and those of the model cards, all of them ×100."""
    measured = {
        name: {**{column: row.get(column) for column in benchmark.COLUMNS}, "average": benchmark.average(row)}
        for name, row in rows.items()
    }
    return {
        "measured": {
            name: {column: None if value is None else round(100 * value, 4) for column, value in row.items()}
            for name, row in measured.items()
        },
        "published": {
            name: {**dict(zip(benchmark.COLUMNS, row, strict=True)), "average": benchmark.PUBLISHED_AVERAGE[name]}
            for name, row in benchmark.PUBLISHED.items()
        },
    }


def print_benchmark(rows: dict[str, dict[str, float | None]], markdown: bool) -> None:
    """Our figures, and those of the model cards."""
    columns = benchmark.COLUMNS
    ours = [(f"{name}, measured", *(_percent(row.get(column)) for column in columns), _percent(benchmark.average(row)))
            for name, row in rows.items()]  # fmt: skip
    theirs = [(f"{name}, published", *(f"{figure:.2f}" for figure in row), f"{benchmark.PUBLISHED_AVERAGE[name]:.2f}")
              for name, row in benchmark.PUBLISHED.items()]  # fmt: skip
    typer.echo("Spearman ×100\n")
    print_table(("encoder", *columns, "average"), ours + theirs, markdown)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _figure(figure: Figure | None) -> str:
    return "-" if figure is None else f"{100 * figure.value:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _millions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f}M" if count < 20e6 else f"{count / 1e6:.0f}M"


def age(seconds: float | None) -> str:
    """Seconds in the unit that suits them: 90 → 2 min."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def entry_fields(entry: Entry) -> dict[str, Any]:
    """An entry as it is printed."""
    return {
        "id": entry.id,
        "corpus": entry.corpus,
        "key": entry.key,
        "question": entry.question,
        "similar": list(entry.similar),
        "answer": entry.answer,
        "category": entry.category,
        "enabled": entry.enabled,
        "valid_from": entry.valid_from,
        "valid_to": entry.valid_to,
        "created_at": entry.created_at,
        "updated_at": entry.updated_at,
        "version": entry.version,
    }


def print_entry(entry: Entry, as_json: bool) -> None:
    """One entry."""
    fields = entry_fields(entry)
    if not as_json:
        fields["similar"] = " | ".join(entry.similar)
        fields["answer"] = entry.answer.replace("\n", "\n" + " " * 19)
        fields = {name: value for name, value in fields.items() if value not in (None, "")}
    print_fields(fields, as_json)


def print_many(what: str, changed: int, ids: list[int], as_json: bool) -> None:
    """How many of several entries were changed."""
    if as_json:
        print_json({"entries": ids, "changed": changed})
    else:
        same = f", {len(ids) - changed} were so already" if changed < len(ids) else ""
        typer.echo(f"{what} entries: {changed}{same}")


def draft_fields(draft: EntryDraft | None) -> dict[str, Any] | None:
    """An entry's content as it is printed."""
    if draft is None:
        return None
    names = ("key", "question", "similar", "answer", "category", "enabled", "valid_from", "valid_to")
    return {name: getattr(draft, name) for name in names}


def change_fields(change: Change) -> dict[str, Any]:
    """A change of an entry's history as it is printed."""
    fields = {name: getattr(change, name) for name in ("id", "at", "who", "action")}
    return {**fields, "before": draft_fields(change.before), "after": draft_fields(change.after)}


def difference(change: Change) -> Iterator[str]:
    """What a change did, in lines to read."""
    before, after = draft_fields(change.before), draft_fields(change.after)
    if before is None or after is None:
        gone = before or after or {}
        yield f"question: {cut(gone.get('question'))}"
        yield f"answer: {cut(gone.get('answer'))}"
        return
    for name, old in before.items():
        new = after[name]
        if name == "similar":
            yield from (f"similar: - {cut(text)}" for text in old if text not in new)
            yield from (f"similar: + {cut(text)}" for text in new if text not in old)
            if old != new and sorted(old) == sorted(new):
                yield "similar: in another order"
        elif old != new:
            yield f"{name}: {cut(old)} → {cut(new)}"


def cut(value: object) -> str:
    """A value in one line of a reasonable length."""
    text = " ".join(str(value).split()) if value not in (None, "") else "-"
    return text if len(text) <= 100 else text[:99] + "…"


def group_fields(group: QueryGroup) -> dict[str, Any]:
    """A group of unanswered queries as it is printed."""
    newest = group.queries[0]
    return {
        "id": newest.query_id,
        "query": newest.query,
        "count": group.count,
        "last": newest.at,
        "queries": plain(group.queries),
        "nearest": plain(group.nearest),
    }


def nearest(hits: Sequence[Hit]) -> str:
    """The first of the entries near a query."""
    return f"[{hits[0].score:.3f}] entry {hits[0].entry_id}: {hits[0].question}" if hits else "-"


def print_stats(report: Statistics) -> None:
    """What the query log says."""
    kinds = ("answer", "suggest", "none")
    by_day: dict[str, dict[str, int]] = {}
    for item in report.decisions:
        by_day.setdefault(item.day, {})[item.kind] = item.count
    totals = {kind: sum(day.get(kind, 0) for day in by_day.values()) for kind in kinds}
    shares = ", ".join(
        f"{count} {kind} ({100 * count / (report.queries or 1):.0f} %)" for kind, count in totals.items()
    )
    typer.echo(f"{report.corpus}, last {report.days} days: {report.queries} queries: {shares}")
    words = {kind: sum(item.count for item in report.feedback if item.kind == kind) for kind in get_args(Feedback)}
    typer.echo("feedback: " + ", ".join(f"{count} {kind}" for kind, count in words.items()))
    if by_day:
        typer.echo("")
        print_table(
            ("day", *kinds), [(day, *(counts.get(kind, 0) for kind in kinds)) for day, counts in by_day.items()]
        )
    if report.most_asked:
        typer.echo("\nmost asked")
        print_table(("times", "entry", "question"), [(e.count, e.entry_id, e.question) for e in report.most_asked])
    typer.echo(f"\nnever asked: {report.never_asked_total} entries")
    if report.never_asked:
        print_table(("entry", "question"), [(e.entry_id, e.question) for e in report.never_asked])
    if report.stages:
        typer.echo("\nmilliseconds")
        print_table(("stage", "median", "95 %"), [(s.stage, f"{s.median:.1f}", f"{s.p95:.1f}") for s in report.stages])


def corpus_row(faq: FaqSearch, name: str) -> dict[str, Any]:
    """A corpus with its counts as it is printed."""
    corpus, counts = faq.corpus(name), faq.counts(name)
    return {
        "name": corpus.name,
        "title": corpus.title,
        "encoder": corpus.encoder,
        "answer_threshold": corpus.answer_threshold,
        "suggest_threshold": corpus.suggest_threshold,
        "index_kind": corpus.index_kind,
        "entries": counts.entries,
        "enabled": counts.enabled,
        "questions": counts.questions,
    }


@contextmanager
def progress() -> Iterator[Progress | None]:
    """Progress bars on stderr while long work goes on; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:<10}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}
        drawn = 0.0

        def show(stage: str, done: int, total: int | None) -> None:
            nonlocal drawn
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            if (now := time.monotonic()) - drawn > 0.05 or done == total:
                drawn = now
                bars.update(tasks[stage], completed=done, total=total)

        yield show
