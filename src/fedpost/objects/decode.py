"""A tree and segments to Python objects.

Rules: nothing is built that is not registered here; rows are built in order, each from rows before it; every count is
compared with what is there, and with what is allowed, before anything is allocated; a leaf is read for one row, and how
often makers may copy it is bounded; what fails is a DecodeError that names the row's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import ormsgpack

from fedpost.errors import DecodeError, LimitError, TransportError
from fedpost.frame import Frame, Limits
from fedpost.objects.arrays import array_of, numbers_of, numbers_size, scalar_of, shape_of
from fedpost.objects.external import External, LazyLeaf
from fedpost.objects.hashing import dict_of, set_of
from fedpost.objects.leaves import blob_of
from fedpost.objects.plans import Plan, Types, check_columns
from fedpost.objects.trees import Budget
from fedpost.objects.types import TypeRegistry
from fedpost.objects.wire import ALONE, EXACTLY, IN_PLACE, MAX_DEPTH, MOST_IN_PLACE, REFERENCE, Kind, Text, Tree

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
        frame: Where the leaves are; None if there are none.
        tree: What the object is.
        leaves: The number of the segment at which its leaves begin.
        registry: Which types may be built.
        limits: The budget.
        copy: Whether arrays can be written to afterwards; without it they are views of the frame.
        external: Where leaves are that are not in the frame.
        manager: Handed to decomposers.
    """

    _spent: Budget | None = None
    _inside = 0
    _weight = 0
    """Bytes of leaves that the row refers to, through plain containers too."""

    def __init__(
        self,
        frame: Frame | None,
        tree: Tree,
        leaves: int,
        registry: TypeRegistry,
        limits: Limits,
        copy: bool,
        external: External | None,
        manager: Any,
    ) -> None:
        self._frame = frame
        self._tree = tree
        self._limits = limits
        self._copy = copy
        self._manager = manager
        self._external = external
        self._leaves = leaves
        self._segments = 0 if frame is None else len(frame) - leaves
        self._types = types = Types(tree.types, registry)
        self._plans: list[Plan | None] = [None] * types.count
        self._used: set[Any] = set()
        """Leaves that a row has named: numbers of segments, and what those outside are found by."""

    def read(self) -> Any:  # noqa: C901, PLR0912, PLR0915 - one loop: a call more for each row would cost as much as its work
        """The object.

        Raises:
            DecodeError: In any of its kinds.
        """
        values: list[Any] = []
        depths: list[int] = []
        uses = bytearray()
        depth = 0
        failure: BaseException | None = None
        weights: dict[int, int] = {}
        weight = 0
        plans, unpack, exactly, in_place = self._plans, ormsgpack.unpackb, EXACTLY, _IN_PLACE.get

        def build(code: int, data: bytes) -> Any:  # noqa: C901, PLR0912 - as above
            """What an extension stands for."""
            nonlocal depth, weight, failure
            try:
                make = in_place(code)
                if make is not None:
                    before, weight = weight, 0
                    exactly(data)  # unpacking leaves out what is behind
                    if len(data) <= MOST_IN_PLACE:
                        part = unpack(data, ext_hook=hook)
                    elif code in _ALONE:
                        part = unpack(data)
                    else:
                        raise DecodeError(f"a row of {len(data)} bytes in place", where="object tree")  # noqa: TRY301 - what failed is noted
                    if weight:
                        self._weight = weight
                    value = make(self, part)
                    weight = before
                    if self._weight:
                        weight += self._weight
                        self._weight = 0
                    return value
                index = _INDEX.get(data)
                if index is None:
                    index = int.from_bytes(data[:8], "little")
                if code != REFERENCE or index >= len(values) or len(data) > 8:  # noqa: PLR2004 - more rows than memory has
                    raise DecodeError("a reference to no earlier row", where="object tree")  # noqa: TRY301 - as above
                if depths[index] > depth:  # noqa: PLR1730 - max() would be a call more for every reference
                    depth = depths[index]
                if weights:
                    weight += weights.get(index, 0)
                use = uses[index]
                if use:
                    if use == _TAKEN:
                        raise DecodeError("a container that is referred to twice", where="object tree")  # noqa: TRY301 - as above
                    uses[index] = _TAKEN if use == _ONCE else _USED
                return values[index]
            except BaseException as error:  # MessagePack's own does not say what failed
                if failure is None:
                    failure = error if isinstance(error, TransportError) else _refused(error, code)
                raise

        hook: Any = build
        try:
            for packed in self._tree.table:
                depth = weight = 0
                row = unpack(memoryview(packed), ext_hook=hook)
                if weight:
                    self._weight = weight
                try:
                    kind = row[0]
                    if type(row) is not list or type(kind) is not int:
                        raise TypeError  # noqa: TRY301 - as an index that is none
                    make = _READERS[kind]
                except (TypeError, LookupError) as error:
                    raise DecodeError("of no known kind", where=f"row {len(values)} of the object") from error
                try:
                    values.append(make(self, row))
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
            root = unpack(memoryview(self._tree.root), ext_hook=hook)
        except DecodeError:  # a ValueError, as is MessagePack's
            raise
        except ormsgpack.MsgpackDecodeError as error:
            if failure is not None:
                raise failure from error
            raise DecodeError(str(error), where="object tree") from error
        finally:
            hook = None  # it refers to itself, which only a collection of garbage would undo
        if _ONCE in uses or _UNUSED in uses:
            raise DecodeError("a row that nothing refers to", where="object tree")
        if self._inside != self._segments:
            raise DecodeError("a segment that nothing refers to", where="object tree")
        if None in plans:
            raise DecodeError("a type that nothing uses", where="object tree")
        self._types.keep(plans)
        return root

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _integer(self, data: Any) -> Any:
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
        return self._leaf(place, None, lambda data: blob_of(text, data, extra))

    def _tuple(self, items: Any) -> Any:
        if type(items) is not list:
            raise DecodeError("a tuple without a list of items")
        return tuple(items)

    def _set(self, items: Any) -> Any:
        if type(items) is not list:
            raise DecodeError("a set without a list of items")
        return set_of(items)

    def _frozenset(self, items: Any) -> Any:
        return frozenset(self._set(items))

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
        check_columns(count, columns, "tuples")
        self._budget.objects(count)
        return list(zip(*columns, strict=True))

    def _dict(self, parts: Any) -> Any:
        keys, values = parts
        if type(keys) is not list or type(values) is not list:
            raise DecodeError("a dictionary without lists of keys and values")
        return dict_of(keys, values)

    def _array(self, row: list[Any]) -> Any:
        _, name, lengths, order, place = row
        return self._array_of(name, lengths, order, place)

    def _array_in_place(self, parts: Any) -> Any:
        name, lengths, order, place = parts
        if type(place) is not bytes:
            raise DecodeError("an array in place whose bytes are not")
        return self._array_of(name, lengths, order, place)

    def _array_of(self, name: Any, lengths: Any, order: Any, place: Any) -> Any:
        dtype, shape, size = shape_of(lengths, name)
        if type(place) is bytes and len(place) < _WEIGHED:
            return array_of(dtype, shape, size, order, place, copy=self._copy)
        return self._leaf(place, size, lambda data: array_of(dtype, shape, size, order, data, copy=self._copy))

    def _scalar(self, parts: Any) -> Any:
        name, data = parts
        return scalar_of(name, data)

    def _instance(self, parts: Any) -> Any:
        number, state = parts
        plan = self._plans[number] if type(number) is int and 0 <= number < len(self._plans) else None
        if plan is None:
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
        check_columns(count, columns, repr(plan.serializer.name))
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
            plan = self._plans[number] = self._types.plan(number)
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
            if self._frame is None or not 0 <= place < self._segments:
                raise DecodeError(f"leaf {place} of {self._segments}")
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


