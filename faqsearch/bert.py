"""The forward pass of a BERT encoder over packed tokens: no text is padded to the length of another.

The architecture is that of Devlin et al. 2019 as transformers' BertModel computes it, read from the same files.
Texts lie one behind the other; only attention needs to know where one ends, and takes those of equal length at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch.nn import functional

from faqsearch.checkpoint import Pooling
from faqsearch.errors import DamagedCheckpointError

State = Mapping[str, torch.Tensor]
Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(input, weight, bias) to their linear map."""
Run = tuple[slice, int, int]
"""Texts of equal length side by side: (where their tokens lie, texts, tokens of each)."""
Row = tuple[slice, int, int, torch.Tensor | None]
"""What attention takes at once: (where the tokens lie, rows, tokens of each, what is added to the scores)."""
_PREFIX = "bert."
_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}
_OF_A_LAYER = re.compile(r"encoder\.layer\.\d+\.")
_NORMS = {"attended": "attention.output.LayerNorm", "fed": "output.LayerNorm"}


@dataclass(frozen=True, slots=True)
class _Layer:
    """Weights of one layer; a linear map is (weight (out, in), bias), a norm (weight, bias)."""

    mix: tuple[torch.Tensor, torch.Tensor]
    """Query, key and value as one map."""
    out: tuple[torch.Tensor, torch.Tensor]
    attended: tuple[torch.Tensor, torch.Tensor]
    up: tuple[torch.Tensor, torch.Tensor]
    down: tuple[torch.Tensor, torch.Tensor]
    fed: tuple[torch.Tensor, torch.Tensor]


def fits(config: Mapping[str, Any]) -> bool:
    """Whether a config.json describes what this module computes."""
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


