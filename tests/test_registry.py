"""Encoder references, and the fingerprint that ties an index to exact weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from checkpoints import COMMIT, FILES, SOURCES, place, snapshot, write, write_files, write_published

from faqsearch import registry
from faqsearch.errors import EncoderError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_the_embedded_encoder_lies_in_the_package() -> None:
    folder = registry.resolve("embedded")
    assert folder == Path(registry.__file__).parent / "assets" / "encoder"
    assert (folder / "model.safetensors").is_file()
    assert registry.normal_ref("embedded") == "embedded"


def test_a_folder_is_stored_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "模型" / "bert")
    monkeypatch.chdir(tmp_path)
    for ref in (str(folder), "模型/bert", "./模型/bert", "模型/../模型/bert/"):
        assert registry.normal_ref(ref) == str(folder)
        assert registry.resolve(ref).resolve() == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.normal_ref("~/模型/bert") == str(folder)


def test_a_folder_named_like_the_embedded_encoder_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)
    assert registry.normal_ref("embedded") == "embedded"
    assert registry.resolve("embedded").parent.name == "assets"


def test_a_hugging_face_name_is_found_in_the_local_cache(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    revision = "0123456789abcdef0123456789abcdef01234567"
    root = hub / "models--someone--small-bert"
    snapshot = write_files(root / "snapshots" / revision)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(revision)
    assert registry.normal_ref("someone/small-bert") == "someone/small-bert"
    assert registry.resolve("someone/small-bert") == snapshot
    assert registry.fingerprint("someone/small-bert") == registry.fingerprint(str(snapshot))


@pytest.mark.parametrize(
    "ref",
    ["nothing", "someone/not-downloaded", "/no/such/folder", "./no/such", "a/b/c", "問題/模型", "../..x", "x--y/.."],
)
def test_an_unknown_reference_is_one_line_that_says_what_would_work(
    hub: Path, ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for look_up in (registry.resolve, registry.fingerprint, registry.load_encoder):
        with pytest.raises(EncoderError) as caught:
            look_up(ref)
        expected = (
            f"encoder {ref!r} is not on this machine; run `faqsearch model pull {ref}`"
            if ref == "someone/not-downloaded"
            else f"no encoder {ref!r}; expected embedded, general, general-teacher, open-domain, open-domain-teacher,"
            " finance, finance-teacher, a checkpoint folder, or a Hugging Face name (owner/name)"
        )
        assert str(caught.value) == expected


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    file = write_files(tmp_path) / "config.json"
    with pytest.raises(EncoderError, match="expected embedded, general"):
        registry.resolve(str(file))


@pytest.mark.parametrize("missing", ["", "config.json", "model.safetensors"])
def test_a_folder_that_holds_no_checkpoint_has_no_fingerprint(tmp_path: Path, missing: str) -> None:
    """Else a mistyped folder would be taken for a corpus's encoder, and told only at the next rebuild."""
    files = {name: content for name, content in FILES.items() if missing and name != missing}
    folder = write_files(tmp_path, files)
    with pytest.raises(EncoderError, match="checkpoint") as caught:
        registry.fingerprint(str(folder))
    assert str(folder) in str(caught.value)


# --- what is wrong with a checkpoint, and what mends it ------------------------------------------

PULL = "run `faqsearch model pull finance`"


