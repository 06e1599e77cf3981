"""The weighted mean of the weights of checkpoints of one shape (Wortsman et al. 2022).

python training/average.py matched=0.5 distilled=0.25 start=0.25 --output mean

The shares add up to 1.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    """Write the checkpoint folder; all but the weights is the first one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="FOLDER=SHARE")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    parts = [(Path(folder), float(share)) for folder, share in (part.rsplit("=", 1) for part in options.parts)]
    if abs(sum(share for _, share in parts) - 1) > 1e-6:
        parser.error("the shares must add up to 1")
    mean: dict[str, torch.Tensor] = {}
    for folder, share in parts:
        for name, value in load_file(folder / "model.safetensors").items():
            mean[name] = mean.get(name, 0) + share * value.float()
    shutil.copytree(parts[0][0], options.output, ignore=shutil.ignore_patterns("README.md", "model.safetensors"))
    halves = {name: value.half().contiguous() for name, value in mean.items()}
    save_file(halves, options.output / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
