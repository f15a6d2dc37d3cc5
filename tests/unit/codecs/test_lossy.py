"""What all lossy codecs promise: kinds, ranges, what is lost and booked, what is refused, and memory."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpost.codecs import Base, parse_codec
from fedpost.codecs.lossy import number_text
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.frame import Frame
from fedpost.pipeline import Pipeline, decode_tensors, tensor_sizes
from fedpost.tensors import FORMATS, MemoryTensors

BF16 = np.dtype(ml_dtypes.bfloat16)
WITH_ACCOUNT = ["uq(2)", "uq(0.25)", "topk(0.1)", "stc(0.04)", "sign"]
WITHOUT = ["eden(1)", "eden(2)", "eden(3)", "eden(4)", "int8", "int4"]
ALL = WITH_ACCOUNT + WITHOUT
IMPOSSIBLE = [
    *("uq", "uq()", "uq(0)", "uq(-1)", "uq(17)", "uq(nan)", "uq(inf)", "uq(two)", "uq(1,2)"),
    *("eden", "eden(0)", "eden(5)", "eden(1.5)", "topk", "topk(0)", "topk(1.1)", "topk(-0.1)", "topk(nan)"),
    *("stc(0)", "stc(x)", "int8(4)", "int4(1)", "sign(1)"),
    *("uq(2, nonfinite=)", "uq(2, nonfinite=yes)", "uq(2, whole)", "sign(nonfinite=Whole)", "auto(1MB, nonfinite=no)"),
]
FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(params=ALL)
def codec(request):
    return parse_codec(request.param)


def noise(*shape, seed=0, scale=1.0):
    return np.random.default_rng(seed).laplace(scale=scale, size=shape)


def sent(codec, new, base, residual=None):
    """What arrives, through a frame, and the residual."""
    frame, lost = Pipeline(update=codec).encode_update(new, base=base, residual=residual)
    return decode_tensors(Frame.decode(bytes(frame)), base=base), lost


def pair(shape, dtype=np.float32, *, seed=0, scale=0.01):
    """A tensor, and its base."""
    old = noise(*shape, seed=seed).astype(dtype)
    return (old + noise(*shape, seed=seed + 1, scale=scale).astype(dtype)).astype(dtype), old


# ── kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(12, 9), (2, 3, 4, 5), (1, 1), (1, 300), (300, 1), (40,), (1,), ()])
def test_floats_of_every_kind_come_back_in_kind_and_nearer_than_the_base(codec, dtype, shape):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    new, old = pair(shape, kind, scale=0.5)
    source, lost = sent(codec, {"w": new}, Base.of({"w": old}))
    got = source.arrays()["w"]
    assert (got.dtype, got.shape, got.flags.writeable) == (kind, shape, False)
    positive = (new >= 0).all() and (old >= 0).all()  # as a variance
    coded = len(shape) >= 2 or (codec.codes_vectors and not positive)
    if not coded:
        assert got.tobytes() == new.tobytes()
        assert not lost
        return
    assert np.isfinite(got.astype(float)).all()
    if codec.keeps_account:
        # Nothing is lost that is not booked.
        np.testing.assert_allclose(got.astype(float) + lost["w"], new.astype(float), rtol=3e-7, atol=1e-6)
        assert lost["w"].dtype == np.float32
    else:
        assert not lost
    if new.size > 20:
        change = np.linalg.norm(new.astype(float) - old.astype(float))
        assert np.linalg.norm(got.astype(float) - new.astype(float)) < change


def test_what_is_no_float_in_native_order_is_sent_to_the_bit(codec):
    new = {
        "big": noise(5, 6).astype(">f4"),
        "int": np.arange(30).reshape(5, 6),
        "bool": np.eye(4, dtype=bool),
        "complex": noise(3, 3).astype(np.complex64) * 1j,
        "empty": np.zeros((0, 7), np.float32),
        "float8": noise(4, 4).astype(ml_dtypes.float8_e4m3fn),
        "text": np.array([["a", "b"]]),
        "other shape": noise(4, 5).astype(np.float32),
        "other type": noise(4, 5),
        "new": noise(4, 5).astype(np.float32),
        "coded": noise(4, 5).astype(np.float32),
    }
    old = {name: np.zeros_like(array) for name, array in new.items() if name not in ("new", "text")}
    old |= {"text": new["text"], "other shape": np.zeros((5, 4), np.float32), "other type": np.zeros((4, 5), "f4")}
    source, lost = sent(codec, new, Base.of(old))
    assert [spec.name for spec in source.specs] == list(new)
    for name, array in source.arrays().items():
        assert (array.dtype, array.shape) == (new[name].dtype, new[name].shape)
        if name != "coded":
            assert array.tobytes() == new[name].tobytes(), name
    assert set(lost) <= {"coded"}


def test_the_layout_in_memory_makes_no_difference(codec):
    new, old = pair((60, 50))
    wide = np.zeros((120, 100), np.float32)
    wide[::2, ::2] = new
    expected, _ = sent(codec, {"w": new}, Base.of({"w": old}))
    for other in (np.asfortranarray(new), wide[::2, ::2], new[::-1][::-1]):
        for before in (old, np.asfortranarray(old)):
            got, _ = sent(codec, {"w": other}, Base.of({"w": before}))
            assert got.arrays()["w"].tobytes() == expected.arrays()["w"].tobytes()


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_any_format_carries_it(codec, form):
    """The order of the tensors is part of what seeds a rotation."""
    new = {"z": pair((30, 8))[0], "a": pair((8, 9), np.float64)[0], "m": pair((7,))[0], "n": np.arange(3)}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    frames = [Pipeline.parse(f"{codec} | {name} | none").encode(new, base=base) for name in ("fedwt", form)]
    one, other = (decode_tensors(Frame.decode(bytes(frame)), base=base).arrays() for frame in frames)
    assert {name: array.tobytes() for name, array in one.items()} == {n: array.tobytes() for n, array in other.items()}


@pytest.mark.parametrize("compression", ["lx", "zstd", "lz4"])
def test_any_compression_carries_it(codec, compression):
    new, old = pair((300, 90))
    base = Base.of({"w": old})
    frame = Frame.decode(bytes(Pipeline.parse(f"{codec} | fedwt | {compression}").encode({"w": new}, base=base)))
    expected, _ = sent(codec, {"w": new}, base)
    assert decode_tensors(frame, base=base).arrays()["w"].tobytes() == expected.arrays()["w"].tobytes()


def test_no_change_comes_back_as_the_base(codec):
    old = {"w": noise(20, 30).astype(np.float32), "b": noise(30).astype(np.float32)}
    source, lost = sent(codec, {name: array.copy() for name, array in old.items()}, Base.of(old))
    for name, array in source.arrays().items():
        np.testing.assert_array_equal(array, old[name])
    assert not any(array.any() for array in lost.values())


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shape", [(1201, 1000), (3, 500_000), (1_300_000,)], ids=str)
def test_every_range_is_a_slice_of_the_whole(codec, shape):
    new, old = pair(shape)
    base = Base.of({"w": old})
    source, _ = sent(codec, {"w": new}, base)
    whole = source.arrays()["w"].reshape(-1)
    size = whole.size
    edges = sorted(
        {
            place + shift
            for step in (1 << 15, 1 << 18, 1 << 19, shape[-1], 256)
            for place in (step, 2 * step, size // step * step)
            for shift in (-1, 0, 1)
            if 0 <= place + shift <= size
        }
        | {0, size}
    )
    chance = np.random.default_rng(1)
    for start, stop in [sorted(chance.choice(edges, 2, replace=False)) for _ in range(12)] + [(0, 0), (size, size)]:
        assert source.read("w", int(start), int(stop)).tobytes() == whole[start:stop].tobytes()
    step = 1 << 18
    parts = [source.read("w", start, min(start + step, size)) for start in range(0, size, step)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert all(not part.flags.writeable for part in parts)
    for start, stop in ((-1, 3), (4, 3), (0, size + 1)):
        with pytest.raises(IndexError):
            source.read("w", start, stop)


def test_readers_that_take_turns_get_their_own(codec):
    new = {"a": pair((70, 900))[0], "b": pair((900, 70), seed=3)[0]}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    source, _ = sent(codec, new, base)
    whole = source.arrays()
    for start in range(0, 63_000, 9_000):
        for name in ("a", "b", "a"):
            part = source.read(name, start, start + 9_000)
            assert part.tobytes() == whole[name].reshape(-1)[start : start + 9_000].tobytes()


@pytest.mark.parametrize("shape", [(70, 900), (1201, 1000)], ids=str)
def test_a_tensor_without_a_name_is_read_as_any_other(codec, shape):
    new = {"": pair(shape)[0], "a": pair(shape, seed=3)[0]}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    one, _ = sent(codec, new, base)
    other, _ = sent(
        codec,
        {name or "b": array for name, array in new.items()},
        Base.of({name or "b": np.zeros_like(array) for name, array in new.items()}),
    )
    size, step = new[""].size, 9_000
    for start in (0, step, 2 * step, size - step):
        part = one.read("", start, start + step)
        assert part.tobytes() == other.read("b", start, start + step).tobytes()
        assert part.tobytes() == one.arrays()[""].reshape(-1)[start : start + step].tobytes()


def test_many_tensors_are_looked_up_and_not_searched_for():
    """Specs are made once, however many tensors are read."""

    class Counting(MemoryTensors):
        asked = 0

        @property
        def specs(self):
            Counting.asked += 1
            return super().specs

    new = {f"{number}": noise(2, 2, seed=number).astype(np.float32) for number in range(50)}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    encoding = parse_codec("int8").encode(new, base)
    source = parse_codec("int8").decode(Counting(encoding.tensors), encoding.notes, base)
    asked = Counting.asked
    assert len(source.arrays()) == 50
    assert Counting.asked == asked < 5


# ── what is lost ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", WITH_ACCOUNT)
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_was_received_and_what_is_lost_are_all_that_changed(spec, dtype):
    """Over twenty updates, each relative to another base: sums agree, as float32 has it."""
    codec, kind = parse_codec(spec), np.dtype(getattr(ml_dtypes, dtype, dtype))
    residual, total, received = {}, np.zeros((40, 30)), np.zeros((40, 30))
    largest = 0.0
    for number in range(20):
        new, old = pair((40, 30), kind, seed=2 * number, scale=0.02)
        source, residual = sent(codec, {"w": new}, Base.of({"w": old}), residual)
        total += new.astype(float) - old.astype(float)
        received += source.arrays()["w"].astype(float) - old.astype(float)
        largest = max(largest, np.abs(old.astype(float)).max())
    assert np.abs(total).max() > 0.1
    np.testing.assert_allclose(received + residual["w"], total, rtol=0, atol=20 * largest * 2**-23)


def test_a_change_that_is_too_small_for_the_type_adds_up_until_it_is_not():
    """In bfloat16, 1 + 0.001 is 1: what the receiver's rounding loses is booked as well."""
    old = np.ones((30, 30), BF16)
    base, residual, codec = Base.of({"w": old}), {"w": np.full((30, 30), 0.001, np.float32)}, parse_codec("uq(1)")
    source, lost = sent(codec, {"w": old}, base, residual)
    assert (source.arrays()["w"] == old).all()
    np.testing.assert_allclose(lost["w"], 0.001, rtol=1e-6)
    source, lost = sent(codec, {"w": old}, base, {"w": 5 * lost["w"]})
    assert (source.arrays()["w"] == 1 + 2**-7).all()
    np.testing.assert_allclose(lost["w"], 0.005 - 2**-7, rtol=1e-5)


