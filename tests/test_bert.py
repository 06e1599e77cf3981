"""Packed tokens against transformers' padded batches; what is computed there, and what transformers still computes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from faqsearch import bert
from faqsearch.bert import Bert
from faqsearch.checkpoint import Pooling
from faqsearch.encoder import TransformerEncoder, pool
from faqsearch.errors import DamagedCheckpointError, EncoderError
from faqsearch.measure import sample_questions
from faqsearch.model import Precision
from faqsearch.registry import load_encoder

CPU = torch.device("cpu")
CONFIG = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": 16, "type_vocab_size": 2, "initializer_range": 0.3,
}  # fmt: skip
TEXTS = ("怎么提前还款？", "提前还款怎么办理，要什么材料", "", "我的卡丢了" * 20, "ok")


def stack(**changes: Any) -> tuple[dict[str, Any], Any]:
    """(config, a model of transformers with random weights)."""
    config = {**CONFIG, **changes}
    torch.manual_seed(0)
    return config, transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def both() -> tuple[Bert, Any]:
    """The same weights in both."""
    config, model = stack()
    return Bert(config, model.state_dict(), CPU), model


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=16), min_size=1, max_size=12),
    pooling=st.sampled_from(["mean", "cls", "max"]),
)
def test_packed_texts_have_the_embeddings_that_they_have_alone(
    both: tuple[Bert, Any], tokens: list[list[int]], pooling: Pooling
) -> None:
    ours, model = both
    embeddings = ours.embed(tokens, pooling)
    assert embeddings.shape == (len(tokens), 24)
    for text, embedding in zip(tokens, embeddings, strict=True):
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([text]))[0]
        expected = pool(hidden, torch.ones(1, len(text), dtype=torch.int64), pooling)[0]
        torch.testing.assert_close(embedding, expected, atol=2e-5, rtol=1e-4)


def test_a_text_without_tokens_is_zeros_and_leaves_the_others_alone(both: tuple[Bert, Any]) -> None:
    ours, _ = both
    embeddings = ours.embed([[1, 2], [], [3]], "mean")
    assert not embeddings[1].any()
    torch.testing.assert_close(embeddings[[0, 2]], torch.cat([ours.embed([[1, 2]], "mean"), ours.embed([[3]], "mean")]))
    assert not ours.embed([[]], "max").any()


def test_half_precision_is_near_the_full_one() -> None:
    config, model = stack(hidden_size=96, num_attention_heads=12, num_hidden_layers=4, initializer_range=0.05)
    tokens = [[token, token * 7 % 50, 3, token % 5] for token in range(50)]
    full = Bert(config, model.state_dict(), CPU).embed(tokens, "mean")
    half = Bert(config, model.state_dict(), CPU, torch.bfloat16).embed(tokens, "mean")
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(full, half).min() > 0.999
    assert not torch.equal(full, half), "else nothing was computed in half precision"


@pytest.mark.parametrize("texts", [1, 4, 5, 64, 65, 130])
def test_the_rows_that_fill_up_a_pass_in_half_precision_change_nothing(
    texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, model = stack(initializer_range=0.05)
    half = Bert(config, model.state_dict(), CPU, torch.bfloat16)
    tokens = [[token % 50, token * 7 % 50, 3, token % 5] for token in range(texts)]
    filled = half.embed(tokens, "mean")
    seen: list[int] = []
    attend = half._attend

    def look(mixed: torch.Tensor, runs: Any) -> torch.Tensor:
        seen.append(len(mixed))
        return attend(mixed, runs)

    monkeypatch.setattr(half, "_attend", look)
    torch.testing.assert_close(half.embed(tokens, "mean"), filled)
    assert seen[0] % 16 == 0 and seen[0] >= 4 * texts
    assert seen[0] % 256 == 0 or seen[0] < 256
    monkeypatch.setattr("faqsearch.bert._rounded", lambda count: count)
    torch.testing.assert_close(half.embed(tokens, "mean"), filled, atol=1e-2, rtol=1e-2)
    assert seen[-1] == 4 * texts


@pytest.mark.parametrize(
    ("texts", "length"), [(1, 3), (2, 1), (16, 1), (17, 1), (7, 3), (5, 8), (5, 15), (3, 16), (4, 0)]
)
def test_short_texts_in_one_row_do_not_look_at_each_other_in_half_precision(texts: int, length: int) -> None:
    config, model = stack()
    half = Bert(config, model.state_dict(), CPU, torch.bfloat16)
    generator = np.random.default_rng(0)
    tokens = [[1, 2], *generator.integers(0, 50, (texts, length)).tolist(), [3] * 16]
    together = half.embed(tokens, "mean")
    alone = torch.cat([half.embed([text], "mean") for text in tokens])
    torch.testing.assert_close(together, alone, atol=0.03, rtol=0.03)  # torch rounds a row of another length otherwise


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("no bfloat16 on this machine")


@pytest.mark.parametrize(
    "operators",
    [{}, {"_linear_pointwise": refuse}, {"_linear_pointwise": lambda x, weight, *_: x @ weight.T}],
    ids=["missing", "refuses", "forgets the bias"],
)
def test_an_operator_that_does_not_do_as_expected_is_not_used(
    operators: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**operators))
    assert bert._onednn_linear.__wrapped__() is torch.nn.functional.linear


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 32, 8), (5, 24, 72), (300, 64, 3)])
def test_the_linear_map_in_half_precision_is_that_of_torch(rows: int, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, inputs), torch.randn(outputs, inputs) / 8, torch.randn(outputs)
    found = bert._onednn_linear()(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
    torch.testing.assert_close(found.float(), torch.nn.functional.linear(x, weight, bias), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_weights_of_a_model_with_a_head_are_found(prefix: str) -> None:
    config, model = stack()
    state = {prefix + name: value for name, value in model.state_dict().items()}
    ours = Bert(config, {**state, "cls.predictions.bias": torch.zeros(50)}, CPU)
    expected = Bert(config, model.state_dict(), CPU)
    assert torch.equal(ours.embed([[1, 2, 3]], "mean"), expected.embed([[1, 2, 3]], "mean"))
    assert ours.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.output.LayerNorm.bias, "),
        ({"num_hidden_layers": 1}, "encoder.layer.1.attention.output.LayerNorm.bias is of a layer too many"),
        ({"vocab_size": 51}, "embeddings.word_embeddings.weight missing or of another shape"),
        ({"intermediate_size": 41}, "encoder.layer.0.intermediate.dense.bias, "),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused(change: dict[str, int], problem: str) -> None:
    config, model = stack()
    with pytest.raises(DamagedCheckpointError) as caught:
        Bert({**config, **change}, model.state_dict(), CPU)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True), ({"hidden_act": "gelu"}, True), ({"hidden_act": "relu"}, False),
        ({"hidden_act": "gelu_new"}, False), ({"model_type": "roberta"}, False), ({"model_type": "xlm-roberta"}, False),
        ({"is_decoder": True}, False), ({"position_embedding_type": "relative_key"}, False),
    ],
)  # fmt: skip
def test_only_what_is_computed_here_fits(change: dict[str, Any], fits: bool) -> None:
    assert bert.fits({**CONFIG, **change}) is fits


# --- as an encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.write_published(tmp_path_factory.mktemp("bert") / "student", size=4_000)


def test_another_activation_is_computed_by_transformers_and_right(folder: Path, tmp_path: Path) -> None:
    ours = TransformerEncoder(folder, device="cpu").encode(TEXTS)
    other = checkpoints.write_published(tmp_path / "relu", size=4_000)
    config = json.loads((other / "config.json").read_text("utf-8"))
    checkpoints.write(other / "config.json", {**config, "hidden_act": "relu"})
    encoder = TransformerEncoder(other, device="cpu")
    embeddings = encoder.encode(TEXTS)
    assert np.abs(embeddings - ours).max() > 0.01
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(other))
    model = transformers.AutoModel.from_pretrained(str(other)).eval()
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256))[0][0].mean(dim=0)
        np.testing.assert_allclose(embedding, (hidden / hidden.norm()).numpy(), atol=1e-5)


def test_names_of_the_first_checkpoints_are_understood(folder: Path, tmp_path: Path) -> None:
    other = checkpoints.write_published(tmp_path / "old", size=4_000)
    state = torch.load(other / "pytorch_model.bin", weights_only=True)
    old = {"weight": "gamma", "bias": "beta"}
    renamed = {
        name.replace("LayerNorm." + name.rsplit(".", 1)[-1], "LayerNorm." + old[name.rsplit(".", 1)[-1]])
        if "LayerNorm" in name
        else name: value
        for name, value in state.items()
    }
    assert "embeddings.LayerNorm.gamma" in renamed
    torch.save(renamed, other / "pytorch_model.bin")
    expected = TransformerEncoder(folder, device="cpu").encode(TEXTS)
    np.testing.assert_array_equal(TransformerEncoder(other, device="cpu").encode(TEXTS), expected)


def test_weights_in_several_files_are_read_together(folder: Path, tmp_path: Path) -> None:
    other = checkpoints.write_published(tmp_path / "parts", size=4_000)
    state = torch.load(other / "pytorch_model.bin", weights_only=True)
    (other / "pytorch_model.bin").unlink()
    names = sorted(state)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, other / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    checkpoints.write(other / "model.safetensors.index.json", {"weight_map": weight_map})
    expected = TransformerEncoder(folder, device="cpu").encode(TEXTS)
    np.testing.assert_array_equal(TransformerEncoder(other, device="cpu").encode(TEXTS), expected)
    (other / "model-2.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"has no model-2\.safetensors; copy it again"):
        TransformerEncoder(other, device="cpu")


def test_half_precision_can_be_asked_for_and_refused(folder: Path) -> None:
    full = TransformerEncoder(folder, device="cpu", precision="float32")
    half = TransformerEncoder(folder, device="cpu", precision="bfloat16")
    assert (full.precision, half.precision) == ("float32", "bfloat16")
    one, other = full.encode(TEXTS), half.encode(TEXTS)
    assert other.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), 1.0, atol=1e-6)
    assert 0.99 < (one * other).sum(axis=1).min() < 1.0


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 50))
def test_batches_take_every_text_once_the_longest_first_and_not_too_many_tokens(lengths: list[int], size: int) -> None:
    encoder = TransformerEncoder.__new__(TransformerEncoder)
    encoder.batch_size, encoder.device, encoder.precision = size, CPU, "float32"
    batches = [batch.tolist() for batch in encoder._batches(lengths)]
    taken = [index for batch in batches for index in batch]
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[index] for index in taken] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= 2_048


def test_encoding_leaves_the_number_of_torchs_threads_alone(folder: Path) -> None:
    encoder = TransformerEncoder(folder, device="cpu")
    before, seen = torch.get_num_threads(), []

    def work() -> None:
        encoder.encode(["短"])
        encoder.encode(TEXTS * 20)
        seen.append(torch.get_num_threads())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [*seen, torch.get_num_threads()] == [before] * 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.999)])
def test_a_gpu_gives_the_embeddings_of_the_cpu(precision: Precision, least: float) -> None:
    texts = [*TEXTS, *sample_questions(3_000)]
    expected = load_encoder(device="cpu").encode(texts)
    encoder = load_encoder(device="cuda", precision=precision)
    found = encoder.encode(texts)
    assert (found * expected).sum(axis=1).min() > least
    before = torch.cuda.memory_reserved()
    encoder.encode(texts)
    assert torch.cuda.memory_reserved() <= before


def test_the_embedded_encoder_loads_without_transformers() -> None:
    """It takes a second to import, and a person who searches from the shell waits for it each time."""
    script = (
        "import sys; from faqsearch.registry import load_encoder; load_encoder(device='cpu').encode(['怎么还款']);"
        "print([name for name in ('transformers', 'pandas', 'streamlit', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_embeddings_are_looked_up_in_the_precision_that_they_are_stored_in(folder: Path, tmp_path: Path) -> None:
    other = checkpoints.write_published(tmp_path / "half", size=4_000)
    state = torch.load(other / "pytorch_model.bin", weights_only=True)
    (other / "pytorch_model.bin").unlink()
    small = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(small, other / "model.safetensors")
    assert load_file(other / "model.safetensors")["embeddings.word_embeddings.weight"].dtype == torch.float16
    encoder = TransformerEncoder(other, device="cpu")
    assert encoder._model._words.dtype == torch.float16  # type: ignore[union-attr]
    one, two = encoder.encode(TEXTS), TransformerEncoder(folder, device="cpu").encode(TEXTS)
    assert (one * two).sum(axis=1).min() > 0.999
