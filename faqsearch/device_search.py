"""Exact inner product search by torch on a GPU, where the installed build of FAISS knows none."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

SCORES_AT_ONCE = 64 << 20
"""Cosines that are held at a time: 256 MiB."""


def available() -> bool:
    """Whether torch finds a CUDA GPU."""
    return torch.cuda.is_available()


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
