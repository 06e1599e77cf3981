"""Training a student: its parts by hand-worked examples, and small whole trainings, also such as are killed."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from faqsearch import distill, measure, registry
from faqsearch.distill import Job, Material, Outcome, Point, Recipe
from faqsearch.encoder import TransformerEncoder, has_fast_bf16
from faqsearch.errors import EncoderError
from faqsearch.pairs import Pairs

CPU = torch.device("cpu")


def bert(pieces: int, layers: int = 1, *, seed: int = 0, hidden: int = 24, pad: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=pieces, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2, pad_token_id=pad,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.2, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    scaled: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


# --- the student's layers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "wanted", "chosen"),
    [(12, 4, (0, 1, 10, 11)), (12, 3, (0, 1, 11)), (5, 1, (0,)), (3, 2, (0, 2)), (4, 4, (0, 1, 2, 3))],
)
def test_layers_are_chosen_from_both_ends(total: int, wanted: int, chosen: tuple[int, ...]) -> None:
    assert distill.choose_layers(total, wanted) == chosen


@pytest.mark.parametrize("wanted", [0, 5])
def test_layers_that_there_are_not_are_refused(wanted: int) -> None:
    with pytest.raises(EncoderError, match=f"{wanted} layers were asked for, the teacher has 4; expected 1 to 4"):
        distill.choose_layers(4, wanted)


def test_a_cut_model_computes_with_the_layers_that_it_keeps() -> None:
    teacher, student = bert(50, 4), bert(50, 2, seed=1)
    for part, source in (("embeddings.", "embeddings."), ("encoder.layer.0.", "encoder.layer.0."),
                         ("encoder.layer.1.", "encoder.layer.3.")):  # fmt: skip
        state = {name: value for name, value in teacher.state_dict().items() if name.startswith(source)}
        student.load_state_dict({name.replace(source, part): value for name, value in state.items()}, strict=False)
    tokens = [[3, 7, 9], [4, 5]]
    with torch.inference_mode():
        expected = distill.embed(student, tokens, 0, half=False)
        whole = distill.embed(teacher, tokens, 0, half=False)
        cut = distill.embed(distill.cut(teacher, (0, 3)), tokens, 0, half=False)
    torch.testing.assert_close(cut, expected)
    assert not torch.allclose(cut, whole, atol=1e-2)
    assert teacher.config.num_hidden_layers == 2


def test_a_model_without_such_layers_is_refused() -> None:
    model: Any = transformers.DistilBertModel(transformers.DistilBertConfig(vocab_size=9, dim=8, n_heads=2, n_layers=2))
    with pytest.raises(EncoderError, match="give --init FOLDER"):
        distill.cut(model, (0,))


# --- pruning -------------------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["early repay of a loan", "贷款利率 is what", "repaying loans", "zebra 😀 贷", "LOAN", "", "x"]
FILLERS = [f"filler{number}" for number in range(40)]


def tokenizer_of(kind: str, processor: str, *, added: bool = True) -> Any:
    """A tokenizer with pieces that no text uses before, among and after the special ones and the others."""
    words = ["loan", "repay", "early", "what", "贷款", "利率", "is"]
    tokenizer: Any
    if kind == "WordPiece":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        others = [*LETTERS, *words, *FILLERS[20:], *(f"##{item}" for item in [*LETTERS, "ing"]), *"贷款利率"]
        pieces = [special[0], *FILLERS[:20], *special[1:], *others]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        cls, sep = "[CLS]", "[SEP]"
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        scored = [(item, -8.0) for item in ["▁", *LETTERS, *"贷款利率"]] + [(f"▁{item}", -9.0) for item in words]
        scored += [(item, -9.5) for item in ["ing", "loan", "贷款", "利率"]] + [(item, -9.0) for item in FILLERS[20:]]
        first = [(item, -11.0) for item in FILLERS[:20]] + [(item, 0.0) for item in special[:4]]
        pieces = [item for item, _ in [*first, *scored, ("<mask>", 0.0)]]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.Unigram([*first, *scored, ("<mask>", 0.0)], vocabulary["<unk>"], False))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        cls, sep = "<s>", "</s>"
    last, first_of_all = (sep, vocabulary[sep]), (cls, vocabulary[cls])
    template = processors.TemplateProcessing(f"{cls} $A {sep}", f"{cls} $A {sep} $B {sep}", [last, first_of_all])
    tokenizer.post_processor = {
        "Bert": processors.BertProcessing(last, first_of_all),
        "Roberta": processors.RobertaProcessing(last, first_of_all),
        "Template": template,
        "Sequence": processors.Sequence([template]),
    }[processor]
    tokenizer.add_special_tokens([item for item in special if added or item not in ("[UNK]", "<unk>")])
    return tokenizer


@pytest.mark.parametrize("kind, processor", [("WordPiece", "Bert"), ("WordPiece", "Template"), ("Unigram", "Roberta"),
                                             ("Unigram", "Sequence")])  # fmt: skip
def test_pruning_changes_no_pieces_and_no_embedding_of_the_texts(tmp_path: Path, kind: str, processor: str) -> None:
    tokenizer = tokenizer_of(kind, processor)
    pad = tokenizer.token_to_id("[PAD]" if kind == "WordPiece" else "<pad>")
    model = bert(tokenizer.get_vocab_size(), pad=pad)
    before = [tokenizer.encode(text) for text in TEXTS]
    with torch.inference_mode():
        expected = distill.embed(model, [item.ids for item in before], pad, half=False).numpy()
    distill.write_student(model, tokenizer, tmp_path / "whole")
    used = sorted({number for item in before for number in item.ids})
    content = json.loads(tokenizer.to_str())
    smaller: Any = Tokenizer.from_str(json.dumps(distill.prune(model, content, used)))
    assert content == json.loads(tokenizer.to_str())

    after = [smaller.encode(text) for text in TEXTS]
    assert [item.tokens for item in after] == [item.tokens for item in before]
    assert any(len(token) > 3 for item in after for token in item.tokens[1:-1])
    with torch.inference_mode():
        pad = int(model.config.pad_token_id)
        found = distill.embed(model, [item.ids for item in after], pad, half=False).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    kept = set(smaller.get_vocab())
    assert not kept & set(FILLERS)
    assert {*LETTERS, *"贷款利率"} <= kept
    # What no text used can still be spelt, and what has no piece is still unknown.
    assert [token.strip("#▁") for token in smaller.encode("fjord").tokens[1:-1] if token != "▁"] == list("fjord")

    distill.write_student(model, smaller, tmp_path / "pruned")
    weights = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "pruned")]
    assert weights[1] < weights[0] - 40 * 24 * 2 + 100
    encoder = TransformerEncoder(tmp_path / "pruned", device="cpu")
    assert encoder.vocabulary == len(kept)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=3e-3)
    loaded = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "pruned"))
    assert [loaded(text).tokens() for text in TEXTS] == [item.tokens for item in before]
    for name in ("pad", "unk", "cls", "sep", "mask"):
        piece = getattr(loaded, f"{name}_token")
        assert piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>", "<s>", "</s>", "<mask>")
        assert getattr(loaded, f"{name}_token_id") == smaller.token_to_id(piece) != tokenizer.token_to_id(piece) or (
            name == "pad" and kind == "WordPiece"
        )
    assert loaded.pad_token_id == model.config.pad_token_id


@pytest.mark.parametrize("kind, processor", [("WordPiece", "Template"), ("Unigram", "Sequence")])
def test_the_piece_for_what_is_unknown_is_kept_though_no_text_uses_it(kind: str, processor: str) -> None:
    """It need not be among the added tokens."""
    tokenizer = tokenizer_of(kind, processor, added=False)
    model = bert(tokenizer.get_vocab_size())
    used = tokenizer.encode("loan").ids
    smaller: Any = Tokenizer.from_str(json.dumps(distill.prune(model, json.loads(tokenizer.to_str()), used)))
    assert smaller.encode("😀").ids[-2] == smaller.token_to_id("[UNK]" if kind == "WordPiece" else "<unk>") is not None


def test_another_kind_of_tokenizer_is_refused() -> None:
    tokenizer: Any = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(EncoderError, match="a BPE tokenizer cannot be pruned; train without --prune"):
        distill.prune(bert(2), json.loads(tokenizer.to_str()), [0])


# --- batches -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 90), max_size=300), st.integers(1, 20), st.integers(0, 9))
def test_batches_hold_every_case_once_beside_others_of_about_its_length(
    lengths: list[int], size: int, seed: int
) -> None:
    found = distill.batches(lengths, size, np.random.default_rng(seed))
    assert sorted(np.concatenate([*found, np.empty(0, int)]).tolist()) == list(range(len(lengths)))
    assert sorted(map(len, found), reverse=True) == [
        min(size, len(lengths) - start) for start in range(0, len(lengths), size)
    ]
    if len(lengths) <= 64 * size:  # all are sorted together: no two batches overlap in length
        ends = sorted((min(lengths[case] for case in batch), max(lengths[case] for case in batch)) for batch in found)
        assert all(one[1] <= other[0] for one, other in zip(ends, ends[1:], strict=False))
    again = distill.batches(lengths, size, np.random.default_rng(seed))
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in found]


def test_batches_come_in_another_order_each_time_and_not_by_length() -> None:
    lengths = list(range(64))
    orders = [
        [int(batch[0]) for batch in distill.batches(lengths, 4, np.random.default_rng(seed))] for seed in range(2)
    ]
    assert orders[0] != orders[1]
    assert all(sorted(order) == list(range(0, 64, 4)) != order for order in orders)


@pytest.mark.parametrize(
    ("sizes", "epochs", "balance", "passes", "expected"),
    [
        ([9000, 1000], 1.0, 0.5, 4.0, [7500, 2500]),
        ([9000, 1000], 2.0, 0.5, 4.0, [15000, 5000]),
        ([300, 100], 1.0, 0.0, 4.0, [200, 200]),
        ([9900, 100], 1.0, 0.0, 4.0, [5000, 400]),  # the small one is passed no more than four times
        ([29, 71], 1.0, 1.0, 4.0, [29, 71]),  # 29 / 100 * 100 is a little under 29
        ([50], 0.5, 0.5, 4.0, [25]),
    ],
)
def test_sources_are_drawn_from_by_their_size_and_the_balance(
    sizes: list[int], epochs: float, balance: float, passes: float, expected: list[int]
) -> None:
    assert distill.drawn(sizes, epochs, balance, passes) == expected


# --- losses --------------------------------------------------------------------------------------


def cosent(cosines: Sequence[float], labels: Sequence[float], scale: float = 20.0) -> float:
    return float(distill.cosent(torch.tensor(cosines), torch.tensor(labels), scale))


def test_cosent_of_hand_worked_examples() -> None:
    assert cosent([0.2, 0.5], [1, 0]) == pytest.approx(math.log(1 + math.exp(6)), rel=1e-5)
    assert cosent([0.5, 0.2], [1, 0]) == pytest.approx(math.log(1 + math.exp(-6)), rel=1e-4)
    # Three grades: .4 should be above .3 and .1, and .1 above .3; two ties with each other do not count.
    expected = math.log(1 + math.exp(-1) + math.exp(-3) + math.exp(2))
    assert cosent([0.4, 0.1, 0.3], [1.0, 0.5, 0.0], 10) == pytest.approx(expected, rel=1e-5)
    assert cosent([0.9, -0.9, 0.3], [0.5, 0.5, 0.5]) == 0
    assert cosent([0.9], [1.0]) == 0


@given(st.lists(st.tuples(st.integers(-9, 9), st.sampled_from([0.0, 0.25, 1.0])), min_size=2, max_size=8), st.randoms())
def test_cosent_goes_by_order_alone(rows: list[tuple[int, float]], random: Any) -> None:
    cosines, labels = [cosine / 10 for cosine, _ in rows], [label for _, label in rows]
    loss = cosent(cosines, labels)
    shuffled = random.sample(list(zip(cosines, labels, strict=True)), len(rows))
    assert cosent([row[0] for row in shuffled], [row[1] for row in shuffled]) == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert cosent(cosines, [2 * label for label in labels]) == pytest.approx(loss, rel=1e-5)  # no grade's size
    assert cosent(cosines, [2 * cosine for cosine in cosines]) <= len(rows) ** 2 * math.exp(-2) + 1e-6  # right order
    wrong = [(one, other) for one in rows for other in rows if one[1] > other[1] and one[0] <= other[0]]
    assert (loss >= math.log(2) - 1e-6) if wrong else (loss < math.log(1 + len(rows) ** 2 * math.exp(-2)))


def contrast(cosines: Sequence[Sequence[float]], matching: Sequence[bool], same: Sequence[Sequence[int]]) -> float:
    """With right texts at right angles to each other, so that left texts hold the cosines."""
    left = torch.tensor(cosines)
    return float(distill.contrast(left, torch.eye(len(left)), torch.tensor(matching), torch.tensor(same).bool(), 0.1))


def test_contrast_of_hand_worked_examples() -> None:
    own = [[1, 0], [0, 1]]
    first, second = math.log(1 + math.exp(0.2 / 0.1)), math.log(1 + math.exp(-0.5 / 0.1))
    assert contrast([[0.6, 0.8], [0.1, 0.6]], [True, True], own) == pytest.approx((first + second) / 2, rel=1e-5)
    # A pair that does not match asks for nothing, but its right text is a negative.
    assert contrast([[0.6, 0.8], [0.1, 0.6]], [True, False], own) == pytest.approx(first, rel=1e-5)
    # What is known to mean the same is none.
    assert contrast([[0.6, 0.8], [0.1, 0.6]], [True, True], [[1, 1], [0, 1]]) == pytest.approx(second / 2, rel=1e-4)
    assert contrast([[0.6, 0.8], [0.1, 0.6]], [False, False], own) == 0


def test_towards_is_nothing_where_student_and_teacher_agree() -> None:
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(distill.towards(teacher, teacher)) == 0
    # One of two embeddings is at a right angle; two of four cosines are 0 and should be 1.
    assert float(distill.towards(torch.eye(2), teacher)) == pytest.approx(0.5 + 10 * 0.5)
    # Turned as a whole: each embedding is off, their cosines are right.
    assert float(distill.towards(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), teacher)) == pytest.approx(1)


@pytest.mark.parametrize(("ranks", "dim"), [((8, 6), 20), ((8, 6), 14), ((3, 4), 7)])
def test_the_cosines_of_mixed_teachers_are_the_mean_of_theirs(ranks: tuple[int, int], dim: int) -> None:
    """Where they fit, and where they do not but hold no more directions than do."""
    generator = np.random.default_rng(0)
    teachers = [
        unit(generator.standard_normal((50, rank)) @ generator.standard_normal((rank, width)))
        for rank, width in zip(ranks, (8, 6), strict=True)
    ]
    mixed = distill.mix_teachers(teachers, dim)
    assert mixed.shape == (50, dim)
    assert mixed.dtype == np.float32
    mean = (teachers[0] @ teachers[0].T + teachers[1] @ teachers[1].T) / 2
    np.testing.assert_allclose(mixed @ mixed.T, mean, atol=1e-5)
    if dim == 20:
        assert not mixed[:, 14:].any()


def test_a_projection_keeps_the_directions_that_matter() -> None:
    generator = np.random.default_rng(1)
    rows = unit(generator.standard_normal((200, 30)) * ([1.0] * 6 + [0.03] * 24))
    mixed = distill.mix_teachers([rows], 6)
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(mixed @ mixed.T, rows @ rows.T, atol=0.05)


def test_targets_are_turned_to_where_the_student_is_and_keep_their_cosines() -> None:
    generator = np.random.default_rng(2)
    student = unit(generator.standard_normal((100, 8)))
    rotation, _ = np.linalg.qr(generator.standard_normal((8, 8)))
    targets = unit(student + 0.1 * generator.standard_normal((100, 8))) @ rotation.astype(np.float32)
    turned = distill.turn(targets, targets[::2], student[::2])
    assert turned.dtype == np.float32
    np.testing.assert_allclose(turned @ turned.T, targets @ targets.T, atol=1e-5)
    assert (turned * student).sum(axis=1).mean() > 0.95 > 0.5 > (targets * student).sum(axis=1).mean()


# --- training, with a judge that says what the test wants -----------------------------------------


def material(*, targets: bool = True, pairs: int = 0) -> Material:
    generator = np.random.default_rng(0)
    tokens = [generator.integers(5, 60, generator.integers(2, 9)).tolist() for _ in range(80)]
    left, right = (generator.integers(0, 80, max(1, pairs)) for _ in range(2))
    labels = generator.integers(0, 2, max(1, pairs)).astype(np.float32)
    embeddings = unit(generator.standard_normal((80, 24))) if targets else None
    return Material(tokens, embeddings, np.arange(80), [(left, right, labels)] if pairs else [])


class Script:
    """A judge that says one figure after the other, and keeps the weights that it was shown."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.shown = list(figures), list[dict[str, torch.Tensor]]()

    def __call__(self, model: Any) -> tuple[float, dict[str, float]]:
        self.shown.append({name: value.clone() for name, value in model.state_dict().items()})
        return self.figures[len(self.shown) - 1], {}