class Bert:
    """A BERT encoder stack; never changed once made, and so safe to call from several threads.

    Args:
        config: the content of a config.json that `fits`.
        state: weights by the names that transformers gives them; others are ignored.
        device: where to compute.
        dtype: of the matrix products; embeddings are looked up in the precision that they are stored in.

    Raises:
        DamagedCheckpointError: weights that are missing, of another shape, or of a layer too many.
    """

    def __init__(
        self, config: Mapping[str, Any], state: State, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        if any(name.startswith(_PREFIX) for name in state):  # of a model with a head
            state = {name.removeprefix(_PREFIX): value for name, value in state.items()}
        self.dim = int(config["hidden_size"])
        self.heads = int(config["num_attention_heads"])
        self.layers = int(config["num_hidden_layers"])
        self.vocabulary = int(config["vocab_size"])
        self.positions = int(config["max_position_embeddings"])
        self.device, self.dtype = device, dtype
        self._on_half_cpu = device.type == "cpu" and dtype == torch.bfloat16
        self._linear: Linear = _onednn_linear() if self._on_half_cpu else functional.linear
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        shapes = self._shapes(int(config["intermediate_size"]), int(config.get("type_vocab_size", 2)))
        _check(state, shapes)
        self.parameters = sum(math.prod(shape) for shape in shapes.values())

        def stored(name: str) -> torch.Tensor:
            return state[name].to(device)

        def cast(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            # LayerNorms' weights, too: torch wants them as their input is.
            weight, bias = (state[f"{name}.{part}"].to(device, dtype) for part in ("weight", "bias"))
            return weight, bias

        self._words = stored("embeddings.word_embeddings.weight")
        # All texts are of the first type, and so its row goes with the position's.
        self._places = (
            stored("embeddings.position_embeddings.weight").float()
            + stored("embeddings.token_type_embeddings.weight")[0].float()
        )
        self._first = (stored("embeddings.LayerNorm.weight").float(), stored("embeddings.LayerNorm.bias").float())
        self._layers = []
        for number in range(self.layers):
            start = f"encoder.layer.{number}."
            maps = {short: cast(start + name) for short, name in {**_NAMES, **_NORMS}.items()}
            parts = [maps.pop(short) for short in ("query", "key", "value")]
            weight, bias = (torch.cat([part[side] for part in parts]) for side in (0, 1))
            self._layers.append(_Layer(mix=(weight, bias), **maps))

    def _shapes(self, inner: int, types: int) -> dict[str, tuple[int, ...]]:
        """Every weight that is used, with its shape."""
        dim = self.dim
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word_embeddings.weight": (self.vocabulary, dim),
            "embeddings.position_embeddings.weight": (self.positions, dim),
            "embeddings.token_type_embeddings.weight": (types, dim),
        }
        outputs = {"up": inner}
        inputs = {"down": inner}
        norms = ["embeddings.LayerNorm"]
        for number in range(self.layers):
            start = f"encoder.layer.{number}."
            for short, name in _NAMES.items():
                shapes[f"{start}{name}.weight"] = (outputs.get(short, dim), inputs.get(short, dim))
                shapes[f"{start}{name}.bias"] = (outputs.get(short, dim),)
            norms += [start + name for name in _NORMS.values()]
        shapes.update({f"{name}.{part}": (dim,) for name in norms for part in ("weight", "bias")})
        return shapes

    @torch.inference_mode()
    def embed(self, tokens: Sequence[Sequence[int]], pooling: Pooling) -> torch.Tensor:
        """Pool each text's token embeddings.

        Args:
            tokens: n texts' token ids; those of equal length side by side are computed at once.
            pooling: mean over the tokens, the first token, or the maximum.

        Returns:
            (n, dim) float32, not normalised; zeros for a text without tokens.
        """
        runs = _runs([len(text) for text in tokens])
        ids = torch.tensor([token for text in tokens for token in text], dtype=torch.int64)
        places = torch.cat([torch.arange(length).repeat(count) for _, count, length in runs])
        rows: list[Row]
        if self._on_half_cpu:
            beyond = _rounded(len(ids)) - len(ids)
            ids, places = functional.pad(ids, (0, beyond)), functional.pad(places, (0, beyond))
            rows = [row for run in runs for row in _joined(run)]
        else:
            rows = [(*run, None) for run in runs]
        hidden = self._forward(ids.to(self.device), places.to(self.device), rows)
        return torch.cat([_pool(hidden[part].view(count, length, self.dim), pooling) for part, count, length in runs])

    def _forward(self, ids: torch.Tensor, places: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """(tokens, dim) of packed token ids (tokens,), at these positions."""

        def norm(x: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
            return functional.layer_norm(x, (self.dim,), *weights, self._eps)

        hidden = norm(self._words[ids].float() + self._places[places], self._first).to(self.dtype)
        for layer in self._layers:
            mixed = self._linear(hidden, *layer.mix)
            hidden = norm(hidden + self._linear(self._attend(mixed, rows), *layer.out), layer.attended)
            fed = self._linear(functional.gelu(self._linear(hidden, *layer.up)), *layer.down)
            hidden = norm(hidden + fed, layer.fed)
        return hidden

    def _attend(self, mixed: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
        """(tokens, dim) of queries, keys and values side by side (tokens, 3 dim): each text looks at itself alone."""
        size = self.dim // self.heads
        context = mixed.new_zeros((len(mixed), self.dim))
        for part, count, length, mask in rows:
            query, key, value = mixed[part].view(count, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
            # (rows, heads, tokens, size)
            found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            context[part].view(count, length, self.heads, size).copy_(found.transpose(1, 2))
        return context


@cache
def _onednn_linear() -> Linear:
    """The linear map of oneDNN in bfloat16, which adds the bias as it goes; torch's own where that cannot be had.

    torch's own writes the bias to all rows first and lets oneDNN add the product to it, which makes encoding a sixth
    slower. The operator that does better is undocumented, and so is tried before it is taken.
    """

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found

    x, weight, bias = (torch.linspace(-1, 1, n, dtype=torch.bfloat16) for n in (16 * 32, 48 * 32, 48))
    x, weight = x.view(16, 32), weight.view(48, 32)
    try:
        as_expected = torch.allclose(linear(x, weight, bias), functional.linear(x, weight, bias), atol=0.01, rtol=0.01)
    except (AttributeError, RuntimeError, TypeError):
        as_expected = False
    return linear if as_expected else functional.linear


def _rounded(tokens: int) -> int:
    """So many rows of tokens that few numbers of them ever come up.

    oneDNN makes a kernel of its own for each number of rows, which takes milliseconds, and keeps a few hundred; the
    rows beyond the texts are computed and not looked at. Fewer than 16 take as long as 16.
    """
    step = 16 if tokens <= 256 else 256
    return -(-tokens // step) * step


def _joined(run: Run) -> Iterator[Row]:
    """A run as rows of 16 tokens or more, whose texts do not look at each other.

    torch's fused attention in bfloat16 takes as long for a row of fewer.
    """
    part, count, length = run
    most = min(-(-16 // max(length, 1)), count)
    first = part.start
    for rows, texts in ((count // most, most), (1, count % most)):
        if texts:
            tokens = texts * length
            yield slice(first, first + rows * tokens), rows, tokens, _apart(texts, length) if texts > 1 else None
            first += rows * tokens


def _apart(texts: int, length: int) -> torch.Tensor:
    """(tokens, tokens) to add to the scores of a row: minus infinity between tokens of different texts, else 0."""
    own = torch.arange(texts).repeat_interleave(length)
    others = own[:, None] != own
    return torch.zeros(others.shape, dtype=torch.bfloat16).masked_fill_(others, -torch.inf)


def _runs(lengths: Sequence[int]) -> list[Run]:
    """The runs of texts of equal length."""
    found, first = [], 0
    for length, group in groupby(lengths):
        count = len(list(group))
        found.append((slice(first, first + length * count), count, length))
        first += length * count
    return found


def _check(state: State, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse weights that are not those of these names and shapes, or of more layers."""
    wrong = sorted(name for name, shape in expected.items() if name not in state or tuple(state[name].shape) != shape)
    if wrong:
        raise DamagedCheckpointError(f"{', '.join(wrong[:3])} missing or of another shape")
    # Else a stack that is cut short would pass for the whole one.
    if extra := sorted(name for name in state if _OF_A_LAYER.match(name) and name not in expected):
        raise DamagedCheckpointError(f"{extra[0]} is of a layer too many")


def _pool(hidden: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(texts, dim) of (texts, tokens, dim)."""
    if not hidden.shape[1]:
        return hidden.new_zeros((len(hidden), hidden.shape[2]), dtype=torch.float32)
    if pooling == "cls":
        return hidden[:, 0].float()
    return hidden.amax(dim=1).float() if pooling == "max" else hidden.mean(dim=1, dtype=torch.float32)
