"""Text → unit embeddings: the Encoder protocol and TransformerEncoder. The one user of torch at run time.

An encoder encodes exactly the text that it is given: folding it for matching is the service's
decision (`text.normalise`). It does not know corpora, indexes or thresholds.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from torch.nn import functional

from faqsearch import bert
from faqsearch.bert import Bert
from faqsearch.checkpoint import (
    CONVERSION,
    PICKLED,
    SAFE,
    Pooling,
    note_conversion,
    read_modules,
    read_object,
    require,
    telling,
    weights_parts,
)
from faqsearch.errors import DamagedCheckpointError, EncoderError
from faqsearch.model import Precision, Progress

Embeddings = npt.NDArray[np.float32]

_FEW_TOKENS = 64
_CORES_FOR_FEW = 2
DEFAULT_BATCH_SIZE = 1024
_TOKENS_AT_ONCE = {"cpu": 4_096, "cuda": 65_536}
"""In one forward pass in half precision, by the kind of device: as many as keep it busy, on a CPU near its caches."""
_TOKENISED_AT_ONCE = 8_192
_COUNTS_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")
"""Their positions begin after the number of the padding piece."""
_OF_A_LAYER = re.compile(r"\blayers?\.\d+\.")
_NOTHING_BUT_ITS_FILE = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of tokenizers that are their tokenizer.json and nothing else; others change it as they load."""
_loading = threading.Lock()  # transformers' verbosity is one for the whole process


