"""Our embeddings are those of sentence-transformers and of the model cards' recipe, on the published layout."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from sentence_transformers import SentenceTransformer

from faqsearch.encoder import TransformerEncoder

Embeddings = npt.NDArray[np.float32]

ATOL = 1e-5
LIMIT = 256  # tokens, [CLS] and [SEP] among them
LONG = "到期不能按时还款怎么办，剩余欠款还有多少？" * 40  # a token a character
TEXTS = (
    "",
    " ",
    "\u3000\t\n\u00a0",
    "。",
    "？！…",
    "怎么提前还款？",
    "怎麼提前還款？",
    "How do I repay EARLY? 我的iPhone 15 Pro丢了，Apple ID也忘了",
    "ＡＢＣ１２３　ｆｕｌｌ－ｗｉｄｔｈ，％＄",
    "ABC123 full-width,%$",
    "😀👨‍👩‍👧🏽 表情☺️ 🇨🇳",
    "𠮷野家 ꙮ ŁÓDŹ Ünïcödé naïve",
    "Straße İstanbul ΣΊΣΥΦΟΣ Ⅷ ㈱ ﬁ",
    "[MASK] [CLS]还款[SEP] [PAD] [UNK]",
    "还\x00款\u200b期\u00ad限\ufeff \u202e反",
    "1,234,567.89元，-3.5%，2024-02-29T08:00",
    "a" * 300,  # one word that is longer than WordPiece looks at
    LONG[: LIMIT - 3],
    LONG[: LIMIT - 2],  # as many tokens as there may be
    LONG[: LIMIT - 1],
    LONG,
    "my credit card LIMIT is too low " * 60,
    "😀我a1，" * 150,
    "怎么提前还款？",
)
"""Empty-ish, mixed, full-width, emoji, Traditional, unknown, control characters, just under and far over the limit."""
FEW = ("", "。", *TEXTS[6:14], LONG[:30])


@dataclass(frozen=True)
class Reference:
    """A checkpoint with what others make of TEXTS."""

    folder: Path
    peer: Embeddings
    """Of sentence-transformers."""
    recipe: Embeddings
    """Of transformers, as the model cards use it."""


def by_sentence_transformers(folder: Path, texts: Sequence[str], kind: str = "encode", **options: Any) -> Embeddings:
    model = SentenceTransformer(str(folder), device="cpu")
    encode = getattr(model, kind)
    return np.asarray(encode(list(texts), normalize_embeddings=True, show_progress_bar=False, **options))


def by_recipe(folder: Path, texts: Sequence[str]) -> Embeddings:
    """The code on the model cards, with their maximal length and a normalisation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModel.from_pretrained(str(folder))
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=LIMIT, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens)[0]
    mask = tokens["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
    pooled = torch.sum(hidden * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
    return np.asarray(torch.nn.functional.normalize(pooled, p=2, dim=1))


def assert_equal(ours: Embeddings, theirs: Embeddings) -> None:
    assert (ours.dtype, ours.shape) == (np.dtype(np.float32), theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=ATOL)


def assert_different(one: Embeddings, other: Embeddings) -> None:
    """Every row differs by far more than what counts as equal; else equality would tell nothing."""
    assert np.abs(one - other).max(axis=1).min() > 100 * ATOL


@pytest.fixture(scope="module", params=[4, 12], ids=["4-layers", "12-layers"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = checkpoints.write_published(tmp_path_factory.mktemp("published") / "模型", request.param)
    return Reference(folder, by_sentence_transformers(folder, TEXTS), by_recipe(folder, TEXTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published checkpoint to change the settings of."""
    return checkpoints.write_published(tmp_path / "checkpoint", 4)


def test_the_references_agree_and_tell_different_texts_apart(reference: Reference) -> None:
    assert_equal(reference.peer, reference.recipe)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(reference.folder))
    tokens = [tuple(tokenizer(text, truncation=True, max_length=LIMIT)["input_ids"]) for text in TEXTS]
    assert tokens[5] == tokens[-1]
    assert tokens[0] == tokens[1] == tokens[2]
    for one in range(len(TEXTS)):
        for other in range(one):
            if tokens[one] != tokens[other]:
                assert_different(reference.peer[[one]], reference.peer[[other]])


@pytest.mark.parametrize("batch_size", [1, 2, 16, 64])
def test_embeddings_are_those_of_both_references_in_any_batch_and_order(reference: Reference, batch_size: int) -> None:
    encoder = TransformerEncoder(reference.folder, device="cpu", batch_size=batch_size)
    assert (encoder.pooling, encoder.max_length) == ("mean", LIMIT)
    shuffled = random.Random(batch_size).sample(range(len(TEXTS)), len(TEXTS))
    for order in (list(range(len(TEXTS)))[::-1], shuffled):
        embeddings = encoder.encode([TEXTS[index] for index in order])
        assert_equal(embeddings, reference.peer[order])
        assert_equal(embeddings, reference.recipe[order])


def test_a_text_alone_has_the_embedding_that_it_has_in_company(reference: Reference) -> None:
    encoder = TransformerEncoder(reference.folder, device="cpu", batch_size=64)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert_equal(alone, reference.peer)
    assert_equal(alone, reference.recipe)


@pytest.mark.parametrize(("layers", "parameters"), [(4, 44_974_080), (12, 101_677_056)], ids=["student", "teacher"])
def test_a_checkpoint_of_the_real_size_has_its_parameters_and_its_embeddings(
    tmp_path: Path, layers: int, parameters: int
) -> None:
    folder = checkpoints.write_published(tmp_path / "real", layers, hidden=768)
    texts = (*FEW[:4], LONG)
    try:
        encoder = TransformerEncoder(folder, device="cpu", batch_size=4)
        assert encoder.parameters == parameters
        assert (encoder.layers, encoder.dim, encoder.vocabulary) == (layers, 768, 21_128)
        embeddings = encoder.encode(texts)
        assert_equal(embeddings, by_sentence_transformers(folder, texts))
        assert_equal(embeddings, by_recipe(folder, texts))
    finally:
        shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep for three runs


# --- what else a folder may say


@pytest.mark.parametrize("form", ["older", "newer"])
@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_another_pooling_is_that_of_sentence_transformers(folder: Path, pooling: str, form: str) -> None:
    mean = TransformerEncoder(folder, device="cpu").encode(FEW)
    config = {
        "older": {
            "word_embedding_dimension": 48,
            "pooling_mode_cls_token": pooling == "cls",
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": pooling == "max",
        },
        "newer": {"embedding_dimension": 48, "pooling_mode": pooling, "include_prompt": True},
    }[form]
    checkpoints.write(folder / "1_Pooling" / "config.json", config)
    embeddings = TransformerEncoder(folder, device="cpu", batch_size=5).encode(FEW)
    assert_equal(embeddings, by_sentence_transformers(folder, FEW))
    assert_different(embeddings, mean)


PROMPTS = {
    "both": {"query": "为这个句子生成表示：", "document": "Passage: "},
    "query-only": {"query": "为这个句子生成表示：", "document": ""},
    "stored-only": {"query": "", "document": "Passage: "},
    "a-default-beside": {"query": "Query: ", "document": "Passage: ", "other": "Other: "},
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_prompts_are_put_before_queries_and_stored_texts(folder: Path, prompts: dict[str, str]) -> None:
    default = "other" if "other" in prompts else None
    settings = {"prompts": prompts, "default_prompt_name": default, "similarity_fn_name": "cosine"}
    checkpoints.write(folder / "config_sentence_transformers.json", settings)
    encoder = TransformerEncoder(folder, device="cpu", batch_size=7)
    assert (encoder.query_prefix, encoder.stored_prefix) == (prompts["query"], prompts["document"])
    queries, stored = encoder.encode(FEW, query=True), encoder.encode(FEW)
    assert_equal(queries, by_sentence_transformers(folder, FEW, "encode_query"))
    assert_equal(stored, by_sentence_transformers(folder, FEW, "encode_document"))
    assert_different(queries, stored)


@pytest.mark.parametrize("name", ["passage", "corpus"])
def test_stored_texts_have_the_prompt_of_another_usual_name(folder: Path, name: str) -> None:
    prompts = {"query": "Query: ", name: "Passage: "}
    checkpoints.write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    embeddings = TransformerEncoder(folder, device="cpu").encode(FEW)
    # By name: of its own accord sentence-transformers 6 takes an empty prompt "document" for granted first.
    assert_equal(embeddings, by_sentence_transformers(folder, FEW, prompt_name=name))


def test_the_default_prompt_holds_for_queries_and_stored_texts(folder: Path) -> None:
    settings = {"prompts": {"similarity": "Compare: "}, "default_prompt_name": "similarity"}
    checkpoints.write(folder / "config_sentence_transformers.json", settings)
    encoder = TransformerEncoder(folder, device="cpu")
    expected = by_sentence_transformers(folder, FEW)
    assert_equal(encoder.encode(FEW, query=True), expected)
    assert_equal(encoder.encode(FEW), expected)


@pytest.mark.parametrize("cased", [False, True], ids=["uncased-vocabulary", "cased-vocabulary"])
@pytest.mark.parametrize("lower", [False, True])
def test_do_lower_case_is_that_of_sentence_transformers(folder: Path, cased: bool, lower: bool) -> None:
    """On a tokenizer that keeps capitals (which are unknown to its vocabulary) it makes all the difference."""
    checkpoints.write(
        folder / "tokenizer_config.json", {"do_lower_case": not cased, "tokenizer_class": "BertTokenizer"}
    )
    checkpoints.write(folder / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": lower})
    embeddings = TransformerEncoder(folder, device="cpu").encode(FEW)
    assert_equal(embeddings, by_sentence_transformers(folder, FEW))
    one, other = TransformerEncoder(folder, device="cpu").encode(["my credit CARD", "my credit card"])
    assert np.allclose(one, other, atol=ATOL) == (lower or not cased)


def test_the_older_layout_with_a_folder_for_the_transformer_is_read(folder: Path) -> None:
    flat = TransformerEncoder(folder, device="cpu").encode(FEW)
    checkpoints.write(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": False})
    checkpoints.move_transformer(folder, "0_Transformer")
    encoder = TransformerEncoder(folder, device="cpu")
    assert encoder.max_length == 12
    embeddings = encoder.encode(FEW)
    assert_equal(embeddings, by_sentence_transformers(folder, FEW))
    assert_different(embeddings[[-1]], flat[[-1]])


@pytest.mark.parametrize("length", [3, 17, 512])
def test_another_maximal_length_truncates_where_sentence_transformers_does(folder: Path, length: int) -> None:
    checkpoints.write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    encoder = TransformerEncoder(folder, device="cpu", batch_size=16)
    assert encoder.max_length == length
    texts = (*FEW, LONG)
    assert_equal(encoder.encode(texts), by_sentence_transformers(folder, texts))
