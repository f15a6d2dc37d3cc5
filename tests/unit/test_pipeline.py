"""Pipelines: their text, the sections that they write, and models as files."""

from __future__ import annotations

import os
import tracemalloc

import ml_dtypes
import msgspec
import numpy as np
import pytest

from fedpost.codecs import Cast, Dense
from fedpost.compression import Compression
from fedpost.errors import (
    ConfigError,
    DecodeError,
    EncodeError,
    IntegrityError,
    LimitError,
    RegistryError,
    UnsupportedError,
)
from fedpost.frame import DEFAULT_LIMITS, Frame, Limits
from fedpost.pipeline import METADATA, Pipeline, decode_tensors, load_tensors, save_tensors, tensor_sizes
from fedpost.tensors import Fedwt, Npy

TENSORS = {"w": np.arange(5000.0).reshape(50, 100), "b": np.arange(3, dtype=np.float32), "n": np.array(7)}


def same(one, other):
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].dtype == other[name].dtype


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("dense | fedwt | none", "dense | fedwt | none"),
        ("dense|fedwt|zstd", "dense | fedwt | zstd(3)"),
        ("  cast( bfloat16 )  |  numpy |gzip( 9 )", "cast(bfloat16) | numpy | gzip(9)"),
        ("uq(2)", "uq(2) | fedwt | none"),
        ("none", "dense | fedwt | none"),
        ("delta | uq(2) | rc", "uq(2) | fedwt | none"),
        ("delta | topk(0.01) | numpy", "topk(0.01) | numpy | none"),
        ("delta | lx", "delta | fedwt | lx(1)"),
        ("dense | fedwt", "dense | fedwt | none"),
        ("dense | none", "dense | fedwt | none"),
        ("dense | fedwt | zstd(3)", "dense | fedwt | zstd(3)"),
        ("delta | uq(2) | rc | numpy | gzip", "uq(2) | numpy | gzip(6)"),
        ("cast(bfloat16) | delta | lx", "cast(bfloat16) | delta | fedwt | lx(1)"),
        ("cast(bfloat16) | delta | fedwt | none", "cast(bfloat16) | delta | fedwt | none"),
        ('{"a|b": delta | uq(2), "*": none} | zstd', '{"a|b": uq(2), "*": dense} | fedwt | zstd(3)'),
        ('{"\\"}|{": uq(1)}|numpy', '{"\\"}|{": uq(1)} | numpy | none'),
        ("auto(budget=1MB)", "auto(budget=1MB/round) | fedwt | none"),
    ],
)
def test_texts(text, full):
    pipeline = Pipeline.parse(text)
    assert str(pipeline) == full
    assert Pipeline.parse(full) == pipeline


def test_stages():
    pipeline = Pipeline.parse("cast(float16) | numpy | lz4", checksum="xxh3")
    assert pipeline.update == Cast("float16")
    assert isinstance(pipeline.format, Npy)
    assert pipeline.compression == Compression("lz4", 0)
    assert pipeline.checksum == "xxh3"
    default = Pipeline()
    assert default.update == Dense()
    assert isinstance(default.format, Fedwt)
    assert (default.compression, default.checksum) == (None, "blake3")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "'' is not a name with arguments"),
        ("dense | fedwt | none | none", ConfigError, "has 3 stages after its update codec"),
        ("dense | none | fedwt", RegistryError, "unknown format 'none'"),
        ("dense | zstd | zstd", RegistryError, "unknown format 'zstd'"),
        ("dense | fedwd", RegistryError, "unknown format 'fedwd'. Did you mean 'fedwt'?"),
        ("dense | zst", RegistryError, "unknown stage 'zst'. Did you mean 'zstd'?"),
        ("delta | uqq(2)", RegistryError, "unknown stage 'uqq'. Did you mean 'uq'?"),
        ("dense | fedwt | uq(2)", RegistryError, "unknown compression 'uq'"),
        ("uq(2) | delta | fedwt", ConfigError, "'uq(2) | delta' does not fit"),
        ("rc | fedwt", ConfigError, "'rc' does not fit"),
        ("zstd", RegistryError, "unknown update codec 'zstd'"),
        ("uq(2 | fedwt", ConfigError, "does not close a bracket"),
        ("uq(2)) | fedwt", ConfigError, "closes a bracket that is not open"),
        ("|" * 60_000, ConfigError, "is not a name with arguments"),
        ("dens | fedwt | none", RegistryError, "Did you mean 'dense'?"),
        ("dense | fedwd | none", RegistryError, "Did you mean 'fedwt'?"),
        ("dense | fedwt | zst", RegistryError, "Did you mean 'zstd'?"),
        ("fedwt | dense | none", RegistryError, "unknown update codec 'fedwt'"),
        ("dense | fedwt | ", ConfigError, "is not a name with arguments"),
        ("dense | fedwt | zstd(99)", ConfigError, "levels -50 to 22"),
    ],
)
def test_what_is_no_pipeline(text, error, message):
    with pytest.raises(error) as caught:
        Pipeline.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("dense", {"update": {"codec": "dense"}, "format": "fedwt", "compression": "none", "checksum": "blake3"}),
        (
            "uq(2) | numpy | zstd",
            {
                "update": {"codec": "uq", "scale": 2.0},
                "format": "numpy",
                "compression": "zstd(3)",
                "checksum": "blake3",
            },
        ),
    ],
)
def test_configurations(text, config):
    pipeline = Pipeline.parse(text)
    assert pipeline.to_config() == config
    assert Pipeline.from_config(msgspec.json.decode(msgspec.json.encode(config))) == pipeline


