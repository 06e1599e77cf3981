"""Import and export: FAQ tables into a corpus, with everything told before it is done, and out again."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import streamlit as st

from faqsearch.errors import EncoderError, StoreError, TableError
from faqsearch.model import Corpus, ImportMode, ImportReport, RowError, TablePreview
from faqsearch.ui.common import choose_corpus, notify, person, plain, service, t
from faqsearch.ui.progress import ProgressBar
from faqsearch.ui.reasons import told
from faqsearch.ui.upload import Upload, upload_box

FIELDS = ("question", "answer", "similar", "key", "category", "enabled", "valid_from", "valid_to")
ENCODINGS = ("", "utf-8", "gb18030", "big5", "utf-16")
MODES: tuple[ImportMode, ...] = ("merge", "replace")
FORMATS = ("csv", "xlsx")
MIME = {"csv": "text/csv", "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}
_TEMPLATES = Path(__file__).parent.parent / "assets" / "templates"
_ROWS_SHOWN = 5
_ERRORS_SHOWN = 500


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the person wants the file to be read, where that is not left to the service."""

    mapping: tuple[tuple[str, tuple[str, ...]], ...] = ()
    encoding: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """What the service takes of it."""
        return {"mapping": dict(self.mapping), "encoding": self.encoding or None}


@dataclass(frozen=True, slots=True)
class _Target:
    """Where an import goes to."""

    name: str
    revision: int
    new: bool
    mode: ImportMode


@dataclass(frozen=True, slots=True)
class _Done:
    """An import that was made; the upload holds the rejected rows."""

    report: ImportReport
    upload: Upload


def page() -> None:
    """Draw the page."""
    if switch := st.session_state.pop("import_switch", None):
        st.session_state["corpus_choice"] = switch  # possible only before the switch is drawn
    corpus = choose_corpus() if service().corpora() else None
    if corpus is None:
        st.info(t("import_export.first"), icon=":material/waving_hand:")
    into, out, empty = st.tabs([t("import_export.import"), t("import_export.export"), t("import_export.templates")])
    with into:
        _import(corpus)
    with out:
        _export(corpus)
    with empty:
        _templates()


# --- import ----------------------------------------------------------------------------------------


def _import(corpus: Corpus | None) -> None:
    done: _Done | None = st.session_state.get("import_done")
    if done is not None:
        _show_done(done)
        return
    with st.container(border=True):
        left, right = st.columns(2, gap="medium")
        with left:
            target = _choose_target(corpus)
        with right:
            turn = st.session_state.get("import_turn", 0)
            upload = upload_box(t("import_export.file"), key=f"import_file_{turn}", slot="import_upload")
    if upload is None:
        return
    preview = _understood(upload)
    if preview is None:
        return
    if target is None:
        st.info(t("import_export.name_first"), icon=":material/edit:")
        return
    _check_and_import(upload, target)


def _choose_target(corpus: Corpus | None) -> _Target | None:
    new = corpus is None
    if corpus is not None:
        titles = {"existing": t("import_export.into_existing", title=corpus.title), "new": t("import_export.into_new")}
        choice = st.segmented_control(
            t("import_export.target"),
            list(titles),
            format_func=titles.__getitem__,
            default="existing",
            required=True,
            key="import_target",
            wrap=True,
            persist_state="session",
        )
        new = choice == "new"
    if corpus is None or new:
        name = st.text_input(
            t("import_export.new_name"),
            key="import_new_name",
            placeholder=t("import_export.new_name_example"),
            help=t("import_export.new_name_help"),
            persist_state="session",
        )
        name = (name or "").strip()
        if any(item.name == name for item in service().corpora()):
            st.error(t("import_export.name_taken", name=plain(name)))
            return None
        return _Target(name, 0, True, "merge") if name else None
    mode = st.radio(
        t("import_export.mode"),
        MODES,
        format_func={item: t(f"import_export.mode_{item}") for item in MODES}.__getitem__,
        captions=[t(f"import_export.mode_{item}_help") for item in MODES],
        key="import_mode",
        persist_state="session",
    )
    return _Target(corpus.name, corpus.revision, False, mode or "merge")


