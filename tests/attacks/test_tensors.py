"""Hostile tensor tables, element types, codec notes and ``.npy`` headers in frames whose digests are all right."""

from __future__ import annotations

import struct

import pytest

F8 = struct.pack("<d", 1.5)
TABLE = "tensor table"
A = "tensor 'a'"


def columns(**changed):
    """The table of one float64 vector of three, with columns changed."""
    table = {
        "names": ["a"],
        "ranks": b"\x01",
        "dims": [3],
        "segments": [0],
        "dtypes": ["float64"],
        "segment_dtypes": [0],
        "fortran": [],
    }
    return list((table | changed).values())


def lying(**changed):
    return lambda f: f.tensors(*columns(**changed), data=(F8 * 3,))


def npy(descr="'<f8'", shape="(1,)", fortran="False"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


TYPES_UNKNOWN = [
    "object",
    "O",
    "float128x",
    "f8",
    "<f8",
    "=float64",
    "<float64",
    ">>float64",
    "Float64",
    " float64",
    "float64 ",
    "float64\n",
    "float64\0",
    "",
    ">",
    "numpy.float64",
    "os.system",
    "builtins.eval",
    "__import__('os').system('id')",
    "bfloat16()",
    "str",
    "bytes",
    "bytes[]",
    "bytes[-1]",
    "bytes[1.5]",
    "bytes[03]",
    "bytes[ 3]",
    "bytes[٣]",
    "bytes[2147483648]",
    "bytes[9999999999]",
    "str[536870912]",
    "str[999999999999999999999999]",
    "void[4294967296]",
    "datetime64[0s]",
    "datetime64[00s]",
    "datetime64[05s]",
    "datetime64[٣s]",
    "datetime64[s/0]",
    "datetime64[s/2]",
    "datetime64[-1s]",
    "datetime64[9999999999s]",
    "datetime64[]",
    "datetime64[fortnight]",
    "timedelta64[0s]",
    "struct",
    "struct{}",
    "struct(1)",
    ">struct[0,[]]",
    'struct[8,[["a","object",0,[]]]]',
    'struct[8,[["a","os.system",0,[]]]]',
    'struct[8,[["a","bytes[٣]",0,[]]]]',
    'struct[8,[["a","datetime64[0s]",0,[]]]]',
]

TYPES_IMPOSSIBLE = [
    "struct[",
    "struct[]",
    "struct[null]",
    "struct[8]",
    "struct[8,[],1]",
    "struct[8,{}]",
    "struct[8.0,[]]",
    'struct[8,[["a","float32",0]]]',
    'struct[8,[["a","float32",0,[],1]]]',
    'struct[8,[["a","float32","0",[]]]]',
    'struct[8,[[1,"float32",0,[]]]]',
    # Fields outside the element.
    'struct[4,[["a","float64",0,[]]]]',
    'struct[8,[["a","float64",1,[]]]]',
    'struct[8,[["a","float64",-1,[]]]]',
    'struct[8,[["a","float64",-9223372036854775808,[]]]]',
    'struct[8,[["a","float64",2147483647,[]]]]',
    'struct[8,[["a","float64",4294967296,[]]]]',
    'struct[8,[["a","float64",18446744073709551616,[]]]]',
    'struct[8,[["a","float32",0,[3]]]]',
    'struct[8,[["a","float32",0,[2]],["b","float32",8,[]]]]',
    # Fields of the same name.
    'struct[8,[["a","float32",0,[]],["a","float32",4,[]]]]',
    # Impossible sizes.
    "struct[-1,[]]",
    "struct[2147483648,[]]",
    "struct[4294967296,[]]",
    "struct[99999999999999999999,[]]",
    'struct[8,[["a","float32",0,[-1]]]]',
    'struct[8,[["a","float32",0,[4294967296]]]]',
    'struct[8,[["a","float32",0,[65536,65536]]]]',
    'struct[8,[["a","float32",0,[9223372036854775808]]]]',
    'struct[8,[["a","void[2147483647]",0,[2147483647]]]]',
    'struct[4,[["a","float32",0,[' + ",".join("1" * 65) + "]]]]",
    # Text that is no text, too much of it, and too deep.
    'struct[8,[["\\ud800","float32",0,[]]]]',
    "struct[" * 1000,
    "struct" + "[" * 50_000,
    'struct[8,[["' + "a" * 70_000 + '","float32",0,[]]]]',
]

NPY_BAD = {
    "another descr": npy("'<f4'"),
    "big-endian": npy("'>f8'"),
    "object": npy("'|O'"),
    "object in a structure": npy("[('a', '|O')]"),
    "pickle's own": npy("'object'"),
    "fortran is a number": npy(fortran="1"),
    "shape is a list": npy(shape="[1]"),
    "shape is a number": npy(shape="1"),
    "shape of truth": npy(shape="(True,)"),
    "shape of floats": npy(shape="(1.0,)"),
    "negative shape": npy(shape="(-1,)"),
    "two negatives": npy(shape="(-1, -1)"),
    "too long": npy(shape="(2,)"),
    "too short": npy(shape="(0,)"),
    "terabytes": npy(shape="(1000000000000,)"),
    "2^64 + 1": npy(shape="(18446744073709551617,)"),
    "zero times huge": npy(shape="(0, 18446744073709551616)"),
    "rank 65": npy(shape="(" + "1, " * 65 + ")"),
    "rank 5,000": npy(shape="(" + "1," * 4000 + ")"),
    "no shape": "{'descr': '<f8', 'fortran_order': False, }",
    "another key": "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'x': 1}",
    "keys of several types": "{1: 2, 'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
    "keys that cannot be": "{[]: 1}",
    "no dictionary": "[1, 2, 3]",
    "nothing": "",
    "a call": "__import__('os').system('touch /tmp/owned')",
    "a call in the shape": npy(shape="(__import__('os').getpid(),)"),
    "a comprehension": npy(shape="tuple(1 for _ in range(1))"),
    "a condition": npy(shape="(1 if True else 2,)"),
    "arithmetic": npy(shape="(9**9**9,)"),
    "NUL": npy() + "\0",
    "deep": "[" * 5000,
    "deep signs": npy(shape="(" + "-" * 9000 + "1,)"),
    "long digits": npy(shape="(" + "9" * 9000 + ",)"),
    "no end of a line": "{'descr':\\",
    "one bracket": "(",
    "one brace": "{",
    "an open string": "'''",
    "not indented": "  x\n y\n  z",
    "an L of Python 2": npy(shape="(1L,)"),
    "descr is a number": npy("5"),
    "descr is None": npy("None"),
    "descr is empty": npy("''"),
    "descr is a surrogate": npy("'\\ud800'"),
    "descr is an empty tuple": npy("()"),
    "descr is a short tuple": npy("('<f8',)"),
    "descr is a list of nothing": npy("[()]"),
    "descr is a dictionary": npy("{'names': ['a']}"),
    "descr is an alias that went": npy("'a8'"),
    "descr has many": npy("'99999999999999f8'"),
    "descr has a negative": npy("[('a', '<f8', -1)]"),
    "descr divides by zero": npy("'M8[s/0]'"),
    "descr has a zero unit": npy("'M8[0s]'"),
}

ATTACKS = {
    # ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────
    "no pipeline": (
        lambda f: f.sections({"tensors": columns(), "pipeline": None}, F8 * 3),
        "DecodeError",
        "section 'pipeline'",
    ),
    "no table": (lambda f: f.sections({"pipeline": "dense | fedwt | none"}), "DecodeError", None),
    "the table is a map": (
        lambda f: f.sections({"pipeline": "dense | fedwt | none", "tensors": {"names": []}}),
        "DecodeError",
        "section 'tensors'",
    ),
    "the table is too short": (lambda f: f.tensors(["a"], b"\x01", [3], [0], ["float64"]), "DecodeError", None),
    "columns of the wrong type": (lying(dims=b"\x03"), "DecodeError", "section 'tensors'"),
    "a name is bytes": (lying(names=[b"a"]), "DecodeError", "section 'tensors'"),
    "a name is a number": (lying(names=[1]), "DecodeError", "section 'tensors'"),
    "a name comes twice": (
        lying(names=["a", "a"], ranks=b"\1\1", dims=[1, 2], segments=[0, 0]),
        "DecodeError",
        TABLE,
    ),
    "names too many": (lying(names=["a", "b"]), "DecodeError", TABLE),
    "ranks too few": (lying(ranks=b""), "DecodeError", TABLE),
    "ranks as a list": (lying(ranks=[1]), "DecodeError", "section 'tensors'"),
    "dimensions too many": (lying(dims=[3, 1]), "DecodeError", TABLE),
    "dimensions too few": (lying(dims=[]), "DecodeError", TABLE),
    "segments too few": (lying(segments=[]), "DecodeError", TABLE),
    "a negative dimension": (lying(dims=[-3]), "DecodeError", TABLE),
    "two negative dimensions": (lying(ranks=b"\2", dims=[-1, -3]), "DecodeError", TABLE),
    "a dimension of 2^64-1": (lying(dims=[2**64 - 1]), "DecodeError", TABLE),
    "a dimension of 2^61": (lying(dims=[2**61]), "DecodeError", TABLE),
    "dimensions whose product wraps to 3": (
        lying(ranks=b"\2", dims=[2**59, 2**59 + 3]),
        "DecodeError",
        A,
    ),
    "dimensions whose bytes wrap": (lying(dims=[2**60]), "DecodeError", A),
    "rank 65": (lying(ranks=b"\x41", dims=[3] + [1] * 64), "DecodeError", TABLE),
    "rank 255": (lying(ranks=b"\xff", dims=[3] + [1] * 254), "DecodeError", TABLE),
    "64 dimensions of 2^60": (lying(ranks=b"\x40", dims=[2**60] * 64), "DecodeError", A),
    "zero times 64 dimensions of 2^60": (
        lambda f: f.one("float64", [0] + [2**60] * 63),
        "DecodeError",
        A,
    ),
    "zero times 2^60 of eight bytes": (lambda f: f.one("float64", [0, 2**60]), "DecodeError", A),
    "zero times 2^59 of sixteen bytes": (lambda f: f.one("complex128", [0, 2**59]), "DecodeError", A),
    "zero times 2^40 of a billion bytes": (lambda f: f.one("void[999999999]", [2**40, 0]), "DecodeError", A),
    "2^60 times nothing and more": (lambda f: f.one("void[0]", [2**60, 2]), "DecodeError", A),
    "a segment out of range": (lying(segments=[1]), "DecodeError", A),
    "segment -1": (lying(segments=[-1]), "DecodeError", A),
    "segment 2^64-1": (lying(segments=[2**64 - 1]), "DecodeError", A),
    "a hole at the end": (lying(dims=[2]), "DecodeError", "segment 0"),
    "a segment that nothing fills": (
        lambda f: f.tensors(*columns(segment_dtypes=[0, 0]), data=(F8 * 3, F8)),
        "DecodeError",
        "segment 1",
    ),
    "a segment that only an empty tensor fills": (
        lambda f: f.tensors(["a"], b"\1", [0], [0], ["float64"], [0], data=(F8,)),
        "DecodeError",
        "segment 0",
    ),
    "past the end of its segment": (lying(dims=[4]), "DecodeError", A),
    "into the next segment": (
        lambda f: f.tensors(*columns(dims=[6], segment_dtypes=[0, 0]), data=(F8 * 3, F8 * 3)),
        "DecodeError",
        A,
    ),
    "two tensors over the same bytes": (
        lying(names=["b", "a"], ranks=b"\1\1", dims=[3, 3], segments=[0, 0]),
        "DecodeError",
        A,
    ),
    "half an element": (
        lambda f: f.tensors(*columns(dims=[1]), data=(b"1234",)),
        "DecodeError",
        A,
    ),
    "element types for too few segments": (lying(segment_dtypes=[]), "DecodeError", TABLE),
    "element types for too many segments": (lying(segment_dtypes=[0, 0]), "DecodeError", TABLE),
    "an element type that is not in the list": (lying(segment_dtypes=[1]), "DecodeError", TABLE),
    "element type -1": (lying(segment_dtypes=[-1]), "DecodeError", TABLE),
    "no element types": (lying(dtypes=[]), "DecodeError", TABLE),
    "Fortran past the end": (lying(fortran=[1]), "DecodeError", TABLE),
    "Fortran -1": (lying(fortran=[-1]), "DecodeError", TABLE),
    "Fortran 2^64-1": (lying(fortran=[2**64 - 1]), "DecodeError", TABLE),
    "300,000 tensors": (
        lambda f: f.tensors(
            [f"{i:x}" for i in range(300_000)], bytes(300_000), [], [0] * 300_000, ["void[0]"], [0], []
        ),
        "LimitError",
        TABLE,
    ),
    # ── element types ────────────────────────────────────────────────────────────────────────────────────────────────
    **{
        f"element type {name[:50]!r}": (lambda f, n=name: f.one(n, [1], F8), "UnsupportedError", TABLE)
        for name in TYPES_UNKNOWN
    },
    **{
        f"element type {index}, {name[:50]!r}": (lambda f, n=name: f.one(n, [1], F8), "DecodeError", TABLE)
        for index, name in enumerate(TYPES_IMPOSSIBLE)
    },
    "an element type that nothing uses": (lying(dtypes=["float64", "object"]), "DecodeError", TABLE),
    # ── pipeline and notes ───────────────────────────────────────────────────────────────────────────────────────────
    **{
        f"pipeline {spec[:40]!r}": (
            lambda f, s=spec: f.tensors(*columns(), data=(F8 * 3,), pipeline=s),
            "UnsupportedError",
            "pipeline",
        )
        for spec in (
            "",
            "dense |",
            "fedwt | none",
            "dense | fedwt | none | none",
            "dense | pickle | none",
            "dense | fedwt | rar",
            "dense | fedwt | zstd(999)",
            "dense | fedwt | zstd(x)",
            "dense | fedwt | zstd(1, 2)",
            "sparse | fedwt | none",
            "dense(1) | fedwt | none",
            "cast | fedwt | none",
            "cast(object) | fedwt | none",
            "cast(os.system) | fedwt | none",
            "os.system(id) | fedwt | none",
            "__import__ | fedwt | none",
            "dense | fedpost.tensors.Fedwt | none",
            "dense | fedwt() | none",
            "dense | fedwt | none()" * 2,
            "a" + " " * 4000 + "(",
        )
    },
    "a pipeline of 1 MB": (
        lambda f: f.tensors(*columns(), data=(F8 * 3,), pipeline="|" * 10**6),
        "LimitError",
        "section 'pipeline'",
    ),
    "a pipeline that is bytes": (
        lambda f: f.tensors(*columns(), data=(F8 * 3,), pipeline=b"dense | fedwt | none"),
        "DecodeError",
        "section 'pipeline'",
    ),
    "a pipeline that is not UTF-8": (
        lambda f: f.head(b"\x94\xa6blake3\x90\x92\x90\xc4\x00\x91\x92\xa8pipeline\xa3\xff\xfe\xfd"),
        "DecodeError",
        "section 'pipeline'",
    ),
    **{
        f"cast notes {notes!r}": (
            lambda f, n=notes: f.tensors(
                *columns(dtypes=["bfloat16"], dims=[12]), data=(F8 * 3,), pipeline="cast(bfloat16) | fedwt | none", **n
            ),
            error,
            None,
        )
        for notes, error in (
            ({}, "DecodeError"),
            ({"update": []}, "DecodeError"),
            ({"update": {}}, "DecodeError"),
            ({"update": {"widen": None}}, "DecodeError"),
            ({"update": {"widen": ["a"]}}, "DecodeError"),
            ({"update": {"widen": {"b": "float32"}}}, "DecodeError"),
            ({"update": {"widen": {"a": 1}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": None}}}, "UnsupportedError"),
            ({"update": {"widen": {1: "float32"}}}, "DecodeError"),
            ({"update": {"widen": {"a": "object"}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": "int64"}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": "void[999999999]"}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": "bytes[2000000000]"}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": "complex128"}}}, "UnsupportedError"),
            ({"update": {"widen": {"a": "struct[8,["}}}, "DecodeError"),
        )
    },
    "cast notes for what was not cast": (
        lambda f: f.tensors(
            *columns(), data=(F8 * 3,), pipeline="cast(bfloat16) | fedwt | none", update={"widen": {"a": "float64"}}
        ),
        "DecodeError",
        "update codec cast(bfloat16)",
    ),
    "notes with a map for a key": (
        lambda f: f.head(
            b"\x94\xa6blake3\x90\x92\x90\xc4\x00\x93\x92\xa8pipeline\xbecast(bfloat16) | fedwt | none "
            b"\x92\xa7tensors\x97\x90\xc4\x00\x90\x90\x90\x90\x90\x92\xa6update\x81\xa5widen\x81\x80\x01"
        ),
        "DecodeError",
        None,
    ),
    # ── the numpy format ─────────────────────────────────────────────────────────────────────────────────────────────
    **{f".npy: {label}": (lambda f, h=header: f.npy(h, F8), "DecodeError", A) for label, header in NPY_BAD.items()},
    **{
        f".npy file {data[:20]!r}": (lambda f, d=data: f.npy_file(d), "DecodeError", A)
        for data in (
            b"",
            b"\x93NUM",
            b"\x93NUMPY",
            b"\x93NUMPY\x01",
            b"\x93NUMPY\x01\x00",
            b"\x93NUMPY\x01\x00\xff\xff{",
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
            b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 20_000,
            b"\x93NUMPY\x09\x00\x02\x00{}",
            b"\x93NUMPY\x00\x00\x02\x00{}",
            b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
            b"PK\x03\x04" + bytes(60),
        )
    },
    ".npy that names no type and claims bytes of another": (
        lambda f: f.npy(npy("'|V4'"), F8),
        "DecodeError",
        A,
    ),
    ".npy: the table names a type that is unknown": (
        lambda f: f.npy(npy(), F8, dtype="object"),
        "UnsupportedError",
        A,
    ),
    ".npy: names too many": (
        lambda f: f.sections({"pipeline": "dense | numpy | none", "tensors_npy": [["a", "b"], ["int8", "int8"]]}),
        "DecodeError",
        TABLE,
    ),
    ".npy: a name comes twice": (
        lambda f: f.sections(
            {"pipeline": "dense | numpy | none", "tensors_npy": [["a", "a"], ["int8", "int8"]]}, b"", b""
        ),
        "DecodeError",
        TABLE,
    ),
    ".npy: types too few": (
        lambda f: f.sections({"pipeline": "dense | numpy | none", "tensors_npy": [["a"], []]}, b""),
        "DecodeError",
        TABLE,
    ),
    ".npy: a segment too many": (
        lambda f: f.sections({"pipeline": "dense | numpy | none", "tensors_npy": [["a"], ["int8"]]}, b"", b""),
        "DecodeError",
        TABLE,
    ),
    # ── what must be accepted ────────────────────────────────────────────────────────────────────────────────────────
    "one tensor": (lying(), "accepted", None),
    "a later minor version": (
        lambda f: f.frame(
            [
                "blake3",
                [],
                f.table(F8 * 3),
                [["pipeline", "dense | fedwt | none"], ["x", 1], ["tensors", [*columns(), 1, "x"]]],
            ],
            F8 * 3,
            minor=9,
        ),
        "accepted",
        None,
    ),
    "names that lead astray": (
        lying(names=["../../etc/passwd", "a\0b", "os.system"], ranks=b"\1\1\1", dims=[1, 1, 1], segments=[0, 0, 0]),
        "accepted",
        None,
    ),
    "rank 64": (lying(ranks=b"\x40", dims=[3] + [1] * 63), "accepted", None),
    "zero times 2^57 of eight bytes": (lambda f: f.one("float64", [0, 2**57]), "accepted", None),
    "a truth value of 2": (lambda f: f.one("bool", [1], b"\x02"), "accepted", None),
    "text beyond Unicode": (lambda f: f.one("str[2]", [1], b"\xff" * 8), "accepted", None),
    "fields that overlap": (
        lambda f: f.one('struct[8,[["a","float64",0,[]],["b","uint32",2,[]]]]', [1], F8),
        "accepted",
        None,
    ),
    "a time that is not one": (lambda f: f.one("datetime64[s]", [1], bytes(7) + b"\x80"), "accepted", None),
    ".npy of elements of 2 GiB": (
        lambda f: f.npy(npy("'|V2147483647'", "(0,)"), b"", dtype="void[2147483647]"),
        "accepted",
        None,
    ),
    ".npy as it should be": (lambda f: f.npy(npy(), F8), "accepted", None),
    ".npy as bytes": (lambda f: f.npy(npy("'|V2'"), b"\x80\x3f", dtype="bfloat16"), "accepted", None),
}


@pytest.fixture(scope="module")
def outcomes(forge, confine):
    return confine({label: make(forge) for label, (make, _, _) in ATTACKS.items()})


@pytest.mark.parametrize("label", ATTACKS)
def test_gets_the_right_error_at_once_and_without_memory(label, outcomes):
    _, error, where = ATTACKS[label]
    outcome = outcomes[label]
    assert outcome["error"] == error, outcome
    assert outcome["seconds"] < 1
    assert error == "accepted" or "RemoteError" in outcome["classes"]
    assert where is None or outcome["where"] == where
