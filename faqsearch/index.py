"""The question index: inner product over unit vectors, and its immutable versions on disk. The one user of faiss.

It is searched exactly (`flat`), or, where that would take long, in the nearest inverted lists only (`ivf`; Sivic and
Zisserman 2003, Jégou et al. 2011). The FAISS id IS the question id. A folder per corpus holds

    current                             the name of the current version, replaced atomically
    rebuild.lock                        held by whoever writes here
    versions/000007-20260131T093000Z/   one version: index.faiss and, written last, manifest.json

A version is built under a temporary name, synced to the disk and renamed, so whatever moment a
process dies at, no half version is ever current. Files are written and read by Python, since
FAISS's own functions do not take every path.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import faiss
import filelock
import numpy as np
import numpy.typing as npt

from faqsearch.errors import IndexBusyError, IndexFileError
from faqsearch.model import IndexKind, IndexVersion

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

FORMAT = 1
FLAT = "IDMap2,Flat"
EXACT_UP_TO = 200_000
"""Vectors that kind auto searches exactly: about 30 ms a query on one core, at 384 dimensions."""
RECALL = 0.995
"""Recall@10 against the exact search, on its own vectors moved a little, that an ivf index is tuned to."""
VECTORS_TO_LEARN_FROM = 64
"""For each inverted list."""
SAMPLE = 256
"""Queries that an ivf index is tuned with."""
HALF_FROM = 10_000
"""Vectors from which an exact search on a CPU with fast bfloat16 compares in that first."""
GPU_TEMPORARY_BYTES = 256 << 20
GPU_MAX_K = 2048  # FAISS's limit on a GPU, of results and of lists; beyond it the CPU searches

_INDEX_FILE = "index.faiss"
_MANIFEST_FILE = "manifest.json"
_TEMPORARY = ".tmp-"
_FACTORY = re.compile(r"IDMap2,Flat|IVF\d+,Flat")
_VERSION = re.compile(r"(\d{6,})-\d{8}T\d{6}Z")


class QuestionIndex:
    """Question embeddings by question id. Safe to search from several threads.

    On a GPU (`device` auto or cuda) a copy of the vectors lives on the device, calls are serialised (FAISS is not
    thread-safe there) and temporary memory is bounded; the results are those of the CPU. Where FAISS's build knows
    no GPU, but torch does, torch searches there, exactly; as it does on a CPU with fast bfloat16, which takes half
    as much memory again.
    """

    def __init__(self, dim: int, device: str = "cpu") -> None:
        self._set(faiss.IndexIDMap2(faiss.IndexFlatIP(dim)), device)

    def _set(self, index: Any, device: str) -> None:  # noqa: ANN401 - a faiss index, untyped
        self._cpu = index
        self._device = device
        self._use_gpu = device in ("auto", "cuda") and (_gpu_count() > 0 or _torch_has_gpu())
        self._gpu: Any = None
        self._half: Any = None
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._cpu.d)

    def __len__(self) -> int:
        return int(self._cpu.ntotal)

    @property
    def exact(self) -> bool:
        """Whether a search looks at every vector."""
        return isinstance(self._cpu, faiss.IndexIDMap2)

    @property
    def factory(self) -> str:
        """FAISS's name for an index of this kind."""
        return FLAT if self.exact else f"IVF{self._cpu.nlist},Flat"

    @property
    def ids(self) -> Ids:
        """The question ids, in rising order."""
        return np.sort(self._ids())

    def _ids(self) -> Ids:
        """The question ids in the order in which they are kept."""
        if self.exact:
            return np.asarray(faiss.vector_to_array(self._cpu.id_map), dtype=np.int64)
        found = [faiss.rev_swig_ptr(self._cpu.invlists.get_ids(number), size) for number, size in self._filled_lists()]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _filled_lists(self) -> list[tuple[int, int]]:
        """(number, vectors) of each inverted list that holds some."""
        sizes = [(number, int(self._cpu.invlists.list_size(number))) for number in range(self._cpu.nlist)]
        return [(number, size) for number, size in sizes if size]

    def _content(self) -> tuple[Ids, Vectors]:
        """(ids, vectors) in the order in which they are kept; of an exact index in its own memory."""
        ids = self._ids()
        if self.exact:
            flat = faiss.downcast_index(self._cpu.index)
            return ids, faiss.rev_swig_ptr(flat.get_xb(), len(ids) * self.dim).reshape(-1, self.dim)
        lists = self._cpu.invlists
        codes = [
            faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size) for number, size in self._filled_lists()
        ]
        joined = np.concatenate([np.empty(0, np.uint8), *codes])
        return ids, joined.view(np.float32).reshape(len(ids), self.dim)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors (n, dim) float32 with unit rows under these ids (n,)."""
        if len(ids) != len(vectors):
            raise ValueError(f"number of ids ({len(ids)}) must match number of vectors ({len(vectors)})")
        if len(ids):
            self._cpu.add_with_ids(np.ascontiguousarray(vectors, dtype=np.float32), ids.astype(np.int64))
            self._gpu = self._half = None

    def keep(self, ids: Ids) -> int:
        """Drop every vector whose id is not among these; how many that were."""
        gone = np.setdiff1d(self.ids, ids, assume_unique=True)
        if len(gone):
            self._cpu.remove_ids(gone)
            self._gpu = self._half = None
        return len(gone)

    def of_kind(self, kind: IndexKind) -> QuestionIndex:
        """This index, or its content in one of another kind: auto is exact up to `EXACT_UP_TO` vectors.

        An index of inverted lists is made anew once it has about four times as many vectors as when its lists were
        made, and is then tuned to `RECALL`.
        """
        if self.is_of_kind(kind):
            return self
        ids, vectors = self._content()
        made = QuestionIndex(self.dim, self._device)
        if _is_exact(kind, len(ids)):
            made.add(ids, vectors)
            return made
        lists = _lists(len(ids))
        index = faiss.index_factory(self.dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).permutation(len(ids))[: lists * VECTORS_TO_LEARN_FROM]
        index.cp.min_points_per_centroid = 1  # no warning on stderr for a small corpus that was set to ivf
        index.train(vectors[np.sort(sample)])
        made._set(index, self._device)
        made.add(ids, vectors)
        made._tune()
        return made

    def is_of_kind(self, kind: IndexKind) -> bool:
        """Whether `of_kind` would leave it as it is."""
        if _is_exact(kind, len(self)):
            return self.exact
        return not self.exact and 2 * int(self._cpu.nlist) > _lists(len(self))

    def _tune(self) -> None:
        """Search as few lists as give the recall that is wanted; FAISS keeps the number in the file."""
        ids, vectors = self._content()
        random = np.random.default_rng(0)
        queries = vectors[random.permutation(len(ids))[:SAMPLE]]
        # A query is not worded as what is stored: moved to a cosine of about 0.9.
        queries = queries + 0.48 / np.sqrt(self.dim) * random.standard_normal(queries.shape, dtype=np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        depth = min(10, len(ids))
        self._cpu.nprobe = self._cpu.nlist
        truth, _ = self._cpu.search(queries, depth)
        self._cpu.nprobe = 1
        while self._cpu.nprobe < self._cpu.nlist:
            scores, _ = self._cpu.search(queries, depth)
            # As good as the last of the true ones: equally near ones are equally right.
            if (scores >= truth[:, -1:] - 1e-6).mean() >= RECALL:
                break
            self._cpu.nprobe = min(2 * self._cpu.nprobe, self._cpu.nlist)

    def search(self, queries: Vectors, k: int) -> list[tuple[Ids, Vectors]]:
        """The best k questions for each query, best first; fewer where the index holds fewer.

        Args:
            queries: (n, dim) float32, unit rows.
            k: how many, from 1.

        Returns:
            For each query (ids, scores), scores being cosines clipped to [-1, 1]. Equal scores come by rising id.
            An index that is not exact may find fewer than there are.
        """
        k = min(k, len(self))
        if k == 0:
            return [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if self._use_gpu and max(k, 0 if self.exact else self._cpu.nprobe) <= GPU_MAX_K:
            with self._lock:
                scores, ids = self._on_gpu().search(queries, k)
        elif self.exact and len(self) >= HALF_FROM and _half_is_fast():
            scores, ids = self._in_half().search(queries, k)
        else:
            scores, ids = self._cpu.search(queries, k)
        np.clip(scores, -1.0, 1.0, out=scores)
        results = []
        for row_ids, row_scores in zip(ids, scores, strict=True):
            found = row_ids >= 0  # FAISS pads with -1
            order = np.lexsort((row_ids[found], -row_scores[found]))
            results.append((row_ids[found][order], row_scores[found][order]))
        return results

    def _on_gpu(self) -> Any:  # noqa: ANN401 - a faiss index, untyped
        if self._gpu is None and not _gpu_count():
            from faqsearch.torch_search import DeviceSearch

            self._gpu = DeviceSearch(*self._content())
        elif self._gpu is None:
            self._resources = faiss.StandardGpuResources()
            self._resources.setTempMemory(GPU_TEMPORARY_BYTES)
            self._gpu = faiss.index_cpu_to_gpu(self._resources, 0, self._cpu)
        return self._gpu

    def _in_half(self) -> Any:  # noqa: ANN401 - a HalfSearch, whose module loads torch
        with self._lock:
            if self._half is None:
                from faqsearch.torch_search import HalfSearch

                self._half = HalfSearch(*self._content())
            return self._half

    def write(self, path: Path) -> str:
        """Write to a file and to the disk; its SHA-256."""
        digest = hashlib.sha256()
        with path.open("wb") as handle:

            def take(block: bytes) -> int:
                digest.update(block)
                return handle.write(block)

            writer = faiss.PyCallbackIOWriter(take)
            faiss.write_index(self._cpu, writer)
            del writer  # flushes
            handle.flush()
            os.fsync(handle.fileno())
        return digest.hexdigest()

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> QuestionIndex:
        """Read what `write` wrote.

        Raises:
            IndexFileError: no such file, or not of this kind.
        """
        try:
            with path.open("rb") as handle:
                stored = faiss.read_index(faiss.PyCallbackIOReader(handle.read))
        except (OSError, RuntimeError, MemoryError) as exc:
            raise IndexFileError(f"{path} cannot be read: {' '.join(str(exc).split())[:120]}") from exc
        if not isinstance(stored, (faiss.IndexIDMap2, faiss.IndexIVFFlat)):
            raise IndexFileError(f"{path} holds a {type(stored).__name__}; expected {FLAT}, or IVF lists of it")
        index = cls.__new__(cls)
        index._set(stored, device)
        return index


class IndexFolder:
    """The index versions of one corpus."""

    def __init__(self, root: Path, corpus: str) -> None:
        self.corpus = corpus
        self.path = root / corpus
        self._versions = self.path / "versions"
        self._pointer = self.path / "current"

    # --- reading

    def current(self) -> str | None:
        """Name of the current version, None where no index has been built.

        Raises:
            IndexFileError: the pointer names no version.
        """
        try:
            name = self._pointer.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise IndexFileError(f"{self._pointer} cannot be read: {exc.strerror}; {self._cure()}") from exc
        if not _VERSION.fullmatch(name):
            raise IndexFileError(f"{self._pointer} holds {name[:40]!r} instead of a version's name; {self._cure()}")
        return name

    def current_or_none(self) -> str | None:
        """As `current`, and None for a damaged pointer as well."""
        try:
            return self.current()
        except IndexFileError:
            return None

    def check_name(self, version: str) -> None:
        """Raise IndexFileError unless there is such a version."""
        if version not in self.names():
            raise IndexFileError(f"no index version {version!r}; there are {', '.join(self.names()) or 'none'}")

    def names(self) -> list[str]:
        """Names of all versions on disk, oldest first."""
        if not self._versions.is_dir():
            return []
        found = [item.name for item in self._versions.iterdir() if _VERSION.fullmatch(item.name)]
        return sorted(found, key=_number)

    def manifest(self, version: str) -> IndexVersion:
        """What a version's manifest says.

        Raises:
            IndexFileError: no such version, a damaged manifest, or one of another format.
        """
        path = self._versions / version / _MANIFEST_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT or not _FACTORY.fullmatch(values["factory"]):
                raise IndexFileError(f"{path} is of another index format; {self._cure()}")
            values["created_at"] = datetime.fromisoformat(values["created_at"])
            manifest = IndexVersion(**values)
            if not (path.parent / _INDEX_FILE).is_file():
                raise IndexFileError(f"{path.parent / _INDEX_FILE} is missing; {self._cure()}")
        except FileNotFoundError as exc:
            raise IndexFileError(
                f"index version {version} of corpus {self.corpus!r} is missing; {self._cure()}"
            ) from exc
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise IndexFileError(f"{path} is damaged, or of another program version; {self._cure()}") from exc
        return manifest

    def versions(self) -> list[IndexVersion]:
        """All readable versions, oldest first, with the current one marked."""
        current = self.current_or_none()
        found = []
        for name in self.names():
            try:
                found.append(replace(self.manifest(name), current=name == current))
            except IndexFileError:
                continue  # `verify` and the next rebuild tell of it
        return found

    def check(self, version: IndexVersion) -> None:
        """Compare the index file with its manifest.

        Raises:
            IndexFileError: the file is missing, or not the one that was written.
        """
        path = self._versions / version.version / _INDEX_FILE
        digest = hashlib.sha256()
        try:
            with path.open("rb") as handle:
                while block := handle.read(1 << 20):
                    digest.update(block)
        except OSError as exc:
            raise IndexFileError(f"{path} cannot be read: {exc.strerror}; {self._cure()}") from exc
        if digest.hexdigest() != version.sha256:
            raise IndexFileError(f"{path} is damaged: its checksum is not the manifest's; {self._cure()}")

    def load(self, version: IndexVersion, device: str = "cpu") -> QuestionIndex:
        """Read a version's index, checked against its manifest."""
        self.check(version)  # first: FAISS is not made to read damaged files
        try:
            index = QuestionIndex.read(self._versions / version.version / _INDEX_FILE, device)
        except IndexFileError as exc:
            raise IndexFileError(f"{exc}; {self._cure()}") from exc
        if (len(index), index.dim) != (version.count, version.dim):
            raise IndexFileError(
                f"index version {version.version} holds {len(index)} vectors of length {index.dim}, its manifest"
                f" says {version.count} of {version.dim}; {self._cure()}"
            )
        return index

    # --- writing, under the lock

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        """Hold the right to write here; the system gives it back when a process dies.

        Raises:
            IndexBusyError: another process still holds it after `timeout` seconds.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path / "rebuild.lock", timeout=timeout):
                yield
        except filelock.Timeout as exc:
            raise IndexBusyError(
                f"another process is rebuilding the index of corpus {self.corpus!r}; try again when it is done"
            ) from exc
        except OSError as exc:
            raise IndexFileError(f"{self.path} cannot be written: {exc.strerror or exc}") from exc

    def publish(self, index: QuestionIndex, manifest: IndexVersion) -> IndexVersion:
        """Write an index as a new version and make it the current one.

        Name, corpus, size, checksum and time of the manifest given are filled in.
        """
        self._versions.mkdir(parents=True, exist_ok=True)
        for leftover in self._versions.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a process that died; nobody else writes now
        now = datetime.now(timezone.utc).replace(microsecond=0)
        number = 1 + max(map(_number, self.names()), default=0)
        name = f"{number:06d}-{now:%Y%m%dT%H%M%SZ}"
        temporary = self._versions / f"{_TEMPORARY}{name}"
        temporary.mkdir()
        sha256 = index.write(temporary / _INDEX_FILE)
        manifest = replace(
            manifest,
            version=name,
            corpus=self.corpus,
            dim=index.dim,
            count=len(index),
            factory=index.factory,
            sha256=sha256,
            created_at=now,
        )
        values = {**asdict(manifest), "format": FORMAT, "created_at": now.isoformat()}
        del values["current"]
        _write_synced(temporary / _MANIFEST_FILE, json.dumps(values, ensure_ascii=False, indent=2) + "\n")
        _sync_folder(temporary)
        temporary.rename(self._versions / name)
        _sync_folder(self._versions)
        self.set_current(name)
        return replace(manifest, current=True)

    def set_current(self, version: str) -> None:
        """Point `current` at a version, atomically."""
        temporary = self._pointer.with_name("current.tmp")
        _write_synced(temporary, version + "\n")
        os.replace(temporary, self._pointer)
        _sync_folder(self.path)

    def prune(self, keep: int) -> list[str]:
        """Delete the oldest versions beyond the last `keep`, never the current one; their names.

        Nothing is deleted while the pointer is damaged, and so nobody knows which is current.
        """
        try:
            current = self.current()
        except IndexFileError:
            return []
        names = self.names()
        gone = [name for name in names[: max(0, len(names) - keep)] if name != current]
        for name in gone:
            shutil.rmtree(self._versions / name, ignore_errors=True)
        return gone

    def delete(self) -> None:
        """Delete all versions."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _cure(self) -> str:
        return f"run `faqsearch rebuild {self.corpus}`"


