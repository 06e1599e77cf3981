"""An encoder's weights on another vocabulary: rows of pieces that both have are the encoder's, the others the donor's.

    python training/vocabulary.py encoder e5 --output start

Both must have come from the same model, so that the embeddings of a piece mean the same in both.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

WORDS = "embeddings.word_embeddings.weight"


def main() -> None:
    """Write the checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("donor", type=Path, help="of the vocabulary that is wanted")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    state = {name: value.float() for name, value in load_file(options.encoder / "model.safetensors").items()}
    rows = load_file(options.donor / "model.safetensors")[WORDS].float()
    numbers = {piece: number for number, piece in enumerate(pieces(options.encoder))}
    shared = [(number, numbers[piece]) for number, piece in enumerate(pieces(options.donor)) if piece in numbers]
    ours, theirs = zip(*shared, strict=True)
    rows[list(ours)] = state[WORDS][list(theirs)]
    save_file({**state, WORDS: rows}, options.output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((options.encoder / "config.json").read_text("utf-8"))
    config |= {"vocab_size": len(rows), "dtype": "float32"}
    (options.output / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(options.donor / name, options.output / name)
    print(f"{len(rows):,} pieces, {len(shared):,} of them the encoder's")


def pieces(folder: Path) -> list[str]:
    """The pieces of a Unigram tokenizer in their order."""
    return [piece for piece, _ in json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]]


if __name__ == "__main__":
    main()