class Encoder(Protocol):
    """What turns questions into vectors. Implementations are safe to call from several threads."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def encode(self, texts: Sequence[str], *, query: bool = False, progress: Progress | None = None) -> Embeddings:
        """Encode texts, as queries or as what is stored: (n, dim) float32, unit rows, in the order given."""
        ...


class TransformerEncoder:
    """A BERT-like checkpoint with pooling over its last layer and L2 normalisation.

    A checkpoint folder is read as sentence-transformers writes it: `modules.json` names the modules,
    `1_Pooling/config.json` the pooling, `sentence_bert_config.json` the maximal length, and
    `config_sentence_transformers.json` the prefixes (prompts) of queries and of stored texts. Where these
    are missing it is masked mean pooling over at most 256 tokens without prefixes, as in the published model cards.

    BERT itself is computed by `bert.Bert`, other architectures by transformers, which is loaded only for them.

    Args:
        path: the checkpoint's folder.
        device: auto (a CUDA GPU where there is one, else the CPU), cpu, or cuda.
        precision: of the matrix products: auto (bfloat16 where the hardware has it, else float32), or one of them.
        batch_size: texts in one forward pass, at most; of long ones it takes fewer.
        prefixes: of queries and of stored texts, over what the folder says.
        cure: what mends a damaged checkpoint, for the error message.

    Raises:
        EncoderError: the checkpoint is missing, damaged, or needs what is not supported.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = DEFAULT_BATCH_SIZE,
        prefixes: tuple[str, str] | None = None,
        cure: str = "copy it again",
    ) -> None:
        self.path = Path(path)
        self.device = torch.device(resolve_device(device))
        half = precision == "bfloat16" or (precision == "auto" and has_fast_bf16(self.device))
        self.precision: Precision = "bfloat16" if half else "float32"
        self.batch_size = batch_size
        self._threads = torch.get_num_threads()
        self._cure = cure
        with telling(cure):
            modules = require(self.path)
            with telling_damage(self.path):
                self._tokenizer = _load_tokenizer(modules.transformer)
                self._model = _load_model(modules.transformer, self.device, torch.bfloat16 if half else torch.float32)
                unknown = self._tokenizer.encode("𠀀").ids  # raises where there is no piece for what is unknown
                pieces = [*self._tokenizer.get_vocab().values(), *unknown]
            if max(pieces) >= self.vocabulary:
                raise DamagedCheckpointError(
                    f"checkpoint {self.path} does not fit its config.json: its tokenizer has piece {max(pieces)}, its"
                    f" weights end at {self.vocabulary - 1}"
                )
        self.pooling, self.max_length = modules.pooling, modules.max_length
        self.query_prefix, self.stored_prefix = prefixes or (modules.query_prefix, modules.stored_prefix)
        self.max_length = min(self.max_length, self._model.positions or self.max_length)
        if modules.lower:
            put_in_lower_case(self._tokenizer)
        # Set once and never again: a fast tokenizer must not be changed while another thread uses it.
        self._tokenizer.enable_truncation(self.max_length)
        self._tokenizer.no_padding()

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._model.dim

    @property
    def layers(self) -> int:
        """Transformer layers."""
        return self._model.layers

    @property
    def vocabulary(self) -> int:
        """Pieces that the embedding table has rows for."""
        return self._model.vocabulary

    @property
    def parameters(self) -> int:
        """Weights that an embedding is computed from: all but the pooler, which is not used."""
        return self._model.parameters

    def encode(self, texts: Sequence[str], *, query: bool = False, progress: Progress | None = None) -> Embeddings:
        """Encode texts as they are, but for the checkpoint's prefix.

        Texts are computed in the order of their length in tokens, those of equal length at once; the batch size
        and the company change an embedding by rounding only.

        Args:
            texts: n of them; longer ones than `max_length` tokens are truncated.
            query: whether they are queries; most checkpoints make no difference.
            progress: told ("encoding", texts done, n).

        Returns:
            (n, dim) float32 with unit rows, in the order given.
        """
        if isinstance(texts, str):
            raise TypeError("expected a sequence of texts, got one text")
        prefix = self.query_prefix if query else self.stored_prefix
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        done = 0
        for start, tokens in self._tokenised(texts, prefix):
            for batch in self._batches(list(map(len, tokens))):
                embeddings[start + batch] = self._forward([tokens[index] for index in batch])
                done += len(batch)
                if progress:
                    progress("encoding", done, len(texts))
        if self.device.type == "cuda" and len(texts) > self.batch_size:
            torch.cuda.empty_cache()  # the index wants the memory that long work took
        if not np.isfinite(embeddings).all():
            raise EncoderError(f"checkpoint {self.path} gives embeddings that are no numbers; {self._cure}")
        return embeddings

    def _tokenised(self, texts: Sequence[str], prefix: str) -> Iterator[tuple[int, list[list[int]]]]:
        """(number of the first text, token ids of each) a chunk at a time; the next one while this one is computed."""

        def tokenise(start: int) -> list[list[int]]:
            chunk = [prefix + text for text in texts[start : start + _TOKENISED_AT_ONCE]]
            return [encoding.ids for encoding in self._tokenizer.encode_batch(chunk)]

        with ThreadPoolExecutor(1) as pool:  # which starts a thread only once it is given something
            tokens = tokenise(0)
            for start in range(0, len(texts), _TOKENISED_AT_ONCE):
                following = start + _TOKENISED_AT_ONCE
                ahead = pool.submit(tokenise, following) if following < len(texts) else None
                yield start, tokens
                if ahead:
                    tokens = ahead.result()

    def _batches(self, lengths: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
        """Which texts are computed at once: of about the same length, the longest first."""
        order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
        budget = _TOKENS_AT_ONCE[self.device.type] // (1 if self.precision == "bfloat16" else 2)
        first = 0
        while first < len(order):
            count = max(1, min(self.batch_size, budget // max(1, lengths[order[first]])))
            yield order[first : first + count]
            first += count

    @torch.inference_mode()
    def _forward(self, tokens: list[list[int]]) -> Embeddings:
        """(batch, dim) unit embeddings of one batch of token ids."""
        with self._cores(sum(map(len, tokens))):
            unit: Embeddings = functional.normalize(self._model.embed(tokens, self.pooling), dim=-1).cpu().numpy()
        return unit

    @contextmanager
    def _cores(self, tokens: int) -> Iterator[None]:
        """Compute a query or two on two cores: the second saves a third of the time, more get in others' way.

        torch keeps the number for each thread of the program; one that is new takes over the last that was set.
        """
        if self.device.type == "cpu":
            few = tokens <= _FEW_TOKENS
            torch.set_num_threads(min(_CORES_FOR_FEW, self._threads) if few else self._threads)
        try:
            yield
        finally:
            if self.device.type == "cpu":
                torch.set_num_threads(self._threads)


class _Padded:
    """Any encoder stack that transformers can load, fed padded batches."""

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ANN401 - untyped
        named = model.named_parameters()
        self.parameters = sum(weight.numel() for name, weight in named if not name.startswith("pooler."))
        self.dim = int(model.config.hidden_size)
        self.layers = int(model.config.num_hidden_layers)
        self.vocabulary = int(model.config.vocab_size)
        self.positions = positions(model.config)
        self.device = device
        self._model = model.to(device, dtype)
        self._pad = int(getattr(model.config, "pad_token_id", None) or 0)

    @torch.inference_mode()
    def embed(self, tokens: Sequence[Sequence[int]], pooling: Pooling) -> torch.Tensor:
        """As `Bert.embed`."""
        ids, attention = (side.to(self.device) for side in padded(tokens, self._pad))
        hidden = self._model(input_ids=ids, attention_mask=attention)[0]
        return pool(hidden.float(), attention, pooling)


def convert(path: Path) -> bool:
    """Write a checkpoint's pickled weights as safetensors beside them, which are read from then on.

    The pickle is read by weights-only loading, which runs no code. The fingerprint stays what it was.

    Returns:
        False where there is nothing to convert.

    Raises:
        DamagedCheckpointError: weights that cannot be read.
        OSError: the folder cannot be written to.
    """
    folder = read_modules(path).transformer
    if (folder / SAFE).exists() or not (folder / PICKLED).is_file():
        return False
    with telling_damage(folder):
        state = torch.load(folder / PICKLED, map_location="cpu", weights_only=True)
        # Copies, as safetensors takes no two tensors that share memory.
        tensors = {name: value.clone().contiguous() for name, value in state.items() if torch.is_tensor(value)}
    partial = folder / f"{SAFE}.partial"
    try:
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.chmod((folder / PICKLED).stat().st_mode & 0o777)  # else only its owner could read it
        note_conversion(folder, partial)
        os.replace(partial, folder / SAFE)
    except BaseException as exc:
        partial.unlink(missing_ok=True)
        unconvert(path)
        if isinstance(exc, SafetensorError):  # what it makes of a full disk or a folder that is read-only
            raise OSError(str(exc)) from exc
        raise
    return True


def unconvert(path: Path) -> None:
    """Take converted weights away again; the pickled ones are still there."""
    folder = read_modules(path).transformer
    if (folder / CONVERSION).exists():
        for name in (SAFE, CONVERSION):
            (folder / name).unlink(missing_ok=True)


def positions(config: Any) -> int | None:  # noqa: ANN401 - transformers' configuration
    """How many tokens a model has positions for; None where that is not limited."""
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    return limit - int(config.pad_token_id) - 1 if config.model_type in _COUNTS_FROM_PADDING else limit


def put_in_lower_case(tokenizer: Any) -> None:  # noqa: ANN401 - tokenizers.Tokenizer, which has no types
    """Let a tokenizer put texts in lower case first, as `do_lower_case` asks for."""
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [tokenizer.normalizer])])


