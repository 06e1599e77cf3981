"""The command line: one command is one FaqSearch call and its printing.

Results go to stdout, everything else to stderr; `--json` prints one JSON object on stdout and
nothing else there (with the member `error` on failure). Exit codes: 0 done, 1 failed (one line says
why and what helps), 2 wrong usage, 3 imported with rejected rows, 130 interrupted. Progress bars are
drawn on a terminal only.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

import faqsearch
from faqsearch import cli_distill, cli_encoders, printing
from faqsearch.console import GLOBALS, GROUP, Corpus, Json, Yes, input_file, open_service
from faqsearch.errors import EntryNotFoundError, FaqSearchError, ImportRejectedError, TableError
from faqsearch.model import (
    EntryDraft,
    EntryState,
    Feedback,
    ImportReport,
    IndexKind,
    QueryGroup,
)
from faqsearch.service import FaqSearch
from faqsearch.settings import environment_for
from faqsearch.tables import FIELDS, parse_when, write_template

EXIT_FAILED = 1
EXIT_REJECTED = 3
EXIT_INTERRUPTED = 130
PAGE = 20
"""Entries, or groups of queries, that a list shows at once unless told otherwise."""
QUEUE = 5_000
"""Groups of unanswered queries among which an id is looked up; the queue has no more."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

app = typer.Typer(
    help="Semantic question matching for FAQ answers: find the stored question that means the same.\n\n"
    "Start with `faqsearch template -o faq.csv`, fill it in, `faqsearch import faq.csv --corpus NAME`, and ask:"
    ' `faqsearch search "你的问题" --corpus NAME`.',
    pretty_exceptions_enable=False,
    add_completion=False,
    **GROUP,  # type: ignore[arg-type] # Typer's parameters have one type each
)
corpus_app = typer.Typer(help="List, make, change and delete corpora.", **GROUP)  # type: ignore[arg-type]
entry_app = typer.Typer(
    help="Find, add, change and delete entries by hand; read their history and bring back what was.",
    **GROUP,  # type: ignore[arg-type]
)
unanswered_app = typer.Typer(
    help="The queue of queries that got no answer, or a wrong one: see it, and deal with it.\n\n"
    "`unanswered list` names each group of queries by an ID, which stays good while the queue changes: it is"
    " the beginning of the id of one of the group's queries. What is dealt with leaves the queue.",
    **GROUP,  # type: ignore[arg-type]
)
index_app = typer.Typer(
    help="Look after the index versions of a corpus: list, verify, roll back, prune.",
    **GROUP,  # type: ignore[arg-type]
)
app.add_typer(corpus_app, name="corpus")
app.add_typer(entry_app, name="entry")
app.add_typer(unanswered_app, name="unanswered")
app.add_typer(index_app, name="index")
app.add_typer(cli_encoders.model_app, name="model")
app.add_typer(cli_encoders.evaluate_app, name="evaluate")
app.command("distill")(cli_distill.distill)


Ref = Annotated[str, typer.Argument(metavar="ID", help="The entry's id, or CORPUS/KEY such as finance/F001.")]
Refs = Annotated[list[str], typer.Argument(metavar="ID...", help="Entries: ids, or CORPUS/KEY such as finance/F001.")]
Who = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Whom the history names.  [default: the setting person, else the system's user]",
        show_default=False,
    ),
]
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
    GLOBALS.home, GLOBALS.debug = home, debug


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
    who: Who = None,
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
    with open_service(create=True) as faq, printing.progress() as progress, input_file(file) as path:
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
                who=who,
                progress=progress,
            )
        except ImportRejectedError as exc:
            printing.print_errors(exc.report)
            raise
    if as_json:
        printing.print_json(report)
    else:
        printing.print_import(report, no_sync)
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
    with open_service() as faq:
        count = faq.export_table(output or sys.stdout, corpus=corpus, lang=lang)
    if output:
        printing.note(f"{count} entries written to {output}")