def same_weights(model: Any, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


SHORT = Recipe(distil_epochs=1, match_epochs=1, distil_batch=8, match_batch=8, judge_every=4, shares=(0.25, 0.5, 1.0))


def test_a_phase_ends_with_its_best_weights(tmp_path: Path) -> None:
    model, judge = bert(60), Script(0.1, 0.5, 0.3, 0.4)
    points = distill.train(model, material(), SHORT, judge, tmp_path)
    assert [(point.phase, point.step, point.figure) for point in points] == [
        ("distil", 0, 0.1), ("distil", 4, 0.5), ("distil", 8, 0.3), ("distil", 10, 0.4),
    ]  # fmt: skip
    assert same_weights(model, judge.shown[1])
    assert not same_weights(model, judge.shown[0])
    assert not same_weights(model, judge.shown[3])


def test_a_phase_ends_early_when_the_figure_no_longer_rises(tmp_path: Path) -> None:
    model, judge = bert(60), Script(0.5, 0.6, 0.6, 0.55, 0.1)
    recipe = dataclasses.replace(SHORT, distil_epochs=9, judge_every=3, patience=2)
    points = distill.train(model, material(), recipe, judge, tmp_path)
    assert [point.step for point in points] == [0, 3, 6, 9]
    assert same_weights(model, judge.shown[1])


def test_the_weights_before_and_after_matching_are_averaged_in_the_best_share(tmp_path: Path) -> None:
    model = bert(60)
    judge = Script(0.1, 0.3, 0.2, 0.15, *(0.3, 0.2, 0.5, 0.4), *(0.55, 0.6, 0.5))
    points = distill.train(model, material(pairs=72), SHORT, judge, tmp_path)
    assert [(point.phase, point.step) for point in points][4:] == [
        ("match", 0), ("match", 4), ("match", 8), ("match", 9), ("average", 25), ("average", 50), ("average", 100),
    ]  # fmt: skip
    assert same_weights(model, judge.shown[9])
    before, after = judge.shown[1], judge.shown[6]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, (before[name] + after[name]) / 2)