def test_what_a_narrow_type_cannot_hold_once_it_is_coded_is_an_error():
    new = np.full((8, 8), 65_000, np.float16)
    residual = {"w": np.full((8, 8), 900, np.float32)}
    with pytest.raises(EncodeError, match=r"tensor 'w'.*too large for float16"):
        parse_codec("uq(1)").encode({"w": new}, Base.of({"w": new - np.float16(3000)}), residual)


@pytest.mark.parametrize("spec", WITH_ACCOUNT)
def test_what_a_former_model_lost_counts_for_nothing(spec):
    codec, (new, old) = parse_codec(spec), pair((12, 10))
    base = Base.of({"w": old})
    plain, _ = sent(codec, {"w": new}, base)
    for residual in ({"w": np.ones((10, 12), np.float32)}, {"w": np.ones(120, np.float32)}, {"x": new}):
        got, _ = sent(codec, {"w": new}, base, residual)
        assert got.arrays()["w"].tobytes() == plain.arrays()["w"].tobytes()


def test_what_is_given_is_left_alone(codec):
    new, old = pair((50, 40))
    residual = {"w": noise(50, 40, seed=9, scale=0.01).astype(np.float32)}
    before = [array.tobytes() for array in (new, old, residual["w"])]
    _, lost = sent(codec, {"w": new}, Base.of({"w": old}), residual)
    assert [array.tobytes() for array in (new, old, residual["w"])] == before
    assert not any(np.shares_memory(array, given) for array in lost.values() for given in (new, old, residual["w"]))