def padded(tokens: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, 1 for a token and 0 for padding) of a batch, both (batch, longest)."""
    width = max(1, max(map(len, tokens)))
    ids = np.full((len(tokens), width), pad, dtype=np.int64)
    mask = np.zeros((len(tokens), width), dtype=np.int64)
    for row, item in enumerate(tokens):
        ids[row, : len(item)] = item
        mask[row, : len(item)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Pool token embeddings to sentence embeddings, as sentence-transformers does.

    Args:
        hidden: (batch, tokens, dim).
        mask: (batch, tokens), 1 for a token and 0 for padding.
        pooling: mean over the tokens (Reimers and Gurevych 2019), the first token, or the maximum.

    Returns:
        (batch, dim), not normalised.
    """
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (batch, tokens, 1)
    if pooling == "max":
        return hidden.masked_fill(weights == 0, -1e9).amax(dim=1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by hardware: on CUDA, and on CPUs with AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for auto, cpu or cuda.

    Raises:
        EncoderError: cuda was asked for and there is none, or no such device is known.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EncoderError(f"device is {device!r}; expected auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise EncoderError(
            "device is cuda, but torch finds no CUDA GPU; take auto or cpu (--device, or FAQSEARCH_DEVICE)"
        )
    return "cuda" if available and device in ("auto", "cuda") else "cpu"


@contextmanager
def telling_damage(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises into one clear line."""
    try:
        yield
    except EncoderError:
        raise
    except Exception as exc:  # the libraries raise bare Exception, RuntimeError, OSError, ValueError and KeyError
        detail = " ".join(str(exc).split())[:200] or type(exc).__name__
        if isinstance(exc, pickle.UnpicklingError):  # torch's own words recommend what must not be done
            detail = "its pickled weights are damaged, or hold more than weights, which is refused"
        raise DamagedCheckpointError(f"checkpoint {path} cannot be loaded ({detail})") from exc


@contextmanager
def quiet_transformers() -> Iterator[Any]:
    """transformers, which takes a second to load and is only loaded where it is needed; it prints nothing meanwhile."""
    import transformers

    with _loading:
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            yield transformers
        finally:
            transformers.logging.set_verbosity(verbosity)


def _load_tokenizer(path: Path) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer, which has no types
    if (path / "tokenizer.json").is_file() and read_object(path / "tokenizer_config.json").get("tokenizer_class") in (
        _NOTHING_BUT_ITS_FILE
    ):
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    with quiet_transformers() as transformers:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False, use_fast=True
        )
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"checkpoint {path} has no fast tokenizer; add its tokenizer.json")
    return tokenizer.backend_tokenizer


def _load_model(path: Path, device: torch.device, dtype: torch.dtype) -> Bert | _Padded:
    """The encoder stack, from safetensors or by weights-only unpickling."""
    config = read_object(path / "config.json")
    try:
        if bert.fits(config):
            return Bert(config, _read_weights(path), device, dtype)
        return _Padded(_load_by_transformers(path), device, dtype)
    except DamagedCheckpointError as exc:
        raise DamagedCheckpointError(f"checkpoint {path} does not fit its config.json: {exc}") from exc


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All weights of a folder by their names."""
    state: dict[str, torch.Tensor] = {}
    for file in weights_parts(path):
        if file.suffix == ".safetensors":
            state |= load_file(file)
        else:
            state |= torch.load(file, map_location="cpu", weights_only=True)
    # The first checkpoints were converted from TensorFlow, whose names these are.
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    return {re.sub(r"LayerNorm\.(gamma|beta)$", lambda found: old[found[0]], name): state[name] for name in state}


def _load_by_transformers(path: Path) -> Any:  # noqa: ANN401 - a transformers model, untyped
    with quiet_transformers() as transformers:
        model, info = transformers.AutoModel.from_pretrained(
            str(path),
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
            dtype=torch.float32,
        )
    # The pooler is not used: checkpoints of sentence encoders come without it.
    missing = [name for name in info["missing_keys"] if "pooler" not in name and "position_ids" not in name]
    if missing or info.get("mismatched_keys"):
        names = ", ".join(sorted(map(str, missing or info["mismatched_keys"]))[:3])
        raise DamagedCheckpointError(f"{names} missing or of another shape")
    # Else a stack that is cut short would pass for the whole one.
    if extra := sorted(name for name in info["unexpected_keys"] if _OF_A_LAYER.search(name)):
        raise DamagedCheckpointError(f"{extra[0]} is of a layer too many")
    model.eval()
    return model