@pytest.mark.parametrize("shares", [(0.5,), ()])
def test_the_best_of_all_judgements_is_kept_though_no_average_reaches_it(
    tmp_path: Path, shares: tuple[float, ...]
) -> None:
    model, judge = bert(60), Script(0.1, 0.3, 0.2, 0.15, *(0.3, 0.2, 0.9, 0.4), 0.5)
    recipe = dataclasses.replace(SHORT, shares=shares)
    distill.train(model, material(pairs=72), recipe, judge, tmp_path)
    assert same_weights(model, judge.shown[6])


def test_texts_that_a_batch_knows_to_mean_the_same_are_no_negatives(tmp_path: Path) -> None:
    """Also through others: 0 = 1 and 1 = 2, so 0 and 2, whichever side they stand on."""
    model, data = bert(60), material(targets=False)
    left, right = np.array([0, 1, 2, 3, 0]), np.array([1, 2, 0, 4, 5])
    labels = np.array([1, 1, 1, 1, 0], dtype=np.float32)
    recipe = dataclasses.replace(SHORT, match_rate=0.0, contrast=0.5)
    (_, point, *_) = distill.train(
        model, dataclasses.replace(data, sources=[(left, right, labels)]), recipe, Script(*[0.5] * 9), tmp_path
    )
    with torch.inference_mode():
        vectors = distill.embed(model, data.tokens[:6], 0, half=has_fast_bf16(CPU))
    a, b = vectors[left], vectors[right]
    groups = [0, 0, 0, 3, 3, 5]
    same = torch.tensor([[groups[one] == groups[other] for other in right] for one in left])
    ranking = distill.cosent((a * b).sum(dim=1), torch.tensor(labels))
    expected = float(ranking + 0.5 * distill.contrast(a, b, torch.tensor(labels) == 1, same))
    blind = float(ranking + 0.5 * distill.contrast(a, b, torch.tensor(labels) == 1, torch.eye(5).bool()))
    assert point.loss == pytest.approx(expected, rel=0.01)
    assert abs(blind - expected) > 0.1