def test_codecs_without_account_take_no_notice_of_one():
    new, old = pair((50, 40))
    for spec in WITHOUT:
        assert not parse_codec(spec).keeps_account
        _, lost = sent(parse_codec(spec), {"w": new}, Base.of({"w": old}))
        assert not lost


@pytest.mark.parametrize("spec", WITHOUT)
def test_codecs_without_account_are_right_on_average(spec):
    """The mean of many updates of nearly the same change comes near to it, as one over the root of their number."""
    codec, count = parse_codec(spec), 400
    old = np.zeros((16, 16), np.float32)
    change = noise(16, 16, seed=5).astype(np.float32)
    base, total, errors = Base.of({"w": old}), np.zeros((16, 16)), []
    for number in range(count):
        new = change.copy()
        new[0, 0] += np.float32(number * 1e-6)  # the seed comes from the values
        source, _ = sent(codec, {"w": new}, base)
        total += source.arrays()["w"]
        errors.append(np.linalg.norm(source.arrays()["w"] - new))
    one = float(np.sqrt(np.mean(np.square(errors))))
    assert one > 0
    assert np.linalg.norm(total / count - change) < 1.5 * one / np.sqrt(count) + 1e-3


@pytest.mark.parametrize(
    ("spec", "error"), [("eden(1)", 0.76), ("eden(2)", 0.37), ("eden(3)", 0.19), ("eden(4)", 0.10)]
)
def test_eden_s_error_is_what_its_paper_says(spec, error):
    new, old = pair((200, 300))
    source, _ = sent(parse_codec(spec), {"w": new}, Base.of({"w": old}))
    relative = np.linalg.norm(source.arrays()["w"] - new) / np.linalg.norm(new - old)
    assert relative == pytest.approx(error, rel=0.08)