@app.command()
def template(
    lang: Annotated[Literal["zh", "en"], typer.Option(help="Language of the header and the example rows.")] = "zh",
    output: Output = None,
) -> None:
    """Write an empty FAQ table with two example rows."""
    if output and output.exists() and output.is_file():
        raise TableError(f"{output} exists already; name a new file, so that nothing filled in is lost")
    write_template(output or sys.stdout, lang)
    if output:
        printing.note(f"written to {output}; fill it in and import it")


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
    with open_service() as faq, printing.progress() as progress:
        corpora = [corpus.name for corpus in faq.corpora()] if all_ else list(dict.fromkeys(names or []))
        reports, failed = [], []
        for name in corpora:
            try:
                reports.append(faq.rebuild(name, full=full, wait=wait, progress=progress))
            except FaqSearchError as exc:
                failed.append({"corpus": name, "error": str(exc)})  # the other corpora are still rebuilt
    for failure in failed:
        printing.error(failure["error"])
    if as_json:
        printing.print_json({"rebuilt": [asdict(report) for report in reports], "failed": failed})
    else:
        for report in reports:
            for note in report.notes:
                printing.note(f"{report.corpus}: {note}")
            if report.changed:
                typer.echo(
                    f"{report.corpus}: version {report.version}, {report.kept} kept, {report.encoded} encoded,"
                    f" {report.dropped} dropped, {report.seconds:.1f} s"
                )
            else:
                typer.echo(f"{report.corpus}: up to date, version {report.version}, {report.kept} questions")
        if not corpora:
            printing.note("there is no corpus yet; import a table first")
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
    with_query_id: Annotated[
        bool, typer.Option("--with-query-id", help="Show the query's id in the log as well, for `feedback`.")
    ] = False,
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
    if batch and output:
        if with_query_id:
            raise typer.BadParameter("--with-query-id goes with one QUERY")
        _search_batch(batch, output, corpus, k or 1, as_json)
        return
    with open_service() as faq, printing.progress() as progress:
        result = faq.search(query or "", corpus=corpus, k=k or 5, progress=progress)
    if as_json:
        fields = printing.plain(result)
        if not with_query_id:
            del fields["query_id"]  # programs rely on exactly the other fields
        printing.print_json(fields)
        return
    printing.print_result(result)
    if with_query_id:
        typer.echo(f"\nquery {result.query_id}" if result.query_id else "\nnot logged: the setting query_log is off")
    if result.index_version is None and result.hits:
        printing.note(f"no index is in use, so every question was encoded for this; run `faqsearch rebuild {corpus}`")


def _search_batch(batch: Path, output: Path, corpus: str, k: int, as_json: bool) -> None:
    with open_service() as faq, printing.progress() as progress, input_file(batch) as path:
        counts = faq.search_file(path, output, corpus=corpus, k=k, progress=progress)
    if as_json:
        printing.print_json({"corpus": corpus, "queries": sum(counts.values()), "output": str(output), **counts})
    else:
        summary = ", ".join(f"{count} {decision}" for decision, count in counts.items())
        typer.echo(f"{sum(counts.values())} queries: {summary}; written to {output}")


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
    with open_service() as faq, printing.progress() as progress:
        report = faq.hit_test(file, corpus=corpus, progress=progress)
    if as_json:
        fields = printing.plain(report)
        del fields["scored"]
        printing.print_json(fields)
    else:
        printing.print_hit_test(report)


