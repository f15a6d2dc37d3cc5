"""The rows of the table: what codes an update on its way up, and the model on its way down.

Rules: everything that is coded becomes one bytes object, its length is what is counted, and it is decoded from those
bytes alone. Our own codecs go through the pipeline and are counted as whole frames, with header, names and digests. The
peers' streams are counted without any of that, which is in their favour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fashion.coders import Coder, PipelineCoder
from fashion.peers import SZ3, NNCodec

__all__ = ["DENSE", "ROWS", "SNAPSHOT", "Row", "coder_of"]

DENSE: Final = "dense | fedwt | none"
SNAPSHOT: Final = "dense | fedwt | lx"
_PEERS: Final = {"nncodec": NNCodec, "sz3": SZ3}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        name: What the command line calls it.
        title: What the table calls it.
        up: The pipeline of the sites' updates, or ``nncodec`` or ``sz3``.
        down: The pipeline of the server's packets.
        law: What is done, in a few words, with the paper that it reproduces.
    """

    name: str
    title: str
    up: str
    down: str = DENSE
    law: str = ""

    @property
    def packets(self) -> bool:
        """Whether the server sends what changed, not the model."""
        return self.down != DENSE


ROWS: Final = {
    row.name: row
    for row in (
        Row(
            "dense",
            "dense, both ways",
            DENSE,
            law="float32 as it is, the way of Flower; federated averaging, 1602.05629",
        ),
        Row(
            "uq2.75",
            "uq(2.75), both ways",
            "uq(2.75) | fedwt | none",
            "cast(bfloat16) | uq(2.75) | fedwt | none",
            law="uniform quantization by 2.75 root mean squares, error feedback at the sites and at the server; models "
            "in bfloat16 on their way down",
        ),
        Row(
            "uq4",
            "uq(4), both ways",
            "uq(4) | fedwt | none",
            "cast(bfloat16) | uq(4) | fedwt | none",
            law="the same by 4 root mean squares",
        ),
        Row("eden1", "eden(1), up", "eden(1) | fedwt | none", law="EDEN, 1 bit, ICML 2022; stateless, as in the paper"),
        Row(
            "int8",
            "int8, up",
            "int8 | fedwt | zstd(3)",
            law="QSGD, 1610.02132: 8 bits at random without bias, then entropy coding; no feedback, as in the paper",
        ),
        Row(
            "stc",
            "stc(0.04), up",
            "stc(0.04) | fedwt | none",
            law="sparse ternary compression, 1903.02891, 4 %; error feedback, as in the paper",
        ),
        Row(
            "topk",
            "topk(0.01), up",
            "topk(0.01) | fedwt | zstd(3)",
            law="the greatest 1 % in float32, 1704.05021; error feedback, as in the paper",
        ),
        Row(
            "nncodec",
            "NNCodec 2.1.3, up",
            "nncodec",
            law="ISO/IEC 15938-17 by its authors' program, at uq(2.75)'s error; error feedback, its federated default",
        ),
        Row("sz3", "SZ3, up", "sz3", law="FedSZ, 2312.13461: relative bound 1e-2; no feedback, as in the paper"),
        Row("sign", "sign, up", "sign | fedwt | none", law="signs times their mean, 1901.09847; error feedback"),
    )
}
"""By name, in the order in which they are run."""


def coder_of(spec: str) -> Coder:
    """The coder that a row names.

    Raises:
        MissingExtraError: The peer is not installed.
    """
    return _PEERS[spec]() if spec in _PEERS else PipelineCoder(spec)