def test_two_updates_and_two_tensors_have_seeds_of_their_own():
    same = noise(64, 64).astype(np.float32)
    base = Base.of({"a": np.zeros_like(same), "b": np.zeros_like(same)})
    for spec in ("eden(1)", "int4"):
        got = sent(parse_codec(spec), {"a": same, "b": same}, base)[0].arrays()
        assert got["a"].tobytes() != got["b"].tobytes()
        notes = [parse_codec(spec).encode({"a": array}, base).notes["seed"] for array in (same, same + 1)]
        assert notes[0] != notes[1]


# ── which elements ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.001, 1), st.integers(0, 3))
def test_topk_keeps_the_greatest(rows, columns, share, levels):
    """And among equals the first, so every machine sends the same."""
    chance = np.random.default_rng([rows, columns])
    new = chance.normal(size=(rows, columns)).astype(np.float32)
    if levels:
        new = np.sign(new) * np.ceil(np.abs(new) * levels).astype(np.float32)
    codec = parse_codec(f"topk({share!r})")
    got = sent(codec, {"w": new}, Base.of({"w": np.zeros_like(new)}))[0].arrays()["w"].reshape(-1)
    count = min(new.size, max(1, round(share * new.size)))
    expected = np.zeros(new.size, np.float32)
    order = np.argsort(-np.abs(new.reshape(-1)), kind="stable")[:count]
    expected[order] = new.reshape(-1)[order]
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("spec", ["topk(0.01)", "stc(0.01)"])
def test_the_greatest_are_those_of_the_whole_update(spec):
    """A matrix that has changed little has none, and a vector goes as it is."""
    new = {
        "large": noise(64, 64).astype(np.float32),
        "little": noise(64, 64, seed=1).astype(np.float32) / 1000,
        "vector": np.ones(5, np.float32),
    }
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    got = sent(parse_codec(spec), new, base)[0].arrays()
    assert np.count_nonzero(got["large"]) == round(0.01 * 2 * 64 * 64)
    assert not got["little"].any()
    assert got["vector"].tolist() == new["vector"].tolist()