@app.command()
def status(as_json: Json = False) -> None:
    """Health report: corpora, counts, index version and age, pending questions, encoder, device.

    Exit code 1 if a corpus has a problem.
    """
    with open_service() as faq:
        report = faq.status()
    if as_json:
        printing.print_json({**printing.plain(report), "ok": report.ok})
    else:
        printing.print_status(report)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def feedback(
    query_id: Annotated[str, typer.Argument(metavar="QUERY_ID", help="From `search --with-query-id`.")],
    verdict: Annotated[Feedback, typer.Argument(help="right, wrong, or instead: another entry would have been right.")],
    entry: Annotated[
        str | None, typer.Option(metavar="ID", help="For instead: that entry's id, or CORPUS/KEY.", show_default=False)
    ] = None,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Say whether the answer to a logged query was the right one.

    What is wrong joins the unanswered queries. The last word counts.
    """
    if (verdict == "instead") != (entry is not None):
        raise typer.BadParameter("--entry ID goes with instead, and instead with --entry ID")
    with open_service() as faq:
        entry_id = faq.entry(entry).id if entry is not None else None
        faq.give_feedback(query_id, verdict, entry_id=entry_id, who=who)
    if as_json:
        printing.print_json({"query_id": query_id, "feedback": verdict, "entry_id": entry_id})
    else:
        typer.echo(f"kept: {verdict}" + (f", entry {entry_id}" if entry_id else ""))


@app.command()
def stats(
    corpus: Corpus,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How many days, today included.")] = 30,
    top: Annotated[int, typer.Option(min=1, max=1_000, help="How many most asked and never asked entries.")] = 10,
    as_json: Json = False,
) -> None:
    """What the query log says: queries by decision and day, feedback, most and never asked entries, times.

    An entry counts as asked where it was the first hit of an answer or a suggestion. Times are milliseconds: the
    median, and what 95 of 100 queries stayed below.
    """
    with open_service() as faq:
        report = faq.statistics(corpus, days=days, top=top)
    if as_json:
        fields = printing.plain(report)
        del fields["scores"]  # thousands of numbers, for drawing
        printing.print_json(fields)
    else:
        printing.print_stats(report)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="The address to listen on; anything but this machine's own is open.")] = (
        LOOPBACK[0]
    ),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 8501,
) -> None:
    """Open the web pages: ask, edit entries, import, deal with unanswered queries, see figures.

    Serves them at http://127.0.0.1:8501 until it is interrupted (Ctrl-C). There is no login: whoever reaches the
    address can read and change everything, so listen elsewhere than on this machine only behind something that asks
    who is there.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise FaqSearchError("the web pages need Streamlit, which is not installed; run `pip install streamlit altair`")
    open_service(create=True).close()  # what is wrong with the settings or the database is told here, in one line
    if host not in LOOPBACK:
        printing.note(f"listening on {host}: whoever reaches it can read and change everything, there is no login")
    script = Path(__file__).parent / "ui" / "__main__.py"
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    options = {
        "server.address": host,
        "server.port": port,
        "server.headless": "true",  # it would ask for an e-mail address
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    sys.stdout.flush()
    # In place of this process, so that whoever stops it stops the server.
    os.execve(command[0], command, environment_for(GLOBALS.home))


# --- corpora -------------------------------------------------------------------------------------


@corpus_app.command("list")
def corpus_list(as_json: Json = False) -> None:
    """List the corpora."""
    with open_service() as faq:
        rows = [printing.corpus_row(faq, corpus.name) for corpus in faq.corpora()]
    if as_json:
        printing.print_json({"corpora": rows})
    elif rows:
        printing.print_table(
            ("name", "title", "entries", "questions", "encoder", "answer", "suggest"),
            [
                (*(row[name] for name in ("name", "title", "entries", "questions", "encoder")),
                 f"{row['answer_threshold']:.2f}", f"{row['suggest_threshold']:.2f}")
                for row in rows
            ],
        )  # fmt: skip
    else:
        printing.note("there is no corpus yet; import a table first")


@corpus_app.command("show")
def corpus_show(name: str, as_json: Json = False) -> None:
    """Show one corpus."""
    with open_service() as faq:
        printing.print_fields(printing.corpus_row(faq, name), as_json)


@corpus_app.command("create")
def corpus_create(
    name: Annotated[str, typer.Argument(help="Small letters of any script, digits, - and _.")],
    title: Annotated[str | None, typer.Option(help="What people see; the name unless given.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="REF", help="A name of `model list`, a checkpoint folder, or a downloaded hub name."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an empty corpus; `import` makes one by itself."""
    with open_service(create=True) as faq:
        faq.create_corpus(name, title=title, encoder=encoder)
        printing.print_fields(printing.corpus_row(faq, name), as_json)


@corpus_app.command("set")
def corpus_set(
    name: str,
    title: Annotated[str | None, typer.Option(help="What people see.")] = None,
    encoder: Annotated[str | None, typer.Option(metavar="REF", help="Takes effect with the next rebuild.")] = None,
    answer_threshold: Annotated[float | None, typer.Option(min=-1, max=1, help="Score from which it answers.")] = None,
    suggest_threshold: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Score from which it suggests.")
    ] = None,
    index_kind: Annotated[
        IndexKind | None,
        typer.Option(help="Search exactly (flat), or many questions faster (ivf); auto goes by their number."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change a corpus's title, encoder, thresholds or kind of index.

    Scores differ from encoder to encoder: after a change of encoder, look at `hit-test` and choose thresholds again.
    """
    changes = {
        "title": title,
        "encoder": encoder,
        "answer_threshold": answer_threshold,
        "suggest_threshold": suggest_threshold,
        "index_kind": index_kind,
    }
    if all(value is None for value in changes.values()):
        raise typer.BadParameter(
            "nothing to set; give --title, --encoder, --answer-threshold, --suggest-threshold or --index-kind"
        )
    with open_service() as faq:
        before = faq.corpus(name)
        after = faq.set_corpus(name, **changes)  # type: ignore[arg-type] # each has its own type
        printing.print_fields(printing.corpus_row(faq, name), as_json)
    if after.index_kind != before.index_kind:
        printing.note(f"run `faqsearch rebuild {name}` to build that kind of index; nothing is encoded again")
    if after.encoder != before.encoder:
        printing.note(f"run `faqsearch rebuild {name}` to put the encoder in service, then choose thresholds for it")


@corpus_app.command("delete")
def corpus_delete(name: str, yes: Yes = False) -> None:
    """Delete a corpus with all its entries, its query log and its index versions."""
    with open_service() as faq:
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


@entry_app.command("list")
def entry_list(
    corpus: Corpus,
    text: Annotated[
        str, typer.Option(help="Only those with this in a question or the answer, or as their key.", show_default=False)
    ] = "",
    category: Annotated[
        str | None, typer.Option(help='Only those of this category; "" for those without.', show_default=False)
    ] = None,
    state: Annotated[
        EntryState | None,
        typer.Option(
            help="Only those that are on (shown now), switched off, or outside their validity period.",
            show_default=False,
        ),
    ] = None,
    page: Annotated[int, typer.Option(min=1, max=10_000_000, help="Which page.")] = 1,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many on a page.")] = PAGE,
    as_json: Json = False,
) -> None:
    """List entries, newest change first, by pages."""
    with open_service() as faq:
        found = faq.entry_page(
            corpus, text=text, category=category, state=state, offset=(page - 1) * limit, limit=limit
        )
    pages = max(1, -(-found.total // limit))
    if as_json:
        entries = [printing.entry_fields(entry) for entry in found.entries]
        printing.print_json({"corpus": corpus, "total": found.total, "page": page, "pages": pages, "entries": entries})
        return
    if found.entries:
        printing.print_table(
            ("id", "key", "state", "category", "changed", "question"),
            [(e.id, e.key or "-", e.state_at(datetime.now()), e.category or "-", f"{e.updated_at:%Y-%m-%d}", e.question)
             for e in found.entries],
        )  # fmt: skip
    printing.note(f"page {page} of {pages}, entries: {found.total}")


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
    who: Who = None,
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
    with open_service() as faq:
        printing.print_entry(faq.add_entry(corpus, draft, who=who), as_json)


@entry_app.command("show")
def entry_show(ref: Ref, as_json: Json = False) -> None:
    """Show one entry."""
    with open_service() as faq:
        printing.print_entry(faq.entry(ref), as_json)


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
    version: Annotated[
        int | None,
        typer.Option(help="Change nothing if it is not of this version any more (`entry show`).", show_default=False),
    ] = None,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Change what is given and leave the rest; an empty text ("") clears key, category or a date."""
    with open_service() as faq:
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
        version = entry.version if version is None else version  # nothing that changes meanwhile is written over
        printing.print_entry(faq.edit_entry(entry.id, version=version, who=who, **changes), as_json)


@entry_app.command("disable")
def entry_disable(refs: Refs, who: Who = None, as_json: Json = False) -> None:
    """Switch entries off: they are kept, but never shown."""
    _switch(refs, False, who, as_json)


@entry_app.command("enable")
def entry_enable(refs: Refs, who: Who = None, as_json: Json = False) -> None:
    """Switch entries on."""
    _switch(refs, True, who, as_json)


def _switch(refs: list[str], enabled: bool, who: str | None, as_json: bool) -> None:
    with open_service() as faq:
        ids = _entry_ids(faq, refs)
        changed = faq.set_enabled_many(ids, enabled, who=who)
    printing.print_many("enabled" if enabled else "disabled", changed, ids, as_json)


@entry_app.command("categorize")
def entry_categorize(
    category: Annotated[str, typer.Argument(help='The category; "" for none.')],
    refs: Refs,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Give entries the same category."""
    with open_service() as faq:
        ids = _entry_ids(faq, refs)
        changed = faq.set_category_many(ids, category, who=who)
    printing.print_many("categorized", changed, ids, as_json)


@entry_app.command("delete")
def entry_delete(ref: Ref, yes: Yes = False, who: Who = None, as_json: Json = False) -> None:
    """Delete an entry with its questions. Its history stays: `entry history ID`."""
    with open_service() as faq:
        entry = faq.entry(ref)
        _confirm(f"Delete entry {entry.id} of {entry.corpus}: {entry.question!r}?", yes)
        faq.delete_entry(entry.id, who=who)
    if as_json:
        printing.print_json({"deleted": entry.id})
    else:
        typer.echo(f"deleted entry {entry.id}")


@entry_app.command("history")
def entry_history(ref: Ref, as_json: Json = False) -> None:
    """Show the changes to an entry, newest first: who, when, and what was before and after.

    Long texts are cut short; --json has them whole. An entry that was deleted is found by its id.
    """
    with open_service() as faq:
        entry_id = int(ref) if ref.isdecimal() else faq.entry(ref).id
        changes = faq.history(entry_id)
        if not changes:
            faq.entry(entry_id)  # tells one that never was from one that has not changed
    if as_json:
        printing.print_json({"entry_id": entry_id, "changes": [printing.change_fields(change) for change in changes]})
        return
    for change in changes:
        typer.echo(f"{change.id}  {change.at}  {change.who or '-'}  {change.action}")
        for line in printing.difference(change):
            typer.echo(f"    {line}")
    if not changes:
        printing.note(f"no change to entry {entry_id} is recorded")


@entry_app.command("restore")
def entry_restore(
    ref: Ref,
    change: Annotated[int, typer.Argument(metavar="CHANGE", help="A change's number, from `entry history`.")],
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Make an entry what it was before a change; that is a change too, and can be undone likewise."""
    with open_service() as faq:
        printing.print_entry(faq.restore_entry(faq.entry(ref).id, change, who=who), as_json)


@entry_app.command("near")
def entry_near(
    text: Annotated[str, typer.Argument(help="A question, as it is going to be written.")],
    corpus: Corpus,
    k: Annotated[int, typer.Option("-k", min=1, help="How many entries.")] = 5,
    as_json: Json = False,
) -> None:
    """Show the stored questions nearest to a new one, with their scores: does it stand there already?

    Entries that are switched off or outside their validity period are not among them. Nothing is logged.
    """
    with open_service() as faq:
        hits = faq.neighbours(text, corpus=corpus, k=k)
    if as_json:
        printing.print_json({"text": text, "corpus": corpus, "near": printing.plain(hits)})
    elif hits:
        printing.print_table(
            ("score", "entry", "key", "category", "question"),
            [(f"{hit.score:.3f}", hit.entry_id, hit.key or "-", hit.category or "-", hit.matched_question)
             for hit in hits],
        )  # fmt: skip
    else:
        printing.note(f"corpus {corpus!r} has no entry to show")


# --- unanswered queries --------------------------------------------------------------------------

GroupId = Annotated[
    str, typer.Argument(metavar="ID", help="From `unanswered list`: the beginning of a query's id.", show_default=False)
]
Only = Annotated[
    bool, typer.Option("--only", help="Deal with that one query alone, and leave the rest of its group in the queue.")
]


@unanswered_app.command("list")
def unanswered_list(
    corpus: Corpus,
    limit: Annotated[int, typer.Option(min=1, max=QUEUE, help="How many groups.")] = PAGE,
    as_json: Json = False,
) -> None:
    """List the unanswered queries: those that ask nearly the same together, the most frequent first.

    Here is what was decided `none`, marked wrong, or put here. Each group shows its ID, how often and when it was
    last asked, its newest query, and the entry that is nearest to that.
    """
    with open_service() as faq:
        groups = faq.unanswered(corpus, limit=limit)
    if as_json:
        printing.print_json({"corpus": corpus, "groups": [printing.group_fields(group) for group in groups]})
    elif groups:
        printing.print_table(
            ("ID", "asked", "last", "query", "nearest"),
            [(group.queries[0].query_id[:printing.SHORT_ID], group.count, f"{group.queries[0].at:%Y-%m-%d %H:%M}",
              group.queries[0].query, printing.nearest(group.nearest))
             for group in groups],
        )  # fmt: skip
    else:
        printing.note(f"no unanswered queries in corpus {corpus!r}")


@unanswered_app.command("attach")
def unanswered_attach(
    group: GroupId,
    ref: Annotated[str, typer.Argument(metavar="ENTRY", help="The entry's id, or CORPUS/KEY such as finance/F001.")],
    corpus: Corpus,
    text: Annotated[
        str | None, typer.Option(help="Attach this text instead of the query's own.", show_default=False)
    ] = None,
    only: Only = False,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Make a query a similar question of an entry, which answers it from now on."""
    with open_service() as faq:
        query, ids = _queries(faq, corpus, group, only)
        entry = faq.attach_queries(ids, faq.entry(ref).id, text or query, who=who)
        printing.print_entry(entry, as_json)
    printing.note(f"queries dealt with: {len(ids)}")


@unanswered_app.command("answer")
def unanswered_answer(
    group: GroupId,
    corpus: Corpus,
    answer: Annotated[str, typer.Option(help="The answer; - reads it from stdin.", show_default=False)],
    question: Annotated[
        str | None, typer.Option(help="The primary question, instead of the query's own text.", show_default=False)
    ] = None,
    similar: Similar = None,
    key: Key = None,
    category: Category = None,
    only: Only = False,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Write a new entry that answers a query."""
    with open_service() as faq:
        query, ids = _queries(faq, corpus, group, only)
        draft = EntryDraft(
            question=question or query,
            answer=_answer(answer) or "",
            similar=tuple(similar or ()),
            key=key,
            category=category or "",
        )
        printing.print_entry(faq.answer_queries(ids, corpus, draft, who=who), as_json)
    printing.note(f"queries dealt with: {len(ids)}")


@unanswered_app.command("dismiss")
def unanswered_dismiss(
    groups: Annotated[list[str], typer.Argument(metavar="ID...", help="From `unanswered list`.", show_default=False)],
    corpus: Corpus,
    only: Only = False,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """Take queries out of the queue without an answer."""
    with open_service() as faq:
        queue = faq.unanswered(corpus, limit=QUEUE)
        ids = list(dict.fromkeys(item for group in groups for item in _find_queries(queue, corpus, group, only)[1]))
        faq.dismiss_queries(ids, who=who)
    if as_json:
        printing.print_json({"dismissed": ids})
    else:
        typer.echo(f"dismissed queries: {len(ids)}")


@unanswered_app.command("add")
def unanswered_add(
    query_id: Annotated[str, typer.Argument(metavar="QUERY_ID", help="From `search --with-query-id`.")],
    as_json: Json = False,
) -> None:
    """Put a logged query into the queue; one that was decided `none` is there by itself."""
    with open_service() as faq:
        faq.enqueue(query_id)
    if as_json:
        printing.print_json({"query_id": query_id})
    else:
        typer.echo("put into the queue")


# --- index versions ------------------------------------------------------------------------------


@index_app.command("list")
def index_list(corpus: Corpus, as_json: Json = False) -> None:
    """List the index versions of a corpus, oldest first."""
    with open_service() as faq:
        versions = faq.index_versions(corpus)
    if as_json:
        printing.print_json({"corpus": corpus, "versions": [printing.plain(version) for version in versions]})
    elif versions:
        printing.print_table(
            ("", "version", "questions", "encoder", "built"),
            [("*" if v.current else "", v.version, v.count, v.encoder, f"{v.created_at:%Y-%m-%d %H:%M:%S} UTC")
             for v in versions],
        )  # fmt: skip
    else:
        printing.note(f"no index has been built; run `faqsearch rebuild {corpus}`")


@index_app.command("verify")
def index_verify(
    corpus: Corpus,
    version: Annotated[str | None, typer.Option(help="Another version than the current one.")] = None,
    as_json: Json = False,
) -> None:
    """Check a version's checksum, its encoder, and that it agrees with the database. Exit code 1 if not."""
    with open_service() as faq:
        report = faq.verify_index(corpus, version)
    if as_json:
        printing.print_json({**printing.plain(report), "ok": report.ok})
    elif report.ok:
        typer.echo(
            f"{corpus}: version {report.version} is whole: {report.count} questions, {report.pending} pending,"
            f" {report.stale} deleted since"
        )
    for problem in report.problems:
        printing.error(f"{corpus}: {problem}")
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
    with open_service() as faq:
        now = faq.rollback_index(corpus, version)
    if as_json:
        printing.print_json(now)
    else:
        typer.echo(f"{corpus}: version {now.version} is current, {now.count} questions")


@index_app.command("prune")
def index_prune(
    corpus: Corpus,
    keep: Annotated[int, typer.Option(min=1, help="How many of the last versions stay, beside the current one.")] = 2,
    as_json: Json = False,
) -> None:
    """Delete old versions; the current one always stays."""
    with open_service() as faq:
        gone = faq.prune_index(corpus, keep)
    if as_json:
        printing.print_json({"corpus": corpus, "deleted": gone})
    else:
        typer.echo(f"{corpus}: versions deleted: {len(gone)}" + "".join(f"\n  {name}" for name in gone))


# --- input ---------------------------------------------------------------------------------------


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


def _entry_ids(faq: FaqSearch, refs: list[str]) -> list[int]:
    """The entries' ids; all of them are looked up before any is changed."""
    return list(dict.fromkeys(faq.entry(ref).id for ref in refs))


def _queries(faq: FaqSearch, corpus: str, group: str, only: bool) -> tuple[str, list[str]]:
    return _find_queries(faq.unanswered(corpus, limit=QUEUE), corpus, group, only)


def _find_queries(queue: Sequence[QueryGroup], corpus: str, start: str, only: bool) -> tuple[str, list[str]]:
    """(text, ids): of the queue's query whose id begins so, the text, and the ids of its whole group or its own."""
    named = [(group, query) for group in queue for query in group.queries if start and query.query_id.startswith(start)]
    if not named:
        raise EntryNotFoundError(
            f"corpus {corpus!r} has no unanswered query {start!r}; see `faqsearch unanswered list -c {corpus}`"
        )
    if len(named) > 1:
        raise EntryNotFoundError(f"{start!r} is the beginning of {len(named)} queries' ids; give more of it (--json)")
    group, query = named[0]
    return query.query, [query.query_id] if only else [item.query_id for item in group.queries]


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("cannot ask without a terminal; give --yes")
    typer.confirm(question, abort=True, err=True)


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
    printing.error(message)
    if "--json" in sys.argv:
        printing.print_json({"error": message, **(asdict(report) if report else {})})
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
        printing.note("interrupted; what was not complete is not saved")
        sys.exit(EXIT_INTERRUPTED)
    except SystemExit as exc:
        if exc.code == EXIT_INTERRUPTED:
            printing.note("interrupted; what was not complete is not saved")
        raise
    except Exception as exc:
        if GLOBALS.debug:
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
