"""One self-contained HTML page about a run.

Rules: no script, no network, no font of its own; a content security policy says so to the browser. Jinja2 escapes
everything but the plots, which hold no text from other machines but the names of stages, escaped by matplotlib.
"""

from __future__ import annotations

import datetime as dt
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec

from fedpost.errors import ConfigError, DecodeError, MissingExtraError
from fedpost.files import replace_file
from fedpost.report.rows import Round
from fedpost.report.runs import RunsBeside, figures_of, runs_beside
from fedpost.report.summary import RunSummary, summarize
from fedpost.report.units import human_bytes, human_number, human_ratio, human_seconds, plain
from fedpost.telemetry import read_records

__all__ = ["render", "render_page", "write_page", "write_report"]

_METRICS: Final = 6
"""So many metrics besides accuracy and loss get a column."""

_WHOLE_FROM: Final = 20
"""Ratios from here on need no decimal."""


def write_report(ledger: Path, page: Path, *, beside: Path | None = None) -> None:
    """Write the page about the run that a ledger tells of; the page appears whole or not at all.

    Args:
        ledger: JSON Lines, as :class:`~fedpost.telemetry.JsonLinesSink` writes them; the run may still be going on.
        page: The HTML file; it is overwritten.
        beside: The run's folder, to show the run among others; see :func:`~fedpost.report.runs.runs_beside`.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        ConfigError: The ledger cannot be read, or the page cannot be written.
        DecodeError: The ledger holds something other than records.
    """
    try:
        summary = summarize(read_records(ledger))
    except OSError as error:
        raise ConfigError(f"the ledger cannot be read: {error.strerror}", where=str(ledger)) from error
    except msgspec.MsgspecError as error:
        hint = "Give the .jsonl file that the run wrote"
        raise DecodeError(f"this is not a ledger: {error}", where=str(ledger), hint=hint) from error
    write_page(summary, ledger.name, page, beside=beside)


def write_page(summary: RunSummary, source: str, page: Path, *, beside: Path | None = None) -> None:
    """Write the page about a run; it appears whole or not at all.

    Args:
        summary: What is told.
        source: The ledger's name, for the foot of the page.
        page: The HTML file; it is overwritten.
        beside: The run's folder, to show the run among others; see :func:`~fedpost.report.runs.runs_beside`.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        ConfigError: The page cannot be written.
    """
    html = render_page(summary, source, None if beside is None else runs_beside(summary, beside))
    try:
        replace_file(page, [memoryview(html.encode())])
    except OSError as error:
        raise ConfigError(f"the page cannot be written: {error.strerror}", where=str(page)) from error


def render_page(summary: RunSummary, source: str, others: RunsBeside | None = None) -> str:
    """The page as text.

    Args:
        summary: What is told.
        source: The ledger's name, for the foot of the page.
        others: Runs that it is shown among.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    # Only here: whoever imports the package for its summary needs neither.
    try:
        from markupsafe import Markup  # noqa: PLC0415 - an extra

        from fedpost.report import curves, plots  # noqa: PLC0415 - loads matplotlib, an extra
    except ImportError as error:
        raise MissingExtraError(f"the report needs {error.name}", hint="Run: pip install 'fedpost[run]'") from error
    others = others or RunsBeside()
    own = figures_of(summary)
    metric = "accuracy" if summary.evaluated else next(iter(own.metrics), "accuracy")
    drawn = (
        plots.accuracy_plot(summary),
        plots.bytes_plot(summary),
        plots.time_plot(summary),
        curves.beside_plot(own, others.figures, metric),
    )
    return render(
        "page.html.j2",
        run=summary,
        tiles=_tiles(summary),
        plots=[None if svg is None else Markup(svg) for svg in drawn],  # noqa: S704 - ours, see the rules above
        metrics=sorted({name for row in summary.rounds for name in row.metrics})[:_METRICS],
        has_loss=any(row.loss is not None for row in summary.rounds),
        has_train_loss=any(row.train_loss is not None for row in summary.rounds),
        has_seconds=any(site.seconds for site in summary.sites),
        started=_utc(summary.started),
        own=own,
        others=others,
        metric=metric,
        source=source,
    )


def render(template: str, **values: Any) -> str:
    """One of the package's templates, filled in.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(f"the report needs {error.name}", hint="Run: pip install 'fedpost[run]'") from error
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: resources.files("fedpost.report").joinpath(name).read_text("utf-8")),
    )
    environment.filters.update(
        plain=plain, size=human_bytes, seconds=human_seconds, number=human_number, share=_share, times=human_ratio
    )
    return environment.get_template(template).render(values)


def _tiles(summary: RunSummary) -> list[tuple[str, str, str]]:
    """Title, figure and a remark for each headline."""
    finished, planned = summary.finished_rounds, summary.planned_rounds
    lost = sum(site.lost for site in summary.sites)
    size = summary.settings.get("model_bytes")
    return [
        *_quality(summary),
        ("Rounds", f"{finished}", f"of {planned} planned" if planned is not None else "finished"),
        ("Sites", f"{len(summary.sites)}", f"{lost} lost" if lost else "none lost" if summary.sites else "none joined"),
        ("Sent down", human_bytes(summary.bytes.down), f"raw {human_bytes(summary.bytes.raw_down)}"),
        ("Sent up", human_bytes(summary.bytes.up), f"raw {human_bytes(summary.bytes.raw_up)}"),
        ("Against raw", *_against_raw(summary.ratio)),
        ("Wall time", human_seconds(summary.seconds), f"model {human_bytes(size)}" if isinstance(size, int) else ""),
    ]


def _against_raw(ratio: float | None) -> tuple[str, str]:
    if ratio is None:
        return "\N{EM DASH}", "nothing was sent"
    if ratio < 1:
        return f"{100 / ratio:.0f} %", "of the raw size"
    return f"{ratio:.{0 if ratio >= _WHOLE_FROM else 1}f}\N{MULTIPLICATION SIGN}", "smaller"


def _quality(summary: RunSummary) -> list[tuple[str, str, str]]:
    rows = summary.evaluated
    if rows:
        return _first_and_best("accuracy", [(row, row.accuracy or 0.0) for row in rows], 1)
    losses = [(row, row.loss) for row in summary.rounds if row.loss is not None]
    if losses:
        return _first_and_best("loss", losses, -1)
    return [("Final accuracy", "\N{EM DASH}", "no evaluation"), ("Best accuracy", "\N{EM DASH}", "no evaluation")]


def _first_and_best(name: str, rows: list[tuple[Round, float]], sign: int) -> list[tuple[str, str, str]]:
    final, first = rows[-1], rows[0]
    best = max(rows, key=lambda pair: sign * pair[1])
    return [
        (
            f"Final {name}",
            human_number(final[1]),
            f"from {human_number(first[1])}" if len(rows) > 1 else f"in round {final[0].round}",
        ),
        (f"Best {name}", human_number(best[1]), f"in round {best[0].round}"),
    ]


def _share(part: float, whole: float) -> str:
    """``part`` in per cent of ``whole``; a dash when there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "\N{EM DASH}"


def _utc(seconds: float | None) -> dict[str, Any] | None:
    if seconds is None:
        return None
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return {"machine": moment.isoformat(timespec="seconds"), "human": f"{moment:%d %B %Y, %H:%M} UTC".lstrip("0")}
