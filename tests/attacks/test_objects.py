"""Objects that somebody wrote who means harm: trees in frames whose digests are all right.

Each is read in a process of its own with 64 MiB to spare, which knows classes of every kind (``unit/objects/samples``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgpack
import pytest

HERE = Path(__file__).parent
CELL = f"""
import importlib.util, sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent / "unit" / "objects")!r}]
import confine
import samples
from fedpost.objects import loads
def everything(data):
    loads(data, registry=samples.REGISTRY)
    return "accepted"
confine.everything = everything
from fedpost.objects import dumps
for value in samples.all_values():
    everything(dumps(value, registry=samples.REGISTRY))
confine.main()
"""
P = 2**61 - 1
"""What Python's hash of numbers is taken modulo."""


def ref(index):
    """A reference to a row."""
    return msgpack.ExtType(1, index.to_bytes(max(1, -(-index.bit_length() // 8)), "little"))


def here(kind, part):
    """A row in place: its part, or the list of its parts."""
    return msgpack.ExtType(16 + kind, msgpack.packb(part))


def inside(count, kind=2):
    """Rows in place in each other."""
    found = here(kind, [])
    for _ in range(count):
        found = here(kind, [found])
    return found


def many_of(item, count):
    """A list of so many of the same bytes."""
    return raw(b"\x93\x90\x90\xdd" + count.to_bytes(4, "big") + item * count)


def big(number):
    return [0, number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)]


def tree(table, root, types=(), segments=()):
    """A frame with a tree in its header."""
    return lambda f: f.sections({"object": [list(types), list(table), root]}, *segments)


def rows(*table):
    """A frame whose rows each stand in the root once."""
    return tree(table, [ref(index) for index in range(len(table))])


def inst(name, state, *before, version=1, fields=None):
    """A frame of one instance."""
    return tree([*before, [9, 0, state]], ref(len(before)), [[name, version, fields]])


def raw(packed):
    """A frame whose tree is given as bytes."""
    return lambda f: f.sections({"object": None}, packed)


def many(name, state, count):
    return tree([[9, 0, state]] * count, [ref(index) for index in range(count)], [[name, 1, None]])


def colliding(make_row, kind, count=40_000, types=()):
    """A set or a dictionary whose keys all have the same hash."""
    table = [make_row((number + 10) * P) for number in range(count)]
    keys = [ref(index) for index in range(count)]
    table.append([kind, keys] if kind != 5 else [5, keys, [0] * count])
    return tree(table, ref(count), types)


def colliding_tuples(count=20_000):
    table = [row for number in range(count) for row in (big((number + 10) * P), [2, [ref(2 * number), 0]])]
    return tree([*table, [3, [ref(2 * number + 1) for number in range(count)]]], ref(2 * count))


def walking(bits=17):
    """Small numbers that fill one walk of Python's probing, and others that must go all of it."""
    mask, at, walk = (1 << bits) - 1, 1, []
    for _ in range(50_000):
        walk.append(at)
        at = 5 * at + 1 & mask
    return rows([3, [*walk, *(walk[0] + (number << bits) for number in range(1, 20_000))]])


def chain(count):
    """Each row a tuple of the one before."""
    return tree([[2, []], *([2, [ref(index)]] for index in range(count))], ref(count))


def inst_of_two(types):
    """Records of each of two types."""
    return tree([[6, number, 1, [[1], [2.5], [[]]]] for number in range(2)], [ref(0), ref(1)], types)


def rows_of_many(count=3 << 20):
    """Records that are a byte each."""
    column = b"\xdd" + count.to_bytes(4, "big") + b"\x01" * count
    types = msgpack.packb([["test.OwnInit", 1, ["x"]]])
    return raw(
        b"\x93" + types + b"\x91\x94\x06\x00\xce" + count.to_bytes(4, "big") + b"\x91" + column + b"\xd4\x01\x00"
    )


GADGETS = (
    "builtins.eval", "builtins.exec", "eval", "os.system", "posix.system", "subprocess.Popen", "object", "type",
    "functools.partial", "importlib.import_module", "numpy.core.multiarray._reconstruct", "__main__.Point", "__class__",
    "types.FunctionType", "copyreg._reconstructor", "fedpost.objects.loads", "pathlib.Path", "test.Pointy", "test.",
)  # fmt: skip
PYDANTIC = ["x", "__set__", "__extra__", "__private__"]
POINT = ["x", "y", "names"]
RIGHT_POINT = [1, 2.5, ["a"]]

ATTACKS = {
    # names that lead to code
    **{f"the name {name}": (inst(name, ["id"]), "UnsupportedError") for name in GADGETS},
    "a name that is no text": (lambda f: f.sections({"object": [[[1, 1, None]], [], 0]}), "DecodeError"),
    "a name of a megabyte": (inst("a" * 900_000, 1), "UnsupportedError"),
    **{
        f"{name} in the state of {kind}": (inst(kind, make(name)), "DecodeError")
        for name in ("__class__", "__dict__", "__init__", "__reduce__", "__traceback__", "__cause__", "__setstate__")
        for kind, make in (
            ("Namespace", lambda name: {name: 1}),
            ("SimpleNamespace", lambda name: {name: 1}),
            ("ValueError", lambda name: [[], {name: 1}]),
            ("test.SlotError", lambda name: [["a"], {name: 1}]),
        )
    },
    **{
        f"{name} as a field of a dataclass": (
            tree([[9, 0, [*RIGHT_POINT, 1]]], ref(0), [["test.Point", 1, [*POINT, name]]]),
            "DecodeError",
        )
        for name in ("__class__", "__init__", "z", "")
    },
    "a private attribute of a model that it does not have": (
        inst("test.Inner", [1, [], [], None, {"__class__": 1}], fields=["x", "y", *PYDANTIC[1:]]),
        "DecodeError",
    ),
    "extras of a model that takes none": (
        inst("test.Inner", [1, [], [], {"__class__": 1}, None], fields=["x", "y", *PYDANTIC[1:]]),
        "DecodeError",
    ),
    "extras of a model that are its fields": (
        inst("test.Extra", [1, [], {"x": 5}, None], fields=PYDANTIC),
        "DecodeError",
    ),
    "extras of a model that are no dictionary": (
        inst("test.Extra", [1, [], [1], None], fields=PYDANTIC),
        "DecodeError",
    ),
    "a model whose value is wrong": (inst("test.Still", ["a", [], None, None], fields=PYDANTIC), "DecodeError"),
    # types, versions, fields
    "a version from the future": (inst("Decimal", "1", version=2), "UnsupportedError"),
    "version 0": (inst("Decimal", "1", version=0), "UnsupportedError"),
    "a version of 2^64": (inst("Decimal", "1", version=2**64 - 1), "UnsupportedError"),
    "a field that comes twice": (inst("test.Point", [1, 2.5, []], fields=["x", "y", "x"]), "DecodeError"),
    "too few fields": (inst("test.Point", [1], fields=POINT), "DecodeError"),
    "too many fields": (inst("test.Point", [1, 2, [], 4], fields=POINT), "DecodeError"),
    "fields of a type without": (inst("Decimal", ["1"], fields=["value"]), "DecodeError"),
    "no fields of a type with": (inst("test.Point", RIGHT_POINT), "DecodeError"),
    "a field of the wrong type": (inst("test.Point", ["1", 2.5, []], fields=POINT), "DecodeError"),
    "an item of the wrong type": (inst("test.Point", [1, 2.5, [b"a"]], fields=POINT), "DecodeError"),
    "a member that does not exist": (inst("test.Color", "__class__"), "DecodeError"),
    "a member by value": (inst("test.Level", 1), "DecodeError"),
    "a flag that does not exist": (inst("test.Right", 1 << 40), "DecodeError"),
    "a flag that is no number": (inst("test.Right", "READ"), "DecodeError"),
    "an attrs class whose value is wrong": (
        inst("test.Attrs", [1, -5, "a"], fields=["_private", "x", "text"]),
        "DecodeError",
    ),
    "an exception without arguments": (inst("ValueError", 5), "DecodeError"),
    "an exception whose arguments are wrong": (inst("UnicodeDecodeError", [[1, 2], {}]), "DecodeError"),
    "an exception that makes another": (inst("OSError", [[2, "x"], {}]), "DecodeError"),
    "a type that nothing names": (tree([[9, 0, 1]], ref(0)), "DecodeError"),
    "a negative type": (tree([[9, -1, 1]], ref(0), [["Decimal", 1, None]]), "DecodeError"),
    "a type that is no number": (tree([[9, True, "1"]], ref(0), [["Decimal", 1, None]] * 2), "DecodeError"),
    # numbers
    "an integer over the limit": (rows(big(1 << 9_000_000)), "LimitError"),
    "an integer that is no bytes": (rows([0, "a"]), "DecodeError"),
    "a Decimal of many digits": (inst("Decimal", "9" * 100_000), "DecodeError"),
    "a Decimal of an impossible exponent": (inst("Decimal", "1E+" + "9" * 30), "DecodeError"),
    "a Decimal that is none": (inst("Decimal", "os.system"), "DecodeError"),
    "a Decimal of a number": (inst("Decimal", 1), "DecodeError"),
    "a Fraction over zero": (inst("Fraction", [1, 0]), "DecodeError"),
    "a Fraction of many bits": (inst("Fraction", [1, ref(0)], big(1 << 32_766)), "accepted"),
    "a complex of texts": (inst("complex", ["1", "2"]), "DecodeError"),
    "a range of step 0": (inst("range", [1, 2, 0]), "DecodeError"),
    # keys
    "integers that collide": (colliding(big, 3), "LimitError"),
    "integers that collide as keys": (colliding(big, 5), "LimitError"),
    "integers that collide in a frozenset": (colliding(big, 4), "LimitError"),
    "tuples that collide": (colliding_tuples(), "LimitError"),
    "Decimals that collide": (
        colliding(lambda number: [9, 0, str(number)], 3, 20_000, [["Decimal", 1, None]]),
        "LimitError",
    ),
    "UUIDs that collide": (
        colliding(lambda number: [9, 0, number.to_bytes(16, "big")], 3, 20_000, [["UUID", 1, None]]),
        "LimitError",
    ),
    "numbers that walk far": (walking(), "accepted"),
    "many small sets that collide": (
        rows(*(row for _ in range(300) for row in ([3, [number * P for number in range(1, 8)]],))),
        "accepted",
    ),
    "a key that comes twice": (rows([5, [1, 1], [0, 0]]), "DecodeError"),
    "keys that are equal": (rows([5, [1, 1.0], [0, 0]]), "DecodeError"),
    "an item of a set twice": (rows([3, [1, True]]), "DecodeError"),
    "a key that cannot be hashed": (rows([5, [[1]], [0]]), "DecodeError"),
    "a memoryview that cannot be hashed": (
        tree([[1, 2, b"abcd", "I", [1]], [3, [ref(0)]]], ref(1)),
        "DecodeError",
    ),
    "fewer values than keys": (rows([5, [1, 2], [0]]), "DecodeError"),
    "a native map with a number as its key": (tree([], {1: 2}), "DecodeError"),
    "a native map with bytes as its key": (tree([], {b"a": 2}), "DecodeError"),
    "a native map with a reference as its key": (tree([[2, []]], {ref(0): 2}), "DecodeError"),
    # references
    "a reference forward": (tree([[2, [ref(1)]], [2, []]], [ref(0)]), "DecodeError"),
    "a reference to itself": (tree([[2, [ref(0)]]], ref(0)), "DecodeError"),
    "a reference to nowhere": (tree([], ref(5)), "DecodeError"),
    "a reference of many bytes": (tree([[2, []]], msgpack.ExtType(1, bytes(500_000))), "DecodeError"),
    "another extension": (tree([], msgpack.ExtType(5, b"\0")), "DecodeError"),
    "a timestamp of MessagePack": (tree([], msgpack.Timestamp(1)), "DecodeError"),
    "a container that is referred to twice": (tree([[2, []]], [ref(0), ref(0)]), "DecodeError"),
    "a container that doubles": (
        tree([[2, []], *([2, [ref(index), ref(index)]] for index in range(150))], ref(150)),
        "DecodeError",
    ),
    "a row that nothing refers to": (tree([[2, []]], 1), "DecodeError"),
    "a leaf that nothing refers to": (tree([[1, 0, b""]], 1), "DecodeError"),
    "many leaves that nothing refers to": (tree([[7, "int8", [0], 0, b""]] * 40_000, 1), "DecodeError"),
    "a bomb of shared leaves": (
        tree([[1, 0, bytes(60_000)], [2, [ref(0)] * 100_000]], ref(1)),
        "accepted",  # one leaf, and a hundred thousand references to it
    ),
    "the instance of a shared leaf twice": (
        tree([[9, 0, "1"]], [ref(0), ref(0)], [["Decimal", 1, None]]),
        "DecodeError",
    ),
    # depth
    "rows nested 200 deep": (chain(201), "LimitError"),
    "rows nested 50,000 deep": (chain(50_000), "LimitError"),
    "lists nested a million deep": (raw(b"\x93\x90\x90" + b"\x91" * 1_000_000 + b"\xc0"), "DecodeError"),
    "maps nested a million deep": (raw(b"\x93\x90\x90" + b"\x81\xa1x" * 300_000 + b"\xc0"), "DecodeError"),
    "lists nested 2000 deep": (raw(b"\x93\x90\x90" + b"\x91" * 2000 + b"\xc0"), "DecodeError"),
    "lists nested a million deep in a row": (raw(b"\x93\x90\x91" + b"\x91" * 1_000_000 + b"\xc0\x00"), "DecodeError"),
    # counts past the end
    **{
        f"{name} of 2^32 - 1": (raw(b"\x93\x90\x90" + head + b"\xff\xff\xff\xff"), "DecodeError")
        for name, head in {"an array": b"\xdd", "a map": b"\xdf", "bytes": b"\xc6", "a text": b"\xdb"}.items()
    },
    "an extension of 2^32 - 1": (raw(b"\x93\x90\x90\xc9\xff\xff\xff\xff\x01"), "DecodeError"),
    "2^32 - 1 rows": (raw(b"\x93\x90\xdd\xff\xff\xff\xff"), "DecodeError"),
    "2^32 - 1 types": (raw(b"\x93\xdd\xff\xff\xff\xff"), "DecodeError"),
    "a tree that ends": (raw(b"\x93\x90\x90"), "DecodeError"),
    "an empty tree": (raw(b""), "DecodeError"),
    "bytes behind the tree": (raw(b"\x93\x90\x90\xc0\xc0"), "DecodeError"),
    "a text that is not UTF-8": (raw(b"\x93\x90\x90\xa1\xff"), "DecodeError"),
    "a tree that is a number": (lambda f: f.sections({"object": 5}), "DecodeError"),
    "a tree of two parts": (lambda f: f.sections({"object": [[], []]}), "DecodeError"),
    "no tree": (lambda f: f.sections({"object": None}), "DecodeError"),
    "no section": (lambda f: f.sections({}), "DecodeError"),
    # records
    **{
        f"records {name}": (tree([[6, 0, *row]], ref(0), [["test.Point", 1, POINT]]), "DecodeError")
        for name, row in {
            "that are fewer than they say": [5, [[1], [2.5], [[]]]],
            "that are more": [0, [[1], [2.5], [[]]]],
            "without columns": [1 << 60, []],
            "of empty columns": [1 << 60, [[], [], []]],
            "of a negative count": [-1, [[], [], []]],
            "of a count that is a float": [1.5, [[1], [2.5], [[]]]],
            "of columns that differ": [1, [[1], [2.5, 3.5], [[]]]],
            "of a column that is no list": [1, [[1], "a", [[]]]],
            "with a column too many": [1, [[1], [2.5], [[]], [4]]],
            "with a wrong value": [2, [[1, "a"], [2.5, 2.5], [[], []]]],
            "with nothing": [],
        }.items()
    },
    "records of a type without fields": (tree([[6, 0, 1, [["1"]]]], ref(0), [["Decimal", 1, None]]), "DecodeError"),
    "records of a type of no fields": (tree([[6, 0, 1 << 60, []]], ref(0), [["test.Empty", 1, []]]), "DecodeError"),
    # arrays
    **{
        f"an array {name}": (rows([7, *row]), error)
        for name, row, error in [
            ("whose size wraps", ["int8", [1 << 32, 1 << 32], 0, b""], "DecodeError"),
            ("whose size wraps to nothing", ["int64", [1 << 61, 8], 0, b""], "DecodeError"),
            ("of no bytes and too large", ["int64", [0, 1 << 62, 1 << 62], 0, b""], "DecodeError"),
            ("of a negative shape", ["int8", [-1, -1], 0, b"a"], "DecodeError"),
            ("of a shape of booleans", ["int8", [True], 0, b"a"], "DecodeError"),
            ("of a shape of floats", ["int8", [1.0], 0, b"a"], "DecodeError"),
            ("of a shape of lists", ["int8", [[1]], 0, b"a"], "DecodeError"),
            ("of a shape of 2^64 - 1", ["void[0]", [2**64 - 1], 0, b""], "DecodeError"),
            ("of too many dimensions", ["int8", [1] * 65, 0, b"a"], "DecodeError"),
            ("of too few bytes", ["int32", [2], 0, b"aaaa"], "DecodeError"),
            ("of too many bytes", ["int32", [0], 0, b"aaaa"], "DecodeError"),
            ("in no order", ["int8", [1], 2, b"a"], "DecodeError"),
            ("in a boolean order", ["int8", [1], True, b"a"], "DecodeError"),
            ("of objects", ["object", [1], 0, b"aaaaaaaa"], "UnsupportedError"),
            ("of references", ["|O", [1], 0, b"aaaaaaaa"], "UnsupportedError"),
            ("of no type", [5, [1], 0, b"a"], "DecodeError"),
            ("of structures that lead out", ['struct[1,[["a","int32",0,[]]]]', [1], 0, b"a"], "DecodeError"),
            ("in a segment that is not there", ["int8", [1], 0, 5], "DecodeError"),
            ("in a negative segment", ["int8", [1], 0, -1], "DecodeError"),
            ("kept elsewhere", ["int8", [1], 0, [b"d" * 32, 1]], "DecodeError"),
            ("kept nowhere", ["int8", [1], 0, None], "DecodeError"),
            ("of half a row", ["int8"], "DecodeError"),
        ]
    },
    "a scalar of the wrong size": (rows([8, "int32", b"a"]), "DecodeError"),
    "a scalar of objects": (rows([8, "object", b"aaaaaaaa"]), "UnsupportedError"),
    "a scalar of no bytes": (rows([8, "void[0]", b""]), "accepted"),
    "a structured scalar of no bytes": (rows([8, "struct[0,[]]", b""]), "accepted"),
    "a text scalar beyond Unicode": (rows([8, "str[1]", b"\xff\xff\xff\x7f"]), "DecodeError"),
    "a masked array of other shapes": (
        tree(
            [[7, "int8", [2], 0, b"ab"], [7, "bool", [1], 0, b"\0"], [9, 0, [ref(0), ref(1), None, False]]],
            ref(2),
            [["MaskedArray", 1, None]],
        ),
        "DecodeError",
    ),
    **{
        f"a blob {name}": (rows([1, *row]), "DecodeError")
        for name, row in {
            "of no kind": [5, b""],
            "of a boolean kind": [True, b""],
            "of half a row": [0],
            "of a row and a half": [0, b"", 1],
            "of a text that is not UTF-8": [3, b"\xff"],
            "of a text of surrogates": [3, b"\xed\xa0\x80"],
            "of a memoryview without a shape": [2, b"abcd", "I"],
            "of a memoryview of another size": [2, b"abc", "I", [1]],
            "of a memoryview of a huge shape": [2, b"abcd", "I", [2**64 - 1]],
            "of a memoryview of a huge empty shape": [2, b"", "I", [0, 2**62, 2**62]],
            "of a memoryview of a negative shape": [2, b"abcd", "I", [-1]],
            "of a memoryview of pointers": [2, b"aaaaaaaa", "P", [1]],
            "of a memoryview of objects": [2, b"aaaaaaaa", "O", [1]],
            "of a memoryview of nothing": [2, b"", "\0", [0]],
            "of a memoryview of many dimensions": [2, b"a", "B", [1] * 65],
            "of a number": [0, 1.5],
        }.items()
    },
    "a leaf that is the tree": (
        lambda f: f.sections({"object": None}, msgpack.packb([[], [[1, 0, 0]], ref(0)])),
        "DecodeError",
    ),
    "a segment that nothing refers to": (tree([], 1, segments=(b"hidden",)), "DecodeError"),
    "a segment beside a tree": (
        lambda f: f.sections({"object": None}, msgpack.packb([[], [], 1]), b"hidden"),
        "DecodeError",
    ),
    "a tree in the header and another in a segment": (
        lambda f: f.sections({"object": [[], [], 1]}, msgpack.packb([[], [], 2])),
        "DecodeError",
    ),
    # times and names
    **{
        f"the zone {key[:30]!r}": (inst("ZoneInfo", key), "DecodeError")
        for key in (
            *("../../etc/passwd", "/etc/passwd", "America", "", ".", "\0", "a" * 5000, "Europe/../Europe/Berlin"),
            *("a.b/c", "zone1970.tab", "Europe\\Berlin", "Europe/Berlin\n", "os/system", "__init__.py", "é"),
        )
    },
    **{
        f"the date {text[:20]!r}": (inst(kind, state), "DecodeError")
        for text, kind, state in (
            *((text, "date", text) for text in ("", "9999-99-99", "1" * 100_000, "\0", "2026-W99-1")),
            *((text, "datetime", [text, None, 0]) for text in ("2026", "x", "2026-01-01T25:00", "1" * 99_999)),
            ("a fold of 2", "datetime", ["2026-01-01T00:00", None, 2]),
            ("a zone that is a text", "datetime", ["2026-01-01T00:00", "UTC", 0]),
            ("a delta that is too long", "timedelta", [1 << 60, 0, 0]),
            ("an offset of a year", "timezone", [1, None]),
            ("half a state", "time", ["00:00"]),
        )
    },
    "a UUID of 3 bytes": (inst("UUID", b"abc"), "DecodeError"),
    "a path that is a number": (inst("Path", 5), "DecodeError"),
    "a deque of too many": (inst("deque", [[1, 2], 1]), "DecodeError"),
    "a deque of a negative length": (inst("deque", [[], -1]), "DecodeError"),
    "a deque of a huge length": (inst("deque", [[], 2**64 - 1]), "DecodeError"),
    "a defaultdict made by code": (inst("defaultdict", ["eval", [], []]), "DecodeError"),
    "a defaultdict made by its state": (inst("defaultdict", ["__class__", [], []]), "DecodeError"),
    "a typed array of no code": (inst("array", ["P", True, b""]), "DecodeError"),
    "a typed array of half an element": (inst("array", ["d", True, b"abc"]), "DecodeError"),
    "rows that are none": (tree([5, {}, [], [99], ["a"], [True]], 1), "DecodeError"),
    "a row of kind 12": (rows([12, 1]), "DecodeError"),
    "a row of kind -1": (rows([-1, 1]), "DecodeError"),
    "a row of a boolean kind": (rows([True, 0, b"a"]), "DecodeError"),
    # much of little
    "a quarter million empty lists": (
        raw(b"\x93\x90\x90\xdd" + (1 << 18).to_bytes(4, "big") + b"\x90" * (1 << 18)),
        "accepted",
    ),
    "many empty deques": (many("deque", [[], None], 20_000), "accepted"),
    "many empty sets": (rows(*[[3, []]] * 40_000), "accepted"),
    "a type many times": (tree([], 1, [["Decimal", 1, None]] * 60_000), "DecodeError"),
    "a type of several versions": (
        inst_of_two([["test.Point", 1, POINT], ["test.Point", 1, POINT[::-1]]]),
        "DecodeError",
    ),
    "a type that nothing uses": (tree([], 1, [["Decimal", 1, None]]), "DecodeError"),
    "many types": (tree([], 1, [["Decimal", number, None] for number in range(60_000)]), "UnsupportedError"),
    "types of megabytes": (
        raw(b"\x93" + msgpack.packb([["x", 1, ["a"] * 2_000_000]]) + b"\x90\x01"),
        "LimitError",
    ),
    "a tree over the budget": (raw(b"\x93\x90\x90\xc6\x02\x00\x00\x00" + bytes(1 << 25)), "LimitError"),
    "many empty lists": (raw(b"\x93\x90\x90\xdd" + (1 << 24).to_bytes(4, "big") + b"\x90" * (1 << 24)), "LimitError"),
    "many rows": (
        raw(b"\x93\x90\xdd" + (3 << 20).to_bytes(4, "big") + b"\x92\x02\x90" * (3 << 20) + b"\x01"),
        "LimitError",
    ),
    **{
        f"millions of empty {name}, {megabytes} MiB": (
            many_of(item, megabytes * ((1 << 20) - 1) // len(item)),
            "LimitError",
        )
        for name, item, sizes in (
            ("lists", b"\x90", (2, 4, 8)),
            ("lists in lists", b"\x91\x90", (2, 4, 8)),
            ("dictionaries", b"\x80", (2, 4, 8)),
            ("dictionaries in dictionaries", b"\x81\xa0\x80", (4, 8)),
            ("sets in place", b"\xd4\x13\x90", (2, 4, 8)),
            ("tuples in place", b"\xc7\x01\x12\x90", (4, 8)),
            ("lists behind text", b"\x92\xd9\x04\x90\x90\x90\x90\x90", (8,)),
        )
        for megabytes in sizes
    },
    # rows in place
    **{
        f"a row in place {name}": (tree(table, root, types, segments), error)
        for name, (root, error, table, types, segments) in {
            "of an unknown kind": (here(12, [1]), "DecodeError", (), (), ()),
            "of the last code": (msgpack.ExtType(127, b"\x90"), "DecodeError", (), (), ()),
            "that is a text": (here(1, [3, b"a"]), "DecodeError", (), (), ()),
            "that is records": (here(6, [0, 1, [[1], [2.5], [[]]]]), "DecodeError", (), [["test.Point", 1, POINT]], ()),
            "that is numbers": (here(10, ["int8", b"abc"]), "DecodeError", (), (), ()),
            "that is tuples": (here(11, [1, [[1]]]), "DecodeError", (), (), ()),
            "that is too long": (here(2, [0] * 254), "DecodeError", (), (), ()),
            "that is much too long": (here(3, ["a" * 60_000]), "DecodeError", (), (), ()),
            "without bytes": (msgpack.ExtType(18, b""), "DecodeError", (), (), ()),
            "with bytes behind it": (msgpack.ExtType(18, b"\x90\x90"), "DecodeError", (), (), ()),
            "that is not whole": (msgpack.ExtType(18, b"\x92\x01"), "DecodeError", (), (), ()),
            "of no list": (here(2, "abc"), "DecodeError", (), (), ()),
            "of a dictionary for a set": (here(3, {"a": 1}), "DecodeError", (), (), ()),
            "of a number for an integer": (here(0, 5), "DecodeError", (), (), ()),
            "of too few parts": (here(5, [[1]]), "DecodeError", (), (), ()),
            "of too many parts": (here(9, [0, 1, 2]), "DecodeError", (), [["Decimal", 1, None]], ()),
            "of a key twice": (here(5, [[1, 1], [2, 3]]), "DecodeError", (), (), ()),
            "of a key that is a list": (here(5, [[[]], [1]]), "DecodeError", (), (), ()),
            "of an item twice": (here(3, [1, 1.0]), "DecodeError", (), (), ()),
            "of no such type": (here(9, [3, "1"]), "DecodeError", (), [["Decimal", 1, None]], ()),
            "of a type by a boolean": (here(9, [False, "1"]), "DecodeError", (), [["Decimal", 1, None]], ()),
            "of an unknown type": (here(9, [0, "1"]), "UnsupportedError", (), [["os.system", 1, None]], ()),
            "of a wrong field": (here(9, [0, ["1", 2.5, []]]), "DecodeError", (), [["test.Point", 1, POINT]], ()),
            "that is an array of a leaf": (here(7, ["int8", [4], 0, 0]), "DecodeError", (), (), (b"leaf",)),
            "that is an array elsewhere": (here(7, ["int8", [4], 0, [b"d" * 32, 4]]), "DecodeError", (), (), ()),
            "that is an array of more": (here(7, ["int8", [1 << 40], 0, b"leaf"]), "DecodeError", (), (), ()),
            "that is an array with a row in it": (
                *(here(7, ["int8", [400], 0, here(2, [b"x" * 300])]), "DecodeError", (), (), ()),
            ),
            "that is an integer over the budget": (here(0, bytes(1 << 20) + b"\1"), "LimitError", (), (), ()),
            "that refers to no row": (here(2, [ref(0)]), "DecodeError", (), (), ()),
            "that refers to a later row": (ref(0), "DecodeError", [[2, [here(2, [ref(1)])]], [2, []]], (), ()),
            "that refers to a row a second time": ([here(2, [ref(0)]), ref(0)], "DecodeError", [[2, []]], (), ()),
        }.items()
    },
    "rows in place in a row that is a text": (rows([2, "a" * 9], [here(2, [])]), "DecodeError"),
    "rows in place that copy a leaf": (
        tree(
            [[1, 0, 0]],
            [here(9, [0, {"a": ref(0)}])] * 100,
            [["Namespace", 1, None]],
            (bytes(1_000_000),),
        ),
        "LimitError",
    ),
    "rows in place in each other": (tree([], inside(60)), "accepted"),
    "rows in place in each other that are too long": (tree([], inside(130)), "DecodeError"),
    "keys that collide in place": (
        tree([], [here(3, [here(0, ((number + 10) * P).to_bytes(16, "little")) for number in range(12)])] * 3),
        "accepted",
    ),
    # what a few bytes stand for
    "a leaf of many rows": (
        tree([[1, 0, 0]] * 100, [ref(index) for index in range(100)], segments=(bytes(1_000_000),)),
        "DecodeError",
    ),
    "a leaf of an array and a text": (
        tree([[7, "int8", [4], 0, 0], [1, 3, 0]], [ref(0), ref(1)], segments=(b"leaf",)),
        "DecodeError",
    ),
    "a leaf of two lists": (tree([[10, "int8", 0]] * 2, [ref(0), ref(1)], segments=(b"leaf",)), "DecodeError"),
    "records of many": (rows_of_many(), "LimitError"),
    **{
        f"tuples {name}": (rows([11, *row]), "DecodeError")
        for name, row in {
            "of no columns": [5, []],
            "of empty columns": [1 << 60, [[]]],
            "that are more": [3, [[1, 2]]],
            "of columns that differ": [1, [[1], [2, 3]]],
            "of a column that is a text": [1, ["a"]],
            "of a boolean count": [True, [[1]]],
            "of a count that is a float": [1.0, [[1]]],
            "of columns by name": [1, {"a": [1]}],
            "of nothing": [],
        }.items()
    },
    "tuples of many": (
        raw(
            b"\x93\x90\x91\x93\x0b\xce"
            + (1 << 22).to_bytes(4, "big")
            + b"\x91\xdd"
            + (1 << 22).to_bytes(4, "big")
            + b"\xc0" * (1 << 22)
            + b"\xd4\x01\x00"
        ),
        "LimitError",
    ),
    **{
        f"numbers {name}": (rows([10, *row]), "DecodeError")
        for name, row in {
            "of no type": [5, b"a"],
            "of a type that none has": ["float32", b"abcd"],
            "of objects": ["object", b"12345678"],
            "of half a number": ["int16", b"abc"],
            "that are a text": ["int8", "abc"],
            "in a segment that is not there": ["int8", 3],
            "kept elsewhere": ["int8", [b"d" * 32, 1]],
            "of nothing": [],
        }.items()
    },
    "numbers of many": (tree([[10, "int8", 0]], ref(0), segments=(bytes(9 << 20),)), "LimitError"),
    "numbers that are referred to twice": (tree([[10, "int8", b"abc"]], [ref(0), ref(0)]), "DecodeError"),
}
GOOD = {
    "an instance": inst("test.Point", RIGHT_POINT, fields=POINT),
    "a model": inst("test.Inner", [1, [2.5], ["x"], None, None], fields=["x", "y", *PYDANTIC[1:]]),
    "records": tree([[6, 0, 2, [[1, 2], [2.5, 3], [[], ["a"]]]]], ref(0), [["test.Point", 1, POINT]]),
    "numbers": tree([[10, "int16", 0]], ref(0), segments=(b"1234",)),
    "tuples": rows([11, 2, [[1, 2], ["a", "b"]]]),
    "a leaf that several copy": tree(
        [[1, 0, 0], *[[9, 0, ["B", True, ref(0)]]] * 8],
        [ref(index) for index in range(1, 9)],
        [["array", 1, None]],
        (bytes(100_000),),
    ),
    "an array": rows([7, "int32", [1], 0, b"abcd"]),
    "a leaf": tree([[1, 0, 0]], ref(0), segments=(b"leaf",)),
    "a leaf behind a tree": lambda f: f.sections({"object": None}, msgpack.packb([[], [[1, 0, 0]], ref(0)]), b"leaf"),
    "a zone": inst("ZoneInfo", "Europe/Berlin"),
    "a memoryview": rows([1, 2, b"abcd", "I", [1]]),
    "a deep chain": chain(195),
    "an instance in place": tree([], here(9, [0, RIGHT_POINT]), [["test.Point", 1, POINT]]),
    "an array in place": tree([], here(7, ["int32", [1], 0, b"abcd"])),
    "a long array in place": tree([], here(7, ["int8", [400], 0, bytes(400)])),
    "an integer in place": tree([], here(0, bytes(1 << 16) + b"\1")),
    "rows in place of a leaf": tree([[1, 0, 0]], [here(2, [ref(0)]), here(5, [[1], [ref(0)]])], (), (b"leaf",)),
}


@pytest.fixture(scope="module")
def outcomes(forge, tmp_path_factory):
    folder, cases = tmp_path_factory.mktemp("objects"), []
    frames = {label: make(forge) for label, (make, _) in ATTACKS.items()}
    frames |= {label: make(forge) for label, make in GOOD.items()}
    for number, (label, data) in enumerate(frames.items()):
        (folder / str(number)).write_bytes(data)
        cases.append((label, str(folder / str(number))))
    done = subprocess.run(
        [sys.executable, "-c", CELL], input=json.dumps(cases), capture_output=True, text=True, check=False, timeout=280
    )
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("label", ATTACKS)
def test_gets_the_right_error_at_once_and_without_memory(label, outcomes):
    outcome = outcomes[label]
    assert outcome["error"] == ATTACKS[label][1], outcome
    assert outcome["error"] == "accepted" or "RemoteError" in outcome["classes"]
    assert outcome["seconds"] < 1


@pytest.mark.parametrize("label", GOOD)
def test_the_same_without_the_lie_is_taken(label, outcomes):
    assert outcomes[label]["error"] == "accepted", outcomes[label]


# ── what nobody has thought of ───────────────────────────────────────────────────────────────────────────────────────

MUTATE = f"""
import random, sys, time, warnings
warnings.simplefilter("error")
sys.path[:0] = [{str(HERE.parents[1] / "fuzz")!r}, {str(HERE.parent / "unit" / "objects")!r}]
import objects_target
from mutation import mutated_bytes
rng, inputs = random.Random(int(sys.argv[1])), int(sys.argv[2])
mutate, pool = objects_target.mutator(mutated_bytes), list(objects_target.seeds())
accepted, slowest = 0, 0.0
for _ in range(inputs):
    data = mutate(rng, rng.choice(pool))
    start = time.process_time()
    taken = objects_target.check(data)
    slowest = max(slowest, time.process_time() - start)
    accepted += taken
    if taken and len(pool) < 2000:
        pool.append(data)
print(accepted, inputs - accepted, slowest)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_altered_trees_give_nothing_but_refusals(seed):
    """Structures of valid trees are altered under right digests; ``fuzz`` makes millions of them."""
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, str(seed), "10000"], capture_output=True, text=True, check=False, timeout=280
    )
    assert not done.returncode, done.stderr[-3000:]
    accepted, refused, slowest = map(float, done.stdout.split())
    assert accepted + refused == 10_000
    assert accepted > 500
    assert refused > 3000
    assert slowest < 1
