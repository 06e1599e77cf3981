"""A small encoder with vectors that tests choose, in place of the real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from faqsearch.errors import EncoderError
from faqsearch.model import Progress
from faqsearch.text import normalise

DIM = 256


class FakeEncoder:
    """Unit vectors by text: nearly orthogonal for different texts, unless `place` says otherwise."""

    dim = DIM

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.encoded: list[str] = []
        """Every text that was encoded, in order, for tests that count."""
        self._placed: dict[str, npt.NDArray[np.float32]] = {}

    def encode(
        self, texts: Sequence[str], *, query: bool = False, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        self.encoded += texts
        if progress:
            progress("encoding", len(texts), len(texts))
        return np.array([self.vector(text) for text in texts], dtype=np.float32).reshape(len(texts), DIM)

    def vector(self, text: str) -> npt.NDArray[np.float32]:
        if text in self._placed:
            return self._placed[text]
        seed = int.from_bytes(hashlib.sha256(f"{self.name}/{text}".encode()).digest()[:8], "big")
        return unit(np.random.default_rng(seed).standard_normal(DIM))

    def place(self, text: str, other: str, cosine: float) -> None:
        """Give a text a vector with exactly this cosine to another text's. Both are folded first."""
        text, other = normalise(text), normalise(other)
        towards = self.vector(other).astype(np.float64)
        away = self.vector(text).astype(np.float64)
        away -= away @ towards * towards
        away /= np.linalg.norm(away)
        self._placed[text] = unit(cosine * towards + np.sqrt(1 - cosine**2) * away)


class FakeSource:
    """Where fake encoders come from: one for each reference, with a fingerprint that tests may change."""

    def __init__(self, *refs: str) -> None:
        self.encoders = {ref: FakeEncoder(ref) for ref in (refs or ("embedded", "other"))}
        self.fingerprints = {ref: f"fingerprint of {ref}" for ref in self.encoders}
        self.loads: list[str] = []

    def fingerprint(self, ref: str) -> str:
        if ref not in self.encoders:
            raise EncoderError(f"no encoder {ref!r} on this machine; expected {', '.join(self.encoders)}")
        return self.fingerprints[ref]

    def load(self, ref: str) -> FakeEncoder:
        self.fingerprint(ref)
        self.loads.append(ref)
        return self.encoders[ref]


def unit(vector: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    scaled: npt.NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return scaled