def _understood(upload: Upload) -> TablePreview | None:
    """Show what was understood of the file and let it be changed; None where it cannot be read as it is."""
    readings: dict[str, _Reading] = st.session_state.setdefault("import_readings", {})
    reading = readings.get(upload.id, _Reading())
    preview, problem = _preview(upload, reading)
    with st.container(border=True):
        st.markdown(f"**{t('import_export.understood')}**")
        if preview is not None:
            _show_preview(preview)
        elif problem is not None:
            st.error(plain(told(upload.named(str(problem)))), icon=":material/table:")
        header = _header(preview, problem)
        with st.expander(t("import_export.change"), expanded=preview is None, icon=":material/tune:"):
            changed = _reading_form(upload, reading, preview, header)
    if changed is not None and changed != reading:
        readings[upload.id] = changed
        st.rerun()
    return preview


def _preview(upload: Upload, reading: _Reading) -> tuple[TablePreview | None, TableError | None]:
    """What the service understands of the file, asked once for each way of reading it."""
    wanted = (upload.id, reading)
    kept = st.session_state.get("import_preview")
    if kept is None or kept[0] != wanted:
        found: tuple[TablePreview | None, TableError | None]
        try:
            found = (service().preview_table(upload.path, rows=_ROWS_SHOWN, **reading.options), None)
        except TableError as exc:
            found = (None, exc)
        kept = st.session_state["import_preview"] = (wanted, found)
    result: tuple[TablePreview | None, TableError | None] = kept[1]
    return result


def _header(preview: TablePreview | None, problem: TableError | None) -> tuple[str, ...]:
    """The columns to choose from, each name once; also of a table whose columns were not understood."""
    found = preview.header if preview else problem.header if problem else ()
    return tuple(dict.fromkeys(title for title in found if title))


def _show_preview(preview: TablePreview) -> None:
    info = preview.info
    facts = [info.format.upper()]
    if info.format == "csv":
        encoding = info.encoding.removesuffix("-sig").upper()
        names = {",": "comma", "\t": "tab", ";": "semicolon"}
        facts += [encoding, t(f"import_export.{names.get(info.delimiter, 'comma')}")]
    st.markdown(" ".join(f":gray-badge[{plain(fact)}]" for fact in facts))
    st.markdown(
        " ".join(
            f":primary-badge[{t(f'import_export.field_{name}')} ← {plain('、'.join(titles))}]"
            for name, titles in info.columns.items()
        )
    )
    for note in info.notes:
        st.caption(plain(told(note)))
    titles = _unique(preview.header)
    st.dataframe(
        [dict(zip(titles, (*row, *[""] * (len(titles) - len(row))), strict=True)) for row in preview.rows],
        hide_index=True,
        key="import_rows",
    )


def _unique(header: Sequence[str]) -> list[str]:
    """Names for the columns of the picture of a table: none empty, none twice."""
    seen: list[str] = []
    for number, title in enumerate(header, start=1):
        title = title or t("import_export.column", number=number)
        seen.append(f"{title} ({number})" if title in seen else title)
    return seen


def _reading_form(
    upload: Upload, reading: _Reading, preview: TablePreview | None, header: Sequence[str]
) -> _Reading | None:
    """The form in which columns and encoding are chosen by hand; None until it is sent."""
    columns: Mapping[str, tuple[str, ...]] = {**(preview.info.columns if preview else {}), **dict(reading.mapping)}
    chosen: dict[str, tuple[str, ...]] = {}
    with st.form(f"import_columns_{upload.id}", border=False):
        cells = st.columns(4) if header else []
        for place, name in enumerate(FIELDS if header else ()):
            with cells[place % 4]:
                chosen[name] = _column_box(upload, name, columns.get(name, ()), header)
        options = [item for item in ENCODINGS if not item or preview is None or preview.info.format == "csv"]
        encoding = reading.encoding
        if len(options) > 1:
            automatic = t("import_export.automatic")
            encoding = (
                st.selectbox(
                    t("import_export.encoding"),
                    options,
                    index=options.index(reading.encoding) if reading.encoding in options else 0,
                    format_func=lambda item: item.upper() or automatic,
                    key=f"import_encoding_{upload.id}",
                    width=260,
                )
                or ""
            )
        sent = st.form_submit_button(t("import_export.apply"), icon=":material/check:", key=f"import_apply_{upload.id}")
    if not sent:
        return None
    mapping = dict(reading.mapping)
    # What is left as it was understood stays with the service, which knows numbered columns and the like.
    mapping.update({name: titles for name, titles in chosen.items() if titles != columns.get(name, ())})
    return _Reading(tuple(sorted(mapping.items())) if encoding == reading.encoding else (), encoding)