def test_progress_is_saved_once_a_minute_between_judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minutes = iter(range(0, 61_000, 61))
    monkeypatch.setattr(distill, "time", SimpleNamespace(monotonic=lambda: next(minutes)))
    recipe = dataclasses.replace(SHORT, judge_every=100)
    steps: list[int] = []

    def stop(_phase: str, step: int, _steps: int | None) -> None:
        steps.append(step)
        if len(steps) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill.train(bert(60), material(), recipe, Script(0.1, 0.2), tmp_path, progress=stop)
    model, again = bert(60), bert(60)
    resumed = distill.train(model, material(), recipe, Script(0.2), tmp_path, progress=stop)
    assert steps == [1, 2, 3, 4, 5, 6, 7, 7, 8, 9, 10]
    assert resumed == distill.train(again, material(), recipe, Script(0.1, 0.2), tmp_path / "unbroken")
    assert same_weights(model, again.state_dict())


def test_a_mined_negative_is_the_nearest_text_that_is_clearly_less_near_than_the_match() -> None:
    def at(degrees: float) -> list[float]:
        return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]

    # 0 asks, 1 is its match; 2 is nearly as near (unlabelled, but surely the same), 3 is the hard one, 4 is far off.
    vectors = np.array([at(0), at(20), at(22), at(40), at(90)], dtype=np.float32)
    left, right = np.array([0, 3, 0]), np.array([1, 4, 2])
    assert distill.mine(vectors, left, right, np.array([1, 0, 0], np.float32)).tolist() == [4, -1, -1]
    left, right = np.array([0, 4, 0]), np.array([1, 3, 2])
    assert distill.mine(vectors, left, right, np.array([1, 0, 0], np.float32)).tolist() == [3, -1, -1]
    # What another pair says to be the same is no negative, however near.
    left, right = np.array([0, 2, 2]), np.array([1, 1, 3])
    assert distill.mine(vectors, left, right, np.array([1, 1, 1], np.float32)).tolist() == [-1, -1, -1]


