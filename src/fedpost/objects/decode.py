"""A tree and segments to Python objects.

Rules: nothing is built that is not registered here; rows are built in order, each from rows before it; every count is
compared with what is there, and with what is allowed, before anything is allocated; a leaf is read for one row, and how
often makers may copy it is bounded; what fails is a DecodeError that names the row's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import ormsgpack

from fedpost.errors import DecodeError, LimitError, TransportError
from fedpost.frame import Frame, Limits
from fedpost.objects.arrays import array_of, numbers_of, numbers_size, scalar_of, shape_of
from fedpost.objects.external import External, LazyLeaf
from fedpost.objects.hashing import dict_of, set_of
from fedpost.objects.plans import Plan, check_types, plan_for
from fedpost.objects.trees import Budget
from fedpost.objects.types import TypeRegistry
from fedpost.objects.wire import MAX_DEPTH, MEMORY_CODES, REFERENCE, Kind, Text, Tree
from fedpost.tensors.dtypes import dtype_name

__all__ = ["ObjectReader"]

# What became of a row: referred to, and it may be again; not yet, and once is all; not yet; and that once has been.
_USED: Final = 0
_ONCE: Final = 1
_UNUSED: Final = 2
_TAKEN: Final = 3
_USES: Final = {kind: _UNUSED if kind in (Kind.BLOB, Kind.ARRAY) else _ONCE for kind in range(len(Kind.NAMES))}
"""What rows begin as; of instances the serializer says it."""
_INSTANCE: Final = Kind.INSTANCE
_WEIGHED: Final = 256
"""Leaves of fewer bytes are no more than the reference to them and what it goes into."""
_INDEX: Final = {bytes([index]): index for index in range(256)}


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
        check_types(tree.types, registry)
        self._registry = registry
        self._plans: list[Plan | None] = [None] * len(tree.types)
        self._leaves = leaves
        self._used: set[Any] = set()
        """Leaves that a row has named: numbers of segments, and what those outside are found by."""
        self._inside = 0
        self._spent: Budget | None = None
        self._weight = 0
        """Bytes of leaves that the row refers to, through plain containers too."""

    def read(self) -> Any:  # noqa: C901, PLR0912, PLR0915 - one loop: a call more for each row would cost as much as its work
        """The object.

        Raises:
            DecodeError: In any of its kinds.
        """
        values: list[Any] = []
        depths: list[int] = []
        uses = bytearray()
        depth = 0
        misreferred: str | None = None
        weights: dict[int, int] = {}
        weight = 0
        plans, unpack = self._plans, ormsgpack.unpackb

        def refer(code: int, data: bytes) -> Any:
            nonlocal depth, weight, misreferred
            index = _INDEX.get(data)
            if index is None:
                index = int.from_bytes(data[:8], "little")
            if code != REFERENCE or index >= len(values) or len(data) > 8:  # noqa: PLR2004 - more rows than memory has
                misreferred = "a reference to no earlier row"
                raise DecodeError(misreferred, where="object tree")
            if depths[index] > depth:  # noqa: PLR1730 - max() would be a call more for every reference
                depth = depths[index]
            if weights:
                weight += weights.get(index, 0)
            use = uses[index]
            if use:
                if use == _TAKEN:
                    misreferred = "a container that is referred to twice"
                    raise DecodeError(misreferred, where="object tree")
                uses[index] = _TAKEN if use == _ONCE else _USED
            return values[index]

        try:
            for packed in self._tree.table:
                depth = weight = 0
                row = unpack(memoryview(packed), ext_hook=refer)
                if weight:
                    self._weight = weight
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
                if self._weight:
                    weights[len(uses)] = self._weight
                    self._weight = 0
                uses.append(_UNUSED if kind == _INSTANCE and plans[row[1]].serializer.shared else _USES[kind])  # type: ignore[union-attr] # it was built
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
        if self._inside != len(self._frame) - self._leaves:
            raise DecodeError("a segment that nothing refers to", where="object tree")
        if None in plans:
            raise DecodeError("a type that nothing uses", where="object tree")
        return root

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _integer(self, row: list[Any]) -> Any:
        _, data = row
        if type(data) is not bytes:
            raise DecodeError("an integer without bytes")
        if len(data) > self._limits.max_integer:
            raise LimitError(
                f"an integer of {len(data)} bytes, {self._limits.max_integer} allowed",
                hint="Raise max_integer of the limits: limits=Limits(max_integer=…).",
            )
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

    def _numbers(self, row: list[Any]) -> Any:
        _, name, place = row

        def build(data: bytes | memoryview) -> list[Any]:
            self._budget.numbers(numbers_size(name, len(data)))
            return numbers_of(name, data)

        found = self._leaf(place, None, build, lazy=False)
        self._weight = 0
        return found

    def _tuples(self, row: list[Any]) -> Any:
        _, count, columns = row
        if not columns:
            raise DecodeError("tuples without columns")
        _check_columns(count, columns, "tuples")
        self._budget.objects(count)
        return list(zip(*columns, strict=True))

    def _dict(self, row: list[Any]) -> Any:
        _, keys, values = row
        if type(keys) is not list or type(values) is not list:
            raise DecodeError("a dictionary without lists of keys and values")
        return dict_of(keys, values)

    def _array(self, row: list[Any]) -> Any:
        _, name, lengths, order, place = row
        dtype, shape, size = shape_of(lengths, name)
        if type(place) is bytes and len(place) < _WEIGHED:
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
        if self._weight:
            self._charge(plan)
        return plan.build(state, self._manager)

    def _records(self, row: list[Any]) -> Any:
        _, number, count, columns = row
        plan = self._plan_of(number)
        if type(columns) is not list or not columns or plan.fields is None or len(columns) != len(plan.fields):
            raise DecodeError(f"records of {plan.serializer.name!r} without a column for each field")
        _check_columns(count, columns, repr(plan.serializer.name))
        self._budget.objects(count)
        if self._weight:
            self._charge(plan)
        return plan.build_all(columns, self._manager)

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_of(self, number: Any) -> Plan:
        if type(number) is not int or not 0 <= number < len(self._plans):
            raise DecodeError("an instance of no type that the object names")
        plan = self._plans[number]
        if plan is None:
            plan = self._plans[number] = plan_for(self._tree.types[number], self._registry)
        return plan

    @property
    def _budget(self) -> Budget:
        if self._spent is None:  # most objects need none
            self._spent = Budget(self._frame, self._limits, len(self._tree.table))
        return self._spent

    def _charge(self, plan: Plan) -> None:
        """Pay for the leaves that go into an instance, where its class may copy them."""
        if plan.copies:
            self._budget.copied(self._weight)
        self._weight = 0

    def _leaf(self, place: Any, size: int | None, build: Callable[[Any], Any], *, lazy: bool = True) -> Any:
        """A leaf out of its bytes, wherever they are."""
        if type(place) is bytes:
            self._weight = len(place) if len(place) >= _WEIGHED else 0
            return build(place)
        if type(place) is int:
            if not 0 <= place < len(self._frame) - self._leaves:
                raise DecodeError(f"leaf {place} of {len(self._frame) - self._leaves}")
            self._take(place)
            self._inside += 1
            data = self._frame.segment(place + self._leaves)
            self._weight = data.nbytes
            return build(data)
        if type(place) is not list or list(map(type, place)) != [bytes, int]:
            raise DecodeError("a leaf that is nowhere")
        reference, nbytes = place
        if self._external is None:
            raise DecodeError(
                f"a leaf of {nbytes} bytes is kept outside of the frame", hint="Pass external= to say where."
            )
        if nbytes < 0 or (size is not None and nbytes != size):
            raise DecodeError(f"a leaf of {size} bytes has {nbytes} of them elsewhere")
        self._take(reference)
        found = self._external.get(reference, nbytes)
        if callable(found):
            if lazy:
                return LazyLeaf(lambda: build(found()), nbytes)
            found = found()
        self._budget.outside(nbytes)
        self._weight = nbytes
        return build(found)

    def _take(self, place: int | bytes) -> None:
        if place in self._used:
            raise DecodeError("a leaf that two rows name")
        self._used.add(place)


def _check_columns(count: Any, columns: Any, what: str) -> None:
    """Compare the lengths of columns with what is said of them."""
    if type(count) is not int or type(columns) is not list:
        raise DecodeError(f"{what} without a number, or columns that are no list")
    if {type(column) for column in columns} != {list} or {len(column) for column in columns} != {count}:
        raise DecodeError(f"a column of {what} does not have a value for each")


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
    Kind.NUMBERS: ObjectReader._numbers,  # noqa: SLF001
    Kind.TUPLES: ObjectReader._tuples,  # noqa: SLF001
}
