"""What a site offers and what the server settles on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpost.codecs import codec_names
from fedpost.errors import ProtocolError
from fedpost.pipeline import Pipeline
from fedpost.protocol import PAYLOADS, Agreement, agree, own_offer
from fedpost.protocol.negotiation import Offer

WANTED = "cast(bfloat16) | numpy | zstd(3)"
STAGES = ("updates", "formats", "compressions", "checksums")
PLAIN = {"updates": ["dense"], "formats": ["fedwt"], "compressions": [], "checksums": ["blake3"]}
FULL = {
    "updates": ["dense", "cast"],
    "formats": ["fedwt", "numpy"],
    "compressions": ["zstd"],
    "checksums": ["blake3", "xxh3"],
}


def wanted(text=WANTED, checksum="xxh3"):
    return dict.fromkeys(PAYLOADS, Pipeline.parse(text, checksum=checksum))


def offer(**stages):
    return Offer(**({"frame": 1} | PLAIN | stages))


def test_a_site_that_knows_everything_gets_what_the_server_wants():
    agreement = agree(wanted(), own_offer())
    assert agreement == Agreement(pipelines=dict.fromkeys(PAYLOADS, WANTED), checksum="xxh3")
    for payload in PAYLOADS:
        assert str(agreement.pipeline(payload)) == WANTED
        assert agreement.pipeline(payload).checksum == "xxh3"


@pytest.mark.parametrize("known", list(itertools.product([False, True], repeat=4)))
def test_each_stage_falls_back_by_itself(known):
    stages = {name: (FULL if full else PLAIN)[name] for name, full in zip(STAGES, known, strict=True)}
    agreement = agree(wanted(), offer(**stages))
    update, form, compression, checksum = known
    text = " | ".join(
        (
            "cast(bfloat16)" if update else "dense",
            "numpy" if form else "fedwt",
            "zstd(3)" if compression else "none",
        )
    )
    assert agreement.pipelines == dict.fromkeys(PAYLOADS, text)
    assert agreement.checksum == ("xxh3" if checksum else "blake3")


def test_payloads_are_settled_one_by_one():
    pipelines = {
        "FitIns": Pipeline.parse("dense | fedwt | zstd(1)"),
        "FitRes": Pipeline.parse("cast(float16) | fedwt | lz4(0)"),
        "EvaluateIns": Pipeline(),
    }
    agreement = agree(pipelines, offer(compressions=["zstd"]))
    assert agreement.pipelines == {
        "FitIns": "dense | fedwt | zstd(1)",
        "FitRes": "dense | fedwt | none",
        "EvaluateIns": "dense | fedwt | none",
    }


def settled(update, *known):
    """What each payload's update codec becomes at a site that knows ``dense`` and some others."""
    agreement = agree(wanted(f"{update} | fedwt | none", "blake3"), offer(updates=["dense", *known]))
    return {payload: str(agreement.pipeline(payload).update) for payload in PAYLOADS}


ALL = ["cast", "delta", "uq", "eden", "topk", "stc", "int8", "int4", "sign", "auto"]
PATTERNS = '{"*.bias": delta, "a": topk(0.1), "*": uq(2)}'


@pytest.mark.parametrize(
    ("update", "known", "result"),
    [
        ("uq(2)", ["uq"], "uq(2)"),
        ("delta | uq(2) | rc", ["uq"], "uq(2)"),
        ("uq(2)", ["int8", "cast"], "int8"),
        ("uq(2)", ["delta", "cast", "eden"], "cast(bfloat16)"),
        ("uq(2)", ["delta", "eden"], "dense"),
        ("eden(1)", ["int8"], "int8"),
        ("int4", ["cast"], "cast(bfloat16)"),
        ("int8", [], "dense"),
        ("delta", ["int8", "cast", "uq"], "dense"),
        ("cast(float16)", ["int8", "uq"], "dense"),
        ("auto(budget=1MB/round)", ["uq", "int8"], "uq(2)"),
        ("auto(budget=1MB/round)", ["int8", "cast"], "int8"),
        ("cast(float16) | delta", ["cast", "delta"], "cast(float16) | delta"),
        ("uq(2, nonfinite=whole)", ["int8", "cast"], "int8(nonfinite=whole)"),
        ("topk(0.1, nonfinite=whole)", ["cast"], "cast(bfloat16)"),
        ("auto(1MB, nonfinite=whole)", ["uq", "int8"], "uq(2, nonfinite=whole)"),
        ("auto(1MB, nonfinite=whole)", ["int8"], "int8(nonfinite=whole)"),
        ("cast(float16) | uq(2)", ["cast", "int8"], "cast(float16)"),
        ("cast(float16) | delta", ["cast", "int8"], "cast(float16)"),
        ("cast(float16) | delta", ["delta", "int8"], "dense"),
        (PATTERNS, ["uq", "delta", "topk"], PATTERNS),
        (PATTERNS, ["uq", "int8"], '{"*.bias": dense, "a": int8, "*": uq(2)}'),
        (PATTERNS, [], '{"*.bias": dense, "a": dense, "*": dense}'),
    ],
)
def test_results_have_the_next_best_codec_and_the_model_the_plain_one(update, known, result):
    got = settled(update, *known)
    assert got["FitRes"] == result
    same = str(Pipeline.parse(update).update)
    assert got["FitIns"] == got["EvaluateIns"] == (same if result == same else "dense")


