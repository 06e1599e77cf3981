"""A checkpoint's folder: its fingerprint, its files, its modules, without loading it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import checkpoints
import pytest
from checkpoints import FILES, write_files

from faqsearch import checkpoint, registry
from faqsearch.checkpoint import PICKLED, SAFE, Modules, Shape, check_files, fingerprint, read_modules
from faqsearch.encoder import TransformerEncoder
from faqsearch.errors import DamagedCheckpointError, EncoderError


def test_equal_checkpoints_have_equal_fingerprints_wherever_they_lie(tmp_path: Path) -> None:
    one, two = write_files(tmp_path / "one"), write_files(tmp_path / "二")
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)
    (two / "README.md").write_text("what does not change an embedding does not count")
    assert checkpoint.fingerprint(one) == checkpoint.fingerprint(two)


@pytest.mark.parametrize("name", [*FILES, "pytorch_model.bin", "vocab.json", "merges.txt", "added_tokens.json"])
def test_any_byte_of_weights_tokenizer_or_settings_changes_the_fingerprint(tmp_path: Path, name: str) -> None:
    folder = write_files(tmp_path, {**FILES, name: FILES.get(name, b"abc")})
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
    one = write_files(tmp_path / "one", {**FILES, "vocab.json": b"ab", "vocab.txt": b"c"})
    two = write_files(tmp_path / "two", {**FILES, "vocab.json": b"a", "vocab.txt": b"bc"})
    assert checkpoint.fingerprint(one) != checkpoint.fingerprint(two)


def test_what_lies_in_a_module_s_folder_of_any_name_counts(tmp_path: Path) -> None:
    """modules.json says where the modules lie; the usual 0_Transformer and 1_Pooling are only usual."""
    modules = [{"type": "x.Transformer", "path": "transformer"}, {"type": "x.Pooling", "path": "pooling"}]
    settings = {"modules.json": json.dumps(modules).encode(), "pooling/config.json": b'{"pooling_mode": "cls"}'}
    inner = {f"transformer/{name}": FILES[name] for name in ("config.json", "model.safetensors", "vocab.txt")}
    folder = write_files(tmp_path, {**settings, **inner})
    assert read_modules(folder) == Modules(folder / "transformer", "cls")
    seen = {fingerprint(folder)}
    for name in ("pooling/config.json", *inner):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        seen.add(fingerprint(folder))
    assert len(seen) == 5


# --- files and modules

TRANSFORMER, POOLING = {"type": "a.b.Transformer", "path": ""}, {"type": "a.b.Pooling", "path": "1_Pooling"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a published checkpoint with CLS pooling, as far as they are read without loading it."""
    folder = tmp_path / "模型"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / PICKLED).write_bytes(b"weights")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    config = {"num_hidden_layers": 4, "hidden_size": 768, "vocab_size": 21128}
    checkpoints.write(folder / "config.json", config)
    checkpoints.write(folder / "modules.json", [TRANSFORMER, POOLING])
    checkpoints.write(
        folder / "1_Pooling/config.json", {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    )
    checkpoints.write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})
    return folder


def require(folder: Path) -> str:
    """What is told about a folder that cannot be used, with the cure: one line that names the folder."""
    with pytest.raises(EncoderError) as caught:
        registry.require(str(folder))
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    return message


def test_a_whole_checkpoint_is_read_as_its_files_say(folder: Path) -> None:
    assert registry.require(str(folder)) == folder
    assert read_modules(folder) == Modules(folder, "cls", 128, True)
    assert checkpoint.read_shape(folder) == Shape(4, 768, 21128)
    prompts = {"query": "问：", "passage": "答："}
    checkpoints.write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    assert read_modules(folder) == Modules(folder, "cls", 128, True, "问：", "答：")
    checkpoints.move_transformer(folder, "0_Transformer")
    (folder / "0_Transformer/config_sentence_transformers.json").rename(folder / "config_sentence_transformers.json")
    assert read_modules(folder) == Modules(folder / "0_Transformer", "cls", 128, True, "问：", "答：")
    assert checkpoint.read_shape(folder) == Shape(4, 768, 21128)


def test_a_folder_without_sentence_transformers_files_is_mean_pooled_over_256_tokens(folder: Path) -> None:
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    assert read_modules(folder) == Modules(folder, "mean", 256, False, "", "")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("config.json", "has no config.json"),
        (
            PICKLED,
            "has no weights; expected one of model.safetensors, model.safetensors.index.json, pytorch_model.bin,"
            " pytorch_model.bin.index.json",
        ),
        (
            "vocab.txt",
            "has no tokenizer; expected one of tokenizer.json, vocab.txt, sentencepiece.bpe.model, spiece.model,"
            " vocab.json",
        ),
        # Half-downloaded: taking the mean because the file that says otherwise is missing would be silently wrong.
        ("1_Pooling/config.json", "has no 1_Pooling/config.json"),
    ],
)
def test_every_missing_file_is_named(folder: Path, file: str, told: str) -> None:
    (folder / file).unlink()
    assert require(folder) == f"checkpoint {folder} {told}; copy it again"
    with pytest.raises(EncoderError) as caught:
        TransformerEncoder(folder, device="cpu")
    assert str(caught.value) == f"checkpoint {folder} {told}; copy it again"


