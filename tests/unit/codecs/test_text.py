"""Codecs as text and as JSON."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpost.codecs import (
    Auto,
    ByPattern,
    Cast,
    Chain,
    Delta,
    Dense,
    Eden,
    Int4,
    Int8,
    Rc,
    Sign,
    Stc,
    TopK,
    Uq,
    codec_config,
    codec_names,
    codec_of,
    is_update_stage,
    parse_codec,
)
from fedpost.errors import ConfigError, FedpostError, RegistryError

CONFIGS = [
    (Dense(), {"codec": "dense"}),
    (Delta(), {"codec": "delta"}),
    (Cast("float16"), {"codec": "cast", "dtype": "float16"}),
    (Uq(2), {"codec": "uq", "scale": 2.0}),
    (Eden(3), {"codec": "eden", "bits": 3}),
    (TopK(0.01), {"codec": "topk", "share": 0.01}),
    (Stc(0.04), {"codec": "stc", "share": 0.04}),
    (Int8(), {"codec": "int8"}),
    (Int4(), {"codec": "int4"}),
    (Sign(), {"codec": "sign"}),
    (Auto("1MB"), {"codec": "auto", "budget": 1_000_000}),
    (
        Chain(Cast("bfloat16"), Delta()),
        {"codec": "chain", "stages": [{"codec": "cast", "dtype": "bfloat16"}, {"codec": "delta"}]},
    ),
    (
        ByPattern({"*.bias": Dense(), "*": Chain(Cast("float16"), Int8())}),
        {
            "codec": "patterns",
            "patterns": [
                ["*.bias", {"codec": "dense"}],
                ["*", {"codec": "chain", "stages": [{"codec": "cast", "dtype": "float16"}, {"codec": "int8"}]}],
            ],
        },
    ),
]


@pytest.mark.parametrize(("codec", "config"), CONFIGS, ids=lambda one: str(one)[:40])
def test_configurations(codec, config):
    assert codec_config(codec) == config
    assert codec_of(config) == codec
    assert codec_of(msgspec.json.decode(msgspec.json.encode(config))) == codec
    assert codec_of(str(codec)) == codec


def test_stages_may_be_text_or_mappings():
    stages = [{"codec": "delta"}, "uq(2)", codec_config(Rc())]
    assert codec_of(stages) == codec_of({"codec": "chain", "stages": stages}) == Uq(2)
    assert codec_of({"codec": "none"}) == Dense()
    assert codec_of({"codec": "auto", "budget": "64KiB/round"}) == Auto(1 << 16)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        *((None, ConfigError), (3, ConfigError), ({}, ConfigError), ({"codec": 3}, ConfigError), ([], ConfigError)),
        *(({"codec": "uqq"}, RegistryError), ({"codec": "uq"}, ConfigError), ({"codec": "uq", "a": 2}, ConfigError)),
        *(({"codec": "uq", "scale": [2]}, ConfigError), ({"codec": "uq", "scale": None}, ConfigError)),
        *(({"codec": "uq", "scale": 10**400}, ConfigError), ({"codec": "topk", "share": 10**400}, ConfigError)),
        *(({"codec": "uq", 3: 2}, ConfigError), ({"codec": "cast", "dtype": 3}, ConfigError)),
        *(({"codec": "rc"}, ConfigError), ({"codec": "chain"}, RegistryError), ({"codec": "patterns"}, RegistryError)),
        ({"codec": "chain", "stages": [], "more": 1}, FedpostError),
        ({"codec": "chain", "stages": [None]}, ConfigError),
        ({"codec": "chain", "stages": ["delta", "delta"]}, ConfigError),
        ({"codec": "patterns", "patterns": [["*"]]}, ConfigError),
        ({"codec": "patterns", "patterns": [[3, "dense"]]}, ConfigError),
        ({"codec": "patterns", "patterns": ["ab"]}, ConfigError),
        ({"codec": "patterns", "patterns": [["*", {"codec": "patterns", "patterns": [["*", "dense"]]}]]}, ConfigError),
    ],
    ids=str,
)
def test_what_is_no_configuration(config, error):
    with pytest.raises(error):
        codec_of(config)


@pytest.mark.parametrize(
    "text", ["uq(1_0)", "topk(0.0_1)", "eden(\u0663)", "topk(\uff11)", "uq(\uff12)", "auto(1_0MB)", "uq(scale=1_0)"]
)
def test_numbers_are_written_in_plain_digits(text):
    with pytest.raises(ConfigError, match="is not an argument"):
        parse_codec(text)


@pytest.mark.parametrize("text", ["uq( )", "uq(2,)", "uq(,2)", "int8(,)"])
def test_an_empty_argument_is_told(text):
    with pytest.raises(ConfigError, match="argument is empty"):
        parse_codec(text)


@pytest.mark.parametrize(
    ("text", "what"), [("uq()", "are: scale"), ("uq", "are: scale"), ("topk", "are: share"), ("rc(1)", "no arguments")]
)
def test_arguments_that_are_missing_are_named(text, what):
    with pytest.raises(ConfigError, match=what):
        parse_codec(text)


@pytest.mark.parametrize("config", [{"codec": "uq", "scale": True}, {"codec": "eden", "bits": True}])
def test_true_is_no_number(config):
    with pytest.raises(ConfigError, match="neither a number nor text"):
        codec_of(config)


def test_a_codec_that_is_no_dataclass_has_no_configuration():
    class Own:
        def __str__(self):
            return "own(3)"

    with pytest.raises(ConfigError, match=r"own\(3\) is not a dataclass"):
        codec_config(Own())


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("none", "dense"),
        (" uq( scale = 2.50 ) ", "uq(2.5)"),
        ("cast(dtype=float16)", "cast(float16)"),
        ('{ "a" :none,"b":delta|uq(2)|rc }', '{"a": dense, "b": uq(2)}'),
        ('{"\\u00e9\\n": uq(1)}', '{"é\\n": uq(1)}'),
    ],
)
def test_longer_texts(text, full):
    codec = parse_codec(text)
    assert str(codec) == full
    assert parse_codec(full) == codec


@pytest.mark.parametrize(
    "text", ["uq(scale=2, scale=3)", "uq(2, scale=2)", "uq(step=2)", "int8(bits=4)", "none(1)", "rc(1)", "uq(=2)"]
)
def test_arguments_that_do_not_fit(text):
    with pytest.raises(ConfigError):
        parse_codec(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("delta | uq(2) | rc", {"uq"}),
        ("cast(bfloat16) | delta", {"cast", "delta"}),
        ('{"a": none, "b": cast(float16) | int8, "*": auto(1MB)}', {"dense", "cast", "int8", "auto"}),
    ],
)
def test_names_that_a_receiver_must_know(text, names):
    assert codec_names(parse_codec(text)) == names


def test_stages_of_a_pipeline_are_told_by_their_names():
    for text in ("uq(2)", "rc", " delta ", '{"*": uq(2)}', "uq (2)"):
        assert is_update_stage(text)
    for text in ("none", "fedwt", "zstd(3)", "", "uqq(2)", "lx"):
        assert not is_update_stage(text)


@settings(deadline=None)
@given(st.text(alphabet='{}()|":,\\ *abuq2rcdeltone=', max_size=40))
def test_any_text_is_a_codec_or_an_error(text):
    try:
        codec = parse_codec(text)
    except FedpostError:
        return
    assert parse_codec(str(codec)) == codec