def _column_box(upload: Upload, name: str, titles: tuple[str, ...], header: Sequence[str]) -> tuple[str, ...]:
    label = t(f"import_export.field_{name}")
    key = f"import_column_{name}_{upload.id}"
    if name == "similar":
        several = st.multiselect(
            label,
            list(header),
            default=[title for title in titles if title in header],
            placeholder=t("import_export.not_used"),
            key=key,
        )
        return tuple(several)
    options = ["", *header]
    names = {"": t("import_export.not_used")}
    title = st.selectbox(
        label,
        options,
        index=options.index(titles[0]) if titles and titles[0] in options else 0,
        format_func=lambda item: names.get(item, item),
        key=key,
    )
    return (title,) if title else ()


def _check_and_import(upload: Upload, target: _Target) -> None:
    """The dry run's report, and the button below it."""
    reading = st.session_state["import_readings"].get(upload.id, _Reading())
    wanted = (upload.id, reading, target)
    with st.container(border=True):
        kept = st.session_state.get("import_check")
        if kept is None or kept[0] != wanted:
            bar = ProgressBar(t("progress.starting"))
            try:
                report = _run(upload, target, reading, bar, dry_run=True)
            except (StoreError, TableError, EncoderError) as exc:
                bar.finish()
                st.error(plain(told(upload.named(str(exc)))), icon=":material/error:")
                return
            bar.finish()
            kept = st.session_state["import_check"] = (wanted, report)
            st.session_state.pop("import_failed", None)
        report = kept[1]
        heading = "would_new" if target.new else "would"
        st.markdown(f"**{t(f'import_export.{heading}', name=plain(target.name))}**")
        _show_report(report, upload, key="check")
        if failed := st.session_state.get("import_failed"):
            st.error(plain(told(failed)), icon=":material/error:")
        changes = report.added + report.updated + report.removed
        if not changes:
            st.info(t("import_export.nothing"), icon=":material/check_circle:")
            return
        sure = True
        if report.removed:
            st.warning(t("import_export.removes", count=report.removed), icon=":material/delete:")
            sure = st.checkbox(t("import_export.removes_sure", count=report.removed), key="import_sure")
        if st.button(
            t("import_export.go", count=changes),
            type="primary",
            icon=":material/upload_file:",
            disabled=not sure,
            key="import_go",
        ):
            _go(upload, target, reading)


def _go(upload: Upload, target: _Target, reading: _Reading) -> None:
    bar = ProgressBar(t("progress.starting"))
    try:
        report = _run(upload, target, reading, bar, dry_run=False)
    except (StoreError, TableError, EncoderError) as exc:
        st.session_state["import_failed"] = upload.named(str(exc))
        bar.finish()
        st.rerun()
    st.session_state["import_done"] = _Done(report, upload)
    st.session_state["corpus"] = st.session_state["import_switch"] = report.corpus
    for name in ("import_upload", "import_check", "import_preview", "import_readings"):
        st.session_state.pop(name, None)
    notify(t("import_export.done_short", count=report.added + report.updated))
    bar.finish()
    st.rerun()


def _run(upload: Upload, target: _Target, reading: _Reading, bar: ProgressBar, *, dry_run: bool) -> ImportReport:
    return service().import_table(
        upload.path,
        corpus=target.name,
        mode=target.mode,
        dry_run=dry_run,
        rejects=_rejects(upload),
        who=person(),
        progress=bar,
        **reading.options,
    )


def _rejects(upload: Upload) -> Path:
    return upload.folder / "rejects.csv"


def _show_report(report: ImportReport, upload: Upload, *, key: str) -> None:
    with st.container(horizontal=True, gap="small"):
        for name in ("added", "updated", "unchanged", "removed", "rejected"):
            st.metric(t(f"import_export.{name}"), f"{getattr(report, name):,}", border=True, width=112)
    for note in report.notes if key == "done" else ():
        st.caption(plain(told(upload.named(note))))
    if not report.errors:
        return
    st.markdown(t("import_export.rejected_rows", count=report.rejected))
    st.dataframe(
        [_error_row(error) for error in report.errors[:_ERRORS_SHOWN]],
        hide_index=True,
        column_config={
            "line": st.column_config.NumberColumn(t("import_export.line"), width=70, format="%d"),
            "column": st.column_config.TextColumn(t("import_export.at"), width="small"),
            "reason": st.column_config.TextColumn(t("import_export.reason"), width="large"),
            "row": st.column_config.TextColumn(t("import_export.row"), width="medium"),
        },
        key=f"import_errors_{key}",
    )
    if report.rejected > _ERRORS_SHOWN:
        st.caption(t("import_export.more_rejected", count=_ERRORS_SHOWN))
    st.download_button(
        t("import_export.download_rejects"),
        _rejects(upload).read_bytes(),
        file_name=t("import_export.rejects_file", name=Path(upload.name).stem),
        mime=MIME["csv"],
        icon=":material/download:",
        on_click="ignore",
        key=f"import_rejects_{key}",
        help=t("import_export.download_rejects_help"),
    )


