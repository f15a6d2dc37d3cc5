"""The contract of an update codec; see :class:`fedpost.codecs.Codec`."""

# ruff: noqa: S101, PLR2004 - asserting is what a suite is for, and its numbers are examples
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import ml_dtypes
import msgspec
import numpy as np
import pytest

from fedpost.codecs import Base, Capabilities, Codec, capabilities_of, codec_config, codec_of, parse_codec
from fedpost.errors import ConfigError, DecodeError, EncodeError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.pipeline import Pipeline
from fedpost.tensors import Array, Fedwt, TensorSource
from fedpost.testing.samples import assert_same_tensors, damaged, memory_layouts, random_array

__all__ = ["CodecContract", "observed_capabilities"]

_TRIALS: Final = 60
_ERRORS: Final = 6
"""Standard errors that a mean may be off."""
_NOTHING: Final = 1e-6
"""Mean error, of values about 1, that is rounding."""
_DIRECTIONS: Final = 8


class CodecContract:
    """Override the fixture :meth:`codec`, and :meth:`check_law` where the two bounds do not say what is promised.

    Attributes:
        relative_error: Largest error of a value as a share of that value; 0 for a codec that loses nothing.
        scaled_error: Largest error of a value as a share of the tensor's largest value, as quantizers have it.
    """

    relative_error: ClassVar[float] = 0.0
    scaled_error: ClassVar[float] = 0.0

    @pytest.fixture
    def codec(self) -> Codec:
        """The codec under test."""
        raise NotImplementedError

    def check_law(self, sent: Array, received: Array) -> None:
        """Check one tensor's values: floats within the bounds, everything else to the bit."""
        if not (self.relative_error or self.scaled_error) or not _is_float(sent.dtype):
            assert received.tobytes() == sent.tobytes()
            return
        wide, back = sent.astype(np.float64), received.astype(np.float64)
        largest = np.max(np.abs(wide), initial=0)
        assert np.all(np.abs(back - wide) <= self.relative_error * np.abs(wide) + self.scaled_error * largest)

    # ── what goes in comes out ───────────────────────────────────────────────────────────────────────────────────────

    def test_values_follow_the_law(self, codec: Codec) -> None:
        """Values come back as the codec promises, whatever the shape and the layout in memory."""
        sent = _update()
        for name, received in _sent(codec, sent).arrays().items():
            self.check_law(sent[name], received)

    def test_tensors_come_back_in_kind(self, codec: Codec) -> None:
        """Names, their order, element types and shapes come back exactly, in the specs and in the arrays."""
        sent = _update()
        source = _sent(codec, sent)
        expected = [(name, array.dtype, array.shape) for name, array in sent.items()]
        assert [(spec.name, spec.dtype, spec.shape) for spec in source.specs] == expected
        assert [(name, array.dtype, array.shape) for name, array in source.arrays().items()] == expected

    def test_encoding_keeps_the_names(self, codec: Codec) -> None:
        """The tensors that are sent have the names of those that were given."""
        sent = _update()
        small, *_ = codec.encode(sent, _base(codec, sent))
        assert list(small) == list(sent)

    def test_a_range_is_a_slice(self, codec: Codec) -> None:
        """A range that is read is the same range of the whole array, to the bit."""
        sent = _update()
        source = _sent(codec, sent)
        for name, array in source.arrays().items():
            size = array.size
            for start, stop in {(0, size), (0, 0), (size, size), (size // 3, size // 2), (max(size - 1, 0), size)}:
                part = array.reshape(-1)[start:stop]
                assert_same_tensors({name: source.read(name, start, stop)}, {name: part})

    def test_nothing_comes_back(self, codec: Codec) -> None:
        """An update without tensors is an update."""
        assert _sent(codec, {}).arrays() == {}

    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_what_is_not_finite_stays_so_or_is_refused(self, codec: Codec, value: float, dtype: type[Any]) -> None:
        """A model that diverged must not look healthy: infinities and NaN come back, or the sender is told."""
        sent = {"weights": np.array([1, value, 2], dtype)}
        try:
            received = _sent(codec, sent).arrays()["weights"]
        except EncodeError:
            return
        np.testing.assert_array_equal(received, sent["weights"])

    @pytest.mark.parametrize("value", [3e38, -3e38, 1e300])
    def test_what_is_too_large_is_refused(self, codec: Codec, value: float) -> None:
        """A finite value that the codec cannot carry is an error, never an infinity."""
        sent = np.array([1, value, 2], np.float64)
        try:
            received = _sent(codec, {"weights": sent}).arrays()["weights"]
        except EncodeError:
            return
        self.check_law(sent, received)

    def test_what_is_encoded_is_left_alone(self, codec: Codec) -> None:
        """Encoding changes neither the arrays nor whether they can be written to."""
        sent = _update()
        before = {name: (array.tobytes(), array.dtype, array.flags.writeable) for name, array in sent.items()}
        _sent(codec, sent)
        assert before == {name: (array.tobytes(), array.dtype, array.flags.writeable) for name, array in sent.items()}

    # ── notes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_notes_are_messagepack(self, codec: Codec) -> None:
        """Notes survive the frame's header: a map with text for keys, of MessagePack's own types."""
        update = _update()
        _, notes, _ = codec.encode(update, _base(codec, update))
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(notes), type=dict[str, Any]) == notes

    def test_missing_notes_are_refused(self, codec: Codec) -> None:
        """What decoding needs to know is not guessed."""
        update = _update()
        base = _base(codec, update)
        small, notes, _ = codec.encode(update, base)
        for missing in notes:
            with pytest.raises(DecodeError):
                codec.decode(
                    _source(small), {name: note for name, note in notes.items() if name != missing}, base
                ).arrays()

    def test_notes_for_other_tensors_are_refused(self, codec: Codec) -> None:
        """Where notes go by tensor, each of them is for a tensor that is there."""
        update = _update()
        base = _base(codec, update)
        small, notes, _ = codec.encode(update, base)
        for name, note in notes.items():
            if isinstance(note, Mapping) and note and set(note) <= set(small):
                other = {**note, "no such tensor": next(iter(note.values()))}
                with pytest.raises(DecodeError):
                    codec.decode(_source(small), {**notes, name: other}, base).arrays()

    def test_damaged_notes_are_refused(self, codec: Codec) -> None:
        """Notes that do not fit are a DecodeError. What is not refused has the tensors that were sent."""
        sent = {name: array for name, array in _update().items() if array.size < 100}
        base = _base(codec, sent)
        small, notes, _ = codec.encode(sent, base)
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(notes), type=dict[str, Any])
        for name, note in plain.items():
            for wrong in damaged(note):
                try:
                    received = codec.decode(_source(small), {**plain, name: wrong}, base).arrays()
                except DecodeError:
                    continue
                assert [(name, array.shape) for name, array in received.items()] == [
                    (name, array.shape) for name, array in sent.items()
                ]

    def test_a_base_that_is_needed_is_asked_for(self, codec: Codec) -> None:
        """Without its base a codec that needs one neither encodes nor decodes, nor with another; others need none."""
        sent = {"weights": np.arange(6, dtype=np.float32)}
        base = _base(codec, sent)
        small, notes, _ = codec.encode(sent, base)
        if base is None:
            assert codec.decode(_source(small), notes, Base.of(sent)).specs
            return
        with pytest.raises(ConfigError):
            codec.encode(sent)
        for wrong in (None, Base.of({"weights": sent["weights"] + 1})):
            with pytest.raises(DecodeError, match=base.digest.hex()):
                codec.decode(_source(small), notes, wrong)

    # ── what a codec is ──────────────────────────────────────────────────────────────────────────────────────────────

    def test_its_text_names_it_in_full(self, codec: Codec) -> None:
        """A receiver makes an equal codec of the text in the frame, by itself or within a pipeline."""
        assert parse_codec(str(codec)) == codec
        assert str(parse_codec(str(codec))) == str(codec)
        assert Pipeline.parse(f"{codec} | fedwt | none").update == codec

    def test_its_config_names_it_in_full(self, codec: Codec) -> None:
        """An equal codec comes of its configuration as JSON, by itself or within a pipeline."""
        config = msgspec.json.decode(msgspec.json.encode(codec_config(codec)))
        assert codec_of(config) == codec
        pipeline = Pipeline(codec)
        assert str(Pipeline.from_config(msgspec.json.decode(msgspec.json.encode(pipeline.to_config())))) == str(
            pipeline
        )

    def test_it_keeps_what_it_promises(self, codec: Codec) -> None:
        """What it states as capabilities can be observed; and it keeps account of nothing without stating it."""
        stated, seen = capabilities_of(codec), observed_capabilities(codec)
        assert stated.needs_base == codec.needs_base == seen.needs_base
        assert stated.stateful == seen.stateful
        for name in ("linear", "unbiased", "lossless"):
            assert getattr(seen, name) or not getattr(stated, name), name

    def test_it_is_a_value(self, codec: Codec) -> None:
        """Codecs are equal if they do the same, can be keys, and do not change."""
        assert codec == parse_codec(str(codec))
        assert hash(codec) == hash(parse_codec(str(codec)))
        assert codec != object()
        with pytest.raises((AttributeError, TypeError)):  # frozen dataclasses with slots raise either
            codec.anything = 1  # type: ignore[attr-defined]


