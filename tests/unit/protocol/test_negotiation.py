"""What a site offers and what the server settles on."""

from __future__ import annotations

import itertools

import pytest

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
        "dense | fedwt",
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
