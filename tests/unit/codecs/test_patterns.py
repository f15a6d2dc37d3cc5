"""Codecs by the names of tensors: who gets which, what is booked, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpost.codecs import Auto, Base, ByPattern, Cast, Delta, Dense, Int8, TopK, Uq, parse_codec
from fedpost.codecs.auto import encoded_size
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.pipeline import Pipeline, decode_tensors
from fedpost.tensors import MemoryTensors

TEXT = '{"*.bias": dense, "layers.*": uq(1), "*": uq(2)}'


def model(seed=0):
    chance = np.random.default_rng(seed)
    shapes = {"head.weight": (20, 10), "layers.0.weight": (30, 20), "layers.0.bias": (20,), "layers.1.weight": (9, 8)}
    return {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def through(codec, new, base, residual=None):
    encoding = codec.encode(new, base, residual)
    return encoding, codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base)


def test_the_first_pattern_that_matches_counts():
    new, base = model(), Base.of(model(1))
    encoding, got = through(parse_codec(TEXT), new, base)
    assert encoding.notes["counts"] == [1, 2, 1]
    assert [sorted(notes) for notes in encoding.notes["notes"]] == [[], ["steps", "whole"], ["steps", "whole"]]
    assert list(encoding.tensors) == list(new)
    assert encoding.tensors["layers.0.bias"] is new["layers.0.bias"]
    arrays = got.arrays()
    assert list(arrays) == list(new)
    layers = {name: new[name] for name in ("layers.0.weight", "layers.1.weight")}
    for codec, part in ((Uq(1), layers), (Uq(2), {"head.weight": new["head.weight"]})):
        alone, expected = through(codec, part, base)
        for name, array in expected.arrays().items():
            assert arrays[name].tobytes() == array.tobytes()
            assert encoding.tensors[name].tobytes() == alone.tensors[name].tobytes()
            assert encoding.residual[name].tobytes() == alone.residual[name].tobytes()
    assert set(encoding.residual) == set(new) - {"layers.0.bias"}


def test_what_no_pattern_matches_goes_as_it_is():
    new = model()
    encoding, got = through(ByPattern({"layers.?.bias": Cast("bfloat16")}), new, None)
    assert encoding.notes == {"counts": [1], "notes": [{"widen": {"layers.0.bias": "float32"}}]}
    for name, array in got.arrays().items():
        assert (array.tobytes() == new[name].tobytes()) == (name != "layers.0.bias")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        *(("*", "", True), ("*", "a.b\nc", True), ("a?", "ab", True), ("a?", "a", False), ("[ab]", "b", True)),
        *(("[!ab]", "b", False), ("[!ab]", "c", True), ("A", "a", False), ("a.b", "axb", False), ("", "", True)),
        *(("layers.[0-9].*", "layers.3.w", True), ("layers.[0-9].*", "layers.13.w", False), ("[[]", "[", True)),
    ],
)
def test_patterns_are_those_of_the_shell_and_case_counts(pattern, name, matches):
    encoding = ByPattern({pattern: Dense()}).encode({name: np.zeros(3)})
    assert encoding.notes["counts"] == [int(matches)]


def test_residuals_go_to_their_codecs_and_come_back_merged():
    new, base = model(), Base.of(model(1))
    codec = parse_codec('{"layers.*": topk(0.1), "*": uq(2)}')
    first = codec.encode(new, base)
    again = codec.encode(new, base, first.residual)
    rest = {name: new[name] for name in new if name.startswith("layers")}
    alone = TopK(0.1).encode(rest, base, {name: first.residual[name] for name in rest if name in first.residual})
    for name, array in alone.residual.items():
        assert again.residual[name].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("text", "needs", "stateful", "lossless", "unbiased", "linear"),
    [
        ('{"*": dense}', False, False, True, True, True),
        ('{"*": cast(float16)}', False, False, False, False, False),
        ('{"a": delta, "*": dense}', True, False, True, True, False),
        ('{"a": int8, "b": dense}', True, False, False, True, False),
        ('{"a": uq(2), "b": dense}', True, True, False, False, False),
    ],
)
def test_capabilities_combine(text, needs, stateful, lossless, unbiased, linear):
    codec = parse_codec(text)
    stated = codec.capabilities
    assert codec.needs_base == stated.needs_base == needs
    assert (stated.stateful, stated.lossless, stated.unbiased, stated.linear) == (stateful, lossless, unbiased, linear)


def test_a_base_is_needed_though_no_tensor_needs_it():
    codec = parse_codec('{"w*": uq(2)}')
    new = {"b": np.ones(3, np.float32)}
    with pytest.raises(ConfigError, match="needs a base"):
        codec.encode(new)
    base = Base.of(new)
    encoding = codec.encode(new, base)
    with pytest.raises(DecodeError, match=base.digest.hex()):
        codec.decode(MemoryTensors(encoding.tensors), encoding.notes, None)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({}, "0 patterns"),
        ({f"{number}": Dense() for number in range(65)}, "65 patterns"),
        ({"x" * 201: Dense()}, "201 characters"),
        ({"\ud800": Dense()}, "not Unicode text"),
        ({3: Dense()}, "is not text"),
        ([("a", Dense()), ("a", Delta())], "comes twice"),
        ({"a": ByPattern({"b": Dense()})}, "has patterns of its own"),
        ({"a": Auto(5), "b": Auto(6)}, "auto comes twice"),
    ],
)
def test_patterns_that_are_impossible_are_refused_when_built(patterns, message):
    with pytest.raises(ConfigError, match=message):
        ByPattern(patterns)


def test_what_is_allowed_is_carried_by_a_frame():
    codec = ByPattern({f"{number}{'é' * 198}": Uq(1) for number in range(10, 74)})
    new = {"w": np.ones((3, 3), np.float32)}
    frame = Pipeline(codec).encode(new, base=Base.of(new))
    np.testing.assert_array_equal(decode_tensors(frame, base=Base.of(new)).arrays()["w"], new["w"])


@pytest.mark.parametrize(
    "text",
    [
        *('{"a"}', '{"a": }', '{"a": uq(2),}', "{a: uq(2)}", "{'a': uq(2)}", '{"a": uq(2)', '"a": uq(2)}', "{}", "{ }"),
        *('{"a": uq(2)} {"b": dense}', '{"a": uq(2)} | delta', '{"a": uq(2) | delta}', '{"a": {"b": dense}}'),
        *('{"a": uq(2) "b": dense}', '{"a: uq(2)}', '{"a\\": uq(2)}', '{"\\ud800": dense}', '{"\\x": dense}'),
        *('{"a": "uq(2)"}', '{"a": uq(2): dense}', "{3: dense}", '{["a"]: dense}', '{"a", "b": dense}'),
    ],
)
def test_texts_that_are_no_patterns(text):
    with pytest.raises(ConfigError):
        parse_codec(text)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=30),
        st.sampled_from(["dense", "uq(2)", "cast(bfloat16) | delta", "topk(0.01)", "int8"]),
        min_size=1,
        max_size=6,
    )
)
def test_any_pattern_comes_back_from_its_text_in_a_pipeline(patterns):
    codec = ByPattern({pattern: parse_codec(text) for pattern, text in patterns.items()})
    assert parse_codec(str(codec)) == codec
    for text in (str(codec), f"{codec} | fedwt | zstd(3)", f"{codec}|lx"):
        assert Pipeline.parse(text).update == codec


@settings(deadline=None)
@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=5, unique=True))
def test_any_pattern_and_names_are_taken(pattern, names):
    try:
        codec = ByPattern({pattern: Dense()})
    except ConfigError:
        return
    tensors = {name: np.zeros(2) for name in names}
    encoding = codec.encode(tensors)
    assert list(codec.decode(MemoryTensors(encoding.tensors), encoding.notes).arrays()) == names


def test_a_budget_is_that_of_the_whole_message():
    new, base = model(), Base.of(model(1))
    budget = encoded_size(parse_codec('{"layers.0.*": none, "*": uq(2)}').encode(new, base)) + 40
    encoding, got = through(ByPattern({"layers.0.*": Dense(), "*": Auto(budget)}), new, base)
    assert new["layers.0.weight"].nbytes < encoded_size(encoding) <= budget
    notes = encoding.notes["notes"][1]
    assert (1 < notes["scale"] <= 2.5, notes["over"]) == (True, False)
    assert got.arrays()["layers.0.weight"].tobytes() == new["layers.0.weight"].tobytes()
    assert through(ByPattern({"layers.0.*": Dense(), "*": Auto(50)}), new, base)[0].notes["notes"][1]["over"]


def test_what_is_no_array_is_refused_by_name():
    with pytest.raises(EncodeError, match="tensor 'w'"):
        ByPattern({"*": Int8()}).encode({"w": [1.0]}, Base.of({}))
    with pytest.raises(EncodeError, match="not text"):
        ByPattern({"*": Dense()}).encode({3: np.zeros(2)})


def test_many_stars_are_no_trap():
    """With a matcher that goes back these would take for ever."""
    codec = ByPattern({"*a" * 99 + f"{number:02d}": Dense() for number in range(64)})
    tensors = {"a" * 3000 + str(number): np.zeros(1) for number in range(20)}
    assert codec.encode(tensors).notes["counts"] == [0] * 10 + [1] * 10 + [0] * 44
