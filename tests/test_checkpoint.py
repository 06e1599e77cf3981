"""A checkpoint's folder: its fingerprint, its files, its modules, without loading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from faqsearch import checkpoint

FILES = {
    "config.json": b'{"hidden_size": 2}',
    "model.safetensors": b"weights, as far as a fingerprint knows",
    "vocab.txt": b"[PAD]\n[UNK]\n",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"do_lower_case": true}',
    "modules.json": b'[{"idx": 0}]',
    "sentence_bert_config.json": b'{"max_seq_length": 64}',
    "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
}


def write_checkpoint(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_equal_checkpoints_have_equal_fingerprints_wherever_they_lie(tmp_path: Path) -> None:
    one, two = write_checkpoint(tmp_path / "one"), write_checkpoint(tmp_path / "二")
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
    (two / "README.md").write_text("what does not change an embedding does not count")
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)


@pytest.mark.parametrize("name", [*FILES, "pytorch_model.bin", "vocab.json", "merges.txt", "added_tokens.json"])
def test_any_byte_of_weights_tokenizer_or_settings_changes_the_fingerprint(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, {**FILES, name: FILES.get(name, b"abc")})
    before = checkpoint.fingerprint(folder)
    data = bytearray((folder / name).read_bytes())
    seen = {before}
    for position in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        (folder / name).write_bytes(changed)
        seen.add(checkpoint.fingerprint(folder))
    (folder / name).write_bytes(data + b"\n")
    seen.add(checkpoint.fingerprint(folder))
    assert len(seen) == 5
    (folder / name).write_bytes(data)
    assert checkpoint.fingerprint(folder) == before


def test_bytes_that_move_from_one_file_to_another_change_the_fingerprint(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one", {**FILES, "vocab.json": b"ab", "vocab.txt": b"c"})
    two = write_checkpoint(tmp_path / "two", {**FILES, "vocab.json": b"a", "vocab.txt": b"bc"})
    assert checkpoint.fingerprint(one) != checkpoint.fingerprint(two)