def faiss_build() -> str:
    """FAISS's version and what it can use, for the health report."""
    gpus = _gpu_count()
    return f"{faiss.__version__} ({gpus} GPU)" if gpus else f"{faiss.__version__} (CPU)"


def _gpu_count() -> int:
    """How many GPUs FAISS can use; its CPU build has no such function."""
    return int(getattr(faiss, "get_num_gpus", lambda: 0)())


def _is_exact(kind: IndexKind, count: int) -> bool:
    return kind == "flat" or count < 2 or (kind == "auto" and count <= EXACT_UP_TO)


def _lists(count: int) -> int:
    """Inverted lists for so many vectors: four times the square root, to the nearest power of two."""
    return min(count, 1 << round(math.log2(4 * math.sqrt(count))))


def _torch_search() -> ModuleType | None:
    """Exact search by torch; torch is not loaded for this, as an encoder has loaded it where it is of use."""
    if "torch" not in sys.modules:
        return None
    from faqsearch import torch_search

    return torch_search


def _torch_has_gpu() -> bool:
    """Whether torch can search on a GPU."""
    search = _torch_search()
    return search is not None and bool(search.available())


def _half_is_fast() -> bool:
    """Whether torch searches faster than FAISS on this CPU."""
    search = _torch_search()
    return search is not None and bool(search.half_is_fast())


def _number(version: str) -> int:
    match = _VERSION.fullmatch(version)
    return int(match.group(1)) if match else 0


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())


def _sync_folder(path: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
