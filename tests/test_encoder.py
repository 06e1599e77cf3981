"""TransformerEncoder on small random checkpoints, against transformers itself, and on damaged ones."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from faqsearch import load_encoder
from faqsearch.encoder import TransformerEncoder, pool
from faqsearch.errors import EncoderError

DIM = 32
CHARS = "怎么提前还款信用卡额度忘记密码办理开户转账利息。，？abcdefghijklmnopqrstuvwxyz0123456789"
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARS, *(f"##{char}" for char in CHARS if char.isascii())]
TEXTS = ["怎么提前还款？", "", "信用卡额度", "I forgot my password", "忘记密码" * 5, "𠮷野家", "怎么提前还款？"]


def bert() -> transformers.BertModel:
    config = transformers.BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=300,
        # Larger than is usual, so that different texts get clearly different embeddings.
        initializer_range=0.5,
    )
    torch.manual_seed(1)
    return transformers.BertModel(config).eval()


def write_checkpoint(folder: Path, *, old: bool = False, pooling: str | None = None, length: int = 0) -> Path:
    """A checkpoint as transformers writes it, with sentence-transformers' files if a pooling is named."""
    folder.mkdir(parents=True)
    model = bert()
    if old:
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n", "utf-8")
    if pooling:
        modules = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ]
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "1_Pooling").mkdir()
        names = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
        modes = {f"pooling_mode_{name}": kind == pooling for kind, name in names.items()}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": DIM, **modes}))
    if length:
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    return folder


def reference(folder: Path, text: str, pooling: str = "mean", length: int = 256) -> np.ndarray[Any, Any]:
    """One embedding by transformers alone: no batch, so no padding, and its own tokenizer."""
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    tokens = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
    model = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state[0].numpy()  # (tokens, dim)
    pooled = {"mean": hidden.mean(axis=0), "cls": hidden[0], "max": hidden.max(axis=0)}[pooling]
    return np.asarray(pooled / np.linalg.norm(pooled))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plain") / "小模型")


@pytest.fixture(scope="module")
def encoder(plain: Path) -> TransformerEncoder:
    return TransformerEncoder(plain, device="cpu", batch_size=3)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return write_checkpoint(tmp_path / "checkpoint", pooling="mean", length=64)


