"""A tree and segments to Python objects.

Rules: nothing is built that is not registered here; rows are built in order, each from rows before it; every count is
compared with what is there before anything is allocated; what fails is a DecodeError that names the row's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import ormsgpack

from fedpost.errors import DecodeError, LimitError, TransportError
from fedpost.frame import Frame, Limits
from fedpost.objects.arrays import array_of, scalar_of, shape_of
from fedpost.objects.encode import External
from fedpost.objects.hashing import dict_of, set_of
from fedpost.objects.plans import Plan, plan_for
from fedpost.objects.types import TypeRegistry
from fedpost.objects.wire import MAX_DEPTH, MEMORY_CODES, REFERENCE, SECTION, TREE_DECODER, Kind, Text, Tree
from fedpost.tensors.dtypes import dtype_name

__all__ = ["LazyLeaf", "ObjectReader", "tree_of"]

# What became of a row: referred to, and it may be again; not yet, and once is all; not yet; and that once has been.
_USED: Final = 0
_ONCE: Final = 1
_UNUSED: Final = 2
_TAKEN: Final = 3
_USES: Final = {kind: _UNUSED if kind in (Kind.BLOB, Kind.ARRAY) else _ONCE for kind in range(len(Kind.NAMES))}
"""What rows begin as; of instances the serializer says it."""
_INSTANCE: Final = Kind.INSTANCE
_DECODE: Final[Callable[[msgspec.Raw], Tree | None]] = msgspec.msgpack.Decoder(Tree | None).decode
_INDEX: Final = {bytes([index]): index for index in range(256)}


def tree_of(frame: Frame, limits: Limits) -> tuple[Tree, int]:
    """The tree of a frame that holds an object, and the number of segments that it stands in: 0 or 1.

    Raises:
        DecodeError: The frame holds none, or an impossible one.
        LimitError: It has more bytes than ``limits.max_items``: every item takes one at least.
    """
    tree = frame.decode_section(SECTION, _DECODE, limit=min(limits.max_section, limits.max_items))
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
        self._leaves = leaves
        self._used: set[int] = set()

    def read(self) -> Any:  # noqa: C901, PLR0915 - one loop: a call more for each row would cost as much as its work
        """The object.

        Raises:
            DecodeError: In any of its kinds.
        """
        values: list[Any] = []
        depths: list[int] = []
        uses = bytearray()
        depth = 0
        misreferred: str | None = None
        types, unpack = self._types, ormsgpack.unpackb

        def refer(code: int, data: bytes) -> Any:
            nonlocal depth, misreferred
            index = _INDEX.get(data)
            if index is None:
                index = int.from_bytes(data[:8], "little")
            if code != REFERENCE or index >= len(values) or len(data) > 8:  # noqa: PLR2004 - more rows than memory has
                misreferred = "a reference to no earlier row"
                raise DecodeError(misreferred, where="object tree")
            if depths[index] > depth:  # noqa: PLR1730 - max() would be a call more for every reference
                depth = depths[index]
            use = uses[index]
            if use:
                if use == _TAKEN:
                    misreferred = "a container that is referred to twice"
                    raise DecodeError(misreferred, where="object tree")
                uses[index] = _TAKEN if use == _ONCE else _USED
            return values[index]

        try:
            for packed in self._tree.table:
                depth = 0
                row = unpack(memoryview(packed), ext_hook=refer)
                try:
                    kind = row[0]
                    if type(row) is not list or type(kind) is not int:
                        raise TypeError  # noqa: TRY301 - as an index that is none
                    build = _READERS[kind]
                except (TypeError, LookupError) as error:
                    raise DecodeError("of no known kind", where=f"row {len(values)} of the object") from error
                try:
                    values.append(build(self, row))
                except DecodeError as error:
                    if error.where is not None:
                        raise
                    where = f"row {len(values)} of the object"
                    raise type(error)(error.what, where=where, hint=error.hint) from error
                except TransportError:
                    raise
                except Exception as error:  # too few or too many parts, or whatever NumPy makes of them
                    where = f"row {len(values)} of the object"
                    raise DecodeError(f"{Kind.NAMES[kind]}: {error}", where=where) from error
                depths.append(depth + 1)
                uses.append(
                    (_UNUSED if types[row[1]].serializer.shared else _ONCE) if kind == _INSTANCE else _USES[kind]
                )
                if depth >= MAX_DEPTH:
                    raise LimitError(f"nested more than {MAX_DEPTH} levels deep", where="object tree")
            root = unpack(memoryview(self._tree.root), ext_hook=refer)
        except DecodeError:  # a ValueError, as is MessagePack's
            raise
        except ormsgpack.MsgpackDecodeError as error:
            # What the hook raised is not handed on.
            raise DecodeError(misreferred or str(error), where="object tree") from error
        if _ONCE in uses or _UNUSED in uses:
            raise DecodeError("a row that nothing refers to", where="object tree")
        if len(self._used) != len(self._frame) - self._leaves:
            raise DecodeError("a segment that nothing refers to", where="object tree")
        return root

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _integer(self, row: list[Any]) -> Any:
        _, data = row
        if type(data) is not bytes:
            raise DecodeError("an integer without bytes")
        if len(data) > self._limits.max_integer:
            raise LimitError(f"an integer of {len(data)} bytes, {self._limits.max_integer} allowed")
        return int.from_bytes(data, "little", signed=True)

    def _blob(self, row: list[Any]) -> Any:
        text, place = row[1], row[2]
        if type(text) is not int or not 0 <= text < Text.COUNT:
            raise DecodeError("a blob of no known kind")
        extra = row[3:]
        if len(extra) != (2 if text == Text.MEMORYVIEW else 0):
            raise DecodeError("a blob with too few or too many parts")
        return self._leaf(place, None, lambda data: _blob_of(text, data, extra))

    def _tuple(self, row: list[Any]) -> Any:
        return tuple(_only_list(row))

    def _set(self, row: list[Any]) -> Any:
        return set_of(_only_list(row))

    def _frozenset(self, row: list[Any]) -> Any:
        return frozenset(set_of(_only_list(row)))

    def _dict(self, row: list[Any]) -> Any:
        _, keys, values = row
        if type(keys) is not list or type(values) is not list:
            raise DecodeError("a dictionary without lists of keys and values")
        return dict_of(keys, values)

    def _array(self, row: list[Any]) -> Any:
        _, name, lengths, order, place = row
        dtype, shape, size = shape_of(lengths, name)
        if type(place) is bytes:
            return array_of(dtype, shape, size, order, place, copy=self._copy)
        return self._leaf(place, size, lambda data: array_of(dtype, shape, size, order, data, copy=self._copy))

    def _scalar(self, row: list[Any]) -> Any:
        _, name, data = row
        return scalar_of(name, data)

    def _instance(self, row: list[Any]) -> Any:
        _, number, state = row
        plan = self._plan_of(number)
        fields = plan.fields
        if fields is not None and (type(state) is not list or len(state) != len(fields)):
            raise DecodeError(f"a {plan.serializer.name!r} that does not have its {len(fields)} fields")
        return plan.build(state, self._manager)

    def _records(self, row: list[Any]) -> Any:
        _, number, count, columns = row
        plan = self._plan_of(number)
        if type(columns) is not list or not columns or plan.fields is None or len(columns) != len(plan.fields):
            raise DecodeError(f"records of {plan.serializer.name!r} without a column for each field")
        if {type(column) for column in columns} != {list} or {len(column) for column in columns} != {count}:
            raise DecodeError(f"a column of {plan.serializer.name!r} does not have a value for each record")
        return plan.build_all(columns, self._manager)

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
    if code not in MEMORY_CODES:
        raise DecodeError(f"a memoryview of elements {code[:8]!r}")
    view = memoryview(data).toreadonly()
    if code == "B" and shape == [view.nbytes]:
        return view
    if shape == [0] and not view.nbytes:  # cast() makes none that is empty
        whole: memoryview = np.empty(0, code).data if code in "eg" else memoryview(bytes(16)).cast(code)  # type: ignore[call-overload] # one of the letters above
        return whole[:0].toreadonly()
    try:
        if code in "eg" or 0 in shape:  # nor of these
            return _array_view(view, code, shape)
        return view.cast(code, shape)  # type: ignore[call-overload,no-any-return] # checked by cast
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError(f"a memoryview that cannot be: {error}") from error


def _array_view(view: memoryview, code: str, shape: list[int]) -> memoryview:
    dtype, lengths, size = shape_of(shape, dtype_name(np.dtype(code)))
    return array_of(dtype, lengths, size, 0, view, copy=False).data


_READERS: Final[Mapping[int, Callable[[ObjectReader, list[Any]], Any]]] = {
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
