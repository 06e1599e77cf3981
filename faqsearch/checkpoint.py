"""A checkpoint's folder, without loading it (nor torch): its files, its modules, its shape, its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from faqsearch.errors import DamagedCheckpointError, EncoderError

Pooling = Literal["mean", "cls", "max"]

DEFAULT_MAX_LENGTH = 256
PICKLED, SAFE = "pytorch_model.bin", "model.safetensors"
CONVERSION = "conversion.json"
"""Beside weights that were converted: what they were made from, so that both count as the same weights."""

_WEIGHTS = (SAFE, SAFE + ".index.json", PICKLED, PICKLED + ".index.json")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")
_FINGERPRINTED = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.model")
_POINTER = b"version https://git-lfs.github.com"


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a transformer."""

    layers: int
    hidden: int
    vocabulary: int

    def __str__(self) -> str:
        return f"{self.layers} layers, hidden {self.hidden}, vocabulary {self.vocabulary}"


@dataclass(frozen=True, slots=True)
class Modules:
    """What sentence-transformers' files in a checkpoint's folder say about how to use its transformer."""

    transformer: Path
    """The folder of config, weights and tokenizer; mostly the checkpoint's own."""
    pooling: Pooling = "mean"
    max_length: int = DEFAULT_MAX_LENGTH
    lower: bool = False
    """Whether texts are put in lower case before the tokenizer sees them."""
    query_prefix: str = ""
    stored_prefix: str = ""


def fingerprint(path: Path) -> str:
    """SHA-256 over a checkpoint's weights, tokenizer and settings: equal ones give equal embeddings.

    Weights that `encoder.convert` wrote count as those that they were made from. No file is understood: whether
    the checkpoint is whole is another question.

    Raises:
        DamagedCheckpointError: a file cannot be read.
    """
    folders = {path, *path.glob("[0-9]*_*"), *(path / name for name in _module_folders(path))}  # such as 1_Pooling
    files = {file for folder in folders for kind in _FINGERPRINTED for file in folder.glob(kind) if file.is_file()}
    for note in [file for file in files if file.name == CONVERSION]:
        files -= {note, note.parent / SAFE}
    try:
        return _digest(path, tuple((file, *_state(file)) for file in sorted(files)))
    except OSError as exc:
        raise DamagedCheckpointError(f"checkpoint {path} cannot be read: {exc.strerror}") from exc


def _module_folders(path: Path) -> list[str]:
    """The folders that modules.json names, as far as it can be read."""
    try:
        listed = _read_json(path / "modules.json")
    except EncoderError:
        return []
    modules = listed if isinstance(listed, list) else []
    paths = [str(module["path"]) for module in modules if isinstance(module, dict) and module.get("path")]
    return [name for name in paths if not Path(name).is_absolute()]


def note_conversion(folder: Path, safetensors: Path) -> None:
    """Note that these safetensors, about to be put in place, are the folder's pickled weights converted."""
    files = {PICKLED: folder / PICKLED, SAFE: safetensors}
    sums = {name: _sha256(file, *_state(file)) for name, file in files.items()}
    note = folder / CONVERSION
    note.write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    note.chmod((folder / PICKLED).stat().st_mode & 0o777)


def weights_file(folder: Path) -> Path:
    """The file, or the index of the files, that a checkpoint's weights are loaded from.

    Raises:
        DamagedCheckpointError: there is none.
    """
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise DamagedCheckpointError(f"checkpoint {folder} has no weights; expected one of {', '.join(_WEIGHTS)}")
    return found


