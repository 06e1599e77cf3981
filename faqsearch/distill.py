"""Train a small encoder from a large one and from labelled pairs.

Four steps: cut a student out of a teacher, *distil* (the student's embeddings towards the teacher's,
on texts without labels; Reimers and Gurevych 2020), *match* (labelled pairs: the ranking loss CoSENT by
Su 2022, and in-batch contrast with hard negatives; van den Oord et al. 2018), and average the weights before
and after matching (Wortsman et al. 2022), all judged on pairs that are not trained on.

The functions take modules and arrays. What is random follows from the seed and the step, so that a run that
was killed goes on to the result that it would have had.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn import functional

from faqsearch import checkpoint, measure, registry
from faqsearch.checkpoint import DEFAULT_MAX_LENGTH
from faqsearch.encoder import (
    has_fast_bf16,
    padded,
    pool,
    positions,
    put_in_lower_case,
    quiet_transformers,
    resolve_device,
    telling_damage,
)
from faqsearch.errors import EncoderError, TableError
from faqsearch.model import Progress
from faqsearch.pairs import Pairs, join

Model: TypeAlias = Any  # a transformers model, untyped
Vectors = npt.NDArray[np.float32]
Tokens = list[list[int]]
_ENOUGH_QUERIES = 20
_TAUGHT_AT_ONCE = 16_384
_TURNED_BY = 20_000  # texts that tell how targets are turned
_SPECIAL = {
    "bos_token": ("<s>",),
    "cls_token": ("[CLS]", "<s>"),
    "eos_token": ("</s>",),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_SORTED_AT_ONCE = 64  # batches' worth of texts that are sorted by length together


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a student is trained. Rates are those at the peak: they rise for a twentieth of a phase, then fall to 0."""

    distil_epochs: float = 1.0
    """Passes over the texts without labels."""
    match_epochs: float = 1.0
    """Passes over the pairs, counted by all of them; small sources are passed more often (see `balance`)."""
    distil_rate: float = 4e-4
    match_rate: float = 6e-5
    distil_batch: int = 128
    """Texts in a step."""
    match_batch: int = 64
    """Pairs in a step, all of one source."""
    max_length: int = 64
    """Tokens of a text that training looks at."""
    scale: float = 20.0
    """CoSENT's factor of cosines."""
    temperature: float = 0.05
    contrast: float = 0.2
    """Weight of the contrastive loss beside CoSENT."""
    mined: bool = True
    """Whether the contrastive loss meets mined hard negatives, beside the batch's."""
    hold: float = 1.0
    """Weight, while matching, of staying near the teacher on the pairs' texts."""
    balance: float = 0.5
    """A source of n pairs is drawn from in proportion to n to this power: 1 as they are, 0 all alike."""
    passes: float = 4.0
    """At most so often is a source passed in one match epoch."""
    judge_every: int = 500
    """Steps between two judgements."""
    patience: int = 6
    """Judgements without a rise after which a phase ends."""
    shares: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
    """Shares of the matched weights that are tried when averaging with the distilled ones."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """One judgement on the way."""

    phase: str
    step: int
    loss: float
    """Mean since the last one."""
    figure: float
    """What the judge says; higher is better."""
    details: Mapping[str, float] = field(default_factory=dict)


Judge = Callable[[Model], tuple[float, Mapping[str, float]]]
"""(the figure to choose by, its parts) of a student."""
Tell = Callable[[str], None]


# --- the student ---------------------------------------------------------------------------------


def choose_layers(total: int, wanted: int) -> tuple[int, ...]:
    """Which layers a student takes over: half from the bottom, half from the top.

    >>> choose_layers(12, 4)
    (0, 1, 10, 11)

    Raises:
        EncoderError: more than there are.
    """
    if not 1 <= wanted <= total:
        raise EncoderError(f"{wanted} layers were asked for, the teacher has {total}; expected 1 to {total}")
    bottom = -(-wanted // 2)
    return tuple(range(bottom)) + tuple(range(total - (wanted - bottom), total))


def cut(model: Model, layers: Sequence[int]) -> Model:
    """Keep these layers of a BERT-like model, in place.

    Raises:
        EncoderError: a model without `encoder.layer`.
    """
    stack = getattr(getattr(model, "encoder", None), "layer", None)
    if not isinstance(stack, torch.nn.ModuleList):
        raise EncoderError("only BERT-like checkpoints (with encoder.layer) can be cut; give --init FOLDER instead")
    model.encoder.layer = torch.nn.ModuleList([stack[index] for index in layers])
    model.config.num_hidden_layers = len(layers)
    return model


def prune(model: Model, tokenizer: dict[str, Any], used: Sequence[int]) -> dict[str, Any]:
    """Keep the pieces that texts use, single characters and special ones; the model's embedding table in place.

    Args:
        model: BERT-like.
        tokenizer: the content of a tokenizer.json with a WordPiece or Unigram model.
        used: numbers of the pieces that texts use.

    Returns:
        The content of the smaller tokenizer.json.

    Raises:
        EncoderError: another kind of tokenizer.
    """
    tokenizer = json.loads(json.dumps(tokenizer))
    kind, vocabulary = tokenizer["model"]["type"], tokenizer["model"]["vocab"]
    if kind not in ("WordPiece", "Unigram"):
        raise EncoderError(f"a {kind} tokenizer cannot be pruned; train without --prune")
    pieces = list(vocabulary) if kind == "WordPiece" else [piece for piece, _ in vocabulary]
    numbers = dict(vocabulary) if kind == "WordPiece" else {piece: number for number, piece in enumerate(pieces)}
    keep = {int(number) for number in used} | {item["id"] for item in tokenizer["added_tokens"]}
    unknown = tokenizer["model"].get("unk_id") if kind == "Unigram" else numbers.get(tokenizer["model"]["unk_token"])
    keep |= set() if unknown is None else {unknown}
    keep |= {number for piece, number in numbers.items() if len(piece.removeprefix("##").replace("▁", "")) <= 1}
    order = sorted(number for number in keep if number < len(model.get_input_embeddings().weight))
    new = {old: number for number, old in enumerate(order)}
    by_number = {number: piece for piece, number in numbers.items()}
    if kind == "WordPiece":
        tokenizer["model"]["vocab"] = {by_number[old]: number for old, number in new.items() if old in by_number}
    else:
        tokenizer["model"]["vocab"] = [vocabulary[old] for old in order]
        tokenizer["model"]["unk_id"] = None if unknown is None else new[unknown]
    for item in tokenizer["added_tokens"]:
        item["id"] = new[item["id"]]
    _renumber(tokenizer.get("post_processor") or {}, new)
    table = model.get_input_embeddings()
    smaller = torch.nn.Embedding(len(order), table.embedding_dim, padding_idx=new.get(model.config.pad_token_id or 0))
    with torch.no_grad():
        smaller.weight.copy_(table.weight[order])
    model.set_input_embeddings(smaller)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        if (old := getattr(model.config, name, None)) is not None:
            setattr(model.config, name, new.get(old))
    model.config.vocab_size = len(order)
    return tokenizer


def _renumber(processor: dict[str, Any], new: Mapping[int, int]) -> None:
    """The post-processor's special tokens under their new numbers."""
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            processor[name][1] = new[processor[name][1]]
    for part in processor.get("processors") or ():
        _renumber(part, new)


