"""Pickled weights → safetensors: the same embeddings and fingerprint, and nothing left behind by what goes wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoints
import huggingface_hub.constants
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from faqsearch import registry
from faqsearch.checkpoint import CONVERSION, PICKLED, SAFE, fingerprint
from faqsearch.encoder import TransformerEncoder, convert, unconvert
from faqsearch.errors import EncoderError

TEXTS = ("怎么提前还款", "How do I repay？", "")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A published checkpoint, with weights."""
    return checkpoints.write_published(tmp_path / "模型", 4, size=2000)


def embed(folder: Path) -> bytes:
    """Embeddings to the last bit."""
    return TransformerEncoder(folder, device="cpu").encode(TEXTS).tobytes()


def listing(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refusal(act: Callable[[str], Any], folder: Path) -> str:
    """What is told about a folder that cannot be used: one line that names it."""
    with pytest.raises(EncoderError) as caught:
        act(str(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def as_they_are(state: dict[str, Any]) -> dict[str, Any]:
    return state


def tied(state: dict[str, Any]) -> dict[str, Any]:
    """Of a model with a head, whose output layer is the embedding table itself."""
    named = {f"bert.{name}": value for name, value in state.items()}
    return {**named, "cls.predictions.decoder.weight": named["bert.embeddings.word_embeddings.weight"]}


def sliced(state: dict[str, Any]) -> dict[str, Any]:
    """Views of larger tensors, such as safetensors refuses."""
    return {name: torch.cat([value, value])[: len(value)] for name, value in state.items()}


def named_as_by_tensorflow(state: dict[str, Any]) -> dict[str, Any]:
    new = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {
        next((name.replace(key, new[key]) for key in new if name.endswith(key)), name): value
        for name, value in state.items()
    }


def halved(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older-pickle"])
@pytest.mark.parametrize("change", [as_they_are, tied, sliced, named_as_by_tensorflow, halved])
def test_conversion_changes_neither_embeddings_nor_fingerprint(
    published: Path, change: Callable[..., Any], zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = change(torch.load(published / PICKLED, weights_only=True))
    torch.save(state, published / PICKLED, _use_new_zipfile_serialization=zipped)
    before, files, name = embed(published), listing(published), fingerprint(published)
    assert convert(published) is True
    after = listing(published)
    assert {file: after[file] for file in files} == files
    assert set(after) - set(files) == {SAFE, CONVERSION}
    stored = load_file(published / SAFE)
    assert set(stored) == set(state)
    assert all(torch.equal(stored[key], state[key]) and stored[key].dtype == state[key].dtype for key in state)
    assert convert(published) is False
    assert listing(published) == after
    monkeypatch.setattr(torch, "load", None)  # from now on no pickle is read
    assert embed(published) == before
    assert fingerprint(published) == registry.fingerprint(str(published)) == name


def test_a_check_converts_once_and_tells_the_same_both_times(published: Path) -> None:
    name = registry.fingerprint(str(published))
    first, second = registry.check(str(published), device="cpu"), registry.check(str(published), device="cpu")
    assert (first.converted, first.fingerprint, first.notes) == (True, name, ())
    assert second == replace(first, converted=False)


def test_a_checkpoint_in_the_hugging_face_cache_is_converted_beside_its_links(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = checkpoints.snapshot(tmp_path / "hub", "someone/small-bert")
    blobs = snapshot.parent.parent / "blobs"
    (blobs / "1_Pooling").mkdir(parents=True)
    (snapshot / "1_Pooling").mkdir()
    files = listing(published)
    for file, content in files.items():
        (blobs / file).write_bytes(content)
        (snapshot / file).symlink_to(blobs / file)
    checked = registry.check("someone/small-bert", device="cpu")
    assert (checked.converted, checked.folder, checked.fingerprint) == (True, snapshot, fingerprint(published))
    assert listing(blobs) == files
    assert (snapshot / SAFE).is_file() and not (snapshot / SAFE).is_symlink()
    assert embed(snapshot) == embed(published)


def test_the_older_layout_is_converted_where_its_weights_lie(published: Path) -> None:
    checkpoints.move_transformer(published, "0_Transformer")
    before, name = embed(published), fingerprint(published)
    assert convert(published) is True
    assert sorted(file.name for file in published.iterdir()) == ["0_Transformer", "1_Pooling", "modules.json"]
    assert (published / "0_Transformer" / SAFE).is_file()
    assert (embed(published), fingerprint(published)) == (before, name)


def test_converted_weights_can_be_read_by_whoever_can_read_the_pickled_ones(published: Path) -> None:
    (published / PICKLED).chmod(0o644)
    mask = os.umask(0o077)
    try:
        convert(published)
    finally:
        os.umask(mask)
    assert {name: oct((published / name).stat().st_mode & 0o777) for name in (SAFE, CONVERSION)} == {
        SAFE: "0o644",
        CONVERSION: "0o644",
    }


def test_taking_a_conversion_away_leaves_what_was_there_before(published: Path) -> None:
    before = listing(published)
    convert(published)
    unconvert(published)
    assert listing(published) == before


def test_weights_that_were_not_converted_are_never_taken_away(published: Path) -> None:
    convert(published)
    for name in (PICKLED, CONVERSION):
        (published / name).unlink()
    before = listing(published)
    unconvert(published)
    assert listing(published) == before


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("act", [lambda folder: convert(Path(folder)), registry.check], ids=["convert", "check"])
def test_a_pickle_that_would_run_code_is_refused_and_leaves_nothing(
    published: Path, tmp_path: Path, act: Callable[[str], Any]
) -> None:
    state = torch.load(published / PICKLED, weights_only=True)
    torch.save({**state, "more": _Malicious(tmp_path / "was-run")}, published / PICKLED)
    before = listing(published)
    assert refusal(act, published).startswith(f"checkpoint {published} cannot be loaded (")
    assert not (tmp_path / "was-run").exists()
    assert listing(published) == before


def half_written(error: BaseException) -> Callable[..., None]:
    def save(tensors: Any, path: Path, **options: Any) -> None:
        Path(path).write_bytes(b"half of it")
        raise error

    return save


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    return fail


def half_noted(error: BaseException) -> Callable[..., None]:
    def note(folder: Path, safetensors: Path) -> None:
        (folder / CONVERSION).write_text('{"pytorch_mo')
        raise error

    return note


FULL = OSError(errno.ENOSPC, "No space left on device")
STEPS = {
    "before-anything": ("save_file", failing),
    "half-written": ("save_file", half_written),
    "whole-but-not-noted": ("note_conversion", failing),
    "half-noted": ("note_conversion", half_noted),
    "noted-but-not-in-place": ("os.replace", failing),
}


def stop_at(step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    name, fail = STEPS[step]
    monkeypatch.setattr(f"faqsearch.encoder.{name}", fail(error))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FULL, "No space left on device"),
        (SafetensorError("Error while serializing: I/O error"), "Error while serializing: I/O error"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
    ids=["disk-full", "safetensors", "read-only"],
)
@pytest.mark.parametrize("step", STEPS)
def test_a_conversion_that_cannot_be_written_leaves_nothing_and_is_a_note(
    published: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, told: str
) -> None:
    before, embeddings = listing(published), embed(published)
    with monkeypatch.context() as patch:
        stop_at(step, error, patch)
        with pytest.raises(OSError):
            convert(published)
        assert listing(published) == before
        checked = registry.check(str(published), device="cpu")
    assert (checked.converted, checked.notes) == (
        False,
        (f"not converted to safetensors: {told}; it works all the same",),
    )
    assert listing(published) == before
    assert embed(published) == embeddings
    assert registry.check(str(published), device="cpu") == replace(checked, weights=SAFE, converted=True, notes=())


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
@pytest.mark.parametrize("step", STEPS)
def test_a_conversion_that_is_stopped_anywhere_leaves_a_folder_that_loads(
    published: Path, monkeypatch: pytest.MonkeyPatch, step: str, killed: bool
) -> None:
    before, embeddings, name = listing(published), embed(published), fingerprint(published)
    with monkeypatch.context() as patch:
        stop_at(step, KeyboardInterrupt(), patch)
        if killed:  # nothing can be cleaned up any more
            patch.setattr(Path, "unlink", lambda path, **options: None)
        with pytest.raises(KeyboardInterrupt):
            convert(published)
    left = set(listing(published)) - set(before)
    assert left == (
        {
            "before-anything": set(),
            "half-written": {f"{SAFE}.partial"},
            "whole-but-not-noted": {f"{SAFE}.partial"},
            "half-noted": {f"{SAFE}.partial", CONVERSION},
            "noted-but-not-in-place": {f"{SAFE}.partial", CONVERSION},
        }[step]
        if killed
        else set()
    )
    assert (embed(published), registry.fingerprint(str(published))) == (embeddings, name)
    assert convert(published) is True
    assert set(listing(published)) == {*before, SAFE, CONVERSION}
    assert (embed(published), registry.fingerprint(str(published))) == (embeddings, name)


# --- what happens to converted weights later


def new_pickle(folder: Path) -> None:
    """Other weights of the same size in the place of the pickled ones, as a new download would put them."""
    state = torch.load(folder / PICKLED, weights_only=True)
    torch.save({name: value.flip(-1).contiguous() for name, value in state.items()}, folder / PICKLED)


def one_bit(folder: Path) -> None:
    """The kind of damage that loading does not show."""
    data = bytearray((folder / SAFE).read_bytes())
    data[-1000] ^= 1
    (folder / SAFE).write_bytes(data)


def half(folder: Path) -> None:
    (folder / SAFE).write_bytes((folder / SAFE).read_bytes()[:100_000])


def empty_note(folder: Path) -> None:
    (folder / CONVERSION).write_text("{}")


@pytest.mark.parametrize("change", [new_pickle, one_bit, half, empty_note])
def test_weights_that_are_not_what_was_converted_are_refused_until_they_are_deleted(
    published: Path, change: Callable[[Path], None]
) -> None:
    convert(published)
    TransformerEncoder(published, device="cpu")
    change(published)
    told = f"{published / SAFE} is no longer what was converted from {PICKLED}; delete it and {CONVERSION} beside it"
    for act in (registry.require, registry.fingerprint, registry.load_encoder, registry.check):
        assert refusal(act, published) == told
    (published / SAFE).unlink()
    (published / CONVERSION).unlink()
    embeddings = embed(published)
    assert convert(published) is True
    assert embed(published) == embeddings


@pytest.mark.parametrize("text", ["", '{"pytorch_mo', "[]"])
def test_a_damaged_note_of_a_conversion_is_told(published: Path, text: str) -> None:
    convert(published)
    (published / CONVERSION).write_text(text)
    assert refusal(registry.require, published).startswith(f"{published / CONVERSION} ")


def test_converted_weights_whose_pickled_ones_are_gone_are_not_to_be_deleted(published: Path) -> None:
    """Somebody made room; deleting what is left would cost them the checkpoint."""
    convert(published)
    (published / PICKLED).unlink()
    message = refusal(registry.require, published)
    assert PICKLED in message
    assert "delete" not in message
