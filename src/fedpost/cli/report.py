"""``fedpost report``: a run's page, from its ledger."""

from __future__ import annotations

from pathlib import Path

import click

from fedpost.cli.errors import errors

__all__ = ["report_command"]


@click.command("report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report_command(folder: Path) -> None:
    """Write a run's report page anew from its ledger.

    \b
    Example:
      fedpost report runs/digits-20260101-120000-ab12
    """  # noqa: D301 - \b keeps click from joining the lines
    from fedpost.report import write_report  # noqa: PLC0415 - matplotlib is slow to load

    with errors():
        write_report(folder / "ledger.jsonl", folder / "report.html", beside=folder)
    click.echo(str(folder / "report.html"))