@pytest.mark.parametrize(
    ("ref", "cure"),
    [
        ("embedded", "install faqsearch again"),
        ("finance", PULL),
        ("owner/name@v1", "run `faqsearch model pull owner/name@v1`"),
        ("owner/folder", "copy it again"),
        ("./finance", "copy it again"),
        ("/no/such/folder", "copy it again"),
    ],
)
def test_the_cure_follows_from_where_a_checkpoint_comes_from(
    ref: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("owner/folder", "finance"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert registry.cure(ref) == cure


def test_a_folder_named_like_a_published_encoder_does_not_replace_it(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "finance")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match="'finance' is not on this machine"):
        registry.require("finance")
    there = write_files(snapshot(hub, SOURCES["finance"][0]))
    assert registry.normal_ref("finance") == "finance"
    assert registry.require("finance") == there
    assert registry.normal_ref("./finance") == str(tmp_path / "finance")
    assert registry.normal_ref("someone/encoder@v1") == "someone/encoder@v1"


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("embedded", "'embedded' ships with faqsearch; there is nothing to download"),
        *((ref, f"{ref!r} cannot be downloaded; expected general, general-teacher, open-domain, open-domain-teacher,"
           " finance, finance-teacher, or a Hugging Face name (owner/name)") for ref in ("nonsense", "", "own/folder")),
    ],
)  # fmt: skip
def test_what_is_not_on_the_hub_is_not_looked_for_there(
    ref: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own" / "folder").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError) as caught:
        registry.pull(ref)
    assert str(caught.value) == told


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "pytorch_model.bin", "1_Pooling/config.json"])
def test_a_file_that_was_not_downloaded_is_named_without_loading_anything(hub: Path, name: str) -> None:
    folder = place(hub, "finance", hidden=12, size=200)
    (folder / name).unlink()
    what = {"vocab.txt": "tokenizer; ", "pytorch_model.bin": "weights; ", "config.json": "config.json; "}
    for look_up in (registry.require, registry.fingerprint, registry.load_encoder, registry.check):
        with pytest.raises(EncoderError) as caught:
            look_up("finance")
        told = str(caught.value)
        assert told.startswith(f"checkpoint {folder} has no {what.get(name, name)}")
        assert told.endswith(f"; {PULL}")
    (info,) = (item for item in registry.encoders() if item.name == "finance")
    assert (info.where, info.folder) == ("incomplete", folder)


def truncate(folder: Path) -> None:
    weights = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(weights[: len(weights) // 2])


def empty(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")


def reconfigure(folder: Path, **values: int) -> None:
    write(folder / "config.json", {**json.loads((folder / "config.json").read_text("utf-8")), **values})


def add_word(folder: Path) -> None:
    """A piece more than the weights have rows for, and one that the example sentences use."""
    words = (folder / "vocab.txt").read_text("utf-8").splitlines()
    (folder / "vocab.txt").write_text("\n".join([*words, "款"]) + "\n", "utf-8")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncate, "checkpoint {folder} cannot be loaded ("),
        (empty, "checkpoint {folder} cannot be loaded ("),
        (lambda folder: (folder / "config.json").write_text("{"), "checkpoint {folder} cannot be loaded ("),
        (lambda folder: reconfigure(folder, hidden_size=24), "checkpoint {folder} does not fit its config.json: "),
        (lambda folder: reconfigure(folder, vocab_size=100), "checkpoint {folder} does not fit its config.json: "),
        (lambda folder: reconfigure(folder, num_hidden_layers=6), "checkpoint {folder} does not fit its config.json: "),
        (lambda folder: reconfigure(folder, num_hidden_layers=2), "checkpoint {folder} does not fit its config.json"),
        (add_word, "checkpoint {folder} does not fit its "),
    ],
    ids=["truncated", "empty", "no JSON", "hidden", "vocabulary", "layers missing", "layers too many", "words"],
)
def test_a_corrupt_or_wrongly_shaped_checkpoint_is_one_line_with_its_cure(
    hub: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    folder = place(hub, "finance", hidden=12, size=200)
    damage(folder)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for ref, where, cure in (("finance", folder, PULL), (str(copy), copy, "copy it again")):
        with pytest.raises(EncoderError) as caught:
            registry.check(ref)
        line = str(caught.value)
        assert (line.startswith(told.format(folder=where)), line.endswith(f"; {cure}"), "\n" in line) == (
            True,
            True,
            False,
        ), line
    assert not (folder / "model.safetensors").exists()


def test_a_folder_is_checked_and_converted_once(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "own", hidden=24, size=200)
    fingerprint = registry.fingerprint(str(folder))
    first, again = registry.check(str(folder)), registry.check(str(folder))
    assert again == dataclasses.replace(first, converted=False)
    assert first.converted
    assert first.norms == pytest.approx((1, 1), abs=1e-6)
    vectors = registry.load_encoder(str(folder)).encode(first.sentences)
    assert first.similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-6)
    # 200 pieces, 512 positions, 2 segments and a norm of 24; 4 layers with 4 · 24² + 2 · 24 · 96 weights and their own.
    assert first.parameters == 24 * (200 + 512 + 2 + 2) + 4 * (4 * 600 + 24 * 96 + 96 + 96 * 24 + 24 + 4 * 24)
    assert (first.name, first.folder, first.layers, first.dim, first.vocabulary, first.pooling, first.max_length) == (
        str(folder), folder, 4, 24, 200, "mean", 256,
    )  # fmt: skip
    assert (first.fingerprint, first.notes) == (fingerprint, ())
    assert first.sentences == ("我的儿子！他猛然间喊道，我的儿子在哪儿？", "我的儿子呢！他突然喊道，我的儿子在哪里？")


