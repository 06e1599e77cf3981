"""Downloading checkpoints: what is fetched, what is told, and that nothing half or damaged is taken for an encoder."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from checkpoints import COMMIT, SOURCES, write_published
from conftest import ROOT
from fake_hub import FakeHub, Machine

from faqsearch import encoder, hub, registry

FINANCE = SOURCES["finance"][0]
NEEDED = [
    "1_Pooling/config.json",
    "README.md",
    "config.json",
    "modules.json",
    "pytorch_model.bin",
    "sentence_bert_config.json",
    "vocab.txt",
]
NOT_NEEDED = {
    name: name.encode()
    for name in (".gitattributes", "flax_model.msgpack", "onnx/model.onnx", "tf_model.h5", "training_args.bin")
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a published repository."""
    folder = write_published(tmp_path_factory.mktemp("published"))
    (folder / "README.md").write_text("# A model card\n", "utf-8")
    return folder


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with FakeHub() as fake:
        yield fake


@pytest.fixture
def machine(tmp_path: Path, fake: FakeHub) -> Machine:
    return Machine(tmp_path, fake.url)


def snapshot(machine: Machine, name: str = FINANCE) -> Path:
    """The folder that a download ends up in."""
    return machine.cache / ("models--" + name.replace("/", "--")) / "snapshots" / COMMIT


def listed(machine: Machine) -> dict[str, Any]:
    """What `model list` says of the encoder `finance`."""
    encoders: list[dict[str, Any]] = machine.run("model", "list", "--json").json["encoders"]
    return next(item for item in encoders if item["name"] == "finance")


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- names and files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "name", "revision"),
    [
        ("owner/name", "owner/name", None),
        ("owner/name@", "owner/name", None),
        ("owner/name@v1.0", "owner/name", "v1.0"),
        ("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
    ],
)
def test_a_reference_is_a_name_and_perhaps_a_revision(ref: str, name: str, revision: str | None) -> None:
    assert hub.split(ref) == (name, revision)
    assert hub.is_name(ref)


@pytest.mark.parametrize(
    "ref", ["", "name", "a/b/c", "/a", "a/", "./a", "../a", "a/..b", "-a/b", "a/b..c", "a--b/c", "所有者/名", "a b/c"]
)
def test_what_the_hub_would_refuse_is_no_name(ref: str) -> None:
    assert not hub.is_name(ref)


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ([*NEEDED, *NOT_NEEDED], NEEDED),
        (
            ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "onnx/config.json"],
            ["config.json", "model.safetensors", "tokenizer.json"],
        ),
        (  # in parts
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model-00001-of-00002.bin",
             "pytorch_model.bin.index.json"],
            ["model-00001-of-00002.safetensors", "model.safetensors.index.json"],
        ),
        (  # safetensors of another module are no copy of these weights
            ["pytorch_model.bin", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin"],
            ["2_Dense/model.safetensors", "pytorch_model.bin"],
        ),
        (["0_Transformer/pytorch_model.bin", "0_Transformer/vocab.txt", "modules.json"],) * 2,
        (["merges.txt", "sentencepiece.bpe.model", "spiece.model", "vocab.json"],) * 2,
        (["coreml/model.safetensors", "openvino/openvino_model.bin", "unigram.py", "model.py"], []),
    ],
)  # fmt: skip
def test_only_one_copy_of_the_weights_and_what_reads_it_is_needed(files: list[str], needed: list[str]) -> None:
    assert hub.needed(files) == needed


# --- downloads -----------------------------------------------------------------------------------


def test_a_pulled_checkpoint_works_and_is_not_fetched_again(fake: FakeHub, machine: Machine, published: Path) -> None:
    fake.add(FINANCE, published, NOT_NEEDED)
    folder = snapshot(machine)
    done = machine.run("model", "pull", "finance")
    assert (done.code, done.out) == (0, f"finance: {folder}\n")
    assert done.err == "run `faqsearch model check finance` to see that it works\n"  # and no bars in a pipe
    assert fake.downloads == NEEDED
    assert contents(folder) == contents(published)

    fake.requests.clear()
    examples = ("到期不能按时还款怎么办", "剩余欠款还有多少？")
    first, second = registry.load_encoder(str(published)).encode(examples)
    done = machine.run("model", "check", "finance")
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "name:              finance",
            f"folder:            {folder}",
            "shape:             4 layers, hidden 48, vocabulary 21,128",
            "parameters:        1,152,000",
            "pooling:           mean, at most 256 tokens",
            "weights:           model.safetensors, converted now",
            "sentences:         到期不能按时还款怎么办 / 剩余欠款还有多少？",
            "norms:             1.0000, 1.0000",
            f"similarity:        {first @ second:.4f}",
        ],
    ), done.err
    assert done.err == (
        "note: this is not the published checkpoint: 4 layers, hidden 48, vocabulary 21128;"
        " expected 4 layers, hidden 768, vocabulary 21128; run `faqsearch model pull finance`\n"
    )
    assert fake.requests == []

    converted = contents(folder)
    assert converted.keys() - contents(published).keys() == {"conversion.json", "model.safetensors"}
    assert machine.run("model", "pull", "finance").code == 0
    assert fake.downloads == []
    assert contents(folder) == converted