@settings(deadline=None)
@given(
    st.sampled_from(
        ["uq(2)", "cast(bfloat16) | delta", "auto(budget=5kB/round)", PATTERNS, "dense", "sign", "stc(0.1)"]
    ),
    st.sets(st.sampled_from(ALL)),
)
def test_what_is_settled_is_known_to_the_site(update, known):
    agreement = agree(wanted(f"{update} | fedwt | none", "blake3"), offer(updates=["dense", *known]))
    for payload in PAYLOADS:
        assert codec_names(agreement.pipeline(payload).update) <= {"dense", *known}
    assert agreement.pipeline("FitIns").update == agreement.pipeline("EvaluateIns").update


def test_the_payloads_that_bring_a_model_fall_back_together():
    pipelines = {
        "FitIns": Pipeline.parse("cast(bfloat16)"),
        "FitRes": Pipeline.parse("cast(bfloat16)"),
        "EvaluateIns": Pipeline.parse("uq(2)"),
    }
    agreement = agree(pipelines, offer(updates=["dense", "cast"]))
    assert agreement.pipelines == {
        "FitIns": "dense | fedwt | none",
        "FitRes": "cast(bfloat16) | fedwt | none",
        "EvaluateIns": "dense | fedwt | none",
    }


def test_a_site_without_the_plain_codec_is_served_if_it_knows_the_others():
    assert agree(wanted("uq(2)", "blake3"), offer(updates=["uq"])).pipelines["FitIns"] == "uq(2) | fedwt | none"
    with pytest.raises(ProtocolError, match=r"the update codec uq\(2\) nor dense"):
        agree(wanted("uq(2)", "blake3"), offer(updates=["topk"]))


def test_an_offer_is_of_all_codecs():
    assert set(own_offer().updates) >= {"dense", *ALL}


@pytest.mark.parametrize(("stage", "plain"), [("updates", "dense"), ("formats", "fedwt"), ("checksums", "blake3")])
def test_a_site_that_lacks_even_the_plain_stage_is_refused_by_name(stage, plain):
    with pytest.raises(ProtocolError, match=f"the site .*{plain}"):
        agree(wanted(), offer(**{stage: ["of its own"]}))


def test_another_version_of_the_frame_is_refused():
    with pytest.raises(ProtocolError, match="frames of version 2, the server of 1"):
        agree(wanted(), Offer(frame=2, **PLAIN))


def test_the_level_of_a_compressor_is_the_sender_s_affair():
    assert (
        agree(wanted("dense | fedwt | zstd(19)"), offer(compressions=["zstd"])).pipelines["FitRes"].endswith("zstd(19)")
    )


@pytest.mark.parametrize(
    "text",
    [
        "sparse | fedwt | none",
        "dense | pickle | none",
        "dense | none | fedwt",
        "uq(2) | delta | fedwt | none",
        "dense | fedwt | zstd(99)",
        "cast(x) | fedwt | none",
    ],
)
def test_an_agreement_on_something_unknown_is_refused(text):
    with pytest.raises(ProtocolError, match="no usable pipeline for FitRes"):
        Agreement(pipelines={"FitRes": text}, checksum="blake3").pipeline("FitRes")


def test_an_agreement_without_the_payload_or_with_an_unknown_checksum_is_refused():
    with pytest.raises(ProtocolError):
        Agreement(pipelines={}, checksum="blake3").pipeline("FitRes")
    with pytest.raises(ProtocolError):
        Agreement(pipelines={"FitRes": str(Pipeline())}, checksum="md5").pipeline("FitRes")