# --- batches -------------------------------------------------------------------------------------


def batches(lengths: Sequence[int], size: int, generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Cut cases into batches of about equal length each, in random order: little is padded, all are taken once."""
    order = generator.permutation(len(lengths))
    window = size * _SORTED_AT_ONCE
    cut_up = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        part = part[np.argsort(np.asarray(lengths)[part], kind="stable")]
        cut_up += [part[first : first + size] for first in range(0, len(part), size)]
    generator.shuffle(cut_up)
    return cut_up


def drawn(sizes: Sequence[int], epochs: float, balance: float, passes: float) -> list[int]:
    """How many pairs of each source are drawn in so many epochs.

    >>> drawn([9000, 1000], 1.0, 0.5, 4.0)
    [7500, 2500]
    """
    weights = np.asarray(sizes, dtype=np.float64) ** balance
    shares = weights / weights.sum() * sum(sizes)
    return [round(epochs * min(share, passes * size)) for share, size in zip(shares, sizes, strict=True)]


def _repeated(lengths: Sequence[int], count: int, size: int, seed: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of so many cases in all, pass after pass."""
    turn = 0
    while count > 0:
        for batch in batches(lengths, size, np.random.default_rng([*seed, turn])):
            if count <= 0:
                return
            yield batch[:count]
            count -= len(batch)
        turn += 1


# --- losses --------------------------------------------------------------------------------------


def cosent(cosines: torch.Tensor, labels: torch.Tensor, scale: float = 20.0) -> torch.Tensor:
    """CoSENT: the cosine of a pair with a higher label shall be the higher one; grades count as grades.

    Args:
        cosines: (n,).
        labels: (n,).
        scale: cosines are multiplied by it.
    """
    scores = cosines * scale
    differences = scores[None, :] - scores[:, None]  # [i, j] = s_j - s_i
    wrong = differences.masked_fill(labels[:, None] <= labels[None, :], -torch.inf).reshape(-1)
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)