def test_a_revision_is_pulled_by_its_number_with_safetensors_alone(
    fake: FakeHub, machine: Machine, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(published, tmp_path / "source"))
    encoder.convert(source)
    (source / "conversion.json").unlink()
    fake.add("someone/encoder", source, NOT_NEEDED)
    folder = snapshot(machine, "someone/encoder")
    pulled = machine.run("model", "pull", f"someone/encoder@{COMMIT}", "--json", HF_TOKEN="hf_ours")
    assert pulled.json == {"name": f"someone/encoder@{COMMIT}", "folder": str(folder), "revision": COMMIT}
    safe = sorted({*NEEDED, "model.safetensors"} - {"pytorch_model.bin"})
    assert fake.downloads == safe
    assert {request.token for request in fake.requests if "someone/" in request.path} == {"hf_ours"}
    # Without a revision it is another reference, and not there before it is pulled.
    assert machine.run("corpus", "create", "bank", "--encoder", "someone/encoder").failure == (
        "encoder 'someone/encoder' is not on this machine; run `faqsearch model pull someone/encoder`"
    )
    assert machine.run("model", "pull", "someone/encoder").out == f"someone/encoder: {folder}\n"
    assert fake.downloads == safe
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(machine.cache))
    check = registry.check(f"someone/encoder@{COMMIT}")
    assert (check.folder, check.layers, check.dim, check.converted, check.notes) == (folder, 4, 48, False, ())


def test_a_terminal_gets_progress_bars(fake: FakeHub, machine: Machine, published: Path) -> None:
    fake.add(FINANCE, published)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # bars are as wide as the terminal
    command = [sys.executable, "-m", "faqsearch", "model", "pull", "finance"]
    environment = machine.environment(TERM="xterm")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:
            pass  # how Linux says that the other end was closed
        finally:
            os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read().decode()
    assert (process.returncode, out) == (0, f"finance: {snapshot(machine)}\n")
    assert b"Fetching 7 files: 100%|" in shown


def test_a_broken_connection_is_told_and_the_next_pull_completes_it(
    fake: FakeHub, machine: Machine, published: Path
) -> None:
    repository = fake.add(FINANCE, published, NOT_NEEDED)
    repository.faults["pytorch_model.bin"] = ["reset", "500"]
    line = f"{FINANCE} cannot be downloaded from {fake.url} ("
    cure = "; check the network, or name a mirror in HF_ENDPOINT, and pull again: files that have arrived are kept"
    told = machine.run("model", "pull", "finance").failure
    assert (told.startswith(line), told.endswith(cure)) == (True, True), told
    # Not an encoder before it is whole.
    assert listed(machine)["where"] in ("missing", "incomplete")
    there = set(contents(snapshot(machine)))
    fake.requests.clear()
    told = machine.run("model", "pull", "finance").failure
    assert (told.startswith(line), "500" in told, told.endswith(cure)) == (True, True, True), told
    assert machine.run("model", "pull", "finance").code == 0
    assert there.isdisjoint(fake.downloads)
    assert contents(snapshot(machine)) == contents(published)


