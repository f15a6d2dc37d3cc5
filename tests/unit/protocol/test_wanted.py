"""What a server wants of each payload: what goes together, and what settings may say."""

from __future__ import annotations

import pytest

from fedpost.codecs import ByPattern, Dense, Uq, parse_codec
from fedpost.errors import ConfigError
from fedpost.pipeline import Pipeline
from fedpost.protocol.wanted import check_payload, check_wanted, is_by_pattern, update_checks, update_codec


def pipelines(fit, evaluate, result="dense"):
    texts = {"FitIns": fit, "EvaluateIns": evaluate, "FitRes": result}
    return {payload: Pipeline.parse(text) for payload, text in texts.items()}


@pytest.mark.parametrize(
    ("fit", "evaluate"),
    [
        ("uq(2)", "uq(2)"),
        ("uq(2)", "delta | uq(2) | rc"),
        ("uq(2) | fedwt | zstd", "uq(2) | numpy | none"),
        ("dense", "cast(bfloat16)"),
    ],
)
def test_models_that_go_together(fit, evaluate):
    check_wanted(pipelines(fit, evaluate, "topk(0.1)"))


@pytest.mark.parametrize(("fit", "evaluate"), [("uq(2)", "uq(3)"), ("uq(2)", "dense"), ("dense", "delta")])
def test_models_that_do_not_go_together(fit, evaluate):
    with pytest.raises(ConfigError, match="bring the same model, but FitIns has") as caught:
        check_wanted(pipelines(fit, evaluate))
    assert f"FitIns has {Pipeline.parse(fit).update}, EvaluateIns has {Pipeline.parse(evaluate).update}" in str(
        caught.value
    )


def test_a_payload_that_is_not_wanted_is_no_fault():
    check_wanted({})
    check_wanted({"FitIns": Pipeline(Uq(2))})


def test_names_of_payloads():
    for name in (None, "default", "FitIns", "FitRes", "EvaluateIns"):
        check_payload("update", name)
    with pytest.raises(ConfigError, match="Did you mean 'FitIns'"):
        check_payload("update", "FitIn")


@pytest.mark.parametrize(
    ("update", "patterns"),
    [("uq(2)", False), (["*"], False), ({}, False), ({"FitRes": "uq(2)"}, False), ({"whatever": "uq(2)"}, False)]
    + [({key: "uq(2)"}, True) for key in ("*", "a.b", "w?", "[ab]")],
)
def test_mappings_of_patterns_are_told_by_their_keys(update, patterns):
    assert is_by_pattern(update) == patterns


def test_codecs_of_settings():
    assert update_codec(["delta", "uq(2)"]) == Uq(2)
    assert update_codec({"b": "none", "*": ["delta", "uq(2)", "rc"]}) == ByPattern({"b": Dense(), "*": Uq(2)})
    assert update_codec(" uq(2) ") == parse_codec("uq(2)")


def test_every_place_is_checked_the_narrowest_first():
    update = {"FitRes": {"*.bias": "none", "*": "uq(2)"}, "default": ["cast(bfloat16)", "delta"]}
    paths = [path for path, _ in update_checks(update, "$.update")]
    assert paths == [
        "$.update.FitRes",
        "$.update.FitRes.*.bias",
        "$.update.FitRes.*",
        "$.update.FitRes",
        "$.update.default",
        "$.update.default",
    ]
    for _, check in update_checks(update, "$.update"):
        check()