def contrast(
    left: torch.Tensor,
    right: torch.Tensor,
    matching: torch.Tensor,
    same: torch.Tensor,
    temperature: float = 0.05,
    hard: torch.Tensor | None = None,
    hard_same: torch.Tensor | None = None,
) -> torch.Tensor:
    """In-batch contrast: a text shall be nearer to its match than to any other's partner, true negatives among them.

    Args:
        left: (n, dim) unit embeddings.
        right: (n, dim).
        matching: (n,) whether pair i matches; the others' right texts are hard negatives.
        same: (n, n) whether left i and right j mean the same as far as is known; these are no negatives.
        temperature: cosines are divided by it.
        hard: (m, dim) further negatives.
        hard_same: (n, m) like same.
    """
    if not bool(matching.any()):
        return left.sum() * 0.0
    own = torch.eye(len(left), dtype=torch.bool, device=left.device)
    scores = (left @ right.T / temperature).masked_fill(same & ~own, -torch.inf)
    if hard is not None and hard_same is not None:
        scores = torch.cat([scores, (left @ hard.T / temperature).masked_fill(hard_same, -torch.inf)], dim=1)
    target = torch.arange(len(left), device=left.device)
    return functional.cross_entropy(scores[matching], target[matching])


def mine(
    vectors: Vectors,
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
    labels: npt.NDArray[np.float32],
    *,
    share: float = 0.95,
) -> npt.NDArray[np.int64]:
    """A hard negative for each matching pair: the nearest right text that is clearly less near than the match.

    Positive-aware mining (Moreira et al. 2024): what is nearer still mostly means the same, and nobody has said so.

    Args:
        vectors: unit embeddings by text number.
        left: text numbers, (n,).
        right: likewise.
        labels: 1 for a match.
        share: of the match's cosine that a negative stays below.

    Returns:
        Text numbers, (n,); -1 where a pair does not match or there is none.
    """
    groups = _groups(left, right, labels)
    candidates = np.unique(right)
    theirs = np.array([groups.get(int(text), int(text)) for text in candidates])
    found = np.full(len(left), -1, dtype=np.int64)
    matches = np.flatnonzero(labels == 1)
    for start in range(0, len(matches), 512):
        rows = matches[start : start + 512]
        scores = vectors[left[rows]] @ vectors[candidates].T
        ceiling = share * np.einsum("nd,nd->n", vectors[left[rows]], vectors[right[rows]])
        ours = np.array([groups.get(int(text), int(text)) for text in left[rows]])
        scores[(scores >= ceiling[:, None]) | (ours[:, None] == theirs[None, :])] = -np.inf
        best = scores.argmax(axis=1)
        usable = np.isfinite(scores[np.arange(len(rows)), best])
        found[rows[usable]] = candidates[best[usable]]
    return found


def towards(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Distance to the teacher's unit embeddings, and of the cosines among the batch's texts; both (n, dim)."""
    direct = (1 - (student * teacher).sum(dim=1)).mean()
    relations = functional.mse_loss(student @ student.T, teacher @ teacher.T)
    return direct + 10 * relations


def mix_teachers(embeddings: Sequence[Vectors], dim: int) -> Vectors:
    """One target of several teachers' unit embeddings, whose cosines are the mean of theirs.

    Put side by side; where that is wider than the student's dimension, projected on the directions that keep most of
    it (a principal component analysis without centring).

    Args:
        embeddings: (n, dim of the teacher) of each.
        dim: the student's.

    Returns:
        (n, dim) unit rows.
    """
    joined = np.concatenate(embeddings, axis=1) / math.sqrt(len(embeddings))
    if joined.shape[1] > dim:
        sample = joined[:: max(1, len(joined) // 50_000)].astype(np.float64)
        _, vectors = np.linalg.eigh(sample.T @ sample)
        joined = joined @ vectors[:, ::-1][:, :dim].astype(np.float32)
    elif joined.shape[1] < dim:
        joined = np.pad(joined, ((0, 0), (0, dim - joined.shape[1])))
    joined /= np.maximum(np.linalg.norm(joined, axis=1, keepdims=True), 1e-9)
    return joined.astype(np.float32)


def turn(targets: Vectors, some: Vectors, student: Vectors) -> Vectors:
    """The targets, turned to where the student starts: their cosines stay, and it has less of a way to go.

    The rotation is that of the orthogonal Procrustes problem (Schönemann 1966).

    Args:
        targets: (n, dim) unit rows.
        some: (m, dim) of them.
        student: (m, dim), the student's embeddings of the same texts.

    Returns:
        (n, dim) unit rows.
    """
    left, _, right = np.linalg.svd(some.T.astype(np.float64) @ student)
    return np.asarray(targets @ (left @ right).astype(np.float32))


# --- training ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Material:
    """What a student learns from, as numbers of texts."""

    tokens: Tokens
    """Of every text."""
    targets: Vectors | None
    """The teachers' embedding of every text, (n, dim); None without a teacher."""
    texts: npt.NDArray[np.int64]
    """The texts to distil on."""
    sources: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]]
    """(left, right, labels) of each source of pairs; labels from 0 to 1."""