def weights_parts(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: one, or those that an index lists.

    Raises:
        DamagedCheckpointError: there is none, or one of several is missing.
    """
    weights = weights_file(folder)
    if not weights.name.endswith(".index.json"):
        return [weights]
    listed = read_object(weights).get("weight_map")
    parts = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not parts:
        raise DamagedCheckpointError(f"{weights} names no files of weights")
    if missing := [part for part in parts if not (folder / part).is_file()]:
        raise DamagedCheckpointError(f"checkpoint {folder} has no {', '.join(missing[:3])}")
    return [folder / part for part in parts]


def check_conversion(folder: Path) -> None:
    """Refuse converted weights that are no longer what was made from the pickled ones as they are now.

    Reads all of both, once a process.

    Raises:
        EncoderError: naming the files to delete.
    """
    if not ((folder / SAFE).is_file() and (folder / CONVERSION).is_file()):
        return
    noted = read_object(folder / CONVERSION)
    if not (folder / PICKLED).is_file():
        raise DamagedCheckpointError(f"checkpoint {folder} has no {PICKLED}, from which its {SAFE} was converted")
    try:
        true = all(_sha256(folder / name, *_state(folder / name)) == noted.get(name) for name in (PICKLED, SAFE))
    except OSError:
        true = False
    if not true:
        raise EncoderError(
            f"{folder / SAFE} is no longer what was converted from {PICKLED}; delete it and {CONVERSION} beside it"
        )


def _state(file: Path) -> tuple[int, int]:
    """What changes when a file does: (bytes, nanoseconds of its last change)."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 of files by name, size and content; remembered for as long as sizes and times stay."""
    digest = hashlib.sha256()
    for file, *_ in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            yield block


def read_shape(path: Path) -> Shape:
    """The shape that a checkpoint's config.json names.

    Raises:
        DamagedCheckpointError: no such file, or one without a shape.
    """
    file = read_modules(path).transformer / "config.json"
    config = read_object(file)
    values = [config.get(name) for name in ("num_hidden_layers", "hidden_size", "vocab_size")]
    if not all(isinstance(value, int) and value > 0 for value in values):
        raise DamagedCheckpointError(f"{file} names no layers, hidden size and vocabulary")
    return Shape(*values)  # type: ignore[arg-type] # whole numbers, as just checked


@contextmanager
def telling(cure: str) -> Iterator[None]:
    """End the message about a damaged checkpoint with what mends it."""
    try:
        yield
    except DamagedCheckpointError as exc:
        raise EncoderError(f"{exc}; {cure}") from exc


def check_files(path: Path) -> None:
    """Refuse a folder that lacks a file which an encoder is loaded from, or holds a stand-in for its weights.

    Whether the weights themselves are whole shows when they are loaded (and in `check_conversion`).

    Raises:
        DamagedCheckpointError: naming what is missing.
    """
    if not path.is_dir():
        raise DamagedCheckpointError(f"no checkpoint folder {path}")
    if not (path / "config.json").is_file():
        raise DamagedCheckpointError(f"checkpoint {path} has no config.json")
    weights = weights_file(path)
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise DamagedCheckpointError(f"checkpoint {path} has no tokenizer; expected one of {', '.join(_TOKENIZERS)}")
    weights_parts(path)
    with weights.open("rb") as handle:
        if handle.read(len(_POINTER)) == _POINTER:
            raise EncoderError(f"{weights} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository")


def require(path: Path) -> Modules:
    """The modules of a checkpoint that has all its files.

    Raises:
        DamagedCheckpointError: a file is missing or damaged.
        EncoderError: modules that are not supported, or converted weights that are no longer true.
    """
    modules = read_modules(path)
    check_files(modules.transformer)
    check_conversion(modules.transformer)
    return modules


def read_modules(path: Path) -> Modules:
    """What sentence-transformers' files in a folder say; mean pooling over 256 tokens where there are none.

    Raises:
        DamagedCheckpointError: a file is missing or damaged.
        EncoderError: modules that are not supported.
    """
    listed = _read_json(path / "modules.json") if (path / "modules.json").is_file() else [{"type": "Transformer"}]
    if not isinstance(listed, list) or not listed or not all(isinstance(module, dict) for module in listed):
        raise DamagedCheckpointError(f"{path / 'modules.json'} is no list of modules")
    transformer, pooling = path, path / "1_Pooling" / "config.json"
    for module in listed:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Transformer":
            transformer = path / str(module.get("path") or "")
        elif kind == "Pooling":
            pooling = path / str(module.get("path", "1_Pooling")) / "config.json"
            if not pooling.is_file():
                raise DamagedCheckpointError(f"checkpoint {path} has no {module.get('path')}/config.json")
        elif kind != "Normalize":
            raise EncoderError(f"checkpoint {path} has a {kind!r} module; only Transformer, Pooling and Normalize work")
    settings = read_object(transformer / "sentence_bert_config.json")
    length = settings.get("max_seq_length") or DEFAULT_MAX_LENGTH
    if not isinstance(length, int) or length < 1:
        raise DamagedCheckpointError(
            f"{transformer / 'sentence_bert_config.json'}: max_seq_length is {length!r}; expected 1 or more"
        )
    query, stored = _read_prompts(path)
    if (query or stored) and read_object(pooling).get("include_prompt") is False:
        raise EncoderError(
            f"{pooling} leaves the prompt out of pooling, which does not work here; use another checkpoint"
        )
    lower = settings.get("do_lower_case") is True
    return Modules(transformer, _read_pooling(pooling), length, lower, query, stored)


def _read_prompts(path: Path) -> tuple[str, str]:
    """(query prefix, stored prefix), by the names that sentence-transformers looks for; else its default for both."""
    file = path / "config_sentence_transformers.json"
    settings = read_object(file)
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise DamagedCheckpointError(f"{file}: prompts are no texts by name")
    query, *stored = (prompts.get(name) for name in ("query", "document", "passage", "corpus"))
    if query is None and not any(prompt is not None for prompt in stored):
        default = settings.get("default_prompt_name")
        if default is not None and not (isinstance(default, str) and default in prompts):
            raise DamagedCheckpointError(f"{file}: default_prompt_name is {default!r}, which no prompt has")
        query = prompts.get(default, "")
        stored = [query]
    return query or "", next((prompt for prompt in stored if prompt), "")


def _read_pooling(path: Path) -> Pooling:
    config = read_object(path)
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    newer = config.get("pooling_mode")  # one name, or a list of them
    modes += newer if isinstance(newer, list) else [newer] if newer else []
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "mean": "mean",
        "cls": "cls",
        "max": "max",
    }
    if not modes:
        return "mean"
    if len(modes) > 1 or str(modes[0]) not in known:
        raise EncoderError(
            f"{path} asks for pooling {', '.join(map(str, modes))}; supported is one of mean, cls and max"
        )
    return known[str(modes[0])]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; an empty one where there is no such file."""
    value = _read_json(path)
    if not isinstance(value, (dict, type(None))):
        raise DamagedCheckpointError(f"{path} holds no JSON object")
    return value or {}


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise DamagedCheckpointError(f"{path} is no valid JSON ({exc})") from exc