@pytest.mark.parametrize("names", [("live", "frozen"), ("frozen", "live")])
def test_what_has_not_changed_is_not_sent_to_make_up_the_share(names):
    """Nor does it count in the mean, whichever tensor comes first."""
    new = {name: np.zeros((100, 100 if name == "live" else 990), np.float32) for name in names}
    new["live"][::10, ::5] = 1
    for spec in ("topk(0.01)", "stc(0.01)"):
        source, lost = sent(parse_codec(spec), new, Base.of({n: np.zeros_like(a) for n, a in new.items()}))
        got = source.arrays()
        for name in names:
            np.testing.assert_array_equal(got[name], new[name])
            assert not lost[name].any()


def test_stc_sends_the_same_elements_as_their_mean():
    new, old = pair((60, 50))
    base = Base.of({"w": old})
    top, stc = (sent(parse_codec(spec), {"w": new}, base)[0].arrays()["w"] - old for spec in ("topk(0.1)", "stc(0.1)"))
    np.testing.assert_array_equal(top != 0, stc != 0)
    np.testing.assert_array_equal(np.sign(top), np.sign(stc))
    np.testing.assert_allclose(np.abs(stc[stc != 0]), np.abs(top[top != 0]).mean(), rtol=1e-4)


def test_integers_are_off_by_less_than_a_step_of_their_block():
    new = noise(64, 64, seed=2).astype(np.float32)
    for spec, most in (("int8", 127), ("int4", 7)):
        got = sent(parse_codec(spec), {"w": new}, Base.of({"w": np.zeros_like(new)}))[0].arrays()["w"]
        blocks, errors = new.reshape(-1, 256), np.abs(got - new).reshape(-1, 256)
        assert (errors.max(axis=1) < np.abs(blocks).max(axis=1) / most * 1.0001).all()
        assert errors.any()


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_not_finite_is_refused_by_name(codec, value, dtype):
    new = {name: noise(9, 8).astype(getattr(ml_dtypes, dtype, dtype)) for name in ("fine", "wrong", "fine too")}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    new["wrong"][4, 5] = value
    with pytest.raises(EncodeError) as caught:
        codec.encode(new, base)
    assert caught.value.where == "tensor 'wrong'"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [*FLOATS, ">f4", "float8_e5m2"])
@pytest.mark.parametrize("shape", [(9, 8), (9,), ()])
def test_what_is_not_finite_is_refused_in_what_is_sent_as_it_is(codec, value, dtype, shape):
    """A vector, a tensor that the base has not, floats in another order: the model has diverged all the same."""
    new = {name: np.ones(shape, getattr(ml_dtypes, dtype, dtype)) for name in ("fine", "wrong", "fine too")}
    new["wrong"][(0,) * len(shape)] = value
    for base in ({name: np.zeros_like(array) for name, array in new.items()}, {}):
        with pytest.raises(EncodeError, match="NaN or an infinity") as caught:
            codec.encode(new, Base.of(base))
        assert caught.value.where == "tensor 'wrong'"


@pytest.mark.parametrize("spec", [*ALL, "auto(1MB)"])
def test_a_change_that_float32_cannot_hold_is_told_as_such(spec):
    codec, most = parse_codec(spec), np.float32(3e38)
    new = {"v": np.ones((2, 2), np.float32), "w": np.full((2, 2), most)}
    with pytest.raises(EncodeError, match="too large") as caught:
        codec.encode(new, Base.of({"v": new["v"], "w": -new["w"]}))
    assert caught.value.where == "tensor 'w'"
    assert "NaN" not in caught.value.what


