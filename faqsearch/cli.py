"""The command line: one command is one FaqSearch call and its printing.

Results go to stdout, everything else to stderr; `--json` prints one JSON object on stdout and
nothing else there (with the member `error` on failure). Exit codes: 0 done, 1 failed (one line says
why and what helps), 2 wrong usage, 3 imported with rejected rows, 130 interrupted. Progress bars are
drawn on a terminal only.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

import faqsearch
from faqsearch.errors import FaqSearchError, ImportRejectedError, StoreError, TableError
from faqsearch.model import Entry, EntryDraft, HitTestReport, ImportReport, Progress, SearchResult, Status
from faqsearch.service import FaqSearch
from faqsearch.settings import Settings
from faqsearch.tables import FIELDS, parse_when, write_template

EXIT_FAILED = 1
EXIT_REJECTED = 3
EXIT_INTERRUPTED = 130
SHOWN = 20
"""Rejected rows and missed hit tests that are printed before the rest is only counted."""

_GROUP = {"no_args_is_help": True, "rich_markup_mode": "markdown"}
app = typer.Typer(
    help="Semantic question matching for FAQ answers: find the stored question that means the same.\n\n"
    "Start with `faqsearch template -o faq.csv`, fill it in, `faqsearch import faq.csv --corpus NAME`, and ask:"
    ' `faqsearch search "你的问题" --corpus NAME`.',
    pretty_exceptions_enable=False,
    add_completion=False,
    **_GROUP,  # type: ignore[arg-type] # Typer's parameters have one type each
)
corpus_app = typer.Typer(help="List, make, change and delete corpora.", **_GROUP)  # type: ignore[arg-type]
entry_app = typer.Typer(help="Add, show, change and delete one entry by hand.", **_GROUP)  # type: ignore[arg-type]
index_app = typer.Typer(
    help="Look after the index versions of a corpus: list, verify, roll back, prune.",
    **_GROUP,  # type: ignore[arg-type]
)
app.add_typer(corpus_app, name="corpus")
app.add_typer(entry_app, name="entry")
app.add_typer(index_app, name="index")


@dataclass
class _Globals:
    """The options before the command."""

    home: Path | None = None
    debug: bool = False


_globals = _Globals()

Corpus = Annotated[str, typer.Option("--corpus", "-c", help="The corpus's name.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Ref = Annotated[str, typer.Argument(metavar="ID", help="The entry's id, or CORPUS/KEY such as finance/F001.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A .csv, .tsv or .xlsx file; else stdout as CSV.")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"faqsearch {faqsearch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    home: Annotated[
        Path | None,
        typer.Option(help="Keep everything under this folder: faqsearch.toml, data/ and indexes/.", show_default=False),
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _globals.home, _globals.debug = home, debug


# --- the main job --------------------------------------------------------------------------------


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="A CSV, TSV or XLSX file with a header line; - for stdin.", show_default=False)
    ],
    corpus: Corpus,
    mode: Annotated[
        Literal["merge", "replace"],
        typer.Option(help="merge keeps entries that the file does not name; replace removes them."),
    ] = "merge",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would happen; save nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Save nothing if any row is rejected.")] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(help="Write the rejected rows with their reasons here, to mend and import again."),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="FIELD=COLUMN", help="Take a field from this column; may be given again."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="utf-8, gb18030, big5 …; else found out.")] = None,
    no_sync: Annotated[bool, typer.Option("--no-sync", help="Do not bring the index up to date.")] = False,
    as_json: Json = False,
) -> None:
    """Import a FAQ table into a corpus, in one transaction, and bring the index up to date.

    Rows are matched by key, else by their primary question; importing a file twice changes nothing the second
    time. The corpus is made if there is none. Columns (Chinese or English headers, any order): key, question,
    similar, answer, category, enabled, valid_from, valid_to; `faqsearch template` writes an example. Several similar
    questions in a cell are separated by a line break, ## or |. Dates: 2026-01-31, 2026/1/31 or 2026年1月31日, with a
    time if need be.

    When merging, a field without a column keeps its value. When replacing, an entry stays if its own row is
    rejected.

    Exit code 0: all rows taken. 3: some rejected, the good ones saved. 1: failed, nothing saved.
    """
    mapping = _mapping(map_ or [])
    with _service(create=True) as faq, _progress() as progress, _input(file) as path:
        try:
            report = faq.import_table(
                path,
                corpus=corpus,
                mode=mode,
                dry_run=dry_run,
                strict=strict,
                mapping=mapping,
                encoding=encoding,
                rejects=rejects,
                sync=not no_sync,
                progress=progress,
            )
        except ImportRejectedError as exc:
            _print_errors(exc.report)
            raise
    if as_json:
        _print_json(report)
    else:
        _print_import(report, no_sync)
    if report.rejected:
        raise typer.Exit(EXIT_REJECTED)


@app.command()
def export(
    corpus: Corpus,
    output: Output = None,
    lang: Annotated[Literal["zh", "en"], typer.Option(help="Language of the header.")] = "zh",
) -> None:
    """Write all of a corpus as a table that imports to the same corpus.

    A cell that a spreadsheet would run (= + - @) gets an apostrophe in front, which the import takes off again.
    """
    with _service() as faq:
        count = faq.export_table(output or _stdout(), corpus=corpus, lang=lang)
    if output:
        _note(f"{count} entries written to {output}")


@app.command()
def template(
    lang: Annotated[Literal["zh", "en"], typer.Option(help="Language of the header and the example rows.")] = "zh",
    output: Output = None,
) -> None:
    """Write an empty FAQ table with two example rows."""
    if output and output.exists() and output.is_file():
        raise TableError(f"{output} exists already; name a new file, so that nothing filled in is lost")
    write_template(output or _stdout(), lang)
    if output:
        _note(f"written to {output}; fill it in and import it")


@app.command()
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Corpora.", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every corpus.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Encode every question again.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for another rebuild of the same index.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Bring indexes up to date: the index rebuild job, safe in cron.

    Only what changed is encoded. One process at a time rebuilds an index; another one ends at once with exit code 1
    (or waits, --wait). A search goes on meanwhile, and switches to the new version once it is complete. A damaged
    version is left behind: what can be used of the others is, the rest is encoded.
    """
    if bool(names) == all_:
        raise typer.BadParameter("name the corpora to rebuild, or give --all")
    with _service() as faq, _progress() as progress:
        corpora = [corpus.name for corpus in faq.corpora()] if all_ else list(dict.fromkeys(names or []))
        reports, failed = [], []
        for name in corpora:
            try:
                reports.append(faq.rebuild(name, full=full, wait=wait, progress=progress))
            except FaqSearchError as exc:
                failed.append({"corpus": name, "error": str(exc)})  # the other corpora are still rebuilt
    for failure in failed:
        _error(failure["error"])
    if as_json:
        _print_json({"rebuilt": [asdict(report) for report in reports], "failed": failed})
    else:
        for report in reports:
            for note in report.notes:
                _note(f"{report.corpus}: {note}")
            if report.changed:
                typer.echo(
                    f"{report.corpus}: version {report.version}, {report.kept} kept, {report.encoded} encoded,"
                    f" {report.dropped} dropped, {report.seconds:.1f} s"
                )
            else:
                typer.echo(f"{report.corpus}: up to date, version {report.version}, {report.kept} questions")
        if not corpora:
            _note("there is no corpus yet; import a table first")
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="The question, in your own words.", show_default=False)] = None,
    *,
    corpus: Corpus,
    k: Annotated[int | None, typer.Option("-k", min=1, help="How many entries.  [default: 5; 1 with --batch]")] = None,
    batch: Annotated[
        Path | None, typer.Option(help="A text file with one query a line, instead of QUERY; - for stdin.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="With --batch: the table to write.")] = None,
    as_json: Json = False,
) -> None:
    """Find the stored questions that mean the same, and show their answers.

    The decision is `answer` (sure enough), `suggest` (only something near) or `none`, by the corpus's thresholds.
    Quote a query with spaces; one that begins with - goes behind --. Each hit shows its score (a cosine, 1 is the
    same), the entry's id and key, and its category.
    """
    if (query is None) == (batch is None):
        raise typer.BadParameter("give a QUERY, or --batch FILE")
    if (batch is None) != (output is None):
        raise typer.BadParameter("--batch FILE and -o OUT.csv go together")
    with _service() as faq, _progress() as progress:
        if batch and output:
            with _input(batch) as path:
                counts = faq.search_file(path, output, corpus=corpus, k=k or 1, progress=progress)
        else:
            result = faq.search(query or "", corpus=corpus, k=k or 5, progress=progress)
    if batch:
        if as_json:
            _print_json({"corpus": corpus, "queries": sum(counts.values()), "output": str(output), **counts})
        else:
            summary = ", ".join(f"{count} {decision}" for decision, count in counts.items())
            typer.echo(f"{sum(counts.values())} queries: {summary}; written to {output}")
    elif as_json:
        fields = _plain(result)
        del fields["query_id"]  # for programs that give feedback: they have FaqSearch
        _print_json(fields)
    else:
        _print_result(result)
        if result.index_version is None and result.hits:
            _note(f"no index is in use, so every question was encoded for this; run `faqsearch rebuild {corpus}`")


@app.command("hit-test")
def hit_test(
    file: Annotated[Path, typer.Argument(help="A table with the columns query and key (empty key: no entry).")],
    corpus: Corpus,
    as_json: Json = False,
) -> None:
    """Measure how well a corpus answers queries whose entries are known.

    accuracy@k: share of the answerable queries whose entry is among the first k. mrr@10: mean reciprocal rank.
    auc: how well the first hit's score tells answerable queries from the others (0.5 is chance).
    """
    with _service() as faq, _progress() as progress:
        report = faq.hit_test(file, corpus=corpus, progress=progress)
    if as_json:
        fields = _plain(report)
        del fields["scored"]
        _print_json(fields)
    else:
        _print_hit_test(report)


@app.command()
def status(as_json: Json = False) -> None:
    """Health report: corpora, counts, index version and age, pending questions, encoder, device.

    Exit code 1 if a corpus has a problem.
    """
    with _service() as faq:
        report = faq.status()
    if as_json:
        _print_json({**_plain(report), "ok": report.ok})
    else:
        _print_status(report)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


# --- corpora -------------------------------------------------------------------------------------


@corpus_app.command("list")
def corpus_list(as_json: Json = False) -> None:
    """List the corpora."""
    with _service() as faq:
        rows = [_corpus_row(faq, corpus.name) for corpus in faq.corpora()]
    if as_json:
        _print_json({"corpora": rows})
    elif rows:
        _print_table(
            ("name", "title", "entries", "questions", "encoder", "answer", "suggest"),
            [
                (*(row[name] for name in ("name", "title", "entries", "questions", "encoder")),
                 f"{row['answer_threshold']:.2f}", f"{row['suggest_threshold']:.2f}")
                for row in rows
            ],
        )  # fmt: skip
    else:
        _note("there is no corpus yet; import a table first")


@corpus_app.command("show")
def corpus_show(name: str, as_json: Json = False) -> None:
    """Show one corpus."""
    with _service() as faq:
        _print_fields(_corpus_row(faq, name), as_json)


@corpus_app.command("create")
def corpus_create(
    name: Annotated[str, typer.Argument(help="Small letters of any script, digits, - and _.")],
    title: Annotated[str | None, typer.Option(help="What people see; the name unless given.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="REF", help="embedded, a checkpoint folder, or a downloaded hub name."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an empty corpus; `import` makes one by itself."""
    with _service(create=True) as faq:
        faq.create_corpus(name, title=title, encoder=encoder)
        _print_fields(_corpus_row(faq, name), as_json)


@corpus_app.command("set")
def corpus_set(
    name: str,
    title: Annotated[str | None, typer.Option(help="What people see.")] = None,
    encoder: Annotated[str | None, typer.Option(metavar="REF", help="Takes effect with the next rebuild.")] = None,
    answer_threshold: Annotated[float | None, typer.Option(min=-1, max=1, help="Score from which it answers.")] = None,
    suggest_threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Score from which it suggests.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a corpus's title, encoder or thresholds.

    Scores differ from encoder to encoder: after a change of encoder, look at `hit-test` and choose thresholds again.
    """
    changes = {
        "title": title,
        "encoder": encoder,
        "answer_threshold": answer_threshold,
        "suggest_threshold": suggest_threshold,
    }
    if all(value is None for value in changes.values()):
        raise typer.BadParameter("nothing to set; give --title, --encoder, --answer-threshold or --suggest-threshold")
    with _service() as faq:
        before = faq.corpus(name).encoder
        after = faq.set_corpus(name, **changes)  # type: ignore[arg-type] # each has its own type
        _print_fields(_corpus_row(faq, name), as_json)
    if after.encoder != before:
        _note(f"run `faqsearch rebuild {name}` to put the encoder in service, then choose thresholds for it")


@corpus_app.command("delete")
def corpus_delete(name: str, yes: Yes = False) -> None:
    """Delete a corpus with all its entries, its query log and its index versions."""
    with _service() as faq:
        counts = faq.counts(name)
        _confirm(f"Delete corpus {name!r} with {counts.entries} entries?", yes)
        typer.echo(f"deleted {name}, entries: {faq.delete_corpus(name)}")


# --- entries -------------------------------------------------------------------------------------

Question = Annotated[str | None, typer.Option(help="The primary question.", show_default=False)]
Answer = Annotated[str | None, typer.Option(help="The answer; - reads it from stdin.", show_default=False)]
Similar = Annotated[list[str] | None, typer.Option(help="A similar question; may be given again.", show_default=False)]
Key = Annotated[str | None, typer.Option(help="Your own id for it.", show_default=False)]
Category = Annotated[str | None, typer.Option(help="Its category.", show_default=False)]
ValidFrom = Annotated[str | None, typer.Option(metavar="DATE", help="Shown from then on.", show_default=False)]
ValidTo = Annotated[str | None, typer.Option(metavar="DATE", help="Shown until then.", show_default=False)]


@entry_app.command("add")
def entry_add(
    corpus: Corpus,
    question: Annotated[str, typer.Option(help="The primary question.", show_default=False)],
    answer: Annotated[str, typer.Option(help="The answer; - reads it from stdin.", show_default=False)],
    similar: Similar = None,
    key: Key = None,
    category: Category = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Do not show it yet.")] = False,
    as_json: Json = False,
) -> None:
    """Add one entry; the very next search finds it."""
    draft = EntryDraft(
        question=question,
        answer=_answer(answer) or "",
        similar=tuple(similar or ()),
        key=key,
        category=category or "",
        enabled=not disabled,
        valid_from=_when(valid_from),
        valid_to=_when(valid_to, end=True),
    )
    with _service() as faq:
        _print_entry(faq.add_entry(corpus, draft), as_json)


@entry_app.command("show")
def entry_show(ref: Ref, as_json: Json = False) -> None:
    """Show one entry."""
    with _service() as faq:
        _print_entry(faq.entry(ref), as_json)


@entry_app.command("edit")
def entry_edit(
    ref: Ref,
    question: Question = None,
    answer: Answer = None,
    similar: Annotated[
        list[str] | None,
        typer.Option(help="Instead of all similar questions; may be given again.", show_default=False),
    ] = None,
    add_similar: Annotated[
        list[str] | None, typer.Option(help="One more similar question.", show_default=False)
    ] = None,
    remove_similar: Annotated[list[str] | None, typer.Option(help="One less.", show_default=False)] = None,
    key: Key = None,
    category: Category = None,
    valid_from: ValidFrom = None,
    valid_to: ValidTo = None,
    as_json: Json = False,
) -> None:
    """Change what is given and leave the rest; an empty text ("") clears key, category or a date."""
    with _service() as faq:
        entry = faq.entry(ref)
        changes: dict[str, Any] = {
            "question": question,
            "answer": _answer(answer),
            "category": category,
            "key": key,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        if valid_from is not None:
            changes["valid_from"] = _when(valid_from)
        if valid_to is not None:
            changes["valid_to"] = _when(valid_to, end=True)
        if similar or add_similar or remove_similar:
            texts = list(similar or entry.similar)
            for text in remove_similar or []:
                if text not in texts:
                    raise typer.BadParameter(f"entry {entry.id} has no similar question {text!r}")
                texts.remove(text)
            changes["similar"] = (*texts, *(add_similar or ()))
        if not changes:
            raise typer.BadParameter("nothing to change; see --help")
        _print_entry(faq.edit_entry(entry.id, **changes), as_json)


@entry_app.command("disable")
def entry_disable(ref: Ref, as_json: Json = False) -> None:
    """Switch an entry off: it is kept, but never shown."""
    with _service() as faq:
        _print_entry(faq.set_enabled(faq.entry(ref).id, False), as_json)


@entry_app.command("enable")
def entry_enable(ref: Ref, as_json: Json = False) -> None:
    """Switch an entry on."""
    with _service() as faq:
        _print_entry(faq.set_enabled(faq.entry(ref).id, True), as_json)


@entry_app.command("delete")
def entry_delete(ref: Ref, yes: Yes = False, as_json: Json = False) -> None:
    """Delete an entry with its questions."""
    with _service() as faq:
        entry = faq.entry(ref)
        _confirm(f"Delete entry {entry.id} of {entry.corpus}: {entry.question!r}?", yes)
        faq.delete_entry(entry.id)
    if as_json:
        _print_json({"deleted": entry.id})
    else:
        typer.echo(f"deleted entry {entry.id}")


# --- index versions ------------------------------------------------------------------------------


@index_app.command("list")
def index_list(corpus: Corpus, as_json: Json = False) -> None:
    """List the index versions of a corpus, oldest first."""
    with _service() as faq:
        versions = faq.index_versions(corpus)
    if as_json:
        _print_json({"corpus": corpus, "versions": [_plain(version) for version in versions]})
    elif versions:
        _print_table(
            ("", "version", "questions", "encoder", "built"),
            [("*" if v.current else "", v.version, v.count, v.encoder, f"{v.created_at:%Y-%m-%d %H:%M:%S} UTC")
             for v in versions],
        )  # fmt: skip
    else:
        _note(f"no index has been built; run `faqsearch rebuild {corpus}`")


@index_app.command("verify")
def index_verify(
    corpus: Corpus,
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    as_json: Json = False,
) -> None:
    """Check a version's checksum, its encoder, and that it agrees with the database. Exit code 1 if not."""
    with _service() as faq:
        report = faq.verify_index(corpus, version)
    if as_json:
        _print_json({**_plain(report), "ok": report.ok})
    elif report.ok:
        typer.echo(
            f"{corpus}: version {report.version} is whole: {report.count} questions, {report.pending} pending,"
            f" {report.stale} deleted since"
        )
    for problem in report.problems:
        _error(f"{corpus}: {problem}")
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@index_app.command("rollback")
def index_rollback(
    corpus: Corpus,
    version: Annotated[
        str | None, typer.Argument(help="The version to go back to; else the one before the current one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an earlier version current again.

    Entries stay as they are: answers come from the database. The next rebuild goes forward again.
    """
    with _service() as faq:
        now = faq.rollback_index(corpus, version)
    if as_json:
        _print_json(now)
    else:
        typer.echo(f"{corpus}: version {now.version} is current, {now.count} questions")


@index_app.command("prune")
def index_prune(
    corpus: Corpus,
    keep: Annotated[int, typer.Option(min=1, help="How many of the last versions stay, beside the current one.")] = 2,
    as_json: Json = False,
) -> None:
    """Delete old versions; the current one always stays."""
    with _service() as faq:
        gone = faq.prune_index(corpus, keep)
    if as_json:
        _print_json({"corpus": corpus, "deleted": gone})
    else:
        typer.echo(f"{corpus}: versions deleted: {len(gone)}" + "".join(f"\n  {name}" for name in gone))


# --- input ---------------------------------------------------------------------------------------


def _service(*, create: bool = False) -> FaqSearch:
    """The service; a command that only reads does not make a database where there is none."""
    settings = Settings.load(_globals.home)
    if not create and not settings.database_path.exists():
        raise StoreError(f"there is no database {settings.database_path} yet; import a table first, or check --home")
    return FaqSearch.open(settings)


@contextmanager
def _input(file: Path) -> Iterator[Path]:
    """A file to read; for - a copy of stdin, since a table is read more than once."""
    if str(file) != "-":
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stdin"
        with copy.open("wb") as handle:
            shutil.copyfileobj(sys.stdin.buffer, handle)
        yield copy


def _mapping(items: list[str]) -> dict[str, list[str]]:
    mapping: dict[str, list[str]] = {}
    for item in items:
        field, equals, column = item.partition("=")
        if not equals or field not in FIELDS or not column:
            raise typer.BadParameter(f"--map {item}: expected FIELD=COLUMN with a field of {', '.join(FIELDS)}")
        if field in mapping and field != "similar":
            raise typer.BadParameter(f"--map {item}: {field} is taken from {mapping[field][0]!r} already")
        mapping.setdefault(field, []).append(column)
    return mapping


def _answer(text: str | None) -> str | None:
    return sys.stdin.read() if text == "-" else text


def _when(text: str | None, *, end: bool = False) -> datetime | None:
    if not text:
        return None
    try:
        return parse_when(text, end=end)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("cannot ask without a terminal; give --yes")
    typer.confirm(question, abort=True, err=True)


# --- output --------------------------------------------------------------------------------------


def _stdout() -> Any:  # noqa: ANN401 - a text stream
    return sys.stdout


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _error(text: str) -> None:
    typer.echo(f"error: {text}", err=True)


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Dataclasses, dates and paths as what JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def _print_json(value: Any) -> None:  # noqa: ANN401 - JSON
    typer.echo(json.dumps(_plain(value), ensure_ascii=False))


def _print_fields(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name + ':':<18} {value}")


def _print_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    from rich.cells import cell_len  # Chinese characters are two columns wide

    table = [tuple(map(str, row)) for row in (header, *rows)]
    widths = [max(cell_len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _print_errors(report: ImportReport) -> None:
    for error in report.errors[:SHOWN]:
        column = f", {error.column}" if error.column else ""
        _note(f"line {error.line}{column}: {error.reason}")
    if len(report.errors) > SHOWN:
        _note(f"… and {len(report.errors) - SHOWN} more; --rejects OUT.csv writes them all")


def _print_import(report: ImportReport, no_sync: bool) -> None:
    for note in report.notes:
        _note(note)
    _print_errors(report)
    made = " (new corpus)" if report.created else ""
    typer.echo(
        f"{report.corpus}{made}: {report.added} added, {report.updated} updated, {report.unchanged} unchanged,"
        f" {report.removed} removed, {report.rejected} rejected"
    )
    if report.dry_run:
        _note("dry run: nothing was saved")
    elif report.index_version:
        _note(f"index version {report.index_version}")
    elif no_sync:
        _note(f"the index was not synced; run `faqsearch rebuild {report.corpus}` (the entries are found already)")


def _print_result(result: SearchResult) -> None:
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


def _print_hit_test(report: HitTestReport) -> None:
    unanswerable = report.queries - report.answerable
    auc = f"{100 * report.auc:.1f}" if report.auc is not None else "-"
    _print_table(
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


def _print_status(report: Status) -> None:
    typer.echo(f"faqsearch {report.version}, device {report.device}, faiss {report.faiss}")
    typer.echo(f"database {report.database}\nindexes  {report.index_dir}\n")
    if not report.corpora:
        _note("there is no corpus yet; import a table first")
        return
    _print_table(
        ("corpus", "entries", "on", "questions", "indexed", "pending", "version", "age", "encoder"),
        [
            (c.name, c.counts.entries, c.counts.enabled, c.counts.questions, c.indexed, c.pending,
             c.index_version or "-", _age(c.index_age_seconds), c.encoder)
            for c in report.corpora
        ],
    )  # fmt: skip
    for corpus in report.corpora:
        for problem in corpus.problems:
            _error(f"{corpus.name}: {problem}")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_entry(entry: Entry, as_json: bool) -> None:
    fields = {
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
    }
    if not as_json:
        fields["similar"] = " | ".join(entry.similar)
        fields["answer"] = entry.answer.replace("\n", "\n" + " " * 19)
        fields = {name: value for name, value in fields.items() if value not in (None, "")}
    _print_fields(fields, as_json)


def _corpus_row(faq: FaqSearch, name: str) -> dict[str, Any]:
    corpus, counts = faq.corpus(name), faq.counts(name)
    return {
        "name": corpus.name,
        "title": corpus.title,
        "encoder": corpus.encoder,
        "answer_threshold": corpus.answer_threshold,
        "suggest_threshold": corpus.suggest_threshold,
        "entries": counts.entries,
        "enabled": counts.enabled,
        "questions": counts.questions,
    }


@contextmanager
def _progress() -> Iterator[Progress | None]:
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


# --- errors --------------------------------------------------------------------------------------


def _prepare_streams() -> None:
    """Chinese text must come out whatever the locale says: in UTF-8, unless a terminal speaks another such encoding."""
    # None where the caller has closed it.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        keep = stream.isatty() and stream.encoding.lower() in ("gbk", "gb2312", "gb18030", "cp936", "big5", "cp950")
        encoding = stream.encoding if keep else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr] # text streams


def _fail(message: str, report: ImportReport | None = None) -> NoReturn:
    """One line on stderr, with --json one object on stdout as well, and exit code 1."""
    message = " ".join(message.split())
    _error(message)
    if "--json" in sys.argv:
        _print_json({"error": message, **(asdict(report) if report else {})})
    sys.exit(EXIT_FAILED)


def main() -> None:
    """Run the command line: the one place where an error becomes a line on stderr and an exit code."""
    _prepare_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe went away; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        _note("interrupted; what was not complete is not saved")
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as exc:
        if exc.code == EXIT_INTERRUPTED:
            _note("interrupted; what was not complete is not saved")
        raise
    except Exception as exc:
        if _globals.debug:
            traceback.print_exc()
        if isinstance(exc, FaqSearchError):
            _fail(str(exc), exc.report if isinstance(exc, ImportRejectedError) else None)
        if isinstance(exc, UnicodeError):
            _fail("the command line holds bytes that are no text here; use a UTF-8 locale, such as LC_ALL=C.UTF-8")
        if isinstance(exc, OSError):
            if exc.errno == errno.ENOSPC:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in it cannot go out
            _fail(f"{exc.filename or 'output'}: {exc.strerror or exc}")
        _fail(f"{type(exc).__name__}: {str(exc)[:300]}; this is a bug, --debug shows where")
