"""Text → unit embeddings: the Encoder protocol and TransformerEncoder. The one user of torch at run time.

An encoder encodes exactly the text that it is given: folding it for matching is the service's
decision (`text.normalise`). It does not know corpora, indexes or thresholds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import transformers

from faqsearch.errors import EncoderError
from faqsearch.model import Progress

Embeddings = npt.NDArray[np.float32]
Pooling = Literal["mean", "cls", "max"]

DEFAULT_MAX_LENGTH = 256
DEFAULT_BATCH_SIZE = 32
_TOKENISED_AT_ONCE = 16_384
_loading = threading.Lock()  # transformers' verbosity is one for the whole process
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json")


class Encoder(Protocol):
    """What turns questions into vectors. Implementations are safe to call from several threads."""

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Embeddings:
        """Encode texts: (n, dim) float32, unit rows, in the order given."""
        ...


class TransformerEncoder:
    """A BERT-like checkpoint with pooling over its last layer and L2 normalisation.

    A checkpoint folder is read as sentence-transformers writes it: `modules.json` names the modules,
    `1_Pooling/config.json` the pooling and `sentence_bert_config.json` the maximal length. Where these
    are missing it is masked mean pooling over at most 256 tokens, as in the published model cards.

    Args:
        path: the checkpoint's folder.
        device: auto (a CUDA GPU where there is one, else the CPU), cpu, or cuda.
        batch_size: texts in one forward pass.

    Raises:
        EncoderError: the checkpoint is missing, damaged, or needs what is not supported.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", batch_size: int = DEFAULT_BATCH_SIZE) -> None:
        self.path = Path(path)
        self.device = torch.device(resolve_device(device))
        self.batch_size = batch_size
        _check_folder(self.path)
        self.pooling, self.max_length = _read_modules(self.path)
        with _load_quietly(self.path):
            self._tokenizer = _load_tokenizer(self.path)
            self._model = _load_model(self.path).to(self.device)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if isinstance(limit, int):
            self.max_length = min(self.max_length, limit)
        # Set once and never again: a fast tokenizer must not be changed while another thread uses it.
        self._tokenizer.enable_truncation(self.max_length)
        self._tokenizer.no_padding()
        self._pad_id = int(getattr(self._model.config, "pad_token_id", None) or 0)

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self._model.config.hidden_size)

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Embeddings:
        """Encode texts as they are.

        Texts are sorted by their length in tokens before they are cut into batches, so that little
        is padded; the batch size changes an embedding by rounding only.

        Args:
            texts: n of them; longer ones than `max_length` tokens are truncated.
            progress: told ("encoding", texts done, n).

        Returns:
            (n, dim) float32 with unit rows, in the order given.
        """
        if isinstance(texts, str):
            raise TypeError("expected a sequence of texts, got one text")
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        done = 0
        for start in range(0, len(texts), _TOKENISED_AT_ONCE):
            encodings = self._tokenizer.encode_batch(list(texts[start : start + _TOKENISED_AT_ONCE]))
            tokens = [encoding.ids for encoding in encodings]
            order = sorted(range(len(tokens)), key=lambda index: len(tokens[index]), reverse=True)
            for first in range(0, len(order), self.batch_size):
                batch = order[first : first + self.batch_size]
                rows = [start + index for index in batch]
                embeddings[rows] = self._forward([tokens[index] for index in batch])
                done += len(batch)
                if progress:
                    progress("encoding", done, len(texts))
        if not np.isfinite(embeddings).all():
            raise EncoderError(f"checkpoint {self.path} gives embeddings that are no numbers; copy it again")
        return embeddings

    @torch.inference_mode()
    def _forward(self, tokens: list[list[int]]) -> Embeddings:
        """(batch, dim) unit embeddings of one batch of token ids."""
        width = max(1, max(map(len, tokens)))
        ids = np.full((len(tokens), width), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(tokens), width), dtype=np.int64)
        for row, item in enumerate(tokens):
            ids[row, : len(item)] = item
            mask[row, : len(item)] = 1
        attention = torch.from_numpy(mask).to(self.device)
        hidden = self._model(input_ids=torch.from_numpy(ids).to(self.device), attention_mask=attention)[0]
        pooled = pool(hidden.float(), attention, self.pooling)
        unit: Embeddings = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        return unit


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


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for auto, cpu or cuda.

    Raises:
        EncoderError: cuda was asked for and there is none, or no such device is known.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise EncoderError(f"device is {device!r}; expected auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise EncoderError("device is cuda, but torch finds no CUDA GPU; set FAQSEARCH_DEVICE=auto or cpu")
    return "cuda" if available and device in ("auto", "cuda") else "cpu"


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        raise EncoderError(f"no checkpoint folder {path}")
    for names, what in ((("config.json",), "config.json"), (_WEIGHTS, "weights"), (_TOKENIZERS, "tokenizer")):
        if not any((path / name).is_file() for name in names):
            raise EncoderError(f"checkpoint {path} has no {what}; expected one of {', '.join(names)}; copy it again")


def _read_modules(path: Path) -> tuple[Pooling, int]:
    """(pooling, maximal length) as sentence-transformers' files say, else mean and 256."""
    pooling: Pooling = "mean"
    modules = _read_json(path / "modules.json") or []
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise EncoderError(f"{path / 'modules.json'} is no list of modules; copy the checkpoint again")
    for module in modules:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _read_pooling(path / str(module.get("path", "1_Pooling")) / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise EncoderError(f"checkpoint {path} has a {kind!r} module; only Transformer, Pooling and Normalize work")
    if not modules and (path / "1_Pooling" / "config.json").is_file():
        pooling = _read_pooling(path / "1_Pooling" / "config.json")
    settings = _read_object(path / "sentence_bert_config.json")
    length = settings.get("max_seq_length") or DEFAULT_MAX_LENGTH
    if not isinstance(length, int) or length < 1:
        raise EncoderError(f"{path / 'sentence_bert_config.json'}: max_seq_length is {length!r}; expected 1 or more")
    return pooling, length


def _read_pooling(path: Path) -> Pooling:
    config = _read_object(path)
    modes = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if isinstance(config.get("pooling_mode"), str):  # the newer form of the file
        modes.append(config["pooling_mode"])
    known: dict[str, Pooling] = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
        "mean": "mean",
        "cls": "cls",
        "max": "max",
    }
    if not modes:
        return "mean"
    if len(modes) > 1 or modes[0] not in known:
        raise EncoderError(f"{path} asks for pooling {', '.join(modes)}; supported is one of mean, cls and max")
    return known[modes[0]]


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; an empty one where there is no such file."""
    value = _read_json(path)
    if not isinstance(value, (dict, type(None))):
        raise EncoderError(f"{path} holds no JSON object; copy the checkpoint again")
    return value or {}


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise EncoderError(f"{path} is no valid JSON ({exc}); copy the checkpoint again") from exc


@contextmanager
def _load_quietly(path: Path) -> Iterator[None]:
    """Turn whatever a damaged checkpoint raises into one clear line, and print nothing meanwhile."""
    with _loading:
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        try:
            yield
        except EncoderError:
            raise
        except Exception as exc:  # the libraries raise bare Exception, RuntimeError, OSError, ValueError and KeyError
            detail = " ".join(str(exc).split())[:200]
            raise EncoderError(f"checkpoint {path} cannot be loaded ({detail}); copy or download it again") from exc
        finally:
            transformers.logging.set_verbosity(verbosity)


def _load_tokenizer(path: Path) -> Any:  # noqa: ANN401 - tokenizers.Tokenizer, which has no types
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        str(path), local_files_only=True, trust_remote_code=False, use_fast=True
    )
    if not getattr(tokenizer, "is_fast", False):
        raise EncoderError(f"checkpoint {path} has no fast tokenizer; add its tokenizer.json")
    return tokenizer.backend_tokenizer


def _load_model(path: Path) -> Any:  # noqa: ANN401 - a transformers model, untyped
    """The encoder stack in float32 on the CPU, from safetensors or by weights-only unpickling."""
    load: Callable[..., Any] = transformers.AutoModel.from_pretrained
    model, info = load(
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
        raise EncoderError(f"checkpoint {path} does not fit its config.json: {names} missing or of another shape")
    model.eval()
    return model