def test_a_transfer_that_ends_early_is_taken_up_where_it_ended(fake: FakeHub, machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    large = bytes(range(256)) * (24 << 12)  # 24 MiB: less than 10 are always begun anew
    repository = fake.add("some/large", tmp_path / "empty", {"config.json": b"{}", "pytorch_model.bin": large})
    repository.faults["pytorch_model.bin"] = ["cut"]
    done = machine.run("model", "pull", "some/large")
    assert (done.code, done.err) == (0, "run `faqsearch model check some/large` to see that it works\n")
    first, second = (item.start for item in fake.requests if (item.method, item.file) == ("GET", "pytorch_model.bin"))
    assert first == 0 < second <= len(large) // 2
    assert (snapshot(machine, "some/large") / "pytorch_model.bin").read_bytes() == large


def test_damaged_files_are_fetched_again(fake: FakeHub, machine: Machine, published: Path) -> None:
    """Files that arrive wrong, and files that came to harm in the cache, whatever their size says."""
    repository = fake.add(FINANCE, published)
    repository.faults["pytorch_model.bin"] = ["wrong"]
    assert machine.run("model", "pull", "finance").code == 0
    assert fake.downloads == sorted([*NEEDED, "pytorch_model.bin"])
    folder = snapshot(machine)
    assert contents(folder) == contents(published)

    fake.requests.clear()
    weights, words, config = (folder / name for name in ("pytorch_model.bin", "vocab.txt", "config.json"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    words.write_bytes(words.read_bytes()[:-100])
    config.write_bytes(b"")
    done = machine.run("model", "pull", "finance")
    assert (done.code, fake.downloads) == (0, ["config.json", "pytorch_model.bin", "vocab.txt"])
    assert contents(folder) == contents(published)


def test_a_small_file_with_other_bytes_of_the_same_size_is_fetched_again(
    fake: FakeHub, machine: Machine, published: Path
) -> None:
    """A vocabulary with two pieces exchanged gives other embeddings, and nothing else would ever tell."""
    fake.add(FINANCE, published).faults["vocab.txt"] = ["wrong"]
    assert machine.run("model", "pull", "finance").code == 0
    assert contents(snapshot(machine)) == contents(published)


def test_files_that_stay_wrong_are_told_and_never_an_encoder(fake: FakeHub, machine: Machine, published: Path) -> None:
    fake.add(FINANCE, published).faults["pytorch_model.bin"] = ["wrong"] * 9
    failed = machine.run("model", "pull", "finance", "--json")
    told = f"{FINANCE}: pytorch_model.bin does not arrive as {fake.url} describes it; pull again"
    assert (failed.failure, failed.json) == (told, {"error": told})
    assert listed(machine)["where"] in ("missing", "incomplete")


def test_a_newer_commit_that_does_not_arrive_leaves_the_older_one_in_service(
    fake: FakeHub, machine: Machine, published: Path
) -> None:
    repository = fake.add(FINANCE, published)
    assert machine.run("model", "pull", "finance").code == 0
    repository.commit = "f" * 40
    repository.files["pytorch_model.bin"] += b"newer"
    repository.faults["pytorch_model.bin"] = ["reset"]
    assert "cannot be downloaded" in machine.run("model", "pull", "finance").failure
    assert listed(machine)["folder"] == str(snapshot(machine))
    newer = machine.run("model", "pull", "finance", "--json").json
    assert newer["revision"] == "f" * 40
    assert listed(machine)["folder"] == newer["folder"] == str(snapshot(machine).with_name("f" * 40))


# --- what cannot be downloaded -------------------------------------------------------------------

NETWORK = "; check the network, or name a mirror in HF_ENDPOINT, and pull again: files that have arrived are kept"


@pytest.mark.parametrize(
    ("ref", "refusal", "told"),
    [
        ("open-domain", None, "{url} has no model " + SOURCES["open-domain"][0] + ", or not for you; check the name,"
         " or set HF_TOKEN"),
        ("some/where@nowhere", None, "{url} has no model some/where, or not for you; check the name, or set HF_TOKEN"),
        ("finance", (403, "GatedRepo"), FINANCE + " asks for its terms to be accepted first; do so on its page, and"
         " set HF_TOKEN"),
        ("finance", (401, "GatedRepo"), FINANCE + " asks for its terms to be accepted first; do so on its page, and"
         " set HF_TOKEN"),
        (f"{FINANCE}@nosuch", None, FINANCE + " has no revision 'nosuch'; see its page for its commits, or name none"),
        ("finance", (500, ""), FINANCE + " cannot be downloaded from {url} (…500…)" + NETWORK),
        ("no/weights", None, "no/weights holds no weights for PyTorch (model.safetensors or pytorch_model.bin)"),
    ],
)  # fmt: skip
def test_what_cannot_be_downloaded_is_one_line_with_its_cure(
    fake: FakeHub, machine: Machine, published: Path, ref: str, refusal: tuple[int, str] | None, told: str
) -> None:
    fake.add(FINANCE, published).refusal = refusal
    fake.add("no/weights", published / "1_Pooling", {"flax_model.msgpack": b"x"})
    failed = machine.run("model", "pull", ref, "--json")
    assert failed.json == {"error": failed.failure}
    before, _, after = told.format(url=fake.url).partition("…500…")
    assert failed.failure.startswith(before), failed.failure
    assert failed.failure.endswith(after), failed.failure
    assert after or failed.failure == before
    assert fake.downloads == []


def test_without_a_network_or_a_cache_one_line_says_so(fake: FakeHub, machine: Machine, published: Path) -> None:
    fake.add(FINANCE, published)
    assert machine.run("model", "pull", "finance", HF_HUB_OFFLINE="1").failure == (
        f"HF_HUB_OFFLINE is set, so {FINANCE} is not downloaded; unset it and run the command again"
    )
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        told = machine.run("model", "pull", "finance", HF_ENDPOINT=nowhere).failure
    assert told.startswith(f"{FINANCE} cannot be downloaded from {nowhere} (")
    assert told.endswith(NETWORK)
    assert fake.requests == []
    file = machine.folder / "file"
    file.write_bytes(b"")
    told = machine.run("model", "pull", "finance", HF_HUB_CACHE=str(file / "hub")).failure
    assert told == f"{file / 'hub'}: Not a directory; make room or set HF_HOME, and pull again"
