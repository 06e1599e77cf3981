"""Names → checkpoints: the embedded encoder, local folders and the Hugging Face cache.

Nothing is downloaded here. An encoder reference is, in this order, a name of the registry, a
folder, or a Hugging Face name (`owner/name`) that lies in the local cache.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from faqsearch.errors import EncoderError

if TYPE_CHECKING:
    from faqsearch.encoder import TransformerEncoder

DEFAULT_ENCODER = "embedded"
_ASSETS = Path(__file__).parent / "assets"
_FINGERPRINTED = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*/config.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that the registry knows by name."""

    name: str
    folder: Path
    answer_threshold: float
    suggest_threshold: float
    """The thresholds that a new corpus with this encoder starts with: scores differ from encoder to encoder."""


CHECKPOINTS = {
    DEFAULT_ENCODER: Checkpoint(DEFAULT_ENCODER, _ASSETS / "encoder", answer_threshold=0.90, suggest_threshold=0.82),
}


def normal_ref(ref: str) -> str:
    """The reference as it is stored with a corpus: a folder by its absolute path, so that it works from anywhere."""
    if ref and ref not in CHECKPOINTS and Path(ref).expanduser().is_dir():
        return str(Path(ref).expanduser().resolve())
    return ref


def resolve(ref: str) -> Path:
    """The folder of an encoder reference.

    Raises:
        EncoderError: there is no such checkpoint on this machine.
    """
    if ref in CHECKPOINTS:
        return CHECKPOINTS[ref].folder
    if ref and Path(ref).expanduser().is_dir():
        return Path(ref).expanduser()
    if ref.count("/") == 1 and not ref.startswith((".", "~", "/")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(ref, local_files_only=True))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError):
            pass  # told below, with what would work
    raise EncoderError(
        f"no encoder {ref!r} on this machine; expected {', '.join(CHECKPOINTS)}, a checkpoint folder, "
        "or a Hugging Face name that was downloaded before"
    )


def fingerprint(ref: str) -> str:
    """SHA-256 over a checkpoint's weights, tokenizer and settings: equal ones give equal embeddings.

    Does not load the checkpoint (nor torch).
    """
    folder = resolve(ref)
    files = {file for pattern in _FINGERPRINTED for file in folder.glob(pattern) if file.is_file()}
    if not any(file.suffix in (".safetensors", ".bin") for file in files) or folder / "config.json" not in files:
        raise EncoderError(f"{folder} is no checkpoint: expected config.json and model.safetensors or *.bin in it")
    try:
        return _digest(folder, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)))
    except OSError as exc:
        raise EncoderError(f"checkpoint {folder} cannot be read: {exc.strerror}; copy it again") from exc


@lru_cache(maxsize=16)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files by name, size and content; remembered for as long as sizes and times stay."""
    digest = hashlib.sha256()
    for file, *_ in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_encoder(ref: str = DEFAULT_ENCODER, *, device: str = "auto", batch_size: int = 32) -> TransformerEncoder:
    """Load an encoder.

        >>> load_encoder("embedded").encode(["怎么提前还款"]).shape
        (1, 384)

    Args:
        ref: a name of the registry, a folder, or a Hugging Face name in the local cache.
        device: auto, cpu or cuda.
        batch_size: texts in one forward pass.

    Raises:
        EncoderError: no such checkpoint, or a damaged one.
    """
    folder = resolve(ref)
    from faqsearch.encoder import TransformerEncoder

    return TransformerEncoder(folder, device=device, batch_size=batch_size)