def test_what_a_configuration_leaves_out_is_plain():
    assert str(Pipeline.from_config({})) == str(Pipeline())
    assert Pipeline.from_config({"update": "uq(2)", "checksum": "xxh3"}) == Pipeline.parse("uq(2)", checksum="xxh3")
    assert Pipeline.from_config({"update": ["delta", "uq(2)", "rc"]}) == Pipeline.parse("uq(2)")


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"updates": "dense"}, ConfigError, "a pipeline has no 'updates'"),
        ({"format": 3}, ConfigError, "are text"),
        ({"compression": None}, ConfigError, "are text"),
        ({"format": "onnx"}, RegistryError, "unknown format 'onnx'"),
        ({"checksum": "md5"}, RegistryError, "unknown checksum 'md5'"),
        ({"update": {"codec": "uq"}}, ConfigError, "scale"),
    ],
)
def test_what_is_no_configuration(config, error, message):
    with pytest.raises(error, match=message):
        Pipeline.from_config(config)


def test_an_unknown_checksum_is_refused_at_once():
    with pytest.raises(RegistryError, match="unknown checksum"):
        Pipeline(checksum="md5")
    with pytest.raises(RegistryError):
        Pipeline.parse("dense | fedwt | none", checksum="")


def test_sections():
    frame = Pipeline.parse("cast(bfloat16) | fedwt | zstd").encode(TENSORS, {"x": 1})
    assert frame.section_names == ("pipeline", "update", "tensors", "x")
    assert frame.section("pipeline", str) == "cast(bfloat16) | fedwt | zstd(3)"
    assert frame.section("update", dict) == {"widen": {"w": "float64", "b": "float32"}}
    assert Pipeline().encode({}).section_names == ("pipeline", "tensors")


@pytest.mark.parametrize("form", ["fedwt", "numpy"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "lz4"])
@pytest.mark.parametrize("checksum", ["blake3", "none"])
def test_what_goes_in_comes_out(form, compression, checksum):
    frame = Pipeline.parse(f"dense | {form} | {compression}", checksum=checksum).encode(TENSORS)
    same(decode_tensors(Frame.decode(bytes(frame))).arrays(), TENSORS)
    same(decode_tensors(frame).arrays(), TENSORS)  # also the frame that was never bytes


def test_sizes_of_tensors_are_of_what_they_were_and_what_is_stored():
    plain = tensor_sizes(Pipeline().encode(TENSORS))
    assert plain == {"w": (40_000, 40_000), "b": (12, 12), "n": (8, 8)}
    cast = tensor_sizes(Pipeline.parse("cast(bfloat16) | fedwt | none").encode(TENSORS))
    assert cast == {"w": (40_000, 10_000), "b": (12, 6), "n": (8, 8)}
    packed = tensor_sizes(Pipeline.parse("dense | fedwt | zstd").encode({"w": np.zeros(10_000)}))
    assert packed["w"][0] == 80_000
    assert 0 < packed["w"][1] < 200


@pytest.mark.parametrize("name", ["pipeline", "tensors", "update"])
def test_a_section_of_the_pipelines_own_is_not_overwritten(name):
    with pytest.raises(EncodeError):
        Pipeline.parse("cast(bfloat16) | fedwt | none").encode(TENSORS, {name: "mine"})