def test_encoders_are_listed_with_where_they_lie_and_who_uses_them(hub: Path, tmp_path: Path) -> None:
    finance = place(hub, "finance", hidden=12, size=200)
    half = snapshot(hub, SOURCES["general"][0])
    write(half / "config.json", {"num_hidden_layers": 4, "hidden_size": 12, "vocab_size": 200})
    own = write_published(tmp_path / "own", hidden=24, size=200)
    (dense := tmp_path / "dense").mkdir()
    write(dense / "modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    gone = str(tmp_path / "gone")
    used = [("bank", "finance"), ("shop", "finance"), ("mine", str(own)), ("new", "someone/encoder@v1"),
            ("old", str(dense)), ("lost", gone), ("plain", "embedded")]  # fmt: skip
    found = {info.name: (info.where, info.dim, info.folder, info.source, info.corpora)
             for info in registry.encoders(used)}  # fmt: skip
    assets = Path(registry.__file__).parent / "assets" / "encoder"
    assert found == {
        "embedded": ("embedded", 384, assets, "ours", ("plain",)),
        **{name: ("missing", 768, None, source, ()) for name, (source, _) in SOURCES.items()},
        "general": ("incomplete", 768, half, SOURCES["general"][0], ()),
        "finance": ("downloaded", 12, finance, SOURCES["finance"][0], ("bank", "shop")),
        str(own): ("folder", 24, own, "own", ("mine",)),
        "someone/encoder@v1": ("missing", None, None, "someone/encoder", ("new",)),
        str(dense): ("unusable", None, dense, "own", ("old",)),
        gone: ("missing", None, None, "own", ("lost",)),
    }
    assert list(found)[:7] == ["embedded", *SOURCES]


# --- prefixes ------------------------------------------------------------------------------------


def test_e5_checkpoints_get_the_prefix_that_their_cards_ask_for(hub: Path, tmp_path: Path) -> None:
    name = "intfloat/multilingual-e5-small"
    folder = write_published(snapshot(hub, name), hidden=12, size=200)
    plain = registry.load_encoder(str(folder))  # a folder is taken at its files' word
    assert (plain.query_prefix, plain.stored_prefix) == ("", "")
    wanted = plain.encode(["query: a1 b2"])
    for ref in (name, f"{name}@{COMMIT}"):
        encoder = registry.load_encoder(ref)
        assert (encoder.query_prefix, encoder.stored_prefix) == ("query: ", "query: ")
        np.testing.assert_array_equal(encoder.encode(["a1 b2"], query=True), wanted)
        np.testing.assert_array_equal(encoder.encode(["a1 b2"]), wanted)
    assert np.abs(plain.encode(["a1 b2"]) - wanted).max() > 0.01
    write_published(snapshot(hub, "someone/multilingual-e5-small"), hidden=12, size=200)
    assert registry.load_encoder("someone/multilingual-e5-small").query_prefix == ""
