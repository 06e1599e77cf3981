"""Names → checkpoints: the embedded encoder, the six published ones, local folders, the Hugging Face cache.

An encoder reference is, in this order, a name of the registry, a folder, or a Hugging Face name
(`owner/name` or `owner/name@revision`) that lies in the local cache. Nothing is downloaded but by `pull`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from faqsearch import checkpoint, hub
from faqsearch.checkpoint import Shape
from faqsearch.errors import DamagedCheckpointError, EncoderError
from faqsearch.model import EncoderCheck, EncoderInfo, EncoderPlace, Precision

if TYPE_CHECKING:
    from faqsearch.encoder import TransformerEncoder

DEFAULT_ENCODER = "embedded"
_ASSETS = Path(__file__).parent / "assets"


_EXAMPLES = ("我的儿子！他猛然间喊道，我的儿子在哪儿？", "我的儿子呢！他突然喊道，我的儿子在哪里？")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that the registry knows by name."""

    name: str
    source: str
    """owner/name on the Hugging Face hub, or that it is ours."""
    role: str
    shape: Shape
    parameters: int
    """Weights, without the pooler that no embedding is computed from."""
    licence: str
    examples: tuple[str, str] = _EXAMPLES
    """The two sentences of its model card."""
    revision: str | None = None
    """The commit that is pulled; None: the newest, whichever that is."""
    folder: Path | None = None
    """Where it lies, if it ships with the package."""
    answer_threshold: float = 0.91
    suggest_threshold: float = 0.85
    """The thresholds that a new corpus starts with. Measured for the embedded encoder; the others take them over, and
    theirs must be chosen."""


_STUDENT = Shape(layers=4, hidden=768, vocabulary=21128)
_TEACHER = Shape(layers=12, hidden=768, vocabulary=21128)
_NO_LICENCE = "none stated"  # on their pages
_FINANCE = ("到期不能按时还款怎么办", "剩余欠款还有多少？")


def _student(name: str, source: str, role: str, examples: tuple[str, str] = _EXAMPLES) -> Checkpoint:
    return Checkpoint(name, source, role, _STUDENT, 44_974_080, _NO_LICENCE, examples)


def _teacher(name: str, source: str, role: str, examples: tuple[str, str] = _EXAMPLES) -> Checkpoint:
    return Checkpoint(name, source, f"{role}, teacher", _TEACHER, 101_677_056, _NO_LICENCE, examples)


CHECKPOINTS = {
    item.name: item
    for item in (
        Checkpoint(
            name=DEFAULT_ENCODER,
            source="ours",
            role="any corpus",
            shape=Shape(layers=4, hidden=384, vocabulary=33999),
            parameters=20_351_616,
            licence="MIT",
            folder=_ASSETS / "encoder",
        ),
        _student("general", "DMetaSoul/sbert-chinese-general-v2-distill", "general"),
        _teacher("general-teacher", "DMetaSoul/sbert-chinese-general-v2", "general"),
        _student("open-domain", "DMetaSoul/sbert-chinese-qmc-domain-v1-distill", "open-domain questions"),
        _teacher("open-domain-teacher", "DMetaSoul/sbert-chinese-qmc-domain-v1", "open-domain questions"),
        _student("finance", "DMetaSoul/sbert-chinese-qmc-finance-v1-distill", "finance questions", examples=_FINANCE),
        _teacher("finance-teacher", "DMetaSoul/sbert-chinese-qmc-finance-v1", "finance questions", examples=_FINANCE),
    )
}

_PREFIXES = {f"intfloat/multilingual-e5-{size}": ("query: ", "query: ") for size in ("small", "base", "large")}
"""(query prefix, stored prefix) of checkpoints whose model card asks for them and whose files do not say so. The
E5 cards ask for `query: ` on both sides where questions are compared with questions."""


def normal_ref(ref: str) -> str:
    """The reference as it is stored with a corpus: a folder by its absolute path, so that it works from anywhere."""
    if ref not in CHECKPOINTS and _is_folder(ref):
        return str(Path(ref).expanduser().resolve())
    return ref


def resolve(ref: str) -> Path:
    """The folder of an encoder reference, which may lack files.

    Raises:
        EncoderError: there is no such checkpoint on this machine.
    """
    known = CHECKPOINTS.get(ref)
    if known and known.folder:
        return known.folder
    if not known and _is_folder(ref):
        return Path(ref).expanduser()
    if source := _source(ref):
        if folder := hub.cached(*source):
            return folder
        raise EncoderError(f"encoder {ref!r} is not on this machine; run `faqsearch model pull {ref}`")
    raise EncoderError(
        f"no encoder {ref!r}; expected {', '.join(CHECKPOINTS)}, a checkpoint folder,"
        " or a Hugging Face name (owner/name)"
    )


def _source(ref: str) -> tuple[str, str | None] | None:
    """(owner/name, revision) on the Hugging Face hub of what is no folder; None where there is none."""
    known = CHECKPOINTS.get(ref)
    if known:
        return (known.source, known.revision) if known.folder is None else None
    return hub.split(ref) if hub.is_name(ref) and not _is_folder(ref) else None


def _is_folder(ref: str) -> bool:
    return bool(ref) and Path(ref).expanduser().is_dir()


def require(ref: str) -> Path:
    """The folder of an encoder reference, with all its files there; loads nothing.

    Raises:
        EncoderError: no such checkpoint on this machine, or files of it are missing.
    """
    folder = resolve(ref)
    with checkpoint.telling(cure(ref)):
        checkpoint.require(folder)
    return folder


def cure(ref: str) -> str:
    """What mends a damaged checkpoint."""
    if ref in CHECKPOINTS and CHECKPOINTS[ref].folder:
        return "install faqsearch again"
    if _source(ref):
        return f"run `faqsearch model pull {ref}`"
    return "copy it again"