def test_a_missing_transformer_folder_is_named(folder: Path) -> None:
    checkpoints.write(folder / "modules.json", [{**TRANSFORMER, "path": "0_Transformer"}, POOLING])
    assert require(folder) == f"no checkpoint folder {folder / '0_Transformer'}; copy it again"


@pytest.mark.parametrize("name", [PICKLED, SAFE])
def test_a_git_lfs_pointer_is_not_taken_for_weights(folder: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 409145337\n"
    (folder / name).write_text(pointer)
    assert require(folder) == (
        f"{folder / name} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
    )


@pytest.mark.parametrize("stem", ["pytorch_model{}.bin", "model{}.safetensors"])
def test_missing_parts_of_sharded_weights_are_named(folder: Path, stem: str) -> None:
    (folder / PICKLED).unlink()
    parts = [stem.format(f"-0000{number}-of-00005") for number in range(1, 6)]
    weights = {f"layer.{number}": parts[number % 5] for number in range(20)}
    checkpoints.write(folder / (stem.format("") + ".index.json"), {"metadata": {}, "weight_map": weights})
    for part in parts:
        (folder / part).write_bytes(b"weights")
    check_files(folder)
    (folder / parts[3]).unlink()
    assert require(folder) == f"checkpoint {folder} has no {parts[3]}; copy it again"
    for part in parts[:3]:
        (folder / part).unlink()
    assert require(folder) == f"checkpoint {folder} has no {', '.join(parts[:3])}; copy it again"


@pytest.mark.parametrize(
    "index", [{"weight_map": ["a"]}, {"weight_map": {"a": ["b"]}}, {"weight_map": {"a": 1, "b": "c"}}]
)
def test_an_index_of_shards_that_makes_no_sense_is_told(folder: Path, index: Any) -> None:
    (folder / PICKLED).unlink()
    checkpoints.write(folder / "model.safetensors.index.json", index)
    assert require(folder).endswith("; copy it again")


@pytest.mark.parametrize("kind", ["Dense", "WeightedLayerPooling", "Router", "CLIPModel", ""])
def test_a_module_that_is_not_supported_is_told(folder: Path, kind: str) -> None:
    checkpoints.write(folder / "modules.json", [TRANSFORMER, POOLING, {"type": f"a.b.{kind}", "path": "2_More"}])
    assert require(folder) == (
        f"checkpoint {folder} has a {kind!r} module; only Transformer, Pooling and Normalize work"
    )


@pytest.mark.parametrize("text", ["", "[{", "[1]", '"text"', '{"a": 1}', "{}", "null", "[]"])
def test_a_modules_json_that_lists_no_modules_is_told(folder: Path, text: str) -> None:
    """Else a checkpoint with CLS pooling in another folder would be mean-pooled."""
    (folder / "modules.json").write_text(text)
    message = require(folder)
    assert message.startswith(f"{folder / 'modules.json'} is no ")
    assert message.endswith("; copy it again")


def test_a_module_outside_the_folder_is_told(folder: Path, tmp_path: Path) -> None:
    checkpoints.write(folder / "modules.json", [TRANSFORMER, {**POOLING, "path": str(tmp_path / "elsewhere")}])
    require(folder)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"pooling_mode": ["cls", "mean"]}, "cls, mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "pooling_mode_cls_token, pooling_mode_max"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "pooling_mode_mean_sqrt_len_tokens"),
    ],
)
def test_a_pooling_that_is_not_supported_is_told(folder: Path, config: Any, told: str) -> None:
    checkpoints.write(folder / "1_Pooling/config.json", config)
    message = require(folder)
    assert f"{folder / '1_Pooling/config.json'} asks for pooling {told}" in message
    assert message.endswith("; supported is one of mean, cls and max")


def test_leaving_the_prompt_out_of_pooling_is_told_only_where_there_is_a_prompt(folder: Path) -> None:
    checkpoints.write(folder / "1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False})
    settings = folder / "config_sentence_transformers.json"
    checkpoints.write(settings, {"prompts": {"query": "", "document": ""}})
    assert read_modules(folder) == Modules(folder, "cls", 128, True)
    for name in ("query", "document"):
        checkpoints.write(settings, {"prompts": {"query": "", "document": "", name: "为这个句子生成表示："}})
        assert require(folder) == (
            f"{folder / '1_Pooling/config.json'} leaves the prompt out of pooling, which does not work here;"
            " use another checkpoint"
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": ["query: "]},
        {"prompts": "query: "},
        {"prompts": {"query": 1}},
        {"prompts": {"other": "Other: "}, "default_prompt_name": ["other"]},
        {"prompts": {"other": "Other: "}, "default_prompt_name": "no-such"},
        [],
    ],
)
def test_broken_prompts_are_told(folder: Path, settings: Any) -> None:
    file = folder / "config_sentence_transformers.json"
    checkpoints.write(file, settings)
    message = require(folder)
    assert message.startswith(str(file))
    assert message.endswith("; copy it again")


@pytest.mark.parametrize("value", [None, "4", 0, -1, 4.0])
@pytest.mark.parametrize("name", ["num_hidden_layers", "hidden_size", "vocab_size"])
def test_a_config_without_a_shape_is_told(folder: Path, name: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    checkpoints.write(folder / "config.json", {**config, name: value})
    with pytest.raises(DamagedCheckpointError) as caught:
        checkpoint.read_shape(folder)
    assert str(caught.value) == f"{folder / 'config.json'} names no layers, hidden size and vocabulary"
