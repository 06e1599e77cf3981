"""The question index against plain numpy, and its versions on disk against everything that can happen to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faqsearch.errors import FaqSearchError, IndexBusyError, IndexFileError
from faqsearch.index import IndexFolder, QuestionIndex
from faqsearch.model import IndexVersion
from faqsearch.torch_search import DeviceSearch, HalfSearch

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

DIM = 4
CURE = "; run `faqsearch rebuild 金融`"
DRAFT = IndexVersion(
    version="",
    corpus="",
    encoder="embedded",
    fingerprint="f1",
    normalisation=1,
    dim=0,
    count=0,
    sha256="",
    revision=7,
    last_question_id=42,
    build="b1",
    created_at=datetime.min.replace(tzinfo=timezone.utc),
)


def build(ids: Ids, vectors: Vectors, device: str = "cpu") -> QuestionIndex:
    index = QuestionIndex(vectors.shape[1], device)
    index.add(ids, vectors)
    return index


def axes(*ids: int) -> QuestionIndex:
    """Each id with a unit vector of its own."""
    return build(np.array(ids, dtype=np.int64), np.eye(DIM, dtype=np.float32)[: len(ids)])


def brute_force(ids: Ids, vectors: Vectors, query: Vectors, k: int) -> list[tuple[float, int]]:
    scores = np.clip(vectors.astype(np.float64) @ query.astype(np.float64), -1, 1)
    return sorted(zip(scores.tolist(), ids.tolist(), strict=True), key=lambda item: (-item[0], item[1]))[:k]


# Components of ±1/2 make unit vectors whose products are exact in float32: ties are real ties.
signs = st.sampled_from([-0.5, 0.5])
question_ids = st.lists(st.integers(1, 2**40), unique=True, max_size=60).map(sorted)


@given(question_ids, st.data(), st.integers(1, 80))
def test_results_are_those_of_brute_force_ties_by_rising_id(id_list: list[int], data: st.DataObject, k: int) -> None:
    ids = np.array(id_list, dtype=np.int64)
    vectors = data.draw(hnp.arrays(np.float32, (len(ids), DIM), elements=signs))
    queries = data.draw(hnp.arrays(np.float32, (3, DIM), elements=signs))
    results = build(ids, vectors).search(queries, k)
    assert len(results) == 3
    for query, (found, scores) in zip(queries, results, strict=True):
        pairs = list(zip(scores.tolist(), found.tolist(), strict=True))
        expected = brute_force(ids, vectors, query, len(ids))
        cut = expected[k - 1][0] if k < len(ids) else -2.0
        sure = [pair for pair in expected if pair[0] > cut]
        assert pairs[: len(sure)] == sure
        # Where the cut goes through equal scores, FAISS chooses among them.
        at_cut = pairs[len(sure) :]
        assert len(pairs) == min(k, len(ids))
        assert at_cut == sorted(set(at_cut) & set(expected)), "equal scores by rising id, each once"
        assert {score for score, _ in at_cut} <= {cut}


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.sampled_from([1, 2, 25]), st.integers(1, 220))
def test_random_unit_vectors_score_their_cosine(seed: int, count: int, queries: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, asked = (rng.standard_normal((n, 24)) for n in (count, queries))
    vectors, asked = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors, asked))
    ids = rng.permutation(10 * count)[:count].astype(np.int64)
    results = build(ids, vectors.astype(np.float32)).search(asked.astype(np.float32), k)
    for query, (found, scores) in zip(asked, results, strict=True):
        expected = brute_force(ids, vectors, query, k)
        np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-6)
        assert scores.dtype == np.float32
        own = {int(question_id): float(vector @ query) for question_id, vector in zip(ids, vectors, strict=True)}
        np.testing.assert_allclose(scores, [own[question_id] for question_id in found.tolist()], atol=1e-6)
        assert len(set(found.tolist())) == min(k, count)


def test_more_than_there_are_gives_all_and_never_the_padding_of_faiss() -> None:
    [(ids, scores)] = axes(30, 10, 20).search(np.eye(DIM, dtype=np.float32)[1:2], 50)
    assert (ids.tolist(), scores.tolist()) == ([10, 20, 30], [1.0, 0.0, 0.0])


def test_an_empty_index_finds_nothing_for_each_query() -> None:
    results = QuestionIndex(DIM).search(np.eye(DIM, dtype=np.float32), 3)
    assert [(ids.tolist(), scores.tolist()) for ids, scores in results] == [([], [])] * DIM
    assert QuestionIndex(DIM).search(np.empty((0, DIM), np.float32), 3) == []


def test_scores_stay_cosines_despite_rounding() -> None:
    vector = np.full((1, 3), np.float32(0.57735034))  # its norm is a little above 1
    assert float(vector[0] @ vector[0]) > 1
    [(_, [above])] = build(np.array([1]), vector).search(vector, 1)
    [(_, [below])] = build(np.array([1]), vector).search(-vector, 1)
    assert (above, below) == (1.0, -1.0)


def test_ids_and_vectors_must_match_in_number() -> None:
    with pytest.raises(ValueError, match=r"number of ids \(2\) must match number of vectors \(1\)"):
        QuestionIndex(DIM).add(np.array([1, 2]), np.ones((1, DIM), np.float32))


@given(question_ids, st.data())
def test_keep_drops_all_others_and_add_brings_them_back(id_list: list[int], data: st.DataObject) -> None:
    ids = np.array(id_list, dtype=np.int64)
    vectors = data.draw(hnp.arrays(np.float32, (len(ids), DIM), elements=signs))
    wanted = np.array(data.draw(st.lists(st.sampled_from([*id_list, 2**41]), unique=True)), dtype=np.int64)
    index = build(ids, vectors)
    kept = np.isin(ids, wanted)
    assert index.keep(wanted) == int((~kept).sum())
    assert index.ids.tolist() == sorted(ids[kept].tolist())
    query = np.full((1, DIM), 0.5, dtype=np.float32)
    for expected in (kept, np.ones(len(ids), bool)):
        [(found, scores)] = index.search(query, len(ids) + 1)
        pairs = list(zip(scores.tolist(), found.tolist(), strict=True))
        assert pairs == brute_force(ids[expected], vectors[expected], query[0], len(ids) + 1)
        if expected is kept:
            index.add(ids[~kept], vectors[~kept])


@given(ids=question_ids, data=st.data())
def test_write_and_read_is_identity(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], data: st.DataObject
) -> None:
    vectors = data.draw(hnp.arrays(np.float32, (len(ids), DIM), elements=st.floats(-1, 1, width=32)))
    index = build(np.array(ids, dtype=np.int64), vectors)
    path = tmp_path_factory.mktemp("索引") / "问题.faiss"
    index.write(path)
    again = QuestionIndex.read(path)
    assert (again.dim, again.ids.tolist()) == (DIM, ids)
    query = np.full((1, DIM), 0.5, dtype=np.float32)
    [before], [after] = index.search(query, 99), again.search(query, 99)
    assert (after[0].tolist(), after[1].tolist()) == (before[0].tolist(), before[1].tolist())


@pytest.mark.gpu
@pytest.mark.skipif(not getattr(faiss, "get_num_gpus", lambda: 0)(), reason="needs a CUDA GPU and FAISS's GPU build")
@pytest.mark.parametrize("k", [1, 10, 2048, 3000])
def test_a_gpu_gives_the_results_of_the_cpu(k: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((5000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(5000, dtype=np.int64) * 3 + 1
    on_cpu, on_gpu = build(ids, vectors), build(ids, vectors, "cuda")
    for _ in range(2):  # the second time after a change, which the copy on the device must follow
        for (ids_cpu, cpu), (ids_gpu, gpu) in zip(
            on_cpu.search(vectors[:40], k), on_gpu.search(vectors[:40], k), strict=True
        ):
            np.testing.assert_allclose(gpu, cpu, atol=1e-5)
            assert ids_gpu[0] == ids_cpu[0]
            # Scores that differ by rounding alone may change places.
            assert len(np.intersect1d(ids_gpu, ids_cpu)) >= 0.99 * k
        for index in (on_cpu, on_gpu):
            index.keep(ids[:4000])


# --- versions


@pytest.fixture
def folder(tmp_path: Path) -> IndexFolder:
    return IndexFolder(tmp_path / "索引", "金融")


def publish(folder: IndexFolder, *ids: int) -> IndexVersion:
    with folder.lock(0):
        return folder.publish(axes(*ids), DRAFT)


def test_a_published_version_is_current_and_says_what_it_is(folder: IndexFolder) -> None:
    assert (folder.current(), folder.names(), folder.versions()) == (None, [], [])
    before = datetime.now(timezone.utc).replace(microsecond=0)
    first = publish(folder, 5, 3)
    assert first.version.startswith("000001-")
    assert before <= first.created_at <= datetime.now(timezone.utc)
    assert first == replace(
        DRAFT,
        version=first.version,
        corpus="金融",
        dim=DIM,
        count=2,
        sha256=first.sha256,
        created_at=first.created_at,
        current=True,
    )
    second = publish(folder, 5, 3, 9)
    assert second.version.startswith("000002-")
    assert folder.current() == second.version
    assert folder.versions() == [replace(first, current=False), second]
    assert folder.load(first).ids.tolist() == [3, 5]
    assert folder.load(folder.manifest(second.version)).ids.tolist() == [3, 5, 9]

    path = folder.path / "versions" / second.version
    assert sorted(file.name for file in path.iterdir()) == ["index.faiss", "manifest.json"]
    assert json.loads((path / "manifest.json").read_text("utf-8")) == {
        "format": 1,
        "factory": "IDMap2,Flat",
        "version": second.version,
        "corpus": "金融",
        "encoder": "embedded",
        "fingerprint": "f1",
        "normalisation": 1,
        "dim": DIM,
        "count": 3,
        "sha256": hashlib.sha256((path / "index.faiss").read_bytes()).hexdigest(),
        "revision": 7,
        "last_question_id": 42,
        "build": "b1",
        "created_at": second.created_at.isoformat(),
    }


def test_pruning_keeps_the_last_ones_and_always_the_current_one(folder: IndexFolder) -> None:
    names = [publish(folder, number).version for number in range(1, 6)]
    folder.set_current(names[0])
    assert folder.prune(2) == names[1:3]
    assert folder.names() == [names[0], *names[3:]]
    assert folder.current() == names[0]
    folder.set_current(names[3])
    assert folder.prune(1) == [names[0]]
    assert folder.names() == names[3:]
    assert folder.prune(5) == []
    assert publish(folder, 6).version.startswith("000006-"), "numbers only grow"


def test_what_a_process_that_died_left_behind_is_cleaned_and_never_shown(folder: IndexFolder) -> None:
    first = publish(folder, 1)
    leftover = folder.path / "versions" / ".tmp-000002-20260101T000000Z"
    leftover.mkdir()
    (leftover / "index.faiss").write_bytes(b"half")
    (folder.path / "current.tmp").write_text("0000")
    assert folder.names() == [first.version]
    second = publish(folder, 2)
    assert not leftover.exists()
    assert folder.current() == second.version


def test_a_version_that_was_not_made_current_changes_nothing(folder: IndexFolder) -> None:
    """As after a death between the renaming of the folder and that of the pointer."""
    first, second = publish(folder, 1), publish(folder, 1, 2)
    folder.set_current(first.version)
    assert [version.current for version in folder.versions()] == [True, False]
    assert publish(folder, 7).version.startswith("000003-")
    assert folder.load(folder.manifest(second.version)).ids.tolist() == [1, 2]


def test_only_one_at_a_time_may_write(folder: IndexFolder, tmp_path: Path) -> None:
    other = IndexFolder(tmp_path / "索引", "金融")
    with folder.lock(0):
        with pytest.raises(IndexBusyError, match="another process is rebuilding .* '金融'; try again"), other.lock(0):
            raise AssertionError("two held the lock at once")
        with IndexFolder(tmp_path / "索引", "别的").lock(0):
            pass  # another corpus is no obstacle
    with other.lock(0):
        pass


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(**values: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")

    return edit


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("index.faiss", flip_a_byte, "is damaged: its checksum is not the manifest's"),
        ("index.faiss", halve, "is damaged: its checksum is not the manifest's"),
        ("index.faiss", Path.unlink, "is missing"),
        ("manifest.json", halve, "is damaged, or of another program version"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe\xff"), "is damaged, or of another program version"),
        ("manifest.json", lambda path: path.write_text("[]"), "is damaged"),
        ("manifest.json", lambda path: path.write_text("3"), "is damaged"),
        ("manifest.json", lambda path: path.write_text("{}"), "is damaged"),
        ("manifest.json", Path.unlink, "is missing"),
        ("manifest.json", change(format=2), "is of another index format"),
        ("manifest.json", change(factory="IDMap2,HNSW32"), "is of another index format"),
        ("manifest.json", change(surprise=1), "is damaged"),
        ("manifest.json", change(created_at="yesterday"), "is damaged"),
        ("manifest.json", change(count=3), "holds 2 vectors of length 4, its manifest says 3 of 4"),
        ("manifest.json", change(dim=8), "holds 2 vectors of length 4, its manifest says 2 of 8"),
    ],
)
def test_damage_is_one_line_that_names_the_cure(
    folder: IndexFolder, file: str, damage: Callable[[Path], object], told: str
) -> None:
    whole, version = publish(folder, 1), publish(folder, 1, 2)
    damage(folder.path / "versions" / version.version / file)
    with pytest.raises(IndexFileError) as caught:
        folder.load(folder.manifest(version.version))
    message = str(caught.value)
    assert told in message
    assert message.endswith(CURE)
    assert message.count(CURE) == 1
    assert "\n" not in message
    assert folder.load(whole).ids.tolist() == [1]


@pytest.mark.parametrize("file", ["index.faiss", "another"])
def test_a_file_that_faiss_does_not_know_is_told(tmp_path: Path, file: str) -> None:
    """A checksum cannot help where the file was replaced together with its manifest."""
    (tmp_path / "index.faiss").write_bytes(b"nothing that FAISS wrote")
    with pytest.raises(IndexFileError, match="cannot be read") as caught:
        QuestionIndex.read(tmp_path / file)
    assert "\n" not in str(caught.value)


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flat.faiss").write_bytes(faiss.serialize_index(faiss.IndexFlatIP(DIM)).tobytes())
    with pytest.raises(IndexFileError, match="holds a IndexFlatIP; expected IDMap2,Flat"):
        QuestionIndex.read(tmp_path / "flat.faiss")


@pytest.mark.parametrize("nonsense", ["", "latest", "../../etc", "000001-20260101T000000Z\nmore", "\ufffd" * 90])
def test_nonsense_in_the_pointer_is_one_line_that_names_the_cure(folder: IndexFolder, nonsense: str) -> None:
    publish(folder, 1)
    (folder.path / "current").write_text(nonsense, "utf-8")
    with pytest.raises(IndexFileError) as caught:
        folder.current()
    assert "instead of a version's name" in str(caught.value)
    assert str(caught.value).endswith(CURE)
    assert "\n" not in str(caught.value)
    assert folder.prune(0) == [], "nothing is deleted while nobody knows what is current"


def test_a_pointer_to_a_version_that_is_gone_is_told(folder: IndexFolder) -> None:
    publish(folder, 1)
    folder.set_current("000009-20260101T000000Z")
    name = folder.current()
    assert name == "000009-20260101T000000Z"
    with pytest.raises(IndexFileError, match="index version 000009-20260101T000000Z of corpus '金融' is missing; run"):
        folder.manifest(name)


def test_a_damaged_version_does_not_hide_the_others(folder: IndexFolder) -> None:
    first, second = publish(folder, 1), publish(folder, 1, 2)
    (folder.path / "versions" / first.version / "manifest.json").write_text("{")
    assert folder.versions() == [second]


def test_a_deleted_folder_is_an_empty_one(folder: IndexFolder) -> None:
    publish(folder, 1)
    folder.delete()
    assert not folder.path.exists()
    assert (folder.current(), folder.names()) == (None, [])
    assert publish(folder, 2).version.startswith("000001-")


def test_an_index_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FaqSearchError, match="cannot be written"), IndexFolder(tmp_path / "file", "金融").lock(0):
        raise AssertionError("locked a folder inside a file")


# --- by torch: in bfloat16 first, and on a GPU


Case = tuple[Ids, Vectors, Vectors]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """(ids, vectors, three queries), of at least one question."""
    ids = np.array(draw(question_ids.filter(bool)), dtype=np.int64)
    vectors = draw(hnp.arrays(np.float32, (len(ids), DIM), elements=signs))
    return ids, vectors, draw(hnp.arrays(np.float32, (3, DIM), elements=signs))


@given(cases(), st.integers(1, 80), st.sampled_from([1, 2, 32]))
def test_half_finds_what_brute_force_finds(case: Case, k: int, at_once: int) -> None:
    ids, vectors, queries = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faqsearch.torch_search.QUERIES_AT_ONCE", at_once)
        scores, found = HalfSearch(ids, vectors).search(queries, min(k, len(ids)))
    for row, query in enumerate(queries):
        expected = brute_force(ids, vectors, query, k)
        assert list(zip(scores[row].tolist(), found[row].tolist(), strict=True)) == expected


@pytest.mark.parametrize("spread", [1e-5, 1e-4, 1e-3, 1e-2, 1])
@pytest.mark.parametrize("length", [1, 30])
def test_half_is_exact_however_near_the_vectors_are_to_each_other(spread: float, length: int) -> None:
    """Nearer than bfloat16 tells apart, nearly all of it: the second look in float32 decides."""
    generator = np.random.default_rng(0)
    ids = generator.permutation(2000).astype(np.int64)
    vectors = generator.standard_normal(64) + spread * generator.standard_normal((2000, 64))
    vectors = (length * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = (np.concatenate([vectors[::200], -vectors[:3]]) / length).astype(np.float32)
    scores, found = HalfSearch(ids, vectors).search(queries, 10)
    place = np.argsort(ids)
    for row, query in enumerate(queries):
        true = vectors.astype(np.float64) @ query.astype(np.float64)
        best = np.sort(true)[::-1][:10]
        np.testing.assert_allclose(scores[row], best, rtol=1e-6)
        np.testing.assert_allclose(true[place[found[row]]], best, rtol=1e-6)
        assert len(set(found[row].tolist())) == 10


def test_half_serves_behind_the_index_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faqsearch.index.HALF_FROM", 250)
    plain = build(np.arange(9, 309), topics(300))
    queries = topics(20, seed=1)
    expected = plain.search(queries, 7)
    assert plain._half is None  # as `conftest` says that bfloat16 is slow
    monkeypatch.setattr("faqsearch.encoder.has_fast_bf16", lambda _device: True)
    served = build(np.arange(9, 309), topics(300))

    for (ids, _), (truth, _) in zip(served.search(queries, 7), expected, strict=True):
        assert ids.tolist() == truth.tolist()
    assert type(served._half) is HalfSearch
    for index in (plain, served):  # the copy follows
        index.keep(np.arange(9, 300))
        index.add(np.array([1000, 1001]), topics(2, seed=4))
    monkeypatch.setattr("faqsearch.encoder.has_fast_bf16", lambda _device: False)
    expected = plain.search(queries, 7)
    monkeypatch.setattr("faqsearch.encoder.has_fast_bf16", lambda _device: True)
    for (ids, scores), (truth, wanted) in zip(served.search(queries, 7), expected, strict=True):
        assert ids.tolist() == truth.tolist()
        np.testing.assert_allclose(scores, wanted, atol=1e-6)
    served.keep(np.arange(9, 200))  # too few for it to be worth the while
    served.search(queries, 7)
    assert served._half is None


@given(cases(), st.integers(1, 80), st.sampled_from([1, 64 << 20]))
def test_torch_finds_what_faiss_finds(case: Case, k: int, at_once: int) -> None:
    ids, vectors, queries = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faqsearch.torch_search.SCORES_AT_ONCE", at_once)
        scores, found = DeviceSearch(ids, vectors, "cpu").search(queries, min(k, len(ids)))
    for row, query in enumerate(queries):
        expected = brute_force(ids, vectors, query, len(ids))
        assert scores[row].tolist() == [score for score, _ in expected[:k]]
        true = {number: score for score, number in expected}
        assert [true[number] for number in found[row].tolist()] == scores[row].tolist()
        assert len(set(found[row].tolist())) == min(k, len(ids))


def test_torch_serves_behind_the_index_where_faiss_knows_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = partial(DeviceSearch, device="cpu")
    monkeypatch.setattr("faqsearch.torch_search.available", lambda: True)
    monkeypatch.setattr("faqsearch.torch_search.DeviceSearch", on_cpu)
    monkeypatch.setattr("faqsearch.index._gpu_count", lambda: 0)
    plain, served = build(np.arange(9, 309), topics(300)), build(np.arange(9, 309), topics(300), "auto")
    queries = topics(20, seed=1)
    for _ in range(2):
        for (ids, scores), (truth, expected) in zip(served.search(queries, 7), plain.search(queries, 7), strict=True):
            assert ids.tolist() == truth.tolist()
            np.testing.assert_allclose(scores, expected, atol=1e-6)
        assert type(served._gpu) is DeviceSearch
        for index in (plain, served):  # the copy on the device follows
            index.keep(np.arange(9, 200))
            index.add(np.array([1000, 1001]), topics(2, seed=4))
    empty = served
    empty.keep(np.empty(0, np.int64))
    assert [len(ids) for ids, _ in empty.search(queries, 7)] == [0] * 20


# --- inverted lists


def topics(count: int, seed: int = 0, dim: int = 32) -> Vectors:
    """Unit vectors around 40 topics, as questions are."""
    random = np.random.default_rng(seed)
    middle = np.random.default_rng(99).standard_normal((40, dim))
    vectors = middle[random.integers(0, 40, count)] + 0.7 * random.standard_normal((count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def recall(index: QuestionIndex, exact: QuestionIndex, queries: Vectors) -> float:
    pairs = zip(index.search(queries, 10), exact.search(queries, 10), strict=True)
    return float(np.mean([len(np.intersect1d(found, truth)) / 10 for (found, _), (truth, _) in pairs]))


@pytest.fixture(scope="module")
def flat() -> QuestionIndex:
    return build(np.arange(1, 6001) * 3, topics(6000))


@pytest.fixture(scope="module")
def lists(flat: QuestionIndex) -> QuestionIndex:
    return flat.of_kind("ivf")


def test_inverted_lists_find_nearly_all_that_the_exact_search_finds(flat: QuestionIndex, lists: QuestionIndex) -> None:
    assert (flat.exact, flat.factory, lists.exact, lists.factory) == (True, "IDMap2,Flat", False, "IVF256,Flat")
    assert lists.ids.tolist() == flat.ids.tolist()
    assert 1 <= lists._cpu.nprobe < 256, "all lists searched would be no gain"
    assert recall(lists, flat, topics(300, seed=1)) >= 0.99
    ids, scores = lists.search(topics(1, seed=2), 50)[0]
    assert len(set(ids.tolist())) == len(ids) == 50
    assert sorted(scores.tolist(), reverse=True) == scores.tolist()


def test_inverted_lists_take_in_and_drop_like_the_exact_index(flat: QuestionIndex, tmp_path: Path) -> None:
    index = flat.of_kind("ivf")
    ids, vectors = index.ids, topics(6000)
    kept = ids[ids % 2 == 0]
    assert index.keep(kept) == 6000 - len(kept)
    new = topics(500, seed=5)
    index.add(np.arange(500) + 100_000, new)
    assert index.ids.tolist() == [*kept.tolist(), *range(100_000, 100_500)]
    exact = build(index.ids, np.concatenate([vectors[kept // 3 - 1], new]))
    assert recall(index, exact, topics(200, seed=6)) >= 0.98
    index.write(tmp_path / "index.faiss")
    read = QuestionIndex.read(tmp_path / "index.faiss")
    assert (read.factory, read.ids.tolist(), read._cpu.nprobe) == (index.factory, index.ids.tolist(), index._cpu.nprobe)
    queries = topics(20, seed=7)
    for (one, _), (other, _) in zip(read.search(queries, 10), index.search(queries, 10), strict=True):
        assert one.tolist() == other.tolist()
    back = read.of_kind("flat")
    assert (back.factory, back.ids.tolist()) == ("IDMap2,Flat", read.ids.tolist())
    assert recall(back, exact, queries) == 1.0


def test_auto_goes_by_the_number_of_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faqsearch.index.EXACT_UP_TO", 1000)
    small, large = build(np.arange(1000), topics(1000)), build(np.arange(1001), topics(1001))
    assert small.of_kind("auto") is small
    assert (large.of_kind("auto").factory, large.of_kind("flat").factory) == ("IVF128,Flat", "IDMap2,Flat")
    found = large.of_kind("auto")
    assert found.is_of_kind("auto") and found.is_of_kind("ivf") and not found.is_of_kind("flat")
    assert found.of_kind("auto") is found
    found.add(np.arange(2000, 6000), topics(4000, seed=3))  # so many that other lists are due
    assert found.of_kind("auto").factory == "IVF256,Flat"
    found.keep(np.arange(900))
    assert found.of_kind("auto").factory == "IDMap2,Flat"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17])
def test_inverted_lists_of_few_vectors_work(count: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = build(np.arange(count), topics(count)).of_kind("ivf")
    assert index.exact == (count < 2)
    index.write(tmp_path / "index.faiss")
    read = QuestionIndex.read(tmp_path / "index.faiss")
    assert read.ids.tolist() == list(range(count))
    for query in topics(count):
        assert len(read.search(query[None], 5)[0][0]) >= 1
    assert capfd.readouterr().err == ""


def test_a_published_version_says_its_kind(folder: IndexFolder) -> None:
    index = build(np.arange(50), topics(50)).of_kind("ivf")
    assert folder.publish(index, DRAFT).factory == "IVF32,Flat"
    manifest = folder.manifest(folder.names()[-1])
    assert manifest.factory == "IVF32,Flat"
    assert folder.load(manifest).factory == "IVF32,Flat"
    path = folder.path / "versions" / manifest.version / "manifest.json"
    path.write_text(path.read_text("utf-8").replace("IVF32,Flat", "HNSW32"), "utf-8")
    with pytest.raises(IndexFileError, match="is of another index format"):
        folder.manifest(manifest.version)
