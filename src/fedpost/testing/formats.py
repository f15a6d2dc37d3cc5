"""The contract of a tensor format; see :class:`fedpost.tensors.Format`."""

# ruff: noqa: S101, PLR2004 - asserting is what a suite is for, and its numbers are examples
from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from fedpost.compression import Compression
from fedpost.errors import DecodeError, EncodeError, IntegrityError, LimitError
from fedpost.frame import DEFAULT_LIMITS, Frame
from fedpost.tensors import Array, Format, TensorSource
from fedpost.testing.samples import (
    DTYPES,
    NAMES,
    SHAPES,
    assert_same_tensors,
    damaged,
    memory_layouts,
    random_array,
)

__all__ = ["FormatContract"]

_CODINGS = (None, Compression("zstd", 1), Compression("gzip", 1), Compression("lz4", 0))


class FormatContract:
    """Override the fixture :meth:`tensor_format`.

    Attributes:
        dtypes: The element types that the format carries.
        zero_copy_encode: The segments of large contiguous arrays are the arrays' own memory.
        zero_copy_decode: Decoded arrays are views of the frame's own memory where it is not compressed.
    """

    dtypes: ClassVar[tuple[np.dtype[Any], ...]] = DTYPES
    zero_copy_encode: ClassVar[bool] = True
    zero_copy_decode: ClassVar[bool] = True

    @pytest.fixture
    def tensor_format(self) -> Format:
        """The format under test."""
        raise NotImplementedError

    # ── what goes in comes out ───────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_every_element_type_comes_back(self, tensor_format: Format, shape: tuple[int, ...]) -> None:
        """Values come back to the bit, byte order included, whatever the element type and the shape."""
        sent = {str(index): random_array(dtype, shape) for index, dtype in enumerate(self.dtypes)}
        assert_same_tensors(_sent(tensor_format, sent).arrays(), sent)

    @pytest.mark.parametrize("compression", _CODINGS, ids=str)
    def test_every_memory_layout_comes_back(self, tensor_format: Format, compression: Compression | None) -> None:
        """How an array lies in memory is the sender's affair; a compression makes no difference to what comes back."""
        sent = memory_layouts()
        assert_same_tensors(_sent(tensor_format, sent, compression).arrays(), sent)

    def test_names_come_back(self, tensor_format: Format) -> None:
        """Names are kept as they are, in the order in which they were given."""
        for names in (NAMES, NAMES[::-1]):
            sent = {name: np.array([index]) for index, name in enumerate(names)}
            assert_same_tensors(_sent(tensor_format, sent).arrays(), sent)

    def test_nothing_comes_back(self, tensor_format: Format) -> None:
        """A model without tensors is a model."""
        source = _sent(tensor_format, {})
        assert source.specs == ()
        assert source.arrays() == {}

    def test_many_come_back(self, tensor_format: Format) -> None:
        """Thousands of small tensors come back, each as itself."""
        sent = {f"layer{index}": np.full(index % 5, index, np.int32) for index in range(3000)}
        assert_same_tensors(_sent(tensor_format, sent).arrays(), sent)

    def test_the_specs_are_those_of_the_arrays(self, tensor_format: Format) -> None:
        """``specs`` says what ``arrays`` gives, without decoding any."""
        source = _sent(tensor_format, _mixture())
        found = [(name, array.dtype, array.shape) for name, array in source.arrays().items()]
        assert [(spec.name, spec.dtype, spec.shape) for spec in source.specs] == found

    def test_threads_do_not_meet(self, tensor_format: Format) -> None:
        """A format has no state: threads may encode and decode with the same one."""
        models = [{f"{index}": random_array(np.dtype(np.float32), (50, 40), seed=index)} for index in range(32)]
        with ThreadPoolExecutor(8) as pool:
            for sent, source in zip(models, pool.map(lambda sent: _sent(tensor_format, sent), models), strict=True):
                assert_same_tensors(source.arrays(), sent)

    # ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("compression", _CODINGS, ids=str)
    def test_a_range_is_a_slice(self, tensor_format: Format, compression: Compression | None) -> None:
        """``read`` gives what slicing the flattened array would, for every tensor, ends and nothing included."""
        sent = _mixture()
        source = _sent(tensor_format, sent, compression)
        for name, array in sent.items():
            flat, size = array.reshape(-1), array.size
            for start, stop in {(0, size), (0, 0), (size, size), (size // 3, size // 2), (max(size - 1, 0), size)}:
                assert_same_tensors({name: source.read(name, start, stop)}, {name: flat[start:stop]})

    @pytest.mark.parametrize("compression", _CODINGS, ids=str)
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_a_range_crosses_chunks(self, tensor_format: Format, compression: Compression | None, order: str) -> None:
        """Ranges that start and end anywhere in the chunks of 1 MiB are read right."""
        array = np.asarray((np.arange(700_000, dtype=np.float32) % 1000).reshape(700, 1000), order=order)  # type: ignore[call-overload]
        source = _sent(tensor_format, {"before": np.ones(3), "weights": array}, compression)
        flat = array.reshape(-1)
        chunk = (1 << 20) // 4
        for start, stop in ((chunk - 1, chunk + 1), (2 * chunk, 2 * chunk), (5, 2 * chunk + 5), (chunk, array.size)):
            np.testing.assert_array_equal(source.read("weights", start, stop), flat[start:stop])

    # ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_what_is_encoded_is_left_alone(self, tensor_format: Format) -> None:
        """Encoding changes neither the arrays nor whether they can be written to."""
        sent = memory_layouts()
        before = {name: (array.tobytes(), array.flags.writeable, array.shape) for name, array in sent.items()}
        _sent(tensor_format, sent)
        assert before == {name: (array.tobytes(), array.flags.writeable, array.shape) for name, array in sent.items()}

    def test_what_is_decoded_is_read_only(self, tensor_format: Format) -> None:
        """Nobody can write to a decoded array: it may be the frame's memory, which others read as well."""
        for array in _sent(tensor_format, _mixture()).arrays().values():
            assert not array.flags.writeable

    def test_large_arrays_are_not_copied_into_a_frame(self, tensor_format: Format) -> None:
        """The segments of large arrays in C or Fortran order are their own memory, if the format says so."""
        for order in ("C", "F"):
            array = np.asarray(np.zeros((256, 128)), order=order)
            segments = tensor_format.encode({"weights": array}).segments
            own = any(np.may_share_memory(array, np.frombuffer(segment, np.uint8)) for segment in segments)
            assert own or not self.zero_copy_encode

    def test_large_arrays_are_not_copied_out_of_a_frame(self, tensor_format: Format) -> None:
        """Decoded arrays are views of the buffer that the frame was decoded from, if the format says so."""
        encoded = tensor_format.encode({"C": np.ones((256, 128)), "F": np.ones((256, 128), order="F")})
        buffer = np.frombuffer(bytes(Frame.build(encoded.sections, encoded.segments)), np.uint8)
        for array in tensor_format.decode(Frame.decode(buffer.data), DEFAULT_LIMITS).arrays().values():
            assert np.may_share_memory(array, buffer) or not self.zero_copy_decode

    # ── accounting ───────────────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("compression", _CODINGS, ids=str)
    def test_stored_sizes_sum_to_what_is_stored(self, tensor_format: Format, compression: Compression | None) -> None:
        """Each tensor has its share of the segments' stored bytes, and together they are all of them."""
        for sent in (_mixture(), {"zeros": np.zeros(100_000), "random": random_array(np.dtype(np.int64), (1000,))}, {}):
            frame = _frame(tensor_format, sent, compression)
            sizes = tensor_format.stored_sizes(frame, tensor_format.decode(frame, DEFAULT_LIMITS))
            assert list(sizes) == list(sent)
            assert min(sizes.values(), default=0) >= 0
            stored = sum(frame.stored_size(index) for index in range(len(frame)))
            assert abs(sum(sizes.values()) - stored) <= len(sent)  # shares of a shared segment are rounded

    # ── what must be refused ─────────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize(
        "array", [np.array([object()]), np.array([(1, None)], [("a", "i4"), ("b", "O")])], ids=["object", "structured"]
    )
    def test_objects_are_refused(self, tensor_format: Format, array: Array) -> None:
        """An element type that has no bytes is refused by the sender, with the tensor's name."""
        with pytest.raises(EncodeError, match="culprit"):
            tensor_format.encode({"fine": np.ones(3), "culprit": array})

    @pytest.mark.parametrize("name", [1, None, b"weights", ("a", "b")], ids=repr)
    def test_names_that_are_not_text_are_refused(self, tensor_format: Format, name: Any) -> None:
        """A name is text."""
        with pytest.raises(EncodeError):
            tensor_format.encode({name: np.ones(3)})

    @pytest.mark.parametrize("value", [[1.0, 2.0], 1.0, None, "weights"], ids=repr)
    def test_what_is_no_array_is_refused(self, tensor_format: Format, value: Any) -> None:
        """A tensor is an array already; nothing is converted on the way."""
        with pytest.raises(EncodeError, match="culprit"):
            tensor_format.encode({"fine": np.ones(3), "culprit": value})

    def test_the_budget_of_tensors_is_kept(self, tensor_format: Format) -> None:
        """As many tensors as the limit are decoded, one more is refused."""
        frame = _frame(tensor_format, {str(index): np.ones(2) for index in range(10)})
        assert len(tensor_format.decode(frame, replace(DEFAULT_LIMITS, max_tensors=10)).arrays()) == 10
        with pytest.raises(LimitError):
            tensor_format.decode(frame, replace(DEFAULT_LIMITS, max_tensors=9))

    def test_a_missing_section_is_refused(self, tensor_format: Format) -> None:
        """Without any one of its sections a frame holds no tensors of this format."""
        encoded = tensor_format.encode(_small())
        for missing in encoded.sections:
            sections = {name: value for name, value in encoded.sections.items() if name != missing}
            with pytest.raises(DecodeError):
                _arrays(tensor_format, sections, encoded.segments)

    def test_a_damaged_section_is_refused(self, tensor_format: Format) -> None:
        """A table that lies is refused with a DecodeError. What is not refused fills the segments, as ever."""
        frame = _frame(tensor_format, _small())
        sections = {name: frame.section(name, object) for name in frame.section_names}
        segments = [frame.segment(index) for index in range(len(frame))]
        refused = 0
        for name, section in sections.items():
            for wrong in damaged(section):
                refused += _refused(tensor_format, {**sections, name: wrong}, segments)
        assert refused >= 10 * len(sections)

    def test_wrong_segments_are_refused(self, tensor_format: Format) -> None:
        """A segment too many or too few, or of another size than the table says, is refused."""
        encoded = tensor_format.encode(_small())
        segments = encoded.segments
        for wrong in (
            segments[:-1],
            [*segments, segments[-1]],
            [*segments, memoryview(b"")],
            [*segments[:-1], segments[-1][:-1]],
            [*segments[:-1], memoryview(bytes(segments[-1]) + b"\0")],
            [],
        ):
            with pytest.raises(DecodeError):
                _arrays(tensor_format, encoded.sections, wrong)

    def test_what_stands_in_a_segment_does_no_harm(self, tensor_format: Format) -> None:
        """Any byte of a segment can be anything: the arrays have other values, or the frame is refused."""
        encoded = tensor_format.encode({"weights": np.arange(8, dtype=np.float32)})
        first = bytes(encoded.segments[0])
        for position in range(min(len(first), 160)):
            for byte in (0, 0xFF, first[position] ^ 1, ord("9"), ord("("), ord("O")):
                wrong = first[:position] + bytes([byte]) + first[position + 1 :]
                _refused(tensor_format, encoded.sections, [memoryview(wrong), *encoded.segments[1:]])

    def test_a_digest_that_does_not_match_is_noticed(self, tensor_format: Format) -> None:
        """Where digests are checked late, they are checked before an array is handed out."""
        damaged_frame = bytearray(bytes(_frame(tensor_format, {"weights": np.ones(5000)})))
        damaged_frame[-1] ^= 1
        frame = Frame.decode(damaged_frame, verify="lazy")
        with pytest.raises(IntegrityError):
            tensor_format.decode(frame, DEFAULT_LIMITS).arrays()


def _small() -> dict[str, Array]:
    return {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(3, np.int64),
        "empty": np.ones((0, 2), np.float32),
        "Fortran": np.ones((40, 50), np.float32, order="F"),
        "scalar": np.array(True),
    }


def _mixture() -> dict[str, Array]:
    kinds = map(np.dtype, ("float32", ">f8", "complex64", "U3"))
    return {f"{dtype}{shape}": random_array(dtype, shape) for dtype in kinds for shape in SHAPES} | memory_layouts()


def _frame(tensor_format: Format, tensors: Mapping[str, Array], compression: Compression | None = None) -> Frame:
    """The tensors as a receiver gets them."""
    encoded = tensor_format.encode(tensors)
    return Frame.decode(bytes(Frame.build(encoded.sections, encoded.segments, compression=compression)))


def _sent(tensor_format: Format, tensors: Mapping[str, Array], compression: Compression | None = None) -> TensorSource:
    return tensor_format.decode(_frame(tensor_format, tensors, compression), DEFAULT_LIMITS)


def _arrays(tensor_format: Format, sections: Mapping[str, object], segments: list[memoryview]) -> dict[str, Array]:
    """What a receiver makes of sections and segments whose digests are right."""
    source = tensor_format.decode(Frame.decode(bytes(Frame.build(sections, segments))), DEFAULT_LIMITS)
    arrays = source.arrays()
    assert [(spec.name, spec.dtype, spec.shape) for spec in source.specs] == [
        (name, array.dtype, array.shape) for name, array in arrays.items()
    ]
    return arrays


def _refused(tensor_format: Format, sections: Mapping[str, object], segments: list[memoryview]) -> bool:
    """Whether the frame is refused; if it is not, its arrays must have no more bytes than its segments."""
    try:
        arrays = _arrays(tensor_format, sections, segments)
    except DecodeError:
        return True
    assert sum(array.nbytes for array in arrays.values()) <= sum(segment.nbytes for segment in segments)
    return False
