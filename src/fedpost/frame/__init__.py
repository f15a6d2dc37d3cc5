"""The wire frame: a checked header, then aligned segments of bytes that are never copied."""

from fedpost.frame.frame import Frame, Verify
from fedpost.frame.header import DEFAULT_LIMITS, Limits

__all__ = ["DEFAULT_LIMITS", "Frame", "Limits", "Verify"]
