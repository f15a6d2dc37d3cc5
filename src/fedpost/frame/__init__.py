"""The wire frame: a checked header, then aligned segments of bytes that are never copied; whole or in parts."""

from fedpost.frame.assembly import PartAssembler, Sink, Transfer
from fedpost.frame.frame import Frame, Verify
from fedpost.frame.header import DEFAULT_LIMITS, Limits
from fedpost.frame.parts import DEFAULT_PART_LIMITS, Part, PartLimits, PartPlan, Parts

__all__ = [
    "DEFAULT_LIMITS",
    "DEFAULT_PART_LIMITS",
    "Frame",
    "Limits",
    "Part",
    "PartAssembler",
    "PartLimits",
    "PartPlan",
    "Parts",
    "Sink",
    "Transfer",
    "Verify",
]
