"""Uploaded files: limited in size, and on disk under a name of ours for as long as the session wants them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from faqsearch.ui.common import language, t

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

MAX_UPLOAD_MB = 50
"""The same stands in .streamlit/config.toml."""
TABLE_TYPES = ["csv", "tsv", "txt", "xlsx"]

_INSTRUCTIONS = "[data-testid=stFileUploaderDropzoneInstructions] *"
_BUTTON = "[data-testid=stFileUploaderDropzone] button [data-testid=stMarkdownContainer] p"
_REFUSED = "[data-testid=stFileUploader]:has([aria-invalid=true])"
_HOVER = "[data-testid=stTooltipErrorHoverTarget]"


class Upload:
    """An uploaded file in a temporary folder of its own, which goes with it."""

    def __init__(self, uploaded: UploadedFile) -> None:
        self.id = uploaded.file_id
        self.name = uploaded.name
        self.folder = Path(tempfile.mkdtemp(prefix="faqsearch-upload-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.path = self.folder / "table"
        self.path.write_bytes(uploaded.getbuffer())

    def named(self, text: str) -> str:
        """A message about the file, with the name that the person knows it by."""
        return text.replace(str(self.path), self.name)


def upload_box(label: str, *, key: str, slot: str) -> Upload | None:
    """A box for one table; the file is kept in the session under `slot` until another takes its place."""
    _translate()
    uploaded = st.file_uploader(label, type=TABLE_TYPES, key=key, max_upload_size=MAX_UPLOAD_MB)
    st.caption(t("upload.limit", size=MAX_UPLOAD_MB))
    kept: Upload | None = st.session_state.get(slot)
    if uploaded is None:
        st.session_state.pop(slot, None)
        return None
    if uploaded.size > MAX_UPLOAD_MB * 2**20:
        st.session_state.pop(slot, None)
        st.error(t("upload.too_large", size=f"{uploaded.size / 2**20:.1f}", limit=MAX_UPLOAD_MB))
        return None
    if kept is None or kept.id != uploaded.file_id:
        kept = st.session_state[slot] = Upload(uploaded)
    return kept


def _translate() -> None:
    """Streamlit's own words in the box, which no parameter changes, in Chinese. Its line on the limit is ours below."""
    rules = f"{_INSTRUCTIONS} {{ display: none; }}"
    if language() == "zh":
        rules += (
            f"{_BUTTON} {{ font-size: 0; }}"
            f'{_BUTTON}::after {{ content: "{t("upload.button")}"; font-size: 0.9375rem; }}'
        )
    # The browser refuses a file that is too large by itself, and says so only when the mouse is on it.
    refused = t("upload.refused", size=MAX_UPLOAD_MB)
    rules += (
        f"{_REFUSED}::after {{ content: '{refused}'; color: #c0453e; font-size: 0.875rem; margin-top: 0.5rem; }}"
        f"{_REFUSED} {_HOVER} {{ pointer-events: none; }}{_REFUSED} {_HOVER} button {{ pointer-events: auto; }}"
    )
    st.html(f"<style>{rules}</style>")