@pytest.mark.parametrize("spec", [*ALL, "auto(20kB)", "cast(bfloat16) | uq(2)", "cast(bfloat16) | int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_let_through_to_the_bit_where_that_was_asked_for(spec, value):
    """Also where only the base is not finite, or the change is too large; the account of such a tensor waits."""
    head, _, last = spec.rpartition(" | ")
    name, _, arguments = last.rstrip(")").partition("(")
    last = f"{name}({', '.join([*filter(None, [arguments]), 'nonfinite=whole'])})"
    codec = parse_codec(" | ".join([*filter(None, [head]), last]))
    names = ("fine", "wrong", "healed", "large", "half")
    new = {name: noise(40, 30, seed=seed).astype(np.float32) for seed, name in enumerate(names)}
    old = {name: array + np.float32(0.01) * noise(40, 30, seed=9).astype(np.float32) for name, array in new.items()}
    new["half"], old["half"] = new["half"].astype(np.float16), old["half"].astype(np.float16)
    new |= {"vector": np.array([-1, value], np.float32), "unknown": np.array([[value]], np.float32)}
    old |= {"vector": np.ones(2, np.float32)}
    new["wrong"][4, 5] = new["half"][3, 3] = old["healed"][4, 5] = value
    new["large"][0, 0], old["large"][0, 0] = 3e38, -3e38
    new["wrong"].view(np.uint32)[7, 7] = 0xFFA00001  # a NaN that signals
    residual = {name: noise(40, 30, seed=8).astype(np.float32) for name in names}
    source, lost = sent(codec, new, Base.of(old), residual)
    got = source.arrays()
    whole = new.keys() - {"fine"}
    if "cast" in spec and not codec.capabilities.stateful:  # the cast is the first
        whole -= {"wrong", "healed", "large"}
        assert np.isnan(got["wrong"][7, 7])
    for name in whole:
        assert got[name].tobytes() == new[name].tobytes(), name
    assert got["fine"].tobytes() != new["fine"].tobytes()
    if codec.capabilities.stateful:
        assert not np.array_equal(lost["fine"], residual["fine"])
        for name in ("wrong", "healed", "large", "half"):
            assert lost[name] is residual[name]


def test_a_change_that_float32_cannot_hold_is_refused_by_name(codec):
    new = {"w": np.array([[1e300, 1.0]])}
    with pytest.raises(EncodeError, match="tensor 'w'"):
        codec.encode(new, Base.of({"w": np.zeros((1, 2))}))


@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-30, 1e-10, 1e10, 1e30])
def test_tiny_and_huge_changes_are_coded_or_booked(codec, scale):
    new = {"w": (noise(30, 20) * scale).astype(np.float32), "b": (noise(20) * scale).astype(np.float32)}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    source, lost = sent(codec, new, base)
    for name, array in source.arrays().items():
        assert np.isfinite(array).all()
        booked = lost.get(name, np.zeros_like(array))
        if codec.keeps_account:
            np.testing.assert_allclose(array.astype(float) + booked, new[name], rtol=1e-6, atol=3e-7 * scale + 1.5e-45)


def test_the_greatest_floats_are_coded_or_refused(codec):
    for value in (3e38, 1.7e38, 3.4028235e38):
        new = {"w": np.full((40, 3), value, np.float32)}
        new["w"][::2] *= -1
        try:
            source, _ = sent(codec, new, Base.of({"w": np.zeros((40, 3), np.float32)}))
        except EncodeError:
            continue
        assert np.isfinite(source.arrays()["w"]).all()


def test_without_the_right_base_nothing_is_read(codec):
    new, old = pair((9, 8))
    base = Base.of({"w": old})
    with pytest.raises(ConfigError, match="needs a base"):
        codec.encode({"w": new})
    frame = Frame.decode(bytes(Pipeline(update=codec).encode({"w": new}, base=base)))
    for wrong in (None, Base.of({"w": new}), Base.of({"v": old}), Base.of({"w": old.astype(np.float64)})):
        with pytest.raises(DecodeError, match=base.digest.hex()):
            decode_tensors(frame, base=wrong)
    assert tensor_sizes(frame, base=base)["w"][0] == 9 * 8 * 4
    raw, stored = tensor_sizes(frame)["w"]  # raw is unknown without the base
    assert raw == stored == tensor_sizes(frame, base=base)["w"][1]


