"""The Hugging Face hub: what lies in its local cache, and the one place that downloads.

The cache folder, mirrors, offline mode and tokens are huggingface_hub's own settings (`HF_HOME`,
`HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from faqsearch.errors import EncoderError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_MODULE_FILE = re.compile(r"\d+_\w+/[^/]+")  # of a module's folder, such as 1_Pooling
_PICKLED = re.compile(r"pytorch_model[^/]*\.bin(\.index\.json)?$")
_NEEDED = re.compile(r"[^/]+\.(json|txt|model|safetensors)|pytorch_model[^/]*\.bin|README\.md")


def split(ref: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of owner/name or owner/name@revision."""
    name, _, revision = ref.partition("@")
    return name, revision or None


def is_name(ref: str) -> bool:
    """Whether a reference has the form owner/name or owner/name@revision."""
    name, _ = split(ref)
    return bool(_NAME.fullmatch(name)) and ".." not in name and "--" not in name


def cached(name: str, revision: str | None = None) -> Path | None:
    """The folder of a checkpoint in the local cache, whole or not; None where there is none. Fetches nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as exc:
        # It knows the repository's whole list of files, and names the folder that lacks those left out on purpose.
        found = getattr(exc, "snapshot_path", None)
        return Path(found) if found else None
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None


def quiet() -> None:
    """Let huggingface_hub say nothing of its own: what goes wrong is told in one line."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def needed(files: Iterable[str]) -> list[str]:
    """The files of a repository that an encoder is loaded from: no second copy of the weights for other programs.

    >>> needed(["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "1_Pooling/config.json"])
    ['1_Pooling/config.json', 'config.json', 'model.safetensors']
    """
    chosen = sorted(file for file in files if _NEEDED.fullmatch(file) or _MODULE_FILE.fullmatch(file))
    folders = {file.rpartition("/")[0] for file in chosen if file.endswith(".safetensors")}
    return [file for file in chosen if not (file.rpartition("/")[0] in folders and _PICKLED.search(file))]


def pull(name: str, revision: str | None = None, *, bars: bool = False) -> Path:
    """Download a checkpoint into the cache, or what is missing or damaged of it; its folder.

    Args:
        name: owner/name.
        revision: a commit, a tag or a branch; else the newest commit.
        bars: whether progress bars are drawn on stderr.

    Raises:
        EncoderError: nobody can be reached, there is no such repository, or the disk is full.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    quiet()
    if constants.HF_HUB_OFFLINE:
        raise EncoderError(f"HF_HUB_OFFLINE is set, so {name} is not downloaded; unset it and run the command again")
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        siblings = {item.rfilename: item for item in info.siblings or ()}
        files = needed(siblings)
        if not any(file.endswith((".safetensors", ".bin")) for file in files):
            raise EncoderError(f"{name} holds no weights for PyTorch (model.safetensors or pytorch_model.bin)")
        missing = [file for file in files if not isinstance(try_to_load_from_cache(name, file, revision=info.sha), str)]
        _check_space(name, sum(siblings[file].size or 0 for file in missing))
        (enable_progress_bars if bars else disable_progress_bars)()
        # By commit, so that all files are of one state of the repository even if it changes meanwhile.
        folder = Path(snapshot_download(name, revision=info.sha, allow_patterns=files))
        for file in files:
            if not _whole(folder / file, siblings[file]):
                hf_hub_download(name, file, revision=info.sha, force_download=True)
                if not _whole(folder / file, siblings[file]):
                    raise EncoderError(
                        f"{name}: {file} does not arrive as {constants.ENDPOINT} describes it; pull again"
                    )
        _point_at(revision or "main", str(info.sha), folder)
        return folder
    except EncoderError:
        raise
    except Exception as exc:  # huggingface_hub raises another HTTP library's errors from version to version
        raise EncoderError(_why(name, revision, exc)) from exc


def _check_space(name: str, size: int) -> None:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EncoderError(
            f"{name} needs {size / 1e6:,.0f} MB, but {folder} has {free / 1e6:,.0f} MB free; make room, or set HF_HOME"
        )


def _whole(file: Path, described: RepoSibling) -> bool:
    """Whether a file has the size and the checksum that the hub names: Git's own, or SHA-256 of large files."""
    size = file.stat().st_size
    if described.size is not None and size != described.size:
        return False
    if described.lfs:
        digest, expected = hashlib.sha256(), described.lfs.sha256
    elif described.blob_id:
        digest, expected = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False), described.blob_id
    else:
        return True
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected


def _point_at(revision: str, commit: str, folder: Path) -> None:
    """Let the cache find a commit under its branch or tag, as it would had it not been named by its number."""
    if revision != commit:
        ref = folder.parent.parent / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit, encoding="utf-8")


def _why(name: str, revision: str | None, exc: Exception) -> str:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(exc, GatedRepoError):
        return f"{name} asks for its terms to be accepted first; do so on its page, and set HF_TOKEN"
    if isinstance(exc, RevisionNotFoundError):
        return f"{name} has no revision {revision!r}; see its page for its commits, or name none"
    if isinstance(exc, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has no model {name}, or not for you; check the name, or set HF_TOKEN"
    detail = next(filter(None, map(str.strip, str(exc).splitlines())), type(exc).__name__)[:200]
    if isinstance(exc, OSError) and exc.filename:
        return f"{exc.filename}: {exc.strerror}; make room or set HF_HOME, and pull again"
    return (
        f"{name} cannot be downloaded from {constants.ENDPOINT} ({detail}); check the network, or name a mirror in"
        " HF_ENDPOINT, and pull again: files that have arrived are kept"
    )