def _error_row(error: RowError) -> dict[str, Any]:
    return {
        "line": error.line,
        "column": error.column,
        "reason": told(error.reason),
        "row": " · ".join(filter(None, (error.key, error.question))),
    }


def _show_done(done: _Done) -> None:
    report = done.report
    with st.container(border=True):
        st.success(
            t("import_export.done", file=plain(done.upload.name), name=plain(report.corpus)),
            icon=":material/check_circle:",
        )
        _show_report(report, done.upload, key="done")
        if report.index_version:
            st.caption(t("import_export.synced", version=plain(report.index_version)))
        st.button(
            t("import_export.another"), icon=":material/upload_file:", key="import_another", on_click=_start_again
        )


def _start_again() -> None:
    st.session_state.pop("import_done", None)
    st.session_state["import_turn"] = st.session_state.get("import_turn", 0) + 1


# --- export ----------------------------------------------------------------------------------------


def _export(corpus: Corpus | None) -> None:
    if corpus is None:
        st.info(t("import_export.nothing_to_export"), icon=":material/inbox:")
        return
    counts = service().counts(corpus.name)
    with st.container(border=True):
        st.markdown(
            t(
                "import_export.export_what",
                name=plain(corpus.title),
                entries=f"{counts.entries:,}",
                questions=f"{counts.questions:,}",
            )
        )
        st.caption(t("import_export.export_help"))
        with st.container(horizontal=True, gap="medium"):
            kind = st.segmented_control(
                t("import_export.format"),
                FORMATS,
                default="xlsx",
                required=True,
                format_func={item: t(f"import_export.format_{item}") for item in FORMATS}.__getitem__,
                key="export_format",
                persist_state="session",
            )
            lang = st.segmented_control(
                t("import_export.header_language"),
                ("zh", "en"),
                default="zh",
                required=True,
                format_func={item: t(f"import_export.header_{item}") for item in ("zh", "en")}.__getitem__,
                key="export_lang",
                persist_state="session",
            )
        wanted = (corpus.name, corpus.revision, kind, lang)
        if st.button(t("import_export.prepare"), icon=":material/file_export:", key="export_prepare"):
            st.session_state.pop("export_ready", None)
            try:
                with st.spinner(t("import_export.preparing")):
                    st.session_state["export_ready"] = (wanted, _exported(corpus.name, kind or "csv", lang or "zh"))
            except TableError as exc:
                st.error(plain(told(str(exc))), icon=":material/table:")
        ready = st.session_state.get("export_ready")
        if ready is not None and ready[0] == wanted:
            st.download_button(
                t("import_export.download", size=_size(len(ready[1]))),
                ready[1],
                file_name=f"{corpus.name}-{date.today():%Y%m%d}.{kind}",
                mime=MIME[kind or "csv"],
                type="primary",
                icon=":material/download:",
                on_click="ignore",
                key="export_download",
            )


def _exported(corpus: str, kind: str, lang: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="faqsearch-export-") as folder:
        path = Path(folder) / f"export.{kind}"
        service().export_table(path, corpus=corpus, lang=lang)
        return path.read_bytes()


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB" if count >= 2**20 else f"{max(1, count // 2**10)} KB"


def _templates() -> None:
    with st.container(border=True):
        st.markdown(t("import_export.templates_help"))
        for lang in ("zh", "en"):
            with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                for kind in FORMATS:
                    st.download_button(
                        t(f"import_export.template_{lang}", format=kind.upper()),
                        (_TEMPLATES / f"faq-{lang}.{kind}").read_bytes(),
                        file_name=t(f"import_export.template_file_{lang}", ending=kind),
                        mime=MIME[kind],
                        icon=":material/download:",
                        on_click="ignore",
                        key=f"template_{lang}_{kind}",
                    )
        st.caption(t("import_export.templates_rules"))