def test_a_base_with_other_tensors_serves_for_those_it_has(codec):
    new = {"w": pair((9, 8))[0], "v": pair((9, 8), seed=4)[0]}
    base = Base.of({"unused": np.zeros(3), "w": np.zeros((9, 8), np.float32)})
    encoding = codec.encode(new, base)
    assert list(encoding.notes["whole"]) == ["v"]
    assert encoding.tensors["v"] is new["v"]
    got = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base).arrays()
    assert got["v"].tobytes() == new["v"].tobytes()


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", IMPOSSIBLE)
def test_arguments_that_cannot_be(spec):
    with pytest.raises(ConfigError):
        parse_codec(spec)


@given(st.floats(0.01, 16), st.floats(1e-9, 1))
def test_any_argument_is_told_in_full(scale, share):
    for spec in (f"uq({scale!r})", f"topk({share!r})", f"stc({share!r})"):
        codec = parse_codec(spec)
        assert parse_codec(str(codec)) == codec
        assert Pipeline.parse(f"{codec} | fedwt | none").update == codec


def test_plain_arguments_are_told_plainly():
    assert [number_text(value) for value in (2.0, 0.5, 0.04, 1 / 3)] == ["2", "0.5", "0.04", "0.3333333333333333"]
    assert str(parse_codec("uq(2.0)")) == "uq(2)"


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("spec", ["uq(2)", "eden(1)", "eden(4)", "topk(0.01)", "stc(0.04)", "int8", "int4", "sign"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_encoding_takes_the_residual_and_one_and_a_half_of_the_largest_tensor(spec, dtype):
    """In float32; codecs without account have no residual."""
    shapes = {"a": (1024, 1024), "b": (2048, 2048), "c": (1024, 1024), "d": (100_000,)}
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    new = {name: noise(*shape).astype(kind) for name, shape in shapes.items()}
    base = Base.of({name: np.zeros_like(array) for name, array in new.items()})
    codec = parse_codec(spec)
    largest = 4 * max(array.size for array in new.values())
    total = 4 * sum(array.size for array in new.values()) if codec.keeps_account else 0
    tracemalloc.start()
    try:
        encoding = codec.encode(new, base)
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < total + 1.5 * largest + sum(array.nbytes for array in encoding.tensors.values())
        source = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base)
        before = tracemalloc.get_traced_memory()[0]
        for tensor in source.specs:
            for start in range(0, tensor.size, 1 << 18):
                source.read(tensor.name, start, min(start + (1 << 18), tensor.size))
        assert tracemalloc.get_traced_memory()[0] - before < 100_000, "a source that was read keeps what it decoded"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spec", ["uq(2)", "eden(2)", "topk(0.01)", "stc(0.04)", "int8", "int4", "sign"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoding_takes_the_tensor_and_little_more(spec, dtype):
    """Up to twenty megabytes beside it, of which a tensor four times as large would take no more."""
    new = noise(2048, 2048).astype(getattr(ml_dtypes, dtype, dtype))
    base, codec = Base.of({"w": np.zeros_like(new)}), parse_codec(spec)
    encoding = codec.encode({"w": new}, base)
    source = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base)
    tracemalloc.start()
    try:
        source.read("w", 0, new.size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < new.nbytes + (20 << 20)


@pytest.mark.parametrize("spec", ["uq(2)", "eden(2)", "topk(0.01)", "stc(0.04)", "int8", "int4", "sign"])
def test_a_source_that_is_being_read_keeps_two_megabytes(spec):
    """The reduction has one for each site."""
    new = noise(2048, 2048).astype(np.float32)
    base, codec = Base.of({"w": np.zeros_like(new)}), parse_codec(spec)
    encoding = codec.encode({"w": new}, base)
    source = codec.decode(MemoryTensors(encoding.tensors), encoding.notes, base)
    tracemalloc.start()
    try:
        source.read("w", 1 << 20, (1 << 20) + 10)
        assert tracemalloc.get_traced_memory()[0] < (2 << 20) + 100_000
    finally:
        tracemalloc.stop()
