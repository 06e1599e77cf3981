"""Encoding throughput, against sentence-transformers with its defaults, on the same checkpoints."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer

from benchmarks.common import alternate, median, report, sample_questions
from faqsearch.encoder import TransformerEncoder
from faqsearch.model import Precision
from faqsearch.registry import resolve

PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=Path, help="a text a line; made-up questions unless given")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    texts = options.texts.read_text("utf-8").splitlines() if options.texts else sample_questions(options.count)
    texts = (texts * (1 + options.count // len(texts)))[: options.count]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bert_base = write_bert_base(Path(folder) / "4 layers of BERT base")
        for name, checkpoint, count in (
            ("embedded", resolve("embedded"), len(texts)),
            ("4 layers, hidden 768", bert_base, len(texts) // 4),
        ):
            rows += compare(name, checkpoint, texts[:count], options.rounds)
    report(
        "encoding",
        f"Encoding {options.count:,} questions (hidden 768: a quarter of them)",
        ["checkpoint", "by", "sentences/s", "ratio", "cosine, least", "of the GEMM rate"],
        rows,
    )


def compare(name: str, checkpoint: Path, texts: list[str], rounds: int) -> list[list[object]]:
    """Rows of one checkpoint: the peer first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peers = {"sentence-transformers": SentenceTransformer(str(checkpoint), device=device)}
    if (loaded_in := next(peers["sentence-transformers"].parameters()).dtype) != torch.float32:
        plain = SentenceTransformer(str(checkpoint), device=device, model_kwargs={"dtype": torch.float32})
        peers["sentence-transformers, told float32"] = plain
    ours = {precision: TransformerEncoder(checkpoint, precision=precision) for precision in PRECISIONS}
    seconds = alternate(
        {
            **{
                name: lambda peer=peer: peer.encode(texts, show_progress_bar=False)  # type: ignore[misc]
                for name, peer in peers.items()
            },
            **{precision: lambda encoder=encoder: encoder.encode(texts) for precision, encoder in ours.items()},  # type: ignore[misc]
        },
        rounds,
    )
    *_, exact = peers.values()
    truth = exact.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    work = flops(ours["float32"], texts)
    base = median(seconds["sentence-transformers"])
    rows: list[list[object]] = []
    for by, taken in seconds.items():
        encoder = ours.get(by)  # type: ignore[call-overload]
        vectors = encoder.encode(texts) if encoder else peers[by].encode(texts, normalize_embeddings=True)
        least = float((vectors.astype(np.float64) * truth).sum(axis=1).min())
        dtype = torch.bfloat16 if by == "bfloat16" else torch.float32
        share = work / median(taken) / gemm_rate(dtype, ours["float32"].dim, ours["float32"].device)
        shown = f"faqsearch, {by}" if encoder else by
        if by == "sentence-transformers":
            shown += f", in {str(loaded_in).removeprefix('torch.')} by its defaults"
        rows.append([name, shown, len(texts) / median(taken), base / median(taken), f"{least:.6f}", f"{share:.0%}"])
    return rows


def flops(encoder: TransformerEncoder, texts: list[str]) -> float:
    """Floating point operations of the matrix products without padding: 2 a weight and token, and attention's."""
    lengths = np.array([len(encoding.ids) for encoding in encoder._tokenizer.encode_batch(texts)], dtype=np.float64)
    dim = encoder.dim
    return float(encoder.layers * (2 * 12 * dim * dim * lengths + 4 * dim * lengths**2).sum())


def gemm_rate(dtype: torch.dtype, dim: int, device: torch.device) -> float:
    """Floating point operations a second of the largest product, (tokens, dim) by (dim, 4 dim): the best of many."""
    tokens = 65_536 if device.type == "cuda" else 2_048
    left, right = torch.randn(tokens, dim).to(device, dtype), torch.randn(4 * dim, dim).to(device, dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(50):
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    return 2 * tokens * dim * 4 * dim / best


def write_bert_base(folder: Path, layers: int = 4) -> Path:
    """A checkpoint of the published students' shape, with random weights and a vocabulary of characters."""
    config = transformers.BertConfig(vocab_size=21128, num_hidden_layers=layers)
    torch.manual_seed(0)
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x21, 0x7F)), *"，。？！（）、：；“”"]
    pieces += list(map(chr, range(0x4E00, 0x4E00 + 21128 - len(pieces))))
    folder.joinpath("vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