def embed(
    model: Model, tokens: Tokens, pad: int, device: torch.device | None = None, *, half: bool = True
) -> torch.Tensor:
    """(n, dim) unit embeddings by masked mean pooling; gradients flow."""
    device = device or next(model.parameters()).device
    ids, attention = (side.to(device) for side in padded(tokens, pad))
    with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
        hidden = model(input_ids=ids, attention_mask=attention)[0]
    return functional.normalize(pool(hidden.float(), attention, "mean"), dim=-1)


def train(
    model: Model,
    material: Material,
    recipe: Recipe,
    judge: Judge,
    folder: Path,
    *,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> list[Point]:
    """Distil, match and average; the model holds the best weights afterwards.

    Progress is kept in the folder, at every judgement and once a minute: where there is some of the same recipe and
    material, training goes on from there.

    Args:
        model: the student, in place.
        material: what it learns from.
        recipe: how.
        judge: tells how good it is.
        folder: for what a later run resumes from.
        progress: told (phase, steps done, steps).
        tell: told one line at every judgement.

    Returns:
        The judgements, in order.
    """
    keep_memory()
    run = _Run(model, material, recipe, judge, folder, progress, tell)
    run.resume()
    if len(material.texts) and material.targets is not None and recipe.distil_epochs > 0:
        run.phase("distil")
    if material.sources and recipe.match_epochs > 0:
        run.phase("match")
        run.average()
    run.choose()
    return run.points


def best_of(points: Sequence[Point]) -> Point:
    """The best of all judgements; of equally good ones the averaged weights'."""
    return max(points, key=lambda point: (point.figure, point.phase == "average"))


class _Run:
    """The state of one training: what is saved, and what is restored."""

    def __init__(
        self,
        model: Model,
        material: Material,
        recipe: Recipe,
        judge: Judge,
        folder: Path,
        progress: Progress | None,
        tell: Tell | None,
    ) -> None:
        self.model, self.material, self.recipe, self.judge = model, material, recipe, judge
        self.file = folder / "state.pt"
        self.job = _digest(model, material, recipe)
        self.progress, self.tell = progress, tell
        self.device = next(model.parameters()).device
        self.half = has_fast_bf16(self.device)
        self.pad = int(model.config.pad_token_id or 0)
        self.points: list[Point] = []
        self.saved: dict[str, Any] = {}
        self.done: list[str] = []
        self.best: dict[str, dict[str, torch.Tensor]] = {}
        self.groups: list[dict[int, int]] = []
        self.hard: list[npt.NDArray[np.int64]] = []
        self.saved_at = time.monotonic()

    def phase(self, name: str) -> None:
        """Take all steps of a phase, or those that are left, and end with its best weights."""
        if name in self.done:
            return
        plan = self._plan(name)
        rate = self.recipe.distil_rate if name == "distil" else self.recipe.match_rate
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.01, fused=True)
        start, total, count = 0, 0.0, 0
        resumed = self.saved.get("phase") == name
        if not resumed and (name == "match" or not self.points):
            self._judge(name, 0, 0.0)  # where the phase starts from is a candidate, too
        if name == "match":
            self._mine()
        if resumed:
            start, total, count = self.saved["step"], self.saved["loss"], self.saved["count"]
            self.model.load_state_dict(self.saved["model"])
            optimizer.load_state_dict(self.saved["optimizer"])
        for step in range(start, len(plan)):
            if self._patience_is_over(name):
                break
            for group in optimizer.param_groups:
                group["lr"] = rate * _schedule(step, len(plan))
            loss = self._loss(name, plan[step])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it so
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            total, count = total + float(loss.detach()), count + 1
            if self.progress:
                self.progress(name, step + 1, len(plan))
            last = step + 1 == len(plan)
            if last or (step + 1) % self.recipe.judge_every == 0:
                self._judge(name, step + 1, total / count)
                total, count = 0.0, 0
                self._save(name, step + 1, optimizer, total, count)
            elif time.monotonic() - self.saved_at > 60:
                self._save(name, step + 1, optimizer, total, count)
        self.model.load_state_dict(self.best[name])
        self.done.append(name)
        self._save(None, 0, None, 0.0, 0)

    def _mine(self) -> None:
        """Find the pairs' hard negatives: in the teachers' eyes, else in those of the student before matching."""
        vectors = self.material.targets
        self.groups = [_groups(*source) for source in self.material.sources]
        if self.recipe.mined and vectors is None:
            # Not as it is now: a run that is resumed must find the same.
            self.model.load_state_dict(self.best.get("distil") or self.best["start"])
            vectors = self._vectors()
        self.hard = [
            np.full(len(labels), -1, np.int64)
            if vectors is None or not self.recipe.mined
            else mine(vectors, left, right, labels)
            for left, right, labels in self.material.sources
        ]

    @torch.inference_mode()
    def _vectors(self) -> Vectors:
        """(n, dim) of every text."""
        self.model.eval()
        tokens = self.material.tokens
        order = np.argsort([len(item) for item in tokens], kind="stable")
        vectors = np.empty((len(tokens), int(self.model.config.hidden_size)), dtype=np.float32)
        for first in range(0, len(order), 128):
            batch = order[first : first + 128]
            vectors[batch] = self._embed(batch).cpu().numpy()
        return vectors

    def average(self) -> None:
        """Average the weights before and after matching in the share that the judge likes best."""
        if "average" in self.done:
            return
        before = self.best.get("distil") or self.best["start"]
        after = self.best["match"]
        for share in self.recipe.shares:
            mixed = {
                name: (1 - share) * before[name] + share * value if value.is_floating_point() else value
                for name, value in after.items()
            }
            self.model.load_state_dict(mixed)
            self._judge("average", round(100 * share), 0.0)
        self.done.append("average")
        self._save(None, 0, None, 0.0, 0)

    def choose(self) -> None:
        """Take the weights that were judged best of all."""
        self.model.load_state_dict(self.best[best_of(self.points).phase])

    def resume(self) -> None:
        """Go on from what an earlier run saved, if there is something."""
        if not self.file.exists():
            return
        self.saved = torch.load(self.file, map_location=self.device, weights_only=True)
        if self.saved["job"] != self.job:
            raise EncoderError(
                f"{self.file.parent} holds the beginning of another training; give the same options and files as then,"
                " or name another folder"
            )
        self.points = [Point(**point) for point in json.loads(self.saved["points"])]
        self.done, self.best = self.saved["done"], self.saved["best"]
        if self.saved["model"]:
            self.model.load_state_dict(self.saved["model"])

    def _plan(self, name: str) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """The batches of a phase: (source, cases)."""
        recipe, material = self.recipe, self.material
        if name == "distil":
            lengths = [len(material.tokens[text]) for text in material.texts]
            count = int(recipe.distil_epochs * len(lengths))
            return [(-1, batch) for batch in _repeated(lengths, count, recipe.distil_batch, (recipe.seed, 1))]
        plan: list[tuple[int, npt.NDArray[np.int64]]] = []
        sizes = [len(labels) for _, _, labels in material.sources]
        for number, count in enumerate(drawn(sizes, recipe.match_epochs, recipe.balance, recipe.passes)):
            left, right, _ = material.sources[number]
            lengths = [
                len(material.tokens[one]) + len(material.tokens[other]) for one, other in zip(left, right, strict=True)
            ]
            seed = (recipe.seed, 2, number)
            plan += [(number, batch) for batch in _repeated(lengths, count, recipe.match_batch, seed)]
        order = np.random.default_rng([recipe.seed, 3]).permutation(len(plan))
        return [plan[index] for index in order]

    def _loss(self, name: str, step: tuple[int, npt.NDArray[np.int64]]) -> torch.Tensor:
        self.model.train()
        source, cases = step
        if name == "distil":
            numbers = self.material.texts[cases]
            return towards(self._embed(numbers), self._target(numbers))
        left, right, labels = self.material.sources[source]
        left, right, labels = left[cases], right[cases], labels[cases]
        contrasts = self.recipe.contrast > 0 and set(labels.tolist()) <= {0.0, 1.0}
        hard = self.hard[source][cases] if contrasts else np.empty(0, np.int64)
        hard = hard[hard >= 0]
        numbers, places = np.unique(np.concatenate([left, right, hard]), return_inverse=True)
        vectors = self._embed(numbers)
        a, b = vectors[places[: len(left)]], vectors[places[len(left) : 2 * len(left)]]
        truth = torch.from_numpy(labels).to(self.device)
        loss = cosent((a * b).sum(dim=1), truth, self.recipe.scale)
        if contrasts:
            loss = loss + self.recipe.contrast * contrast(
                a,
                b,
                truth == 1,
                torch.from_numpy(_same(self.groups[source], left, right)).to(self.device),
                self.recipe.temperature,
                vectors[places[2 * len(left) :]],
                torch.from_numpy(_same(self.groups[source], left, hard)).to(self.device),
            )
        if self.recipe.hold and self.material.targets is not None:
            loss = loss + self.recipe.hold * towards(vectors, self._target(numbers))
        return loss

    def _embed(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        return embed(self.model, [self.material.tokens[n] for n in numbers], self.pad, self.device, half=self.half)

    def _target(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        assert self.material.targets is not None
        return torch.from_numpy(np.asarray(self.material.targets[numbers], dtype=np.float32)).to(self.device)

    def _judge(self, phase: str, step: int, loss: float) -> None:
        self.model.eval()
        with torch.inference_mode():
            figure, details = self.judge(self.model)
        best = max((point.figure for point in self.points if point.phase == phase), default=-math.inf)
        point = Point(phase, step, loss, figure, dict(details))
        self.points.append(point)
        if figure > best or not self.best:
            weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.best.setdefault("start", weights)
            if figure > best:
                self.best[phase] = weights
        if self.tell:
            parts = ", ".join(f"{name} {100 * value:.2f}" for name, value in details.items())
            self.tell(f"{phase} {step}: loss {loss:.4f}, judged {100 * figure:.2f} ({parts})")

    def _patience_is_over(self, phase: str) -> bool:
        figures = [point.figure for point in self.points if point.phase == phase]
        return bool(figures) and len(figures) - 1 - int(np.argmax(figures)) >= self.recipe.patience

    def _save(
        self, phase: str | None, step: int, optimizer: torch.optim.Optimizer | None, loss: float, count: int
    ) -> None:
        """All that going on needs, written whole or not at all."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "job": self.job,
            "phase": phase,
            "step": step,
            "loss": loss,
            "count": count,
            "done": self.done,
            "best": self.best,
            "points": json.dumps([asdict(point) for point in self.points]),
            "model": self.model.state_dict(),
            "optimizer": optimizer.state_dict() if optimizer else None,
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.file)
        self.saved_at = time.monotonic()


def _digest(model: Model, material: Material, recipe: Recipe) -> str:
    """Names a training: the student's shape, what it learns from, and how."""
    digest = hashlib.sha256(json.dumps([asdict(recipe), model.config.to_dict()], sort_keys=True, default=str).encode())
    digest.update(json.dumps(material.tokens).encode())
    arrays = [material.texts, *(side for source in material.sources for side in source)]
    for array in arrays if material.targets is None else [*arrays, material.targets]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _schedule(step: int, steps: int) -> float:
    """Share of the peak rate at a step: a rise, then a fall to 0, both straight."""
    warm = max(1, steps // 20)
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))


def _groups(
    left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], labels: npt.NDArray[np.float32]
) -> dict[int, int]:
    """Text → a text that stands for all that mean the same, as far as matching pairs join them."""
    rows = zip(left.tolist(), right.tolist(), labels.tolist(), strict=True)
    return join((one, other) for one, other, label in rows if label == 1)


