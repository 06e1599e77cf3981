"""Checkpoints with random weights in exactly the files of the published repositories, and a cache to put them in."""

from __future__ import annotations

import json
import string
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers

SOURCES = {
    "general": ("DMetaSoul/sbert-chinese-general-v2-distill", 4),
    "general-teacher": ("DMetaSoul/sbert-chinese-general-v2", 12),
    "open-domain": ("DMetaSoul/sbert-chinese-qmc-domain-v1-distill", 4),
    "open-domain-teacher": ("DMetaSoul/sbert-chinese-qmc-domain-v1", 12),
    "finance": ("DMetaSoul/sbert-chinese-qmc-finance-v1-distill", 4),
    "finance-teacher": ("DMetaSoul/sbert-chinese-qmc-finance-v1", 12),
}
"""(repository, layers) of the six published checkpoints."""
REAL_VOCABULARY = 21_128
COMMIT = "0123456789abcdef0123456789abcdef01234567"

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
"""The files of a checkpoint, as far as naming, finding and comparing them goes."""

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MARKS = "，。？！；：、“”‘’（）《》…—·￥~@#$%^&*()_+-=[]{}|;:'\",.<>/?!"


@lru_cache(maxsize=2)
def vocabulary(size: int) -> tuple[str, ...]:
    """A WordPiece vocabulary of this size: special pieces, letters and digits, then the commonest characters' block."""
    ascii_pieces = [*string.ascii_lowercase, *string.digits]
    pieces = [*_SPECIAL, *dict.fromkeys(_MARKS), *ascii_pieces, *(f"##{piece}" for piece in ascii_pieces)]
    characters = [chr(code) for code in range(0x4E00, 0x9FA6)]
    pieces += [*characters, *(f"##{character}" for character in characters)]  # as in the published one
    return tuple(pieces[:size])


def write_files(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """A folder with these files, which no encoder can be loaded from."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_published(
    folder: Path, layers: int = 4, *, hidden: int = 48, size: int = REAL_VOCABULARY, heads: int = 12, seed: int = 0
) -> Path:
    """A checkpoint as the published repositories hold it: pickled weights, no tokenizer.json, no safetensors.

    The real ones have hidden 768 and 21,128 pieces; a smaller hidden size keeps tests quick.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        max_position_embeddings=512,
        type_vocab_size=2,
        # Larger than is usual, so that different texts get clearly different embeddings.
        initializer_range=0.2 * min(1.0, (48 / hidden) ** 0.5),
        architectures=["BertModel"],
    )
    torch.manual_seed(seed)
    model = transformers.BertModel(config).eval()
    # The published files are of an older transformers, which kept the position ids among the weights.
    state = {"embeddings.position_ids": torch.arange(512).unsqueeze(0), **model.state_dict()}
    torch.save(state, folder / "pytorch_model.bin")
    write(folder / "config.json", {**config.to_dict(), "_name_or_path": "bert-base-chinese", "model_type": "bert"})
    (folder / "vocab.txt").write_text("\n".join(vocabulary(size)) + "\n", "utf-8")
    module = "sentence_transformers.models."
    write(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
    )
    write(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    return folder


def move_transformer(folder: Path, name: str) -> None:
    """The layout of older checkpoints: the transformer's files in a folder of their own."""
    (folder / name).mkdir()
    for file in [file for file in folder.iterdir() if file.is_file() and file.name != "modules.json"]:
        file.rename(folder / name / file.name)
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    modules[0]["path"] = name
    write(folder / "modules.json", modules)


def write(path: Path, value: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(value, indent=2), "utf-8")


def snapshot(cache: Path, repository: str, commit: str = COMMIT) -> Path:
    """Where a repository's files lie in a Hugging Face cache (the folder `hub` of HF_HOME); made, with its ref."""
    root = cache / ("models--" + repository.replace("/", "--"))
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(commit)
    folder = root / "snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place(cache: Path, name: str, **options: Any) -> Path:
    """Write one of the six published checkpoints into a Hugging Face cache; its folder there."""
    repository, layers = SOURCES[name]
    return write_published(snapshot(cache, repository), layers, **options)
