"""Files of tensors into files of tensors: nothing is lost on any way, and what is no model is refused by name."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import torch

from fedpost.compression import Compression
from fedpost.conversion import BARE_SUFFIXES, FRAME_SUFFIXES, KINDS, Target, convert, kind_of, open_model, read_blocks
from fedpost.conversion.opening import local_limits
from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    IntegrityError,
    LimitError,
    LocalError,
    RegistryError,
    RemoteError,
    TruncatedError,
    UnsupportedError,
)
from fedpost.pipeline import METADATA, Pipeline, load_tensors, save_tensors
from fedpost.protocol import Envelope, ErrorReport, MessageType, address_message
from fedpost.tensors import FORMATS
from fedpost.tensors.fedwt1 import from_bytes as read_fedwt1
from fedpost.testing.samples import DTYPES, NAMES, SHAPES, assert_same_tensors, memory_layouts, random_array

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MIXTURE = {
    "layer.0.weight": np.random.default_rng(0).normal(size=(300, 100)).astype(np.float32),
    "layer.0.bias": np.zeros(2000, np.float64),
    "half": random_array(BFLOAT16, (70, 60)),
    "eighth": random_array(np.dtype(ml_dtypes.float8_e4m3fn), (33,)),
    "steps": np.array(7, np.int64),
    "none": np.zeros((3, 0), np.float16),
    "sparse": np.array([0] * 9999 + [3], np.int8),
    "a/b": np.arange(9, dtype=np.uint64),
    "mask": np.array([True, False]),
    "phase": random_array(np.dtype(np.complex64), (5, 5)),
}
METADATA_TEXT = {"name": "demo", "who": "north"}
SUFFIXES = {**dict.fromkeys(FRAME_SUFFIXES, "fedwt"), **BARE_SUFFIXES}
CARRIED = {array.dtype for array in MIXTURE.values()}
COMPRESSIONS = ("none", "zstd(3)", "gzip(1)", "lz4(0)", "lx")


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.fedwt"
    save_tensors(path, MIXTURE, metadata=METADATA_TEXT)
    return path


def kind_for(path):
    return "protobuf" if path.suffix == ".pb" else None


def arrays(path):
    return open_model(path, kind=kind_for(path)).source.arrays()


def made(source, name, **options):
    """Convert beside the source, compared bit for bit; the path."""
    path = source.with_name(name)
    settings = {key: options.pop(key) for key in ("format", "framed", "compression", "checksum") if key in options}
    convert(source, path, Target.for_path(path, **settings), kind=kind_for(source), check=True, **options)
    return path


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# ── every way ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("first", "second"), list(itertools.product(SUFFIXES, repeat=2)))
def test_every_kind_of_file_into_every_other(model, first, second):
    one = made(model, f"one{first}")
    assert_same_tensors(arrays(one), MIXTURE)
    other = made(one, f"other{second}")
    assert_same_tensors(arrays(other), MIXTURE)
    assert open_model(other, kind=kind_for(other)).metadata == METADATA_TEXT


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_frame_has_the_bytes_that_the_pipeline_makes(model, name, compression):
    path = made(model, "out.frame", format=name, compression=compression)
    meant = Pipeline.parse(f"dense | {name} | {compression}").encode(MIXTURE, {METADATA: METADATA_TEXT})
    assert path.read_bytes() == bytes(meant)
    assert_same_tensors(load_tensors(path), MIXTURE)
    assert made(path, "again.fedwt").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("checksum", ["sha256", "xxh3", "crc32c", "none"])
def test_the_checksum_is_the_one_asked_for(model, checksum):
    path = made(model, "out.frame", checksum=checksum, compression="zstd")
    meant = Pipeline.parse("dense | fedwt | zstd", checksum=checksum).encode(MIXTURE, {METADATA: METADATA_TEXT})
    assert path.read_bytes() == bytes(meant)


@pytest.mark.parametrize("compression", ["zstd(1)", "lx", "lz4"])
def test_segments_of_many_batches(tmp_path, compression):
    """A tensor may shrink in one batch only; small ones fill batches together."""
    random = np.frombuffer(np.random.default_rng(0).bytes(18 << 20), np.uint8)
    tensors = {
        "noise": random,
        "noise first": np.concatenate([random, np.zeros(17 << 20, np.uint8)]),
        "noise last": np.concatenate([np.zeros((16 << 20) + 5, np.uint8), random[: 1 << 20]]),
        **{f"small {index}": np.full(2000, index, np.float32) for index in range(3000)},
    }
    path = tmp_path / "in.fedwt"
    save_tensors(path, tensors)
    out = made(path, "out.fedwt", compression=compression)
    with out.open("rb") as file:
        assert file.read() == bytes(Pipeline.parse(f"dense | fedwt | {compression}").encode(tensors, {METADATA: {}}))
    assert_same_tensors(arrays(made(out, "back.safetensors")), tensors)


def refusal(source, name, options):
    """Convert; the error where a tensor cannot be carried."""
    try:
        made(source, name, **options)
    except EncodeError as error:
        return error
    return None


@pytest.mark.parametrize("suffix", [*SUFFIXES, "numpy", "zstd"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_element_type_arrives_or_is_refused_by_name(tmp_path, suffix, shape):
    options = {"numpy": {"format": "numpy"}, "zstd": {"compression": "zstd"}}.get(suffix, {})
    suffix = ".frame" if options else suffix
    every = {str(index): random_array(dtype, shape) for index, dtype in enumerate(DTYPES)}
    source = tmp_path / "in.fedwt"
    save_tensors(source, every)
    while (refused := refusal(source, f"out{suffix}", options)) is not None:
        assert suffix == ".safetensors", refused
        name = refused.where.removeprefix("tensor ").strip("'")
        assert every.pop(name).dtype not in CARRIED
        assert "has no name for element type" in refused.what
        assert [file.name for file in tmp_path.iterdir()] == ["in.fedwt"]
        save_tensors(source, every)
    path = tmp_path / f"out{suffix}"
    assert len(every) > 12
    assert len(every) == len(DTYPES) or suffix == ".safetensors"
    assert_same_tensors(arrays(path), every)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_and_layouts_arrive(tmp_path, suffix):
    odd = set("\0") if suffix == ".npz" else set()
    tensors = {name: np.array([index]) for index, name in enumerate(NAMES) if not odd & set(name)}
    source = tmp_path / "in.fedwt"
    save_tensors(source, tensors | memory_layouts())
    assert_same_tensors(arrays(made(source, f"out{suffix}")), tensors | memory_layouts())
    squeezed = made(source, "squeezed.fedwt", compression="zstd")
    assert_same_tensors(arrays(made(squeezed, f"again{suffix}")), tensors | memory_layouts())


@pytest.mark.parametrize(
    ("names", "wrong"), [(["a\0b"], "a\\x00b"), (["a.npy", "a"], "a.npy"), (["x" * 70000], "xxx")], ids=range(3)
)
def test_names_that_an_archive_cannot_have(tmp_path, names, wrong):
    save_tensors(tmp_path / "in.fedwt", {name: np.zeros(1) for name in names})
    with pytest.raises(EncodeError, match="tensor ") as caught:
        made(tmp_path / "in.fedwt", "out.npz")
    assert wrong in caught.value.where
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.fedwt"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_of_nothing(tmp_path, suffix):
    save_tensors(tmp_path / "in.fedwt", {})
    path = tmp_path / f"out{suffix}"
    if suffix == ".pb":  # no byte at all, which cannot be told from a file that was cut to nothing
        with pytest.raises(DecodeError, match="empty"):
            made(tmp_path / "in.fedwt", path.name)
        return
    made(tmp_path / "in.fedwt", path.name)
    assert arrays(path) == {}
    assert load_tensors(made(path, "back.fedwt")) == {}


def test_a_cast_is_undone(tmp_path):
    tensors = {"w": np.linspace(0, 1, 5000, dtype=np.float64), "n": np.array(3)}
    source = tmp_path / "in.fedwt"
    save_tensors(source, tensors, pipeline=Pipeline.parse("cast(bfloat16) | fedwt | zstd"))
    path = made(source, "out.safetensors")
    assert_same_tensors(arrays(path), load_tensors(source))
    assert arrays(path)["w"].dtype == np.float64


# ── what other programs write and read ───────────────────────────────────────────────────────────────────────────────


def test_other_programs_read_what_is_written(model):
    simple = {name: array for name, array in MIXTURE.items() if array.dtype.kind in "fiu"}
    save_tensors(model.with_name("simple.fedwt"), simple)
    found = safetensors.numpy.load_file(made(model.with_name("simple.fedwt"), "m.safetensors"))
    assert_same_tensors(dict(sorted(found.items())), dict(sorted(simple.items())))
    with safetensors.safe_open(made(model, "all.safetensors"), "pt") as opened:
        assert sorted(opened.keys()) == sorted(MIXTURE)
        assert opened.metadata() == METADATA_TEXT
        assert opened.get_tensor("half").view(torch.int16).numpy().tobytes() == MIXTURE["half"].tobytes()
    for path in (made(model, "m.npz"), made(model, "d.npz", compression="gzip(9)")):
        with np.load(path, allow_pickle=False) as archive:
            assert archive.files == list(MIXTURE)
            assert_same_tensors({name: archive[name] for name in simple}, simple)
            assert archive["half"].view(BFLOAT16).tobytes() == MIXTURE["half"].tobytes()
        assert zipfile.ZipFile(path).testzip() is None
    packed = msgpack.unpackb(made(model, "m.msgpack").read_bytes())
    assert packed["names"] == list(MIXTURE)
    assert packed["data"][0] == MIXTURE["layer.0.weight"].tobytes()
    assert json.loads(made(model, "m.json").read_text())["metadata"] == METADATA_TEXT
    assert_same_tensors(read_fedwt1(made(model, "m.fedwt1").read_bytes())[0], MIXTURE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_numpy_are_read(tmp_path, save):
    tensors = {
        "C": np.arange(60000, dtype=np.float32).reshape(200, 300),
        "Fortran": np.asfortranarray(np.arange(60000, dtype=">i4").reshape(200, 300)),
        "scalar": np.array(3.5),
        "nothing": np.zeros((0, 4), np.uint8),
        "fields": np.zeros(5, [("x", "<f4", (3,)), ("y", [("z", "S3")])]),
        "time": np.array(["2020-01-01"], "M8[D]"),
        "text": np.array(["a", "é"]),
        "raw": np.zeros(3, "V7"),
    }
    save(tmp_path / "in.npz", **tensors)
    assert_same_tensors(arrays(tmp_path / "in.npz"), tensors)
    assert_same_tensors(arrays(made(tmp_path / "in.npz", "out.fedwt", compression="zstd")), tensors)


def test_files_of_safetensors_are_read(tmp_path):
    tensors = {"b": np.arange(12, dtype=np.float16).reshape(3, 4), "a": np.arange(3)}
    safetensors.numpy.save_file(tensors, tmp_path / "in", metadata={"format": "np"})
    opened = open_model(tmp_path / "in")
    assert (opened.kind, opened.metadata) == ("safetensors", {"format": "np"})
    assert_same_tensors(dict(sorted(opened.source.arrays().items())), dict(sorted(tensors.items())))


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────

RICH = {"round": 3, "name": "demo", "raw": b"\0\1", "nested": {"loss": [0.5, None]}, "fedpost": "x"}


@pytest.mark.parametrize(
    ("suffix", "kept", "notes"),
    [
        (".fedwt", RICH, []),
        (".msgpack", RICH, []),
        (".json", {key: RICH[key] for key in ("round", "name", "nested", "fedpost")}, ["'raw' is lost"]),
        (".npz", {key: RICH[key] for key in ("round", "name", "nested", "fedpost")}, ["'raw' is lost"]),
        (
            ".fedwt1",
            {key: RICH[key] for key in ("round", "name", "nested")},
            ["'raw' is lost", "'fedpost' is lost"],
        ),
        (
            ".safetensors",
            {"round": "3", "name": "demo", "nested": '{"loss": [0.5, null]}', "fedpost": "x"},
            ["'round' is written as text", "'raw' is lost", "'nested' is written as text"],
        ),
    ],
)
def test_metadata_is_kept_or_its_loss_is_told(tmp_path, suffix, kept, notes):
    save_tensors(tmp_path / "in.fedwt", {"w": np.zeros(3)}, metadata=RICH)
    path = tmp_path / f"out{suffix}"
    done = convert(tmp_path / "in.fedwt", path, Target.for_path(path), check=True)
    assert open_model(path).metadata == kept
    assert [note for note, part in zip(done.notes, notes, strict=True) if part not in note] == []


def test_metadata_that_no_reader_takes_is_left_out(tmp_path):
    much = {"log": "x" * 2_000_000}
    safetensors.numpy.save_file({"w": np.zeros(3)}, tmp_path / "in.safetensors", metadata=much)
    for suffix in (".fedwt", ".npz", ".msgpack", ".json"):
        path = tmp_path / f"out{suffix}"
        done = convert(tmp_path / "in.safetensors", path, Target.for_path(path), check=True)
        assert "the metadata is lost: " in done.notes[0]
        assert open_model(path).metadata == {}
    path = tmp_path / "out.safetensors"
    assert convert(tmp_path / "in.safetensors", path, Target.for_path(path)).notes == []


def test_a_message_without_tensors_is_told_from_a_model(tmp_path):
    head = Envelope.new(MessageType.ERROR_REPORT, sender="north", recipient="server", run="r-1", round=2)
    (tmp_path / "in.frame").write_bytes(bytes(address_message(head, ErrorReport(reason="no disk"))))
    with pytest.raises(DecodeError, match=r"in\.frame: a frame without tensors"):
        open_model(tmp_path / "in.frame")


def test_what_is_beside_the_tensors_is_told(tmp_path):
    frame = Pipeline().encode({"w": np.zeros(3)}, {"envelope": {"sender": "north"}, METADATA: {}})
    (tmp_path / "in.frame").write_bytes(bytes(frame))
    path = tmp_path / "out.npz"
    assert "'envelope' is lost" in convert(tmp_path / "in.frame", path, Target.for_path(path)).notes[0]


# ── targets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "options", "meant"),
    [
        ("a.fedwt", {}, Target("fedwt")),
        ("a.frame", {"format": "numpy"}, Target("numpy")),
        ("a.safetensors", {}, Target("safetensors", framed=False)),
        ("A.NPZ", {}, Target("numpy", framed=False)),
        ("a.npz", {"compression": "gzip(9)"}, Target("numpy", framed=False, compression=Compression("gzip", 9))),
        ("a.pb", {}, Target("protobuf", framed=False)),
        ("a.safetensors", {"framed": True}, Target("fedwt")),
        ("a.safetensors", {"framed": True, "format": "safetensors"}, Target("safetensors")),
        ("a.bin", {"format": "fedwt1"}, Target("fedwt1")),
        ("a.bin", {"format": "fedwt1", "framed": False}, Target("fedwt1", framed=False)),
        ("a", {"framed": True, "compression": "zstd"}, Target("fedwt", compression=Compression("zstd", 3))),
    ],
)
def test_a_suffix_says_what_was_not_said(name, options, meant):
    assert Target.for_path(Path(name), **options) == meant


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.bin", {}, ConfigError, "does not say what to write.*--format"),
        ("a", {}, ConfigError, "does not say what to write"),
        ("a.npz", {"format": "fedwt"}, ConfigError, r"\.npz is a file of the format numpy, not fedwt"),
        ("a.npz", {"compression": "zstd"}, ConfigError, "an .npz has gzip alone"),
        ("a.safetensors", {"compression": "zstd"}, ConfigError, "only a frame is compressed.*--frame"),
        ("a.safetensors", {"checksum": "sha256"}, ConfigError, "no digests.*--frame"),
        ("a.fedwt", {"framed": False}, ConfigError, "no file without a frame"),
        ("a.fedwt", {"format": "fedwtt"}, RegistryError, "unknown format"),
        ("a.fedwt", {"compression": "zst"}, RegistryError, "unknown compression"),
        ("a.fedwt", {"compression": "zstd(99)"}, ConfigError, "levels"),
        ("a.fedwt", {"checksum": "md5"}, RegistryError, "unknown checksum"),
    ],
)
def test_targets_that_cannot_be(name, options, error, message):
    with pytest.raises(error, match=message):
        Target.for_path(Path(name), **options)


# ── the file that appears ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_is_replaced_only_when_asked(model):
    path = model.with_name("out.npz")
    path.write_bytes(b"precious")
    with pytest.raises(ConfigError, match=r"out\.npz: the file is there already.*--force"):
        convert(model, path, Target.for_path(path))
    assert path.read_bytes() == b"precious"
    convert(model, path, Target.for_path(path), force=True)
    assert_same_tensors(arrays(path), MIXTURE)
    assert left_over(model.parent) == []


def test_a_file_that_comes_meanwhile_is_not_replaced(model):
    path = model.with_name("out.npz")

    def somebody_else(_what, _done, _total):
        path.write_bytes(b"precious")

    with pytest.raises(ConfigError, match="is there already"):
        convert(model, path, Target.for_path(path), progress=somebody_else)
    assert path.read_bytes() == b"precious"
    assert left_over(model.parent) == []


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_file_can_become_another_in_its_own_place(model, compression):
    link = model.with_name("link.fedwt")
    link.symlink_to(model)
    for source, path in ((model, model), (model, link), (link, model)):
        target = Target.for_path(path, compression=compression)
        with pytest.raises(ConfigError, match="is there already"):
            convert(source, path, target)
        convert(source, path, target, force=True, check=True)
        assert_same_tensors(load_tensors(model), MIXTURE)
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["out.safetensors", "out.npz", "out.fedwt", "zstd.fedwt"])
@pytest.mark.parametrize("phase", ["reading", "compressing", "writing", "checking"])
def test_an_interruption_leaves_what_was_there(tmp_path, name, phase):
    source = tmp_path / "in.fedwt"
    tensors = {"w": np.repeat(np.arange(50_000, dtype=np.float32), 100)}
    save_tensors(source, tensors, pipeline=Pipeline.parse("dense | fedwt | lz4"))
    path = tmp_path / name
    path.write_bytes(b"precious")
    target = Target.for_path(path, compression="zstd(1)" if name.startswith("zstd") else "none")
    seen = []

    def interrupt(what, _done, _total):
        seen.append(what)
        if what == phase:
            raise KeyboardInterrupt

    try:
        convert(source, path, target, force=True, check=True, progress=interrupt)
    except KeyboardInterrupt:
        assert path.read_bytes() == b"precious"
        assert left_over(tmp_path) == []
    else:
        assert phase not in seen
        assert (phase, target.compression) == ("compressing", None)


def nameless(folder):
    """The file without a name in a folder that this process has open to write what is unfinished."""
    open_files = [path for path in Path("/proc/self/fd").iterdir() if os.path.lexists(path)]
    return next(path for path in open_files if is_nameless(path, folder))


def is_nameless(path, folder):
    try:
        return path.readlink().name.startswith("#") and path.readlink().parent == folder
    except FileNotFoundError:  # the listing's own
        return False


def test_a_check_finds_what_the_disk_made_of_it(tmp_path):
    source, path = tmp_path / "in.fedwt", tmp_path / "out.safetensors"
    save_tensors(source, {"w": np.ones(5_000_000, np.float32)})

    def damage(what, _done, _total):
        if what == "writing":
            with nameless(tmp_path).open("r+b") as file:
                file.seek(1000)
                file.write(b"\xff")

    with pytest.raises(LocalError, match="tensor 'w': the result does not hold the same values"):
        convert(source, path, Target.for_path(path), check=True, progress=damage)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.fedwt"]
    convert(source, path, Target.for_path(path), progress=damage)  # nobody looked
    assert not np.array_equal(arrays(path)["w"], np.ones(5_000_000))


KILLED = """
import os, signal, sys
from pathlib import Path
from fedpost.conversion import Target, convert
path = Path(sys.argv[2])
def kill(what, done, total):
    if what == "writing":
        os.kill(os.getpid(), signal.SIGKILL)