def fingerprint(ref: str) -> str:
    """Names the exact weights, tokenizer and settings of a checkpoint; equal ones give equal embeddings.

    Does not load the checkpoint (nor torch).

    Raises:
        EncoderError: no such checkpoint, or files of it are missing.
    """
    folder = require(ref)
    with checkpoint.telling(cure(ref)):
        return checkpoint.fingerprint(folder)


def load_encoder(
    ref: str = DEFAULT_ENCODER, *, device: str = "auto", precision: Precision = "auto", batch_size: int = 1024
) -> TransformerEncoder:
    """Load an encoder.

        >>> load_encoder("embedded").encode(["怎么提前还款"]).shape
        (1, 384)

    Args:
        ref: a name of the registry, a folder, or a Hugging Face name in the local cache.
        device: auto, cpu or cuda.
        precision: auto, float32 or bfloat16.
        batch_size: texts in one forward pass, at most.

    Raises:
        EncoderError: no such checkpoint, or a damaged one.
    """
    folder = resolve(ref)
    from faqsearch.encoder import TransformerEncoder

    source = _source(ref)
    prefixes = _PREFIXES.get(source[0]) if source else None
    return TransformerEncoder(
        folder, device=device, precision=precision, batch_size=batch_size, prefixes=prefixes, cure=cure(ref)
    )


def encoders(used: Sequence[tuple[str, str]] = ()) -> list[EncoderInfo]:
    """Every checkpoint of the registry, and what else corpora use: what it is and where it lies. Loads none.

    Args:
        used: (corpus, encoder reference) of each corpus.
    """
    refs = dict.fromkeys([*CHECKPOINTS, *(ref for _, ref in used)])
    return [_describe(ref, tuple(corpus for corpus, other in used if other == ref)) for ref in refs]


def _describe(ref: str, corpora: tuple[str, ...]) -> EncoderInfo:
    known = CHECKPOINTS.get(ref)
    source = _source(ref)
    folder: Path | None = None
    where: EncoderPlace
    dim = known.shape.hidden if known else None
    try:
        folder = resolve(ref)
        where = "embedded" if known and known.folder else "downloaded" if source else "folder"
        checkpoint.check_files(checkpoint.read_modules(folder).transformer)
        dim = checkpoint.read_shape(folder).hidden
    except DamagedCheckpointError:
        where = "incomplete"
    except EncoderError:
        where = "missing" if folder is None else "unusable"
    return EncoderInfo(
        name=ref,
        source=known.source if known else source[0] if source else "own",
        role=known.role if known else "",
        parameters=known.parameters if known else None,
        dim=dim,
        where=where,
        folder=folder,
        licence=known.licence if known else "",
        corpora=corpora,
    )


def pull(ref: str, *, bars: bool = False) -> Path:
    """Download a checkpoint into the Hugging Face cache: the only thing that ever downloads. Its folder.

    Args:
        ref: a name of the registry, or owner/name, or owner/name@revision.
        bars: whether progress bars are drawn on stderr.

    Raises:
        EncoderError: nothing to download, or it failed.
    """
    if ref in CHECKPOINTS and CHECKPOINTS[ref].folder:
        raise EncoderError(f"{ref!r} ships with faqsearch; there is nothing to download")
    source = _source(ref)
    if source is None:
        raise EncoderError(
            f"{ref!r} cannot be downloaded; expected {', '.join(name for name in CHECKPOINTS if _source(name))},"
            " or a Hugging Face name (owner/name)"
        )
    return hub.pull(*source, bars=bars)


def check(ref: str, *, device: str = "auto") -> EncoderCheck:
    """Load a checkpoint, convert pickled weights to safetensors, and encode its model card's two sentences.

    Raises:
        EncoderError: it is missing, damaged or unusable.
    """
    require(ref)
    import numpy as np

    from faqsearch import encoder as encoders_

    encoder = load_encoder(ref, device=device, precision="float32")
    known = CHECKPOINTS.get(ref)
    examples = (known or CHECKPOINTS[DEFAULT_ENCODER]).examples
    vectors = encoder.encode(examples)
    notes = []
    shape = Shape(encoder.layers, encoder.dim, encoder.vocabulary)
    if known and shape != known.shape:
        notes.append(f"this is not the published checkpoint: {shape}; expected {known.shape}; {cure(ref)}")
    converted = False
    try:
        with checkpoint.telling(cure(ref)):
            converted = encoders_.convert(encoder.path)
        if converted and not np.allclose(
            load_encoder(ref, device=device, precision="float32").encode(examples), vectors, atol=1e-6
        ):
            encoders_.unconvert(encoder.path)
            raise EncoderError(f"converting the weights of {encoder.path} changes embeddings; this is a bug")
    except OSError as exc:
        notes.append(f"not converted to safetensors: {exc.strerror or exc}; it works all the same")
    return EncoderCheck(
        name=ref,
        folder=encoder.path,
        layers=encoder.layers,
        dim=encoder.dim,
        vocabulary=encoder.vocabulary,
        parameters=encoder.parameters,
        pooling=encoder.pooling,
        max_length=encoder.max_length,
        query_prefix=encoder.query_prefix,
        stored_prefix=encoder.stored_prefix,
        fingerprint=fingerprint(ref),
        weights=checkpoint.weights_file(checkpoint.read_modules(encoder.path).transformer).name,
        converted=converted,
        sentences=examples,
        norms=tuple(float(norm) for norm in np.linalg.norm(vectors, axis=1)),
        similarity=float(vectors[0] @ vectors[1]),
        notes=tuple(notes),
    )
