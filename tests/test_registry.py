"""Encoder references, and the fingerprint that ties an index to exact weights."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest

from faqsearch import registry
from faqsearch.errors import EncoderError

FILES = {
    "config.json": b'{"hidden_size": 2}',
    "model.safetensors": b"weights, as far as a fingerprint knows",
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"do_lower_case": true}',
    "modules.json": b'[{"type": "x.Transformer", "path": ""}]',
    "sentence_bert_config.json": b'{"max_seq_length": 64}',
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
}


def checkpoint(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


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
    folder = checkpoint(tmp_path / "模型" / "bert")
    monkeypatch.chdir(tmp_path)
    for ref in (str(folder), "模型/bert", "./模型/bert", "模型/../模型/bert/"):
        assert registry.normal_ref(ref) == str(folder)
        assert registry.resolve(ref).resolve() == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.normal_ref("~/模型/bert") == str(folder)


def test_a_folder_named_like_the_embedded_encoder_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint(tmp_path / "embedded")
    monkeypatch.chdir(tmp_path)
    assert registry.normal_ref("embedded") == "embedded"
    assert registry.resolve("embedded").parent.name == "assets"


def test_a_hugging_face_name_is_found_in_the_local_cache(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    revision = "0123456789abcdef0123456789abcdef01234567"
    root = hub / "models--someone--small-bert"
    snapshot = checkpoint(root / "snapshots" / revision)
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
    file = checkpoint(tmp_path) / "config.json"
    with pytest.raises(EncoderError, match="expected embedded, general"):
        registry.resolve(str(file))


@pytest.mark.parametrize("missing", ["", "config.json", "model.safetensors"])
def test_a_folder_that_holds_no_checkpoint_has_no_fingerprint(tmp_path: Path, missing: str) -> None:
    """Else a mistyped folder would be taken for a corpus's encoder, and told only at the next rebuild."""
    files = {name: content for name, content in FILES.items() if missing and name != missing}
    folder = checkpoint(tmp_path, files)
    with pytest.raises(EncoderError, match="checkpoint") as caught:
        registry.fingerprint(str(folder))
    assert str(folder) in str(caught.value)
