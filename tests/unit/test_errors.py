"""The tree of exceptions is the one that the module draws."""

from __future__ import annotations

import builtins
import copy
import pickle
import re

import pytest

from fedpost import errors
from fedpost.errors import DecodeError, FedpostError, LocalError, RemoteError, TransportError

# ruff: noqa: S301 - what is unpickled is what was pickled a line before
CLASSES = [getattr(errors, name) for name in errors.__all__]


def drawn():
    """Each class's bases as the docstring draws them: the branch it hangs on, then what stands in parentheses."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+)(?: +\((\w+)\))?(?: .*)?$", errors.__doc__, re.MULTILINE)
    parents, tree = {}, {}
    for branch, name, also in lines:
        depth = len(branch) // 4
        parents[depth] = name
        tree[name] = ((parents[depth - 1],) if depth else ("Exception",)) + ((also,) if also else ())
    return tree


def test_the_tree_is_as_drawn():
    assert {cls.__name__: tuple(base.__name__ for base in cls.__bases__) for cls in CLASSES} == drawn()


def test_every_class_is_in_the_drawing_and_exported():
    defined = {thing.__name__ for thing in vars(errors).values() if isinstance(thing, type)}
    assert defined == set(errors.__all__) == set(drawn())


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_ours_or_theirs_or_the_way_between(cls):
    if cls is not FedpostError:
        assert sum(issubclass(cls, side) for side in (LocalError, RemoteError, TransportError)) == 1


@pytest.mark.parametrize("cls", CLASSES)
def test_the_other_base_is_a_builtin(cls):
    for base in cls.__bases__[1:]:
        assert getattr(builtins, base.__name__) is base
        with pytest.raises(base):
            raise cls("caught as well")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("parts", [{}, {"where": "segment 3"}, {"hint": "Ask again."}, {"where": "x", "hint": "y"}])
def test_a_copy_keeps_what_and_where_and_hint(cls, copied, parts):
    error = cls("it is wrong", **parts)
    again = copied(error)
    assert type(again) is cls
    assert (again.what, again.where, again.hint) == (error.what, error.where, error.hint)
    assert str(again) == str(error)


def test_every_protocol_of_pickle_keeps_the_parts():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(DecodeError("a", where="b", hint="c"), protocol))
        assert (again.what, again.where, again.hint) == ("a", "b", "c")


def test_a_copy_keeps_its_notes():
    error = DecodeError("it is wrong")
    error.add_note("in round 3")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["in round 3"]


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "it is wrong"),
        ({"where": "segment 3"}, "segment 3: it is wrong"),
        ({"hint": "Ask again."}, "it is wrong. Ask again."),
        ({"where": "segment 3", "hint": "Ask again."}, "segment 3: it is wrong. Ask again."),
    ],
)
def test_a_message_says_where_and_what_next(parts, text):
    assert str(FedpostError("it is wrong", **parts)) == text