convert(Path(sys.argv[1]), path, Target.for_path(path), force=True, progress=kill)
"""


@pytest.mark.parametrize("name", ["out.npz", "out.fedwt", "out.safetensors"])
@pytest.mark.parametrize("there", [False, True])
def test_a_kill_leaves_nothing_beside_the_result(model, name, there):
    path = model.with_name(name)
    if there:
        path.write_bytes(b"precious")
    before = sorted(file.name for file in model.parent.iterdir())
    done = subprocess.run([sys.executable, "-c", KILLED, model, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(file.name for file in model.parent.iterdir()) == before
    assert not there or path.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["out.npz", "out.fedwt", "out.safetensors"])
def test_a_file_system_that_cannot_do_without_names(model, name, monkeypatch):
    path = model.with_name(name)
    monkeypatch.delattr(os, "O_TMPFILE")
    convert(model, path, Target.for_path(path), check=True)
    with pytest.raises(ConfigError, match="is there already"):
        convert(model, path, Target.for_path(path))
    convert(model, path, Target.for_path(path), check=True, force=True)
    assert_same_tensors(arrays(path), MIXTURE)
    assert left_over(model.parent) == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("letter", ["x", "é", "名"])
def test_a_name_as_long_as_can_be(model, letter, links, monkeypatch):
    if not links:
        monkeypatch.delattr(os, "O_TMPFILE")
    name = letter * (249 // len(letter.encode())) + ".fedwt"
    path = model.with_name(name)
    for _ in range(2):
        convert(model, path, Target(), force=True, check=True)
    assert_same_tensors(load_tensors(path), MIXTURE)
    assert left_over(model.parent) == []


def test_reading_takes_no_room_beside_the_file(tmp_path, monkeypatch):
    """What a compressed archive holds goes to the folder for temporary files, and an error names that one."""
    (tmp_path / "readers").mkdir()
    np.savez_compressed(tmp_path / "in.npz", w=np.arange(10_000.0))
    used = []
    honest = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **given: used.append(given["dir"]) or honest(**given))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "readers"))
    assert open_model(tmp_path / "in.npz").source.read("w", 7, 8) == [7.0]
    assert used == [None]  # the folder for temporary files
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="TMPDIR names another folder") as caught:
        open_model(tmp_path / "in.npz")
    assert caught.value.filename == str(tmp_path / "gone")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_fields_with_names_beyond_latin_1(tmp_path, save):
    """NumPy writes version 3 of its format for them."""
    odd = np.zeros((4, 3), [("é→", "<f4"), ("名", ">i2", (2,))])
    odd["é→"] = np.arange(12).reshape(4, 3)
    given = {"before": np.arange(5), "odd": odd, "turned": np.asfortranarray(odd), "after": np.ones(2, np.float32)}
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        save(tmp_path / "in.npz", **given)
    assert b"\x93NUMPY\x03" in (tmp_path / "in.npz").read_bytes() or save is np.savez_compressed
    assert_same_tensors(load_tensors(made(tmp_path / "in.npz", "out.fedwt")), given)


V3 = b"{'descr': [('\xe2\x86\x92', '<f4')], 'fortran_order': False, 'shape': (2,), }\n"


@pytest.mark.parametrize(
    ("text", "length", "error", "message"),
    [
        (V3.replace(b"\x86", b"X"), None, DecodeError, "no UTF-8"),
        (V3.replace(b"(2,)", b"(3,)"), None, DecodeError, "does not fit"),
        (V3.replace(b"(2,)", b"(9**9,)"), None, DecodeError, "not a .npy file"),
        (V3.replace(b"False", b"0"), None, DecodeError, "not a .npy file"),
        (V3.replace(b"<f4", b"|O"), None, UnsupportedError, "cannot be put in a frame"),
        (V3, len(V3) + 1, DecodeError, "not a .npy file"),
    ],
    ids=range(6),
)
def test_hostile_members_of_version_3(tmp_path, text, length, error, message):
    content = b"\x93NUMPY\3\0" + struct.pack("<I", len(text) if length is None else length) + text + bytes(8)
    good = b"\x93NUMPY\3\0" + struct.pack("<I", len(V3)) + V3 + bytes(8)
    assert open_model(archive(tmp_path / "good.npz", {"w.npy": good})).source.specs[0].dtype.names == ("→",)
    with pytest.raises(error, match=message) as caught:
        open_model(archive(tmp_path / "in.npz", {"w.npy": content}))
    assert "'w" in caught.value.where


@pytest.mark.parametrize("name", ["no/such/out.npz", "folder.npz"])
def test_a_place_where_no_file_can_be(model, name):
    model.with_name("folder.npz").mkdir()
    path = model.parent / name
    with pytest.raises(ConfigError):
        convert(model, path, Target.for_path(path), force=True)


# ── files that are no model ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"layer.weight = [1, 2, 3]\n", "none begins with b'layer.we'"),
        (b"\x80\x04\x95" + bytes(100), "it is a Python pickle"),
        (b"\x93NUMPY\1\0" + bytes(100), r"a single \.npy array"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(100), "gunzip it first"),
        (b"PK\3\4" + bytes(100), "no directory: it is cut off"),
        (b"FEDWT001", "bytes are promised"),
        (b"FEDWT001" + bytes(8) + b"x", "not JSON"),
        (b'{"a": 1}', "its members are not"),
        (b"\x86\xa1a\x01", "unknown field `a`"),
        (struct.pack("<Q", 50) + b'{"w"', "do not fit"),
        (struct.pack("<Q", 2) + b"{}more", "bytes follow"),
    ],
)
def test_what_it_is_not_and_which_file(tmp_path, content, message):
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=message) as caught:
        convert(path, tmp_path / "out.fedwt", Target())
    assert caught.value.where.startswith(str(path))
    assert str(caught.value).count(str(path)) == 1
    if kind_of_or_none(path) is None and content:
        assert all(kind in caught.value.hint for kind in KINDS)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def kind_of_or_none(path):
    return kind_of(path) if path.stat().st_size else None


def test_a_kind_that_is_none(model):
    with pytest.raises(ConfigError, match="unknown kind 'zip'"):
        open_model(model, kind="zip")
    with pytest.raises(DecodeError, match=r"model\.fedwt: "):
        open_model(model, kind="protobuf")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_is_refused(model, suffix):
    path = made(model, f"cut{suffix}")
    data = path.read_bytes()
    for keep in (1, 7, 20, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(DecodeError) as caught:
            convert(path, model.with_name("out.fedwt"), Target(), kind=kind_for(path))
        assert str(path) in caught.value.where
    assert not model.with_name("out.fedwt").exists()


@pytest.mark.parametrize("suffix", [".fedwt", "zstd", ".npz", "deflated"])
def test_a_flipped_bit_is_found(model, suffix):
    options = {"zstd": {"compression": "zstd"}, "deflated": {"compression": "gzip(1)"}}.get(suffix, {})
    path = made(model, {"zstd": "in.fedwt", "deflated": "in.npz"}.get(suffix, f"in{suffix}"), **options)
    data = path.read_bytes()
    inside = data.index(MIXTURE["layer.0.weight"].tobytes()[:64]) if not options else len(data) // 3
    for place in (inside, inside + 5000):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        with pytest.raises(DecodeError) as caught:
            convert(path, model.with_name("out.fedwt"), Target())
        assert str(path) in caught.value.where
        if not options:
            assert isinstance(caught.value, IntegrityError)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "deflated"])
def test_a_file_with_bytes_changed_is_a_model_or_refused(model, suffix):
    """Whatever a byte becomes: no other error, and every tensor can be read."""
    small = {name: array[:3] if array.ndim else array for name, array in MIXTURE.items() if array.nbytes < 20_000}
    save_tensors(model, small, metadata=METADATA_TEXT)
    options = {"compression": "gzip(1)"} if suffix == "deflated" else {}
    path = made(model, "in.npz" if options else f"in{suffix}", **options)
    random, data, refused = np.random.default_rng(0), path.read_bytes(), 0
    for _ in range(300):
        changed = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            changed[place] = random.choice([0, 1, 127, 128, 255])
        path.write_bytes(changed)
        try:
            opened = open_model(path, kind=kind_for(path))
            for spec in opened.source.specs:
                assert sum(block.size for block in read_blocks(opened.source, spec)) == spec.size
        except RemoteError:
            refused += 1
    assert refused > 30


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def npy(array, **replacements):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    content = out.getvalue()
    for old, new in replacements.items():
        content = content.replace(old.encode(), new)
    return content


def with_descr(descr):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode("latin1")
    return b"\x93NUMPY\2\0" + struct.pack("<I", len(text)) + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (npy(np.array([{}])), UnsupportedError, "a pickle, which can run code"),
        (with_descr("[('x', '|O')]"), UnsupportedError, "cannot be put in a frame"),
        (with_descr("__import__('os').getpid()"), UnsupportedError, "unknown element type"),
        (with_descr("[" * 4000 + "]" * 4000), UnsupportedError, "unknown element type"),
        (with_descr("[('x', '<f4', (999999999999999,))]"), DecodeError, "element type"),
        (with_descr("'<q9'"), UnsupportedError, "unknown element type"),
        (with_descr("'<f4'"), DecodeError, "does not fit"),
        (b"\x93NUMPY" + bytes(50), DecodeError, "not a .npy file"),
        (b"", DecodeError, "not a .npy file"),
        (npy(np.zeros(3))[:-1], DecodeError, "does not fit"),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_hostile_members(tmp_path, content, error, message, compression):
    path = archive(tmp_path / "in.npz", {"w.npy": content}, compression=compression)
    with pytest.raises(error, match=message) as caught:
        open_model(path)
    assert "'w" in caught.value.where


def test_archives_that_are_no_archives_of_arrays(tmp_path):
    with pytest.raises(UnsupportedError, match=r"member 'readme\.txt': it is no \.npy file"):
        open_model(archive(tmp_path / "a.npz", {"readme.txt": b"hello"}))
    with pytest.raises(UnsupportedError, match="a PyTorch checkpoint is a pickle"):
        open_model(archive(tmp_path / "b.pt", {"b/data.pkl": b"", "b/data/0": bytes(8)}))
    with pytest.raises(UnsupportedError, match="compression 12 is not NumPy's"):
        open_model(archive(tmp_path / "c.npz", {"w.npy": npy(np.zeros(9))}, compression=zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as file:
        file.writestr("w.npy", npy(np.zeros(3)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("w.npy", npy(np.ones(3)))
    with pytest.raises(DecodeError, match="names are not one for each"):
        open_model(tmp_path / "d.npz")


def test_an_archive_lies_about_its_members(tmp_path):
    path = archive(tmp_path / "in.npz", {"a.npy": npy(np.zeros(50)), "b.npy": npy(np.zeros(50))})
    data = path.read_bytes()
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    path.write_bytes(data[: second + 42] + struct.pack("<I", 4) + data[second + 46 :])  # inside the first one
    with pytest.raises(DecodeError):
        open_model(path)
    path.write_bytes(data[: first + 8] + b"\1\0" + data[first + 10 :])
    with pytest.raises(UnsupportedError, match=r"member 'a\.npy': it is encrypted"):
        open_model(path)
    path.write_bytes(data[: first + 24] + struct.pack("<I", 10) + data[first + 28 :])
    with pytest.raises(UnsupportedError, match=r"member 'a\.npy'"):
        open_model(path)


def test_bombs_are_refused_before_they_go_off(tmp_path):
    zeros = npy(np.zeros(2_000_000))
    path = archive(tmp_path / "in.npz", {"w.npy": zeros}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < len(zeros) / 900
    tight = local_limits(path.stat().st_size)
    with pytest.raises(LimitError, match=r"in\.npz: member 'w\.npy'"):
        open_model(path, limits=type(tight)(max_ratio=100))
    with pytest.raises(LimitError, match="arrays of more than the 1000000 bytes"):
        open_model(path, limits=type(tight)(max_raw=1_000_000))
    frame = tmp_path / "in.frame"
    save_tensors(frame, {"w": np.zeros(2_000_000)}, pipeline=Pipeline.parse("dense | fedwt | zstd"))
    with pytest.raises(LimitError, match=r"in\.frame: segment 0: .*ratio over 100"):
        open_model(frame, limits=type(tight)(max_ratio=100))
    data = bytearray(path.read_bytes())
    end = data.index(b"PK\5\6")
    data[end + 10 : end + 16] = struct.pack("<HI", 60000, 0xF0000000)  # members, and bytes of the directory
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"in\.npz"):
        open_model(path)


def test_a_member_that_grows_beyond_its_promise_is_stopped(tmp_path):
    path = archive(tmp_path / "in.npz", {"w.npy": npy(np.zeros(200_000))}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(DecodeError, match="does not come to its 1000 bytes"):
        open_model(path)


@pytest.mark.parametrize("suffix", [".msgpack", ".json", ".pb"])
def test_formats_that_are_written_whole_have_a_limit(tmp_path, suffix):
    """The file is sparse: it takes no room, and nothing of it is read."""
    source = tmp_path / "in.safetensors"
    size = (1 << 30) + 4
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with source.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    path = tmp_path / f"out{suffix}"
    with pytest.raises(EncodeError, match="is written whole, and 1073741828 bytes are more than"):
        convert(source, path, Target.for_path(path))


@pytest.mark.parametrize(("mark", "kind"), [(b"\x86", "msgpack"), (b'{"', "json_base64"), (b"\x12", "protobuf")])
def test_formats_that_are_read_whole_have_a_limit(tmp_path, mark, kind):
    path = tmp_path / "in"
    with path.open("wb") as file:
        file.write(mark)
        file.truncate((1 << 31) + 1)
    with pytest.raises(LimitError, match=f"{kind} is read whole"):
        open_model(path, kind="protobuf" if kind == "protobuf" else None)


def test_a_result_says_what_was_done(model):
    path = model.with_name("out.fedwt")
    done = convert(model, path, Target.for_path(path, compression="zstd"), check=True)
    raw = sum(array.nbytes for array in MIXTURE.values())
    assert (done.tensors, done.raw, done.checked, done.notes) == (len(MIXTURE), raw, True, [])
    assert (done.source.kind, done.source.encoding, done.source.bytes) == (
        "frame",
        "dense | fedwt | none",
        model.stat().st_size,
    )
    assert (done.target.kind, done.target.encoding, done.target.bytes) == (
        "frame",
        "dense | fedwt | zstd(3)",
        path.stat().st_size,
    )
    assert done.ratio == pytest.approx(raw / path.stat().st_size)
    assert done.mb_per_second == pytest.approx(raw / 1e6 / done.seconds)


def test_truncation_is_told_as_such(model):
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(TruncatedError, match=r"model\.fedwt: the frame ends at byte"):
        open_model(model)
