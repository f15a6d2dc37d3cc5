"""A run's ledger, told to people: a summary, one HTML page, and a live view in the terminal.

Rules: everything here reads :mod:`fedpost.telemetry` records and nothing else. The names of sites and tensors, and the
reasons of refusals, come from other machines: they are text, never markup. Importing this package loads neither
matplotlib nor rich; the live view is in :mod:`fedpost.report.live`.
"""

from __future__ import annotations

from fedpost.report.page import write_report
from fedpost.report.summary import RunSummary, summarize

__all__ = ["RunSummary", "summarize", "write_report"]
