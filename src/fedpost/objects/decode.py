"""A tree and segments to Python objects.

Rules: nothing is built that is not registered here; rows are built in order, each from rows before it; every count is
compared with what is there before anything is allocated; what fails is a DecodeError that names the row's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import ormsgpack

from fedpost.errors import DecodeError, FedpostError, LimitError
from fedpost.frame import Frame, Limits
from fedpost.objects.arrays import array_of, scalar_of, shape_of
from fedpost.objects.encode import External
from fedpost.objects.hashing import dict_of, set_of
from fedpost.objects.plans import Plan, plan_for
from fedpost.objects.types import TypeRegistry
from fedpost.objects.wire import MAX_DEPTH, REFERENCE, SECTION, TREE_DECODER, Kind, Text, Tree

__all__ = ["LazyLeaf", "ObjectReader", "tree_of"]

_TAKEN: Final = object()
_TREE: Final[Any] = Tree | None  # made once: a union takes longer to make than the section to decode


def tree_of(frame: Frame, limits: Limits) -> tuple[Tree, int]:
    """The tree of a frame that holds an object, and the number of segments that it stands in: 0 or 1.

    Raises:
        DecodeError: The frame holds none, or an impossible one.
        LimitError: It has more bytes than ``limits.max_items``: every item takes one at least.
    """
    tree: Tree | None = frame.section(SECTION, _TREE, limit=min(limits.max_section, limits.max_items))
    if tree is not None:
        return tree, 0
    if not len(frame):
        raise DecodeError("the object's tree is missing", where=f"section {SECTION!r}")
    if frame.raw_size(0) > limits.max_items:
        raise LimitError(f"a tree of {frame.raw_size(0)} bytes, {limits.max_items} allowed", where="segment 0")
    try:
        return TREE_DECODER.decode(frame.segment(0)), 1
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(str(error), where="object tree") from error


class LazyLeaf:
    """A large leaf that is not read yet.

    Args:
        load: Gives the leaf.
        size: Its size in bytes.
    """

    __slots__ = ("_load", "size")

    def __init__(self, load: Callable[[], Any], size: int) -> None:
        self._load = load
        self.size = size

    def load(self) -> Any:
        """Read the leaf, whole.

        Raises:
            DecodeError: It is not there, or is another.
        """
        return self._load()


class ObjectReader:
    """Builds one object.

    Args:
        frame: Where the leaves are.
        tree: What the object is.
        leaves: The number of the segment at which its leaves begin.
        registry: Which types may be built.
        limits: The budget.
        copy: Whether arrays can be written to afterwards; without it they are views of the frame.
        manager: Handed to decomposers.
        external: Where leaves are that are not in the frame.
    """

    def __init__(
        self,
        frame: Frame,
        tree: Tree,
        leaves: int,
        registry: TypeRegistry,
        *,
        limits: Limits,
        copy: bool = False,
        manager: Any = None,
        external: External | None = None,
    ) -> None:
        self._frame = frame
        self._tree = tree
        self._limits = limits
        self._copy = copy
        self._manager = manager
        self._external = external
        self._types = [plan_for(row, registry) for row in tree.types]
        self._values: list[Any] = []
        self._depths: list[int] = []
        self._once: bytearray = bytearray()
        self._depth = 0
        self._open = 0
        self._leaves = leaves
        self._used: set[int] = set()

    def read(self) -> Any:
        """The object.

        Raises:
            DecodeError: In any of its kinds.
        """
        values, depths, once = self._values, self._depths, self._once
        for packed in self._tree.table:
            self._depth = 0
            row = self._unpack(packed)
            if type(row) is not list or not row or type(row[0]) is not int or not 0 <= row[0] < len(_READERS):
                raise DecodeError("of no known kind", where=f"row {len(values)} of the object")
            try:
                value, single = _READERS[row[0]](self, row)
            except DecodeError as error:
                if error.where is not None:
                    raise
                raise type(error)(error.what, where=f"row {len(values)} of the object", hint=error.hint) from error
            except FedpostError:
                raise
            except Exception as error:  # too few or too many parts, or whatever NumPy makes of them
                raise DecodeError(f"{Kind.NAMES[row[0]]}: {error}", where=f"row {len(values)} of the object") from error
            values.append(value)
            depths.append(self._depth + 1)
            once.append(single)
            self._open += single
            if self._depth >= MAX_DEPTH:
                raise LimitError(f"nested more than {MAX_DEPTH} levels deep", where="object tree")
        root = self._unpack(self._tree.root)
        if self._open:
            raise DecodeError("a row that nothing refers to", where="object tree")
        if len(self._used) != len(self._frame) - self._leaves:
            raise DecodeError("a segment that nothing refers to", where="object tree")
        return root

    def _unpack(self, packed: msgspec.Raw) -> Any:
        try:
            return ormsgpack.unpackb(memoryview(packed), ext_hook=self._refer)
        except ormsgpack.MsgpackDecodeError as error:
            cause = error.__cause__ or error.__context__
            if isinstance(cause, DecodeError):
                raise cause from error
            raise DecodeError(f"{error}", where="object tree") from error

    def _refer(self, code: int, data: bytes) -> Any:
        index = int.from_bytes(data, "little")
        if code != REFERENCE or len(data) > 8 or index >= len(self._values):  # noqa: PLR2004 - more rows than memory has
            raise DecodeError("a reference to no earlier row", where="object tree")
        if self._depths[index] > self._depth:  # noqa: PLR1730 - max() would be a call more for every reference
            self._depth = self._depths[index]
        value = self._values[index]
        if self._once[index]:
            if value is _TAKEN:
                raise DecodeError("a container that is referred to twice", where="object tree")
            self._values[index] = _TAKEN
            self._open -= 1
        return value

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _integer(self, row: list[Any]) -> tuple[Any, bool]:
        _, data = row
        if type(data) is not bytes:
            raise DecodeError("an integer without bytes")
        if len(data) > self._limits.max_integer:
            raise LimitError(f"an integer of {len(data)} bytes, {self._limits.max_integer} allowed")
        return int.from_bytes(data, "little", signed=True), True

    def _blob(self, row: list[Any]) -> tuple[Any, bool]:
        text, place = row[1], row[2]
        if type(text) is not int or not 0 <= text < Text.COUNT:
            raise DecodeError("a blob of no known kind")
        extra = row[3:]
        if len(extra) != (2 if text == Text.MEMORYVIEW else 0):
            raise DecodeError("a blob with too few or too many parts")
        return self._leaf(place, None, lambda data: _blob_of(text, data, extra)), False

    def _tuple(self, row: list[Any]) -> tuple[Any, bool]:
        return tuple(_only_list(row)), True

    def _set(self, row: list[Any]) -> tuple[Any, bool]:
        return set_of(_only_list(row)), True

    def _frozenset(self, row: list[Any]) -> tuple[Any, bool]:
        return frozenset(set_of(_only_list(row))), True

    def _dict(self, row: list[Any]) -> tuple[Any, bool]:
        _, keys, values = row
        if type(keys) is not list or type(values) is not list:
            raise DecodeError("a dictionary without lists of keys and values")
        return dict_of(keys, values), True

    def _array(self, row: list[Any]) -> tuple[Any, bool]:
        _, name, lengths, order, place = row
        dtype, shape, size = shape_of(lengths, name)
        if type(place) is bytes:
            return array_of(dtype, shape, size, order, place, copy=self._copy), False
        return self._leaf(place, size, lambda data: array_of(dtype, shape, size, order, data, copy=self._copy)), False

    def _scalar(self, row: list[Any]) -> tuple[Any, bool]:
        _, name, data = row
        return scalar_of(name, data), True

    def _instance(self, row: list[Any]) -> tuple[Any, bool]:
        _, number, state = row
        plan = self._plan_of(number)
        if plan.fields is not None and (type(state) is not list or len(state) != len(plan.fields)):
            raise DecodeError(f"a {plan.serializer.name!r} that does not have its {len(plan.fields)} fields")
        return plan.build(state, self._manager), not plan.serializer.shared

    def _records(self, row: list[Any]) -> tuple[Any, bool]:
        _, number, count, columns = row
        plan = self._plan_of(number)
        if type(columns) is not list or not columns or plan.fields is None or len(columns) != len(plan.fields):
            raise DecodeError(f"records of {plan.serializer.name!r} without a column for each field")
        if {type(column) for column in columns} != {list} or {len(column) for column in columns} != {count}:
            raise DecodeError(f"a column of {plan.serializer.name!r} does not have a value for each record")
        return plan.build_all(columns, self._manager), True

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_of(self, number: Any) -> Plan:
        if type(number) is not int or not 0 <= number < len(self._types):
            raise DecodeError("an instance of no type that the object names")
        return self._types[number]

    def _leaf(self, place: Any, size: int | None, build: Callable[[Any], Any]) -> Any:
        """A leaf out of its bytes, wherever they are."""
        if type(place) is bytes:
            return build(place)
        if type(place) is int:
            if not 0 <= place < len(self._frame) - self._leaves:
                raise DecodeError(f"leaf {place} of {len(self._frame) - self._leaves}")
            self._used.add(place)
            return build(self._frame.segment(place + self._leaves))
        if type(place) is not list or list(map(type, place)) != [bytes, int]:
            raise DecodeError("a leaf that is nowhere")
        reference, nbytes = place
        if self._external is None:
            raise DecodeError(
                f"a leaf of {nbytes} bytes is kept outside of the frame", hint="Pass external= to say where."
            )
        if nbytes < 0 or (size is not None and nbytes != size):
            raise DecodeError(f"a leaf of {size} bytes has {nbytes} of them elsewhere")
        found = self._external.get(reference, nbytes)
        return LazyLeaf(lambda: build(found()), nbytes) if callable(found) else build(found)


def _only_list(row: list[Any]) -> list[Any]:
    _, items = row
    if type(items) is not list:
        raise DecodeError("a container without a list of items")
    return items


def _blob_of(text: int, data: bytes | memoryview, extra: list[Any]) -> Any:
    if text == Text.BYTES:
        return bytes(data)
    if text == Text.BYTEARRAY:
        return bytearray(data)
    if text == Text.MEMORYVIEW:
        return _memoryview_of(data, *extra)
    try:
        return str(data, "utf-8", "surrogatepass" if text == Text.SURROGATES else "strict")
    except UnicodeDecodeError as error:
        raise DecodeError("a text that is not UTF-8") from error


def _memoryview_of(data: bytes | memoryview, code: Any, shape: Any) -> memoryview:
    if type(code) is not str or type(shape) is not list or not all(type(length) is int for length in shape):
        raise DecodeError("a memoryview without format and shape")
    view = memoryview(data).toreadonly()
    try:
        return view if code == "B" and shape == [view.nbytes] else view.cast(code, shape)  # type: ignore[call-overload] # checked by cast
    except (TypeError, ValueError) as error:
        raise DecodeError(f"a memoryview that cannot be: {error}") from error


_READERS: Final[Mapping[int, Callable[[ObjectReader, list[Any]], tuple[Any, bool]]]] = {
    Kind.INTEGER: ObjectReader._integer,  # noqa: SLF001 - the class's own table
    Kind.BLOB: ObjectReader._blob,  # noqa: SLF001
    Kind.TUPLE: ObjectReader._tuple,  # noqa: SLF001
    Kind.SET: ObjectReader._set,  # noqa: SLF001
    Kind.FROZENSET: ObjectReader._frozenset,  # noqa: SLF001
    Kind.DICT: ObjectReader._dict,  # noqa: SLF001
    Kind.RECORDS: ObjectReader._records,  # noqa: SLF001
    Kind.ARRAY: ObjectReader._array,  # noqa: SLF001
    Kind.SCALAR: ObjectReader._scalar,  # noqa: SLF001
    Kind.INSTANCE: ObjectReader._instance,  # noqa: SLF001
}
