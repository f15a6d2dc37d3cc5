"""Texts and notes of pipelines that lie, with right digests: chains, patterns, and steps that were picked.

Whatever they are: a decode error, or the tensors that were sent, and no memory or time for nothing.
"""

from __future__ import annotations

import random
import tracemalloc

import msgspec
import numpy as np
import pytest

from fedpost.codecs import Base, codec_of, parse_codec
from fedpost.errors import ConfigError, DecodeError, EncodeError, FedpostError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, picked, pipeline_of, tensor_sizes
from fedpost.tensors import Fedwt
from fedpost.testing.samples import damaged

PATTERNS = '{"*.bias": dense, "a.*": uq(1), "b.*": cast(bfloat16) | delta, "*": auto(budget=2kB/round)}'
SPECS = ["cast(bfloat16) | delta", "cast(float16) | eden(2)", "auto(budget=2kB/round)", PATTERNS, '{"a.*": int8}']
SHAPES = {"a.w": (30, 20), "a.bias": (20,), "b.w": (9, 8), "c.w": (12, 11), "c.n": ()}
NEW = {
    name: np.random.default_rng(seed).laplace(size=shape).astype(np.float32)
    for seed, (name, shape) in enumerate(SHAPES.items())
}
KINDS = {name: (array.dtype, array.shape) for name, array in NEW.items()}
BASE = Base.of({name: np.zeros_like(array) for name, array in NEW.items()})


def forged(spec, notes=None, tensors=None, text=None):
    """A frame with right digests of whatever is given; the rest is as it should be."""
    encoding = parse_codec(spec).encode(NEW, BASE)
    encoded = Fedwt().encode({**encoding.tensors, **(tensors or {})})
    sections = {
        "pipeline": f"{spec} | fedwt | none" if text is None else text,
        "update": encoding.notes if notes is None else notes,
        **encoded.sections,
    }
    return Frame.decode(bytes(Frame.build(sections, encoded.segments)))


def notes_of(spec):
    """As they come out of a frame."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(parse_codec(spec).encode(NEW, BASE).notes))


def read(frame):
    """Every tensor, by range and whole."""
    source = decode_tensors(frame, base=BASE)
    got = {spec.name: source.read(spec.name, 0, spec.size).reshape(spec.shape) for spec in source.specs}
    assert list(got) == list(SHAPES)
    whole = source.arrays()
    assert all(whole[name].tobytes() == array.tobytes() for name, array in got.items())
    return got


def tried(frame):
    """What was read, or None where it was refused."""
    try:
        return read(frame)
    except DecodeError:
        return None


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_true_is_read(spec):
    for name, array in read(forged(spec)).items():
        assert np.isfinite(array).all(), name


@pytest.mark.parametrize("spec", SPECS)
def test_any_note_that_is_damaged(spec):
    """At any depth. What is not refused is told from what was sent by its kinds, or it is a list of names alone."""
    good = notes_of(spec)
    refused = 0
    for wrong in damaged(good):
        try:
            frame = forged(spec, wrong)
        except EncodeError:  # beyond what MessagePack holds
            continue
        got = tried(frame)
        refused += got is None
        if got is not None and {name: (array.dtype, array.shape) for name, array in got.items()} == KINDS:
            assert all(np.isfinite(array).all() for array in got.values())
    assert refused > 20


@pytest.mark.parametrize("spec", SPECS)
def test_any_note_that_is_missing(spec):
    good = notes_of(spec)
    for name in good:
        with pytest.raises(DecodeError):
            read(forged(spec, {key: note for key, note in good.items() if key != name}))


@pytest.mark.parametrize(
    "counts",
    [
        *([1, 1, 1], [1, 1, 1, 2, 1], [2, 1, 1, 1], [1, 1, 1, 3], [0, 0, 0, 0], [-1, 1, 1, 2], [1.0, 1, 1, 2], []),
        *([True, 1, 1, 2], None, 4, "1112", b"\1\1\1\2", [[1, 1, 1, 2]], [2**63, 1, 1, 2], {"0": 1}),
    ],
    ids=repr,
)
def test_groups_of_other_sizes(counts):
    assert notes_of(PATTERNS)["counts"] == [1, 1, 1, 2]
    with pytest.raises(DecodeError, match="match other numbers of tensors"):
        read(forged(PATTERNS, {**notes_of(PATTERNS), "counts": counts}))


def test_notes_of_another_group():
    good = notes_of(PATTERNS)
    for order in ([1, 0, 2, 3], [0, 3, 2, 1], [0, 1, 3, 2], [0, 1, 2], [0, 1, 2, 3, 3]):
        wrong = {**good, "notes": [good["notes"][number] for number in order]}
        assert tried(forged(PATTERNS, wrong)) is None
        try:
            picked(forged(PATTERNS, wrong))
        except DecodeError:
            continue


@pytest.mark.parametrize("name", ["d.w", "a.x", "x.bias"])
def test_a_tensor_more_or_under_another_name(name):
    coded = parse_codec(PATTERNS).encode(NEW, BASE).tensors
    with pytest.raises(DecodeError):
        read(forged(PATTERNS, tensors={name: coded["a.w"]}))


@pytest.mark.parametrize("scale", [0.0, 0.4999, 16.01, 1e300, -1.0, np.nan, np.inf, -np.inf, 2, "2", None, True, [2.0]])
def test_scales_that_no_ladder_has(scale):
    spec = "auto(budget=2kB/round)"
    frame = forged(spec, {**notes_of(spec), "scale": scale})
    for act in (read, picked):
        with pytest.raises(DecodeError, match="scale"):
            act(frame)


@pytest.mark.parametrize("nbytes", [0, 1, -1, 2**63, 2**64 - 1, 1.0, "9", None, True])
def test_sizes_that_are_another(nbytes):
    spec = "auto(budget=2kB/round)"
    with pytest.raises(DecodeError, match="size"):
        read(forged(spec, {**notes_of(spec), "nbytes": nbytes}))


@pytest.mark.parametrize("steps", [[1e38, 1.0], [-1.0, 1.0], [np.nan, 1.0], [1e300, 1.0], [1.0], None])
def test_steps_of_what_was_picked_that_are_impossible(steps):
    spec = "auto(budget=2kB/round)"
    got = tried(forged(spec, {**notes_of(spec), "steps": steps}))
    assert got is None or all(np.isfinite(array).all() for array in got.values())


TEXTS = [
    *("{3: dense}", "{null: dense}", '{["*"]: dense}', '{{"a": 1}: dense}', "{'*': dense}", "{*: dense}", "{}"),
    *('{"*": dense', '{"*": dense}}', '{"*": "dense"}', '{"*": {"*": dense}}', '{"*": dense, "*": dense}'),
    *('{"\\ud800": dense}', '{"\\u00": dense}', '{"a\n": dense}', "{" * 20_000, "(" * 20_000, '"' * 20_001),
    *('{"' + "x" * 201 + '": dense}', "{" + ", ".join(f'"{number}": dense' for number in range(65)) + "}"),
    *("{" + '"a": ' * 9000 + "dense}", "{" + "," * 60_000 + "}", '{"*": ' * 9000 + "dense" + "}" * 9000),
    *(
        "rc",
        "delta | rc",
        "uq(2) | delta",
        "delta | delta",
        "cast(bfloat16) | auto(1MB)",
        "|",
        "delta | " * 7000 + "uq(2)",
    ),
    *("auto", "auto(1)", "auto(budget=0B)", "auto(budget=-1MB)", "auto(budget=" + "9" * 5000 + "GB)", "auto(1MB, 1MB)"),
    *(
        "uq" + " " * 60_000 + "x",
        "uq(2)" + " " * 60_000 + "(",
        "a" * 60_000,
        "uq(" + "9" * 60_000 + ")",
        "uq(2" + ", " * 30_000,
    ),
    *("uq(scale=2, scale=2)", "uq(__class__=2)", "uq(self=2)", "cast(dtype=object)", "none(1)", "uq(1)(2)"),
]


def test_patterns_within_chains_within_patterns():
    """As deep as a frame's text allows; refused at the first, whose text is looked at a few times."""
    text = "rc"
    for _ in range(7000):
        text = 'rc|{"":' + text + "}"
    frame = forged("uq(2)", text=f"{text} | fedwt | none")
    with pytest.raises(DecodeError, match="patterns of its own"):
        pipeline_of(frame)
    config = "dense"
    for _ in range(5000):
        config = {"codec": "patterns", "patterns": [["*", config]]}
    with pytest.raises(ConfigError, match="patterns of its own"):
        codec_of(config)
    stages = ["delta"]
    for _ in range(5000):
        stages = [stages]
    with pytest.raises(ConfigError, match="no stage"):
        codec_of(stages)
    for nested in ('{"*": rc|{"*": dense}}', '{"*": {"*": dense}}', '{"*": {"*": dense} | rc}'):
        with pytest.raises(ConfigError, match="patterns of its own"):
            parse_codec(nested)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:30])