def observed_capabilities(codec: Codec) -> Capabilities:
    """What a codec shows itself to be capable of, in a few updates of matrices and vectors.

    What it shows it need not promise: a few updates cannot tell a codec that loses nothing from one that seldom does.
    """
    update = {name: array for name, array in _update().items() if _is_float(array.dtype)}
    sent = _sent(codec, update).arrays()
    return Capabilities(
        linear=_looks_linear(codec),
        unbiased=_looks_unbiased(codec),
        lossless=all(sent[name].tobytes() == array.tobytes() for name, array in update.items()),
        stateful=bool(codec.encode(update, _base(codec, update)).residual),
        needs_base=_fails_without_base(codec, update),
    )


def _fails_without_base(codec: Codec, update: Mapping[str, Array]) -> bool:
    try:
        codec.encode(update)
    except ConfigError:
        return True
    return False


def _looks_linear(codec: Codec) -> bool:
    """Whether the sum of what is sent of two updates is what is sent of their sum; all sums are exact."""
    random = np.random.default_rng(5)
    shapes = {"w": ((40, 30), np.float32, 1 << 14), "d": ((40, 30), np.float64, 1 << 14), "v": ((30,), np.float32, 9)}
    one, two = (
        {name: random.integers(-most, most, shape).astype(dtype) for name, (shape, dtype, most) in shapes.items()}
        for _ in range(2)
    )
    base = Base.of(one) if codec.needs_base else None
    first, second, both = (
        codec.encode(update, base).tensors for update in (one, two, {name: one[name] + two[name] for name in one})
    )
    return all(
        first[name].shape == second[name].shape == array.shape and np.array_equal(first[name] + second[name], array)
        for name, array in both.items()
    )