@pytest.mark.parametrize(
    ("sections", "error", "where"),
    [
        ({}, DecodeError, None),
        ({"pipeline": 1}, DecodeError, "section 'pipeline'"),
        ({"pipeline": "dense | onnx | none"}, UnsupportedError, "pipeline"),
        ({"pipeline": "dense | none | fedwt"}, UnsupportedError, "pipeline"),
        ({"pipeline": "uq(2) | delta"}, UnsupportedError, "pipeline"),
        ({"pipeline": '{"*": {"*": dense}} | fedwt | none'}, UnsupportedError, "pipeline"),
        ({"pipeline": "dense | fedwt | none"}, DecodeError, None),
        ({"pipeline": "|" * 70_000}, LimitError, "section 'pipeline'"),
    ],
)
def test_frames_that_hold_no_tensors(sections, error, where):
    with pytest.raises(error) as caught:
        decode_tensors(Frame.build(sections))
    assert caught.value.where == where


def test_an_unknown_stage_is_named_with_a_hint():
    with pytest.raises(UnsupportedError) as caught:
        decode_tensors(Frame.build({"pipeline": "dense | fedwd | none"}))
    assert caught.value.what == "'dense | fedwd | none': unknown format 'fedwd'"
    assert caught.value.hint == "Did you mean 'fedwt'?"


def test_the_text_does_not_say_how_segments_are_stored():
    """The segment table does; a text that says another compression changes nothing."""
    encoded = Fedwt().encode(TENSORS)
    frame = Frame.build(
        {"pipeline": "dense | fedwt | gzip(1)", **encoded.sections},
        encoded.segments,
        compression=Compression("zstd", 1),
    )
    same(decode_tensors(Frame.decode(bytes(frame))).arrays(), TENSORS)


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_saving_and_loading(tmp_path):
    path = tmp_path / "model.frame"
    size = save_tensors(path, TENSORS, metadata={"task": "digits", "epochs": 3})
    assert path.stat().st_size == size
    same(load_tensors(path), TENSORS)
    assert Frame.open(path).section(METADATA, dict) == {"task": "digits", "epochs": 3}
    save_tensors(path, {"x": np.zeros(1)}, pipeline=Pipeline.parse("dense | numpy | gzip", checksum="crc32c"))
    assert list(load_tensors(path)) == ["x"]
    assert Frame.open(path).section(METADATA, dict) == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.frame"]


def test_nothing_is_left_when_saving_fails(tmp_path):
    path = tmp_path / "model.frame"
    save_tensors(path, TENSORS)
    before = path.read_bytes()
    for tensors, metadata in (({"a": np.array([{}])}, None), (TENSORS, {"x": object()})):
        with pytest.raises(EncodeError):
            save_tensors(path, tensors, metadata=metadata)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_and_loading_do_not_copy(tmp_path):
    tensors = {"w": np.frombuffer(os.urandom(16 << 20), np.float32), "bf": np.zeros(1 << 20, ml_dtypes.bfloat16)}
    path = tmp_path / "model.frame"
    tracemalloc.start()
    save_tensors(path, tensors)
    arrays = load_tensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18
    assert not arrays["w"].flags.writeable
    np.testing.assert_array_equal(arrays["w"].view(np.uint32), tensors["w"].view(np.uint32))


def test_a_loaded_model_outlives_its_file(tmp_path):
    path = tmp_path / "model.frame"
    save_tensors(path, TENSORS)
    arrays = load_tensors(path)
    save_tensors(path, {"other": np.zeros(9000)})
    path.unlink()
    same(arrays, TENSORS)


def test_limits_and_verification_are_the_readers_choice(tmp_path):
    path = tmp_path / "model.frame"
    save_tensors(path, TENSORS)
    with pytest.raises(LimitError):
        load_tensors(path, limits=Limits(max_tensors=2))
    with pytest.raises(LimitError):
        load_tensors(path, limits=Limits(max_frame=1000))
    data = bytearray(path.read_bytes())
    data[data.index(TENSORS["w"].tobytes()) + 3] ^= 1
    path.write_bytes(bytes(data))
    for verify in ("eager", "lazy"):
        with pytest.raises(IntegrityError):
            load_tensors(path, verify=verify)
    assert list(load_tensors(path, verify="never", limits=DEFAULT_LIMITS)) == list(TENSORS)