def test_texts_that_are_no_pipeline(text):
    frame = forged("uq(2)", text=f"{text} | fedwt | none")
    for act in (pipeline_of, read, picked, tensor_sizes):
        tracemalloc.start()
        with pytest.raises(DecodeError) as caught:
            act(frame)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(str(caught.value)) < 2000
        assert peak < 20 << 20


def test_a_text_that_is_another_than_the_sender_s():
    """Patterns that sort the tensors in another way are found by the counts, or by what they then find."""
    for text in ('{"a.*": uq(1), "*.bias": dense}', '{"*": uq(1)}', '{"*": dense}', "delta", "uq(1)", "cast(float16)"):
        assert tried(forged(PATTERNS, text=f"{text} | fedwt | none")) is None or text == "cast(float16)"


def test_random_texts():
    chance = random.Random(3)
    words = [
        "{",
        "}",
        "(",
        ")",
        "|",
        ":",
        ",",
        '"*"',
        '"a.?"',
        "uq(2)",
        "delta",
        "rc",
        "auto(1MB)",
        "none",
        "\\",
        " ",
        "=",
    ]
    for _ in range(3000):
        text = "".join(chance.choice(words) for _ in range(chance.randint(1, 25)))
        try:
            pipeline = Pipeline.parse(text)
        except FedpostError:
            continue
        assert Pipeline.parse(str(pipeline)) == pipeline


@pytest.mark.parametrize("spec", SPECS)
def test_bytes_that_lie_give_the_kinds_that_were_sent_or_an_error(spec):
    coded = parse_codec(spec).encode(NEW, BASE).tensors
    chance = random.Random(spec)
    for _ in range(120):
        name = chance.choice(sorted(coded))
        wrong = np.array(coded[name], order="C")
        flat = wrong.reshape(-1).view(np.uint8)
        if not flat.size:
            continue
        flat[chance.randrange(flat.size)] ^= chance.choice([1, 2, 64, 128, 255])
        got = tried(forged(spec, tensors={name: wrong}))
        assert got is None or {key: (array.dtype, array.shape) for key, array in got.items()} == KINDS
