"""All different texts of labelled pairs (`sentence1 sentence2 label`) and of text files, in their order, one a line.

    python training/texts.py pairs/*.tsv unlabelled.txt > texts.txt

Texts with control characters are left out, as `faqsearch distill --texts` takes none.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from faqsearch.pairs import read_pairs


def texts(files: list[Path]) -> Iterator[str]:
    """The texts of each file, those of pairs left before right."""
    for file in files:
        if file.suffix == ".txt":
            yield from file.read_text("utf-8").split("\n")
        else:
            pairs = read_pairs(file)
            yield from (*pairs.left, *pairs.right)


def main() -> None:
    """Print them."""
    found = dict.fromkeys(text.strip() for text in texts([Path(name) for name in sys.argv[1:]]))
    for text in found:
        if text and not any(unicodedata.category(char) in ("Cc", "Cs") for char in text):
            print(text)


if __name__ == "__main__":
    main()