@pytest.mark.parametrize("old", [False, True], ids=["safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("pooling", [None, "mean", "cls", "max"])
def test_embeddings_are_those_of_transformers(tmp_path: Path, old: bool, pooling: str | None) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", old=old, pooling=pooling)
    encoder = TransformerEncoder(folder, device="cpu", batch_size=4)
    assert (encoder.dim, encoder.pooling, encoder.max_length) == (DIM, pooling or "mean", 256)
    expected = np.stack([reference(folder, text, pooling or "mean") for text in TEXTS])
    assert np.abs(expected[0] - expected[2]).max() > 0.01, "different texts must differ for this to mean anything"
    embeddings = encoder.encode(TEXTS)
    assert (embeddings.dtype, embeddings.shape) == (np.dtype(np.float32), (len(TEXTS), DIM))
    np.testing.assert_allclose(embeddings, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-6)


def test_the_newer_form_of_the_pooling_file_is_read_too(copy: Path) -> None:
    (copy / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 32, "pooling_mode": "cls"}')
    assert TransformerEncoder(copy, device="cpu").pooling == "cls"


def test_a_pooling_folder_of_another_name_is_read_where_modules_json_says(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules[1]["path"] = "pooling"
    (copy / "modules.json").write_text(json.dumps(modules))
    (copy / "pooling").mkdir()
    (copy / "pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert TransformerEncoder(copy, device="cpu").pooling == "max"


def test_pooling_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0, -8.0], [3.0, -2.0], [99.0, 99.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool(hidden, mask, "mean").tolist() == [[2.0, -5.0]]
    assert pool(hidden, mask, "max").tolist() == [[3.0, -2.0]]
    assert pool(hidden, mask, "cls").tolist() == [[1.0, -8.0]]


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(CHARS + " \u3000😀", max_size=40), min_size=1, max_size=9),
    batch_size=st.integers(1, 10),
)
def test_neither_batch_size_nor_company_changes_an_embedding(
    encoder: TransformerEncoder, plain: Path, texts: list[str], batch_size: int
) -> None:
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    other = _with_batch_size(plain, batch_size)
    np.testing.assert_allclose(other.encode(texts), alone, atol=1e-5)
    np.testing.assert_allclose(other.encode(texts[::-1]), alone[::-1], atol=1e-5)


_encoders: dict[int, TransformerEncoder] = {}


def _with_batch_size(folder: Path, batch_size: int) -> TransformerEncoder:
    if batch_size not in _encoders:
        _encoders[batch_size] = TransformerEncoder(folder, device="cpu", batch_size=batch_size)
    return _encoders[batch_size]


def test_nothing_to_encode_gives_no_rows(encoder: TransformerEncoder) -> None:
    embeddings = encoder.encode([])
    assert (embeddings.dtype, embeddings.shape) == (np.dtype(np.float32), (0, DIM))


def test_an_empty_string_has_a_unit_embedding_like_any_other(encoder: TransformerEncoder, plain: Path) -> None:
    np.testing.assert_allclose(encoder.encode([""])[0], reference(plain, ""), atol=1e-5)


@pytest.mark.parametrize("length", [0, 12, 100_000])
def test_long_texts_are_truncated_at_the_maximal_length(tmp_path: Path, length: int) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", pooling="mean", length=length)
    encoder = TransformerEncoder(folder, device="cpu")
    limit = {0: 256, 12: 12, 100_000: 300}[length]  # never more than the model has positions
    assert encoder.max_length == limit
    text = ("怎么提前还款信用卡额度忘记密码" * 40)[:500]
    long, cut, shorter = encoder.encode([text, text[: limit - 2], text[: limit - 3]])
    np.testing.assert_allclose(long, cut, atol=1e-6)
    assert np.abs(long - shorter).max() > 1e-4
    np.testing.assert_allclose(long, reference(folder, text, length=limit), atol=1e-5)


def test_progress_counts_texts_up_to_all_of_them(encoder: TransformerEncoder) -> None:
    told: list[tuple[str, int, int | None]] = []
    encoder.encode(TEXTS, progress=lambda *args: told.append(args))
    assert told == [("encoding", 3, 7), ("encoding", 6, 7), ("encoding", 7, 7)]


def test_several_threads_at_once_get_the_same_embeddings(encoder: TransformerEncoder) -> None:
    jobs = [[*TEXTS[start:], *TEXTS[:start]] for start in range(len(TEXTS))]
    expected = [encoder.encode(job) for job in jobs]
    start = threading.Barrier(len(jobs))
    results: dict[tuple[int, int], np.ndarray[Any, Any]] = {}

    def work(number: int) -> None:
        start.wait()
        for turn in range(5):
            results[number, turn] = encoder.encode(jobs[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5 * len(jobs)
    for (number, _), embeddings in results.items():
        np.testing.assert_allclose(embeddings, expected[number], atol=1e-6)


def test_texts_that_are_tokenised_ahead_come_out_as_those_that_are_not(
    encoder: TransformerEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{text}{number}" for number in range(3) for text in TEXTS]
    expected = encoder.encode(texts)
    seen: list[tuple[str, int, int | None]] = []
    for size in (1, 4, len(texts) - 1, len(texts)):
        monkeypatch.setattr("faqsearch.encoder._TOKENISED_AT_ONCE", size)
        found = encoder.encode(texts, progress=lambda *told: seen.append(told))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert seen[-1] == ("encoding", len(texts), len(texts))


# --- damage


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", old=True)
    mark = tmp_path / "was-run"
    save({"embeddings.word_embeddings.weight": _Malicious(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        TransformerEncoder(folder, device="cpu")
    assert not mark.exists()


def shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text, "utf-8")


def edit(**values: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_shapes(path: Path) -> None:
    _save({name: value[..., :16].contiguous() for name, value in bert().state_dict().items()}, path)


def without_a_layer(path: Path) -> None:
    _save({name: value for name, value in bert().state_dict().items() if "layer.1." not in name}, path)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, path, metadata={"format": "pt"})


DENSE = '[{"path": "", "type": "x.Transformer"}, {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]'


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("config.json", Path.unlink, "has no config.json"),
        ("config.json", write("{"), "cannot be loaded"),
        ("config.json", write('{"model_type": "no-such-type"}'), "cannot be loaded"),
        ("config.json", edit(hidden_size=48), "does not fit its config.json"),
        ("config.json", edit(num_hidden_layers=3), "does not fit its config.json"),
        ("config.json", edit(auto_map={"AutoModel": "code.Model"}, model_type="own"), "cannot be loaded"),
        ("model.safetensors", Path.unlink, "has no weights"),
        ("model.safetensors", shrink, "cannot be loaded"),
        ("model.safetensors", write(""), "cannot be loaded"),
        ("model.safetensors", other_shapes, "does not fit its config.json"),
        ("model.safetensors", without_a_layer, "does not fit its config.json"),
        ("vocab.txt", Path.unlink, "has no tokenizer"),
        ("vocab.txt", write(""), "cannot be loaded"),
        ("vocab.txt", write("\n".join([*VOCAB, "有"])), "does not fit its config.json"),  # a piece without an embedding
        ("tokenizer.json", write("{"), "cannot be loaded"),
        ("modules.json", write("[{"), "is no valid JSON"),
        ("modules.json", write('{"a": 1}'), "is no list of modules"),
        ("modules.json", write(DENSE), "has a 'Dense' module; only Transformer, Pooling and Normalize work"),
        ("1_Pooling/config.json", write("nonsense"), "is no valid JSON"),
        ("1_Pooling/config.json", write('["mean"]'), "1_Pooling/config.json"),
        ("1_Pooling/config.json", write('{"pooling_mode_lasttoken": true}'), "asks for pooling pooling_mode_lasttoken"),
        ("1_Pooling/config.json", edit(pooling_mode_cls_token=True), "supported is one of mean, cls and max"),
        ("sentence_bert_config.json", write("{]"), "is no valid JSON"),
        ("sentence_bert_config.json", write("[64]"), "sentence_bert_config.json"),
        ("sentence_bert_config.json", edit(max_seq_length="many"), "sentence_bert_config.json"),
        ("sentence_bert_config.json", edit(max_seq_length=-1), "sentence_bert_config.json"),
    ],
)
def test_damage_is_one_line(copy: Path, file: str, damage: Callable[[Path], object], told: str) -> None:
    TransformerEncoder(copy, device="cpu")  # is whole
    damage(copy / file)
    with pytest.raises(EncoderError) as caught:
        TransformerEncoder(copy, device="cpu")
    message = str(caught.value)
    assert told in message
    assert str(copy) in message
    assert "\n" not in message


def test_damage_prints_nothing_beside_its_one_line(copy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    without_a_layer(copy / "model.safetensors")
    with pytest.raises(EncoderError):
        TransformerEncoder(copy, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no checkpoint folder"):
        TransformerEncoder(tmp_path / "gone")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_cuda_without_a_gpu_is_told_with_the_cure(plain: Path) -> None:
    with pytest.raises(EncoderError, match="torch finds no CUDA GPU; take auto or cpu"):
        TransformerEncoder(plain, device="cuda")
    assert TransformerEncoder(plain, device="auto").device.type == "cpu"


def test_an_unknown_device_is_told(plain: Path) -> None:
    with pytest.raises(EncoderError, match="'gpu'; expected .*auto, cpu"):
        TransformerEncoder(plain, device="gpu")


# --- the embedded encoder


@pytest.fixture(scope="module")
def embedded() -> TransformerEncoder:
    return load_encoder("embedded", device="cpu")


def test_the_embedded_encoder_puts_paraphrases_above_unrelated_questions(embedded: TransformerEncoder) -> None:
    pairs = [
        ("怎么提前还款", "我想把贷款提前还了"),
        ("忘记登录密码怎么办", "登录密码想不起来了"),
        ("快递什么时候能到", "包裹几天可以送达"),
        ("信用卡额度怎么提高", "想提升信用卡的额度"),
        ("感冒了吃什么药", "伤风了应该吃哪种药"),
    ]
    left, right = (embedded.encode([pair[side] for pair in pairs]) for side in (0, 1))
    assert (left.shape, left.dtype) == ((5, 384), np.dtype(np.float32))
    scores = left @ right.T
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert scores.argmax(axis=0).tolist() == [0, 1, 2, 3, 4]


def test_an_encoder_encodes_exactly_what_it_is_given(embedded: TransformerEncoder) -> None:
    """Folding is the service's: a Traditional or spaced text is another text to the encoder."""
    simplified, traditional = embedded.encode(["怎么办理转账", "怎麼辦理轉賬"])
    assert float(simplified @ traditional) < 0.999
    text = "怎麼 提前还款"
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded.path)
    model = transformers.AutoModel.from_pretrained(embedded.path, dtype=torch.float32).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
    np.testing.assert_allclose(embedded.encode([text])[0], (hidden / hidden.norm()).numpy(), atol=1e-5)
