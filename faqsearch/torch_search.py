"""Exact inner product search by torch, where FAISS is slower or knows no GPU.

On a CPU that computes bfloat16 in hardware it is compared in that first; on a GPU torch serves where the installed
build of FAISS is one for CPUs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from faqsearch import encoder

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

SCORES_AT_ONCE = 64 << 20
"""Cosines that are held at a time: 256 MiB."""
QUERIES_AT_ONCE = 32
"""That a CPU compares with all vectors at a time."""
_CONVERTED_AT_ONCE = 16_384


def available() -> bool:
    """Whether torch finds a CUDA GPU."""
    return torch.cuda.is_available()


def half_is_fast() -> bool:
    """Whether this CPU computes bfloat16 in hardware."""
    return encoder.has_fast_bf16(torch.device("cpu"))


class HalfSearch:
    """Vectors in bfloat16 beside those in float32: searched exactly, with half the memory to read.

    Every vector is compared in bfloat16. Rounding moves a product by no more than a bound that is computed with it
    (Cauchy and Schwarz), and whatever may be among the best within that bound is compared again in float32.

    Args:
        ids: (n,).
        vectors: (n, dim) float32, kept as they are.
    """

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        self._ids, self._vectors = ids, vectors
        self._half = torch.empty(vectors.shape, dtype=torch.bfloat16)
        self._longest = self._off = 0.0
        for start in range(0, len(vectors), _CONVERTED_AT_ONCE):
            part = torch.from_numpy(vectors[start : start + _CONVERTED_AT_ONCE])
            half = self._half[start : start + _CONVERTED_AT_ONCE].copy_(part).float()
            self._longest = max(self._longest, float(half.norm(dim=1).max()))
            self._off = max(self._off, float((part - half).norm(dim=1).max()))

    @torch.inference_mode()
    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Ids]:
        """(scores, ids) of the best k for each query, (m, k) each and best first; k is at most n."""
        scores = np.empty((len(queries), k), dtype=np.float32)
        ids = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            asked = torch.from_numpy(queries[start : start + QUERIES_AT_ONCE])
            half = asked.bfloat16()
            rough = half @ self._half.T  # (queries, n), each a bfloat16 itself: off by 2**-9 of its value
            off = (asked - half.float()).norm(dim=1) * self._longest
            off += asked.norm(dim=1) * (self._off + 2**-8 * self._longest)
            floor = rough.topk(k, dim=1, sorted=False).values.amin(dim=1).float() - 2 * off
            for row, query in enumerate(asked.numpy()):
                places = (rough[row].float() >= floor[row]).nonzero()[:, 0].numpy()
                exact = self._vectors[places] @ query
                best = np.lexsort((self._ids[places], -exact))[:k]
                scores[start + row], ids[start + row] = exact[best], self._ids[places[best]]
        return scores, ids


class DeviceSearch:
    """Vectors on a device, searched exactly.

    Args:
        ids: (n,).
        vectors: (n, dim) float32.
        device: torch's name for it.
    """

    def __init__(self, ids: Ids, vectors: Vectors, device: str = "cuda") -> None:
        self._ids = ids
        self._vectors = torch.from_numpy(np.ascontiguousarray(vectors)).to(device)

    @torch.inference_mode()
    def search(self, queries: Vectors, k: int) -> tuple[Vectors, Ids]:
        """(scores, ids) of the best k for each query, (m, k) each and best first; k is at most n."""
        asked = torch.from_numpy(queries).to(self._vectors.device)
        rows = max(k, SCORES_AT_ONCE // max(1, len(queries)))
        best: list[tuple[torch.Tensor, torch.Tensor]] = []
        for start in range(0, len(self._vectors), rows):
            part = self._vectors[start : start + rows]
            scores, places = (asked @ part.T).topk(min(k, len(part)), dim=1)
            best.append((scores, places + start))
        scores, places = (torch.cat([part[side] for part in best], dim=1) for side in (0, 1))
        scores, order = scores.topk(k, dim=1)
        return scores.cpu().numpy(), self._ids[places.gather(1, order).cpu().numpy()]