def _refused(error: BaseException, code: int) -> BaseException:
    """What is raised of what failed in place."""
    if not isinstance(error, Exception):
        return error
    if isinstance(error, DecodeError):
        return error if error.where is not None else type(error)(error.what, where="object tree", hint=error.hint)
    name = Kind.NAMES[code - IN_PLACE] if code in _IN_PLACE else "a reference"
    return DecodeError(f"{name}: {error}", where="object tree")


_SINGLE: Final[Mapping[int, Callable[[ObjectReader, Any], Any]]] = {
    Kind.INTEGER: ObjectReader._integer,  # noqa: SLF001 - the class's own table
    Kind.TUPLE: ObjectReader._tuple,  # noqa: SLF001
    Kind.SET: ObjectReader._set,  # noqa: SLF001
    Kind.FROZENSET: ObjectReader._frozenset,  # noqa: SLF001
    Kind.DICT: ObjectReader._dict,  # noqa: SLF001
    Kind.SCALAR: ObjectReader._scalar,  # noqa: SLF001
    Kind.INSTANCE: ObjectReader._instance,  # noqa: SLF001
}
"""How those rows are built that may stand in place."""


def _whole(make: Callable[[ObjectReader, Any], Any], reader: ObjectReader, row: list[Any]) -> Any:
    """Such a row in the table."""
    _, *parts = row
    return make(reader, parts[0] if len(parts) == 1 else parts)


_IN_PLACE: Final = {
    **{IN_PLACE + kind: make for kind, make in _SINGLE.items()},
    IN_PLACE + Kind.ARRAY: ObjectReader._array_in_place,  # noqa: SLF001 - as above
}
_ALONE: Final = frozenset(IN_PLACE + kind for kind in ALONE)
_READERS: Final[Mapping[int, Callable[[ObjectReader, list[Any]], Any]]] = {
    **{kind: partial(_whole, make) for kind, make in _SINGLE.items()},
    Kind.BLOB: ObjectReader._blob,  # noqa: SLF001 - the class's own table
    Kind.RECORDS: ObjectReader._records,  # noqa: SLF001
    Kind.ARRAY: ObjectReader._array,  # noqa: SLF001
    Kind.NUMBERS: ObjectReader._numbers,  # noqa: SLF001
    Kind.TUPLES: ObjectReader._tuples,  # noqa: SLF001
}
