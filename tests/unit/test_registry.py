"""Registries: explicit, without duplicates, lazy where asked, and closed when frozen."""

from __future__ import annotations

import threading

import pytest

from fedpost.errors import ConfigError, MissingExtraError, RegistryError
from fedpost.registry import Registry, parse_call, split_outside


@pytest.fixture
def colours():
    registry = Registry("colour")
    registry.register("red", 1)
    registry.register("green", 2)
    return registry


def test_what_is_registered_is_found(colours):
    assert colours.register("blue", 3) == 3
    assert [colours.get(name) for name in colours] == [1, 2, 3]
    assert list(colours) == ["red", "green", "blue"]
    assert len(colours) == 3
    assert "red" in colours
    assert "pink" not in colours
    assert repr(colours) == "<Registry of colours: red, green, blue>"


def test_duplicates_are_refused_and_change_nothing(colours):
    with pytest.raises(RegistryError, match=r"^colour 'red' is registered already$"):
        colours.register("red", 9)
    with pytest.raises(RegistryError):
        colours.register_lazy("red", lambda: 9)
    assert colours.get("red") == 1


def test_unknown_names_come_with_a_hint(colours):
    with pytest.raises(RegistryError) as near:
        colours.get("gren")
    assert (near.value.what, near.value.hint) == ("unknown colour 'gren'", "Did you mean 'green'?")
    with pytest.raises(RegistryError) as far:
        colours.get("xyz")
    assert far.value.hint == "Known: red, green."
    with pytest.raises(RegistryError, match="Known: none"):
        Registry("thing").get("x")


def test_frozen_registries_do_not_change(colours):
    colours.register_lazy("late", lambda: 4)
    colours.freeze()
    for register in (lambda: colours.register("x", 1), lambda: colours.register_lazy("x", lambda: 1)):
        with pytest.raises(RegistryError, match="cannot register colour 'x': the registry is frozen"):
            register()
    # An entry that was there already is still loaded.
    assert colours.get("late") == 4
    assert list(colours) == ["red", "green", "late"]


def test_lazy_entries_load_once_and_when_asked(colours):
    loads = []

    def load():
        loads.append(1)
        return object()

    colours.register_lazy("late", load)
    assert "late" in colours
    assert len(colours) == 3
    assert not loads
    assert colours.get("late") is colours.get("late")
    assert loads == [1]


def test_a_lazy_entry_that_fails_is_asked_again(colours):
    def load():
        raise MissingExtraError("no", hint="pip install it")

    colours.register_lazy("late", load)
    for _ in range(2):
        with pytest.raises(MissingExtraError):
            colours.get("late")


def test_keys_may_be_types():
    registry = Registry("type")
    registry.register(int, "int")
    assert registry.get(int) == "int"
    with pytest.raises(RegistryError, match="unknown type <class 'str'>"):
        registry.get(str)


def test_iteration_sees_one_state(colours):
    seen = []
    for name in colours:
        seen.append(name)
        if len(seen) < 10:
            colours.register(f"more{len(seen)}", 0)
    assert seen == ["red", "green"]


def test_threads_lose_nothing():
    registry = Registry("number")
    refused = []

    def work(own):
        for index in range(200):
            registry.register((own, index), index)
            try:
                registry.register(index, own)
            except RegistryError:
                refused.append(index)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry) == 4 * 200 + 200
    assert len(refused) == 3 * 200


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("zstd", "zstd", ()),
        ("zstd()", "zstd", ()),
        ("zstd(3)", "zstd", ("3",)),
        ("  zstd  ( 3 )  ", "zstd", ("3",)),
        ("a_1(x, y z ,)", "a_1", ("x", "y z", "")),
        ("a(-1.5e3)", "a", ("-1.5e3",)),
        ("a(x.y/z)", "a", ("x.y/z",)),
    ],
)
def test_calls(text, name, arguments):
    assert parse_call(text) == (name, arguments)


@pytest.mark.parametrize(
    "text", ["", " ", "3", "A", "a.b", "a-b", "é", "a b", "a(", "a)", "a(b(c))", "a()()", "_a", "()"]
)
def test_what_is_no_call(text):
    with pytest.raises(ConfigError) as caught:
        parse_call(text)
    assert caught.value.hint == "Write it like zstd(3)."


def test_a_long_wrong_call_is_cut_in_the_message():
    with pytest.raises(ConfigError) as caught:
        parse_call("!" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        (" a ", ["a"]),
        ("a|b | c", ["a", "b", "c"]),
        ("|", ["", ""]),
        ("f(a|b)|c", ["f(a|b)", "c"]),
        ('{"|": a|b, "}": [c|d]}|e', ['{"|": a|b, "}": [c|d]}', "e"]),
        ('"a\\"|b"|c', ['"a\\"|b"', "c"]),
        ('"\\\\"|c', ['"\\\\"', "c"]),
    ],
)
def test_text_is_split_outside_brackets_and_quotations(text, parts):
    assert split_outside(text, "|") == parts


@pytest.mark.parametrize("text", ["(", ")", "(]", "{[}]", "a)b(", '"', '"a\\"', '("|', "}", '{"a": "}'])
def test_brackets_and_quotations_that_are_not_closed(text):
    with pytest.raises(ConfigError, match=r"bracket|quotation"):
        split_outside(text, "|")