def _same(
    groups: Mapping[int, int], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """(n, m): whether left i and right j mean the same."""
    ours, theirs = (np.array([groups.get(int(text), int(text)) for text in side]) for side in (left, right))
    return np.asarray(ours[:, None] == theirs[None, :])


def keep_memory() -> None:
    """Let glibc keep large blocks instead of giving each back: a good part of a step would go into page faults."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(top_pad, 256 << 20)
    except (OSError, AttributeError):  # another system
        return


# --- the whole job -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """What to train a student on, and where it goes."""

    teachers: tuple[str, ...]
    """Encoder references; none trains on the pairs alone."""
    texts: tuple[str, ...]
    pairs: tuple[Pairs, ...]
    judged: tuple[Pairs, ...]
    """Pairs that are only judged by; they must not be trained on."""
    output: Path
    layers: int = 4
    init: str | None = None
    """The checkpoint that the student starts as; else it is cut out of the first teacher."""
    prune: bool = False
    device: str = "auto"
    recipe: Recipe = Recipe()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training came to."""

    folder: Path
    points: tuple[Point, ...]
    start: Point
    """The student before training."""
    best: Point
    """The student as it was written."""


def distil(job: Job, *, resume: bool = False, progress: Progress | None = None, tell: Tell | None = None) -> Outcome:
    """Train a student and write it as an ordinary checkpoint folder.

    Args:
        job: what to do.
        resume: go on with what an earlier run left in the output folder.
        progress: told (what, done, of how many).
        tell: told one line at every judgement.

    Raises:
        EncoderError: no such teacher, nothing to train on, or an output folder that is in use.
    """
    job = replace(job, pairs=without(job.pairs, job.judged))
    _check(job, resume)
    device = torch.device(resolve_device(job.device))
    model, tokenizer = _student(registry.require(job.init or job.teachers[0]), job)
    model.to(device)
    keep_memory()
    work = job.output / "work"
    work.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    for text in job.texts:
        numbers.setdefault(text, len(numbers))
    texts = np.arange(len(numbers), dtype=np.int64)
    sources = [_numbered(pairs, numbers) for pairs in job.pairs]
    everything = list(numbers)
    targets = None
    if job.teachers:
        embeddings = [_taught(ref, everything, job.device, work, progress) for ref in job.teachers]
        targets = mix_teachers(embeddings, int(model.config.hidden_size))
        if len(embeddings) > 1:
            some = slice(None, None, max(1, len(everything) // _TURNED_BY))
            student = _Judged(model, tokenizer, int(model.config.pad_token_id or 0)).encode(everything[some])
            targets = turn(targets, targets[some], student)
    tokens = _tokenise(tokenizer, everything, min(job.recipe.max_length, longest(model.config)))
    material = Material(tokens, targets, texts, sources)
    judge = pair_judge(job.judged, tokenizer, int(model.config.pad_token_id or 0))
    points = train(model, material, job.recipe, judge, work, progress=progress, tell=tell)
    best = best_of(points)
    write_student(model, tokenizer, job.output)
    (job.output / "README.md").write_text(_model_card(job, points[0], best), "utf-8")
    shutil.rmtree(work)
    return Outcome(job.output, tuple(points), points[0], best)


def _check(job: Job, resume: bool) -> None:
    if not job.teachers and not job.init:
        raise EncoderError("there is nothing to start from; name a --teacher, or a checkpoint with --init")
    distils = job.teachers and job.texts and job.recipe.distil_epochs > 0
    if not distils and not (job.pairs and job.recipe.match_epochs > 0):
        raise EncoderError(
            "there is nothing to train on; give --texts with a --teacher, or --pairs other than those of --judge,"
            " and more than 0 passes over them"
        )
    if not job.judged:
        raise EncoderError("there are no pairs to judge by; give --judge FILE, with pairs that are in no --pairs")
    for ref in job.teachers:
        registry.require(ref)
    unfinished = (job.output / "work").exists()
    if job.output.exists() and any(job.output.iterdir()) and not (resume and unfinished):
        cure = "give --resume to go on with it, or name another folder" if unfinished else "name another folder"
        raise EncoderError(f"{job.output} is not empty; {cure}")


def without(sources: Sequence[Pairs], judged: Sequence[Pairs]) -> tuple[Pairs, ...]:
    """The sources less the pairs that are judged by, in either order; sources of which nothing is left are dropped."""
    taboo = {frozenset(pair) for pairs in judged for pair in zip(pairs.left, pairs.right, strict=True)}
    kept = []
    for pairs in sources:
        rows = [
            row for row in zip(pairs.left, pairs.right, pairs.labels, strict=True) if frozenset(row[:2]) not in taboo
        ]
        if rows:
            left, right, labels = zip(*rows, strict=True)
            kept.append(Pairs(pairs.name, left, right, labels))
    return tuple(kept)


def longest(config: Any) -> int:  # noqa: ANN401 - transformers' configuration
    """Tokens of a text that an encoder of this configuration reads: 256, unless it has fewer positions."""
    return min(DEFAULT_MAX_LENGTH, positions(config) or DEFAULT_MAX_LENGTH)


def pair_judge(judged: Sequence[Pairs], tokenizer: Tokenizer, pad: int) -> Judge:
    """Judge by labelled pairs: the mean of Spearman over the sets, and of accuracy@1 and AUC as a retrieval.

    Sets with grades, or with hardly a query, count for Spearman alone; those of matching pairs only, for retrieval.
    """
    tasks = {}
    for pairs in judged:
        if pairs.binary and 1.0 in pairs.labels:
            try:
                task = measure.retrieval_from_pairs(pairs)
            except TableError:  # its matching pairs are of equal texts
                continue
            if len(task.queries) >= _ENOUGH_QUERIES:
                tasks[pairs.name] = task

    def judge(model: Model) -> tuple[float, Mapping[str, float]]:
        encoder = _Judged(model, tokenizer, pad)
        figures: dict[str, float] = {}
        for pairs in judged:
            value = measure.score_pairs("", encoder, pairs).spearman
            if value is not None:  # as it is where all labels are alike
                figures[pairs.name] = value
        averages = [float(np.mean(list(figures.values())))] if figures else []
        found = []
        for name, task in tasks.items():
            accuracy, auc = measure.quick_retrieval(encoder, task)
            figures[f"{name} accuracy@1"], figures[f"{name} auc"] = accuracy, auc
            found += [accuracy, auc]
        averages += [float(np.mean(found))] if found else []
        return float(np.mean(averages)) if averages else 0.0, figures

    return judge


class _Judged:
    """A module in training, as an encoder."""

    def __init__(self, model: Model, tokenizer: Tokenizer, pad: int) -> None:
        self._model, self._tokenizer, self._pad = model, tokenizer, pad
        self._half = has_fast_bf16(next(model.parameters()).device)

    @property
    def dim(self) -> int:
        return int(self._model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, query: bool = False, progress: Progress | None = None) -> Vectors:
        tokens = _tokenise(self._tokenizer, texts, longest(self._model.config))
        order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
        vectors = np.empty((len(tokens), self.dim), dtype=np.float32)
        for first in range(0, len(order), 64):
            batch = order[first : first + 64]
            found = embed(self._model, [tokens[index] for index in batch], self._pad, half=self._half)
            vectors[batch] = found.cpu().numpy()
        return vectors


def _student(folder: Path, job: Job) -> tuple[Model, Tokenizer]:
    """The student before training, with its tokenizer."""
    modules = checkpoint.read_modules(folder)
    source = modules.transformer
    with telling_damage(source), quiet_transformers() as transformers:
        model = transformers.AutoModel.from_pretrained(
            str(source),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            dtype=torch.float32,
            add_pooling_layer=False,
            attn_implementation="eager",  # on a CPU the fused one takes several times as long backwards
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(source), local_files_only=True).backend_tokenizer
    if modules.lower:
        put_in_lower_case(tokenizer)
    if job.init is None:
        cut(model, choose_layers(model.config.num_hidden_layers, job.layers))
    if job.prune:
        texts = {*job.texts, *(text for pairs in (*job.pairs, *job.judged) for text in (*pairs.left, *pairs.right))}
        tokenizer.no_truncation()
        used = sorted({number for encoding in tokenizer.encode_batch(sorted(texts)) for number in encoding.ids})
        smaller = prune(model, json.loads(tokenizer.to_str()), used)
        tokenizer = Tokenizer.from_str(json.dumps(smaller))
    return model, tokenizer


def _tokenise(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> Tokens:
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def _numbered(
    pairs: Pairs, numbers: dict[str, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(left, right, labels from 0 to 1) with texts by their numbers, which new ones get."""
    left, right = (
        np.array([numbers.setdefault(text, len(numbers)) for text in side], dtype=np.int64)
        for side in (pairs.left, pairs.right)
    )
    labels = np.asarray(pairs.labels, dtype=np.float32)
    low, high = min(0.0, float(labels.min())), max(1.0, float(labels.max()))
    return left, right, (labels - low) / (high - low)


def _taught(ref: str, texts: Sequence[str], device: str, work: Path, progress: Progress | None) -> Vectors:
    """(n, dim) of a teacher, kept on disk a block at a time, so that a killed run need not begin anew."""
    encoder = registry.load_encoder(ref, device=device)
    name = hashlib.sha256("\n".join([registry.fingerprint(ref), *texts]).encode("utf-8", "surrogatepass")).hexdigest()[
        :16
    ]
    blocks = []
    for start in range(0, len(texts), _TAUGHT_AT_ONCE):
        file = work / f"teacher-{name}-{start}.npy"
        if not file.exists():
            block = encoder.encode(texts[start : start + _TAUGHT_AT_ONCE])
            partial = file.with_suffix(".partial")
            with partial.open("wb") as handle:
                np.save(handle, block.astype(np.float16))
            os.replace(partial, file)
        blocks.append(np.load(file).astype(np.float32))
        if progress:
            progress(f"teacher {ref}"[-24:], min(start + _TAUGHT_AT_ONCE, len(texts)), len(texts))
    return np.concatenate(blocks)


def write_student(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a student as an ordinary checkpoint folder, in float16, with sentence-transformers' files."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    state = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.dtype = torch.float16
    config.save_pretrained(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.safetensors").chmod((folder / "tokenizer.json").stat().st_mode & 0o777)  # else only its owner's
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest(config)}
    pieces = {item.content for item in tokenizer.get_added_tokens_decoder().values()}
    for name, options in _SPECIAL.items():
        if found := next((piece for piece in options if piece in pieces), None):
            special[name] = found
    modules = "sentence_transformers.models."
    files: dict[str, Any] = {
        "tokenizer_config.json": special,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": modules + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": modules + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": modules + "Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden_size,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
        },
        "sentence_bert_config.json": {"max_seq_length": longest(config), "do_lower_case": False},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _model_card(job: Job, start: Point, best: Point) -> str:
    """What an encoder was made from and how, and what it came to, as its README."""
    origin = job.init or job.teachers[0]
    known = registry.CHECKPOINTS.get(origin)
    made = ("" if job.init else f", {job.layers} of its layers") + (", vocabulary pruned" if job.prune else "")
    data = [f"- {pairs.name}: {len(pairs):,} labelled pairs" for pairs in job.pairs]
    data += [f"- {len(job.texts):,} texts without labels"] if job.texts and job.teachers else []
    figures = [
        f"| {name} | {100 * start.details.get(name, 0.0):.2f} | {100 * value:.2f} |"
        for name, value in best.details.items()
    ]
    return "\n".join(
        [
            "---",
            "pipeline_tag: sentence-similarity",
            "tags: [sentence-transformers, feature-extraction, sentence-similarity]",
            "---",
            "",
            f"# A sentence encoder trained by faqsearch from {origin}",
            "",
            f"Teachers: {', '.join(job.teachers) or 'none'}. Start: {origin}{made}. Licence of the start:"
            f" {known.licence if known else 'see its own page'}; that of the data is their owners'.",
            "Masked mean pooling, unit length, no prefix, at most 256 tokens.",
            "",
            "## Trained on",
            "",
            *data,
            "",
            f"Judged by {', '.join(f'{pairs.name} ({len(pairs):,} pairs)' for pairs in job.judged)}, never trained on.",
            "",
            "## Scores",
            "",
            "Spearman of cosine and label; accuracy@1 and AUC (answerable or not) as a retrieval; all ×100.",
            "",
            "| | at the start | now |",
            "|---|---|---|",
            *figures,
            "",
            "## Recipe",
            "",
            "```json",
            json.dumps(asdict(job.recipe), indent=1),
            "```",
            "",
        ]
    )