def _looks_unbiased(codec: Codec) -> bool:
    """Whether errors are zero on average, as far as the error of the average goes.

    A codec draws its random numbers from an update; one tensor that is another each time makes it draw others.
    """
    random = np.random.default_rng(6)
    fixed: dict[str, Array] = {
        "w": random.laplace(size=(24, 16)).astype(np.float32),
        "d": random.laplace(size=(24, 16)),
        "v": random.laplace(size=20).astype(np.float32),
        "two": np.array([[3.0], [1.0]], np.float32),
        "outlier": random.normal(size=(64, 64)).astype(np.float32),
    }
    fixed["outlier"][7, 9] = 1000
    # Errors along some directions: of a single value a rare jump may not be seen at all.
    directions = {
        name: [array, np.sign(array), *random.choice([-1.0, 1.0], (_DIRECTIONS, *array.shape))]
        for name, array in fixed.items()
    }
    errors = []
    for _ in range(_TRIALS):
        update = dict(fixed)
        for name in ("salt", "w.salt"):
            update[name] = random.choice([-1e-2, 1e-2], (16, 16)).astype(np.float32)
        base = _zeros(codec, update)
        small, notes, _ = codec.encode(update, base)
        received = codec.decode(_source(small), notes, base).arrays()
        wide = {name: received[name].astype(np.float64) - fixed[name] for name in fixed}
        errors.append([float(np.mean(wide[name] * way)) for name, ways in directions.items() for way in ways])
    mean, spread = np.mean(errors, axis=0), np.std(errors, axis=0)
    return bool(np.all(np.abs(mean) <= _ERRORS * spread / np.sqrt(_TRIALS) + _NOTHING))


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype == ml_dtypes.bfloat16


def _update() -> dict[str, Array]:
    """An update with values of very different size, within the normal range of every float."""
    random = np.random.default_rng(4)

    def floats(*shape: int) -> Array:
        values: Array = random.choice([-1.0, 1.0], shape) * 10 ** random.uniform(-3, 3, shape)
        return values

    edges = np.array([0.0, -0.0, 1.0, 1 + 2**-8, 1 + 2**-9, 1 + 2**-11, 1 - 2**-12, 2 - 2**-20, 60_000.0, 2**-14])
    return {
        "weights": floats(60, 50).astype(np.float32),
        "double": floats(60, 50),
        "half": floats(11, 3).astype(np.float16),
        "brain": floats(11, 3).astype(ml_dtypes.bfloat16),
        "edges": edges,
        "single edges": edges.astype(np.float32),
        "big-endian": floats(9).astype(">f4"),
        "scalar": np.float32(3.14159) * np.ones((), np.float32),
        "empty": np.ones((0, 4), np.float32),
        "zeros": np.zeros(70, np.float32),
        "steps": np.arange(-20, 20),
        "bytes": random_array(np.dtype(np.uint8), (33,)),
        "mask": random_array(np.dtype(bool), (17,)),
        **memory_layouts(floats(70, 60).astype(np.float32)),
    }


def _source(tensors: Mapping[str, Array]) -> TensorSource:
    """Encoded tensors as a receiver gets them."""
    encoded = Fedwt().encode(tensors)
    return Fedwt().decode(Frame.decode(bytes(Frame.build(encoded.sections, encoded.segments))), DEFAULT_LIMITS)


def _base(codec: Codec, tensors: Mapping[str, Array]) -> Base | None:
    """A base for those who need one: most of the tensors, with other values."""
    if not codec.needs_base:
        return None
    names = list(tensors)
    return Base.of({name: np.roll(tensors[name], 1) for name in names[len(names) // 4 :]})


def _zeros(codec: Codec, tensors: Mapping[str, Array]) -> Base | None:
    """A base of zeros for those who need one: the change is then the update, to the bit."""
    return Base.of({name: np.zeros_like(array) for name, array in tensors.items()}) if codec.needs_base else None


def _sent(codec: Codec, tensors: Mapping[str, Array]) -> TensorSource:
    base = _base(codec, tensors)
    small, notes, _ = codec.encode(tensors, base)
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(notes), type=dict[str, Any])
    return codec.decode(_source(small), received, base)