def test_hard_negatives_raise_the_contrastive_loss_unless_they_mean_the_same() -> None:
    left, right = torch.eye(2, 3), torch.eye(2, 3)
    matching, same = torch.tensor([True, True]), torch.eye(2, dtype=torch.bool)
    near = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0, 0.2]]), dim=1)
    without = distill.contrast(left, right, matching, same)
    against = distill.contrast(left, right, matching, same, 0.05, near, torch.tensor([[False], [False]]))
    alike = distill.contrast(left, right, matching, same, 0.05, near, torch.tensor([[True], [False]]))
    assert float(against) > float(alike) >= float(without)
    assert float(alike) == pytest.approx(float(without), abs=1e-6)


# --- whole trainings -----------------------------------------------------------------------------

WORDS = "abcdefgh"
SYNONYM = dict(zip(WORDS, WORDS[4:] + WORDS[:4], strict=True))


def sentence(generator: np.random.Generator) -> str:
    return " ".join(generator.choice(list(WORDS), generator.integers(3, 8)))


def language(name: str, count: int, seed: int, *, graded: bool = False) -> Pairs:
    """Pairs of a language in which each word has a synonym, which the teacher does not know of."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        text = sentence(generator)
        words, changes = text.split(), number % (3 if graded else 2)
        for place in generator.permutation(len(words))[: 2 * changes]:
            words[place] = generator.choice(
                [word for word in WORDS if word not in (words[place], SYNONYM[words[place]])]
            )
        words = [SYNONYM[word] if generator.random() < 0.5 else word for word in words]
        rows.append((text, " ".join(words), (2.0 if graded else 1.0) - changes))
    left, right, labels = zip(*rows, strict=True)
    return Pairs(name, left, right, labels)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.write_published(tmp_path_factory.mktemp("teacher"), 3, hidden=48, heads=4, size=140))


def job(teacher: str, output: Path, **changes: Any) -> Job:
    """A job of a second or two; `recipe` is what is changed in its recipe."""
    generator = np.random.default_rng(9)
    recipe = Recipe(
        distil_epochs=2, match_epochs=1, distil_rate=1e-3, match_rate=5e-3, distil_batch=16, match_batch=16, hold=0.2,
        judge_every=6, shares=(0.5, 1.0),
    )  # fmt: skip
    whole = Job(
        teachers=(teacher,),
        texts=tuple(sentence(generator) for _ in range(120)),
        pairs=(language("synonyms", 120, 1), language("grades", 60, 2, graded=True)),
        judged=(language("dev", 60, 3), language("dev grades", 60, 4, graded=True)),
        output=output,
        layers=2,
        device="cpu",
    )
    return dataclasses.replace(whole, **{**changes, "recipe": dataclasses.replace(recipe, **changes.get("recipe", {}))})


@dataclasses.dataclass
class Trained:
    job: Job
    outcome: Outcome
    told: list[str]


@pytest.fixture(scope="module")
def trained(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A training that is long enough to learn most synonyms."""
    told: list[str] = []
    changes: dict[str, Any] = {
        "recipe": {"match_epochs": 4, "match_rate": 2e-3, "judge_every": 12, "seed": 1},
        "pairs": (language("synonyms", 280, 1), language("grades", 90, 2, graded=True)),
        "judged": (language("dev", 240, 3), language("dev grades", 60, 4, graded=True)),
    }
    long = job(teacher, tmp_path_factory.mktemp("trained") / "student", **changes)
    return Trained(long, distill.distil(long, tell=told.append), told)


def test_the_loss_falls_and_the_student_beats_its_start(trained: Trained) -> None:
    outcome = trained.outcome
    for phase in ("distil", "match"):
        losses = [point.loss for point in outcome.points if point.phase == phase][1:]
        assert np.mean(losses[len(losses) // 2 :]) < 0.8 * losses[0]
    assert outcome.start == outcome.points[0]
    assert (outcome.start.phase, outcome.start.step) == ("distil", 0)
    assert outcome.best.figure == max(point.figure for point in outcome.points) > outcome.start.figure + 0.15
    assert outcome.best.phase == "average"
    assert list(outcome.best.details) == ["dev", "dev grades", "dev accuracy@1", "dev auc"]
    assert all(value > outcome.start.details[name] for name, value in outcome.best.details.items())
    spearman = (outcome.best.details["dev"] + outcome.best.details["dev grades"]) / 2
    retrieval = (outcome.best.details["dev accuracy@1"] + outcome.best.details["dev auc"]) / 2
    assert outcome.best.figure == pytest.approx((spearman + retrieval) / 2)
    assert len(trained.told) == len(outcome.points)
    assert trained.told[-1].startswith(f"average 100: loss 0.0000, judged {100 * outcome.points[-1].figure:.2f} (dev ")


def test_the_student_is_an_ordinary_folder(trained: Trained) -> None:
    folder = trained.outcome.folder
    assert folder == trained.job.output
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "1_Pooling/config.json", "README.md", "config.json", "model.safetensors", "modules.json",
        "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    encoder = registry.load_encoder(str(folder), device="cpu")
    assert (encoder.layers, encoder.dim, encoder.pooling, encoder.max_length) == (2, 48, "mean", 256)
    texts = [*trained.job.judged[0].left[:20], "a " * 400, "没有"]
    embeddings = encoder.encode(texts)
    model = SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 256
    np.testing.assert_allclose(model.encode(texts, show_progress_bar=False), embeddings, atol=2e-3)
    for pairs in trained.job.judged:
        spearman = measure.score_pairs("", encoder, pairs).spearman
        assert spearman == pytest.approx(trained.outcome.best.details[pairs.name], abs=0.02)  # judged in bfloat16


def test_the_model_card_tells_data_recipe_scores_and_licence(trained: Trained, teacher: str) -> None:
    card = (trained.job.output / "README.md").read_text("utf-8")
    assert card.startswith("---\npipeline_tag: sentence-similarity\n")
    assert f"Teachers: {teacher}. Start: {teacher}, 2 of its layers. Licence of the start: see its own page" in card
    synonyms, grades = map(len, distill.without(trained.job.pairs, trained.job.judged))
    assert 200 < synonyms <= 280
    expected = f"- synonyms: {synonyms} labelled pairs\n- grades: {grades} labelled pairs\n- 120 texts without labels\n"
    assert expected in card
    assert "Judged by dev (240 pairs), dev grades (60 pairs), never trained on." in card
    for name, value in trained.outcome.best.details.items():
        assert f"| {name} | {100 * trained.outcome.start.details[name]:.2f} | {100 * value:.2f} |\n" in card
    recipe = json.loads(card.split("```json\n")[1].split("```")[0])
    assert Recipe(**{**recipe, "shares": tuple(recipe["shares"])}) == trained.job.recipe


def result(outcome: Outcome) -> tuple[bytes, tuple[Point, ...]]:
    return (outcome.folder / "model.safetensors").read_bytes(), outcome.points


@pytest.fixture(scope="module")
def unbroken(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, tuple[Point, ...]]:
    return result(distill.distil(job(teacher, tmp_path_factory.mktemp("unbroken") / "student")))


def kill(work: Job, phase: str, step: int, *, resume: bool = False) -> None:
    """Train until this step of a phase is done, or this judgement where the step is below 0 (or 0: the first)."""

    def progress(what: str, done: int, _total: int | None) -> None:
        if (what, done) == (phase, step):
            raise KeyboardInterrupt

    def tell(line: str) -> None:
        if line.startswith(f"{phase} {-step}:"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill.distil(work, resume=resume, progress=progress, tell=tell)
    assert not (work.output / "model.safetensors").exists()


@pytest.mark.parametrize("places", [
    [("distil", 3)],  # before anything was saved
    [("distil", 8), ("distil", 14)],
    [("distil", -16)],  # the last judgement, before it was saved
    [("match", 0)],
    [("match", 9), ("average", -50)],
    [("average", -100)],
])  # fmt: skip
def test_a_killed_training_resumes_to_the_result_that_it_would_have_had(
    teacher: str, tmp_path: Path, unbroken: tuple[bytes, tuple[Point, ...]], places: list[tuple[str, int]]
) -> None:
    work = job(teacher, tmp_path / "student")
    for turn, place in enumerate(places):
        kill(work, *place, resume=turn > 0)
    assert result(distill.distil(work, resume=True)) == unbroken
    assert not (work.output / "work").exists()


def test_the_teachers_embeddings_are_computed_once(teacher: str, tmp_path: Path) -> None:
    work = job(teacher, tmp_path / "student")
    kill(work, "distil", 8)
    files = {file: file.stat().st_mtime_ns for file in (work.output / "work").glob("teacher-*")}
    assert len(files) == 1
    kill(work, "match", 3, resume=True)
    assert {file: file.stat().st_mtime_ns for file in (work.output / "work").glob("teacher-*")} == files


def test_another_seed_gives_another_student(
    teacher: str, tmp_path: Path, unbroken: tuple[bytes, tuple[Point, ...]]
) -> None:
    other = result(distill.distil(job(teacher, tmp_path / "student", recipe={"seed": 1})))
    assert other[1][1:] != unbroken[1][1:]
    assert other[1][0] == unbroken[1][0]  # the start is the teacher's layers


@pytest.mark.parametrize("changes", [{"recipe": {"seed": 1}}, {"texts": ("a b", "c d")}, {"layers": 1}])
def test_what_is_resumed_is_never_mixed_with_another_job(teacher: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    """It is told, or trained anew."""
    kill(job(teacher, tmp_path / "student"), "match", 9)
    try:
        found = result(distill.distil(job(teacher, tmp_path / "student", **changes), resume=True))
    except EncoderError as exc:
        assert "student" in str(exc)
    else:
        assert found == result(distill.distil(job(teacher, tmp_path / "other", **changes)))


def test_a_checkpoint_is_trained_on_pairs_alone(teacher: str, tmp_path: Path) -> None:
    outcome = distill.distil(
        job(teacher, tmp_path / "student", teachers=(), init=teacher, texts=(), recipe={"match_rate": 1e-3})
    )
    assert [point.phase for point in outcome.points] == ["match"] * 4 + ["average"] * 2
    assert outcome.best.figure > outcome.start.figure + 0.05
    assert registry.load_encoder(str(outcome.folder), device="cpu").layers == 3
    assert "Teachers: none." in (outcome.folder / "README.md").read_text("utf-8")


def test_a_student_learns_from_several_teachers_and_only_keeps_the_pieces_it_needs(
    teacher: str, tmp_path: Path
) -> None:
    other = str(checkpoints.write_published(tmp_path / "other", 1, hidden=24, heads=4, size=140, seed=5))
    work = job(teacher, tmp_path / "student", teachers=(teacher, other), pairs=(), prune=True, layers=1)
    outcome = distill.distil(work)
    assert [point.phase for point in outcome.points] == ["distil"] * 4
    assert outcome.points[-1].loss < outcome.points[1].loss
    encoders = [registry.load_encoder(ref, device="cpu") for ref in (teacher, other, str(outcome.folder))]
    assert (encoders[2].dim, encoders[2].layers) == (48, 1)
    assert encoders[2].vocabulary == 140  # all of them single characters
    assert f"Teachers: {teacher}, {other}." in (outcome.folder / "README.md").read_text("utf-8")


def test_texts_longer_than_the_students_positions_are_truncated(tmp_path: Path) -> None:
    teacher = checkpoints.write_published(tmp_path / "teacher", 2, hidden=24, heads=4, size=140)
    model = transformers.AutoModel.from_pretrained(str(teacher))
    model.embeddings.position_embeddings.weight.data = model.embeddings.position_embeddings.weight.data[:32].clone()
    model.config.max_position_embeddings = 32
    (teacher / "pytorch_model.bin").unlink()
    model.save_pretrained(teacher)
    long = Pairs("long", ("a b " * 30, "c d", "e f"), ("a b " * 29, "c e", "e f"), (1.0, 0.0, 1.0))
    changes: dict[str, Any] = {"pairs": (long,), "judged": (long,), "texts": ("g h " * 40, "a b")}
    outcome = distill.distil(job(str(teacher), tmp_path / "student", **changes))
    encoder = registry.load_encoder(str(outcome.folder), device="cpu")
    assert encoder.max_length == 32
    assert SentenceTransformer(str(outcome.folder), device="cpu").encode(long.left).shape == (3, 24)


def test_a_student_puts_in_lower_case_what_its_teacher_does(tmp_path: Path) -> None:
    teacher = checkpoints.write_published(tmp_path / "teacher", 2, hidden=24, heads=4, size=140)
    checkpoints.write(teacher / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizer"})
    checkpoints.write(teacher / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": True})
    before = registry.load_encoder(str(teacher), device="cpu").encode(["A B", "a b"])
    np.testing.assert_allclose(before[0], before[1], atol=1e-6)
    outcome = distill.distil(job(str(teacher), tmp_path / "student", pairs=(), recipe={"distil_rate": 0.0}))
    after = registry.load_encoder(str(outcome.folder), device="cpu").encode(["A B", "a b"])
    np.testing.assert_allclose(after, before, atol=3e-3)


def test_a_set_that_no_retrieval_can_be_made_of_counts_by_spearman_alone(teacher: str) -> None:
    """Its one pair that matches is of equal texts."""
    folder = Path(teacher)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer
    texts = tuple(" ".join(pair) for pair in zip(WORDS, WORDS[1:], strict=False))
    pairs = Pairs("odd", texts, (texts[0], *texts[:-1]), (1.0, *[0.0] * (len(texts) - 1)))
    figure, details = distill.pair_judge([pairs], tokenizer, 0)(bert(140))
    assert details == {"odd": figure}
    assert 0 < figure < 1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "message"), [
    ({"teachers": ()}, "there is nothing to start from; name a --teacher, or a checkpoint with --init"),
    ({"pairs": (), "texts": ()}, "there is nothing to train on; give --texts with a --teacher, or --pairs"),
    ({"pairs": (), "teachers": (), "init": "embedded"}, "there is nothing to train on"),
    ({"judged": ()}, "there are no pairs to judge by; give --judge FILE, with pairs that are in no --pairs"),
    ({"teachers": ("nobody",)}, "no encoder 'nobody'; expected embedded, "),
    ({"init": "nobody"}, "no encoder 'nobody'; expected embedded, "),
    ({"layers": 4}, "4 layers were asked for, the teacher has 3; expected 1 to 3"),
    ({"device": "tpu"}, "device is 'tpu'; expected auto, cpu or cuda"),
    ({"recipe": {"distil_epochs": 0.0, "match_epochs": 0.0}}, "nothing to train"),
    ({"recipe": {"distil_epochs": 0.0}, "pairs": ()}, "nothing to train"),
])  # fmt: skip
def test_what_cannot_be_trained_is_told_and_leaves_nothing_behind(
    teacher: str, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Else the mended command would be told that its folder is not empty."""
    with pytest.raises(EncoderError) as caught:
        distill.distil(job(teacher, tmp_path / "student", **changes))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_in_use_is_left_alone(teacher: str, tmp_path: Path) -> None:
    work = job(teacher, tmp_path / "student")
    work.output.mkdir()
    (work.output / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(EncoderError, match="student is not empty; name another folder"):
            distill.distil(work, resume=resume)
    shutil.rmtree(work.output)
    kill(work, "distil", 8)
    before = (work.output / "work" / "state.pt").read_bytes()
    with pytest.raises(EncoderError, match="student is not empty; give --resume to go on with it, or name another"):
        distill.distil(work)
    assert (work.output / "work" / "state.pt").read_bytes() == before
