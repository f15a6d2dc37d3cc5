"""What the runs say: accuracy with its uncertainty, and bytes of both directions as ratios to the raw model.

Rules: a row is compared with ``dense`` seed by seed, so that the luck of a split does not count; intervals are
Student's, 95 %; a ratio is raw bytes over bytes sent, both added up over all runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from measure import Target

from fashion.rows import ROWS
from fedpost.report.grouping import mean_of

__all__ = ["accuracy", "compact", "fetched", "summarize", "targets"]

_LAST: Final = 4
"""So many evaluations at the end make the accuracy of a run."""
_HALF: Final = 10
"""So many are those of its second half, which wander less when they are averaged."""
_FETCHED: Final = 5
"""So many times less than the raw model is what a site shall fetch that comes back after ten rounds."""

Run = Mapping[str, Any]


def compact(run: Run) -> dict[str, Any]:
    """A run with its uplink as the sum and the count of each round."""
    return {**run, "uplinks": [[sum(sizes), len(sizes)] for sizes in run["uplinks"]]}


def accuracy(run: Run, last: int = _LAST) -> float:
    """Mean of the last four evaluations, in percent, or of more."""
    return 100 * statistics.fmean(row[2] for row in run["evaluations"][-last:])


def fetched(run: Run, *, everyone: bool = False) -> tuple[list[int], list[int]]:
    """Bytes of each fetch of a model, by what each site had before.

    A site that comes for the first time fetches a snapshot. One that has version u and needs v fetches the packets
    u + 1 to v or a snapshot of v, whichever is smaller.

    Args:
        run: A run in which the server sends packets.
        everyone: As if every site took part in every round, with the same packets.

    Returns:
        Bytes of all first fetches, and of all others.
    """
    packets, snapshots = run["packets"], run["snapshots"]
    upto = list(accumulate(packets[1:], initial=0))
    first, later = [], []
    last: dict[int, int] = {}
    for version, sites in enumerate(run["sites"]):
        for site in (0,) if everyone else sites:
            if site in last:
                later.append(min(upto[version] - upto[last[site]], snapshots[version]))
            else:
                first.append(snapshots[version])
            last[site] = version
    return first, later


def summarize(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """The rows of the table, in the order of :data:`~fashion.rows.ROWS`.

    Args:
        runs: As :func:`compact` gives them.

    Returns:
        For each row that has a run: ``accuracy``, ``loss`` (to dense, in points, of the seeds that both have) and
        ``loss_half`` (the same of the last ten evaluations), each with its ``_interval``; ratios ``up``,
        ``down_packet``, ``down_fetched``, ``down_later`` (first fetches not counted) and ``down_everyone``;
        ``megabytes_up`` and ``megabytes_down`` of a run; ``curve`` of rounds, megabytes up, megabytes both ways and
        mean accuracy.
    """
    by_row: dict[str, dict[int, Run]] = {}
    for run in runs:
        by_row.setdefault(run["row"], {})[run["seed"]] = run
    dense = by_row.get("dense", {})
    out = []
    for name, row in ROWS.items():
        mine = list(by_row.get(name, {}).values())
        if not mine:
            continue
        found: dict[str, Any] = {"name": name, "title": row.title, "seeds": len(mine)}
        found |= _mean("accuracy", [accuracy(run) for run in mine])
        pairs = [(dense[run["seed"]], run) for run in mine if run["seed"] in dense and name != "dense"]
        for key, last in (("loss", _LAST), ("loss_half", _HALF)):
            if pairs:
                found |= _mean(key, [accuracy(one, last) - accuracy(other, last) for one, other in pairs])
        found |= _bytes(mine, packets=row.packets)
        found["curve"] = _curve(mine, packets=row.packets)
        out.append(found)
    return out


def _mean(key: str, values: Sequence[float]) -> dict[str, float | None]:
    mean = mean_of(values)
    return {} if mean is None else {key: mean.mean, f"{key}_interval": mean.interval}


def _bytes(runs: Sequence[Run], *, packets: bool) -> dict[str, float]:
    raw = runs[0]["raw"]
    ups = [pair for run in runs for pair in run["uplinks"]]
    sent = [size for run in runs for size in run["packets"][1:]]
    up = sum(size for size, _ in ups)
    packet = raw * len(sent) / sum(sent)
    out = {
        "up": raw * sum(count for _, count in ups) / up,
        "megabytes_up": up / len(runs) / 1e6,
        "down_packet": packet,
        "down_fetched": packet,
        "down_later": packet,
        "down_everyone": packet,
        "megabytes_down": sum(count for _, count in ups) * raw / packet / len(runs) / 1e6,
    }
    if packets:
        first, later = _joined(fetched(run) for run in runs)
        each = _joined(fetched(run, everyone=True) for run in runs)
        out["down_fetched"] = raw * len(first + later) / sum(first + later)
        out["down_later"] = raw * len(later) / sum(later) if later else packet
        out["down_everyone"] = raw * sum(map(len, each)) / sum(map(sum, each))
        out["megabytes_down"] = sum(first + later) / len(runs) / 1e6
    return out


def _joined(pairs: Iterable[tuple[list[int], list[int]]]) -> tuple[list[int], list[int]]:
    first: list[int] = []
    later: list[int] = []
    for one, other in pairs:
        first += one
        later += other
    return first, later


def _curve(runs: Sequence[Run], *, packets: bool) -> list[list[float]]:
    points = []
    for index, (number, _, _) in enumerate(runs[0]["evaluations"]):
        up = statistics.fmean(sum(size for size, _ in run["uplinks"][:number]) for run in runs) / 1e6
        parts = [{**run, "sites": run["sites"][:number]} for run in runs]
        down = statistics.fmean(
            sum(map(sum, fetched(run))) if packets else sum(map(len, run["sites"])) * run["packets"][1] for run in parts
        )
        mean = statistics.fmean(run["evaluations"][index][2] for run in runs)
        points.append([number, round(up, 4), round(up + down / 1e6, 4), round(100 * mean, 3)])
    return points


def targets(rows: Sequence[Mapping[str, Any]]) -> list[Target]:
    """What was promised of the rows that are there."""
    by_name = {row["name"]: row for row in rows}
    out = []
    for name, up, loss, packet in (("uq2.75", 50, 0.5, 45), ("uq4", 100, 1.0, 45)):
        if (row := by_name.get(name)) is None:
            continue
        out.append(_at_least(row, "raw bytes over bytes sent up", "up", up))
        if "loss" in row:
            out.append(Target(text=f"{row['title']}: mean loss to dense, points", value=row["loss"], bound=loss))
        out += [
            _at_least(row, "down, by packet, as with every site in every round", "down_packet", packet),
            _at_least(row, "down, fetched after the first model, 10 sites of 100 a round", "down_later", _FETCHED),
            _at_least(row, "down, fetched, all (with first models), 10 sites of 100 a round", "down_fetched", _FETCHED),
        ]
    return out


def _at_least(row: Mapping[str, Any], text: str, key: str, bound: float) -> Target:
    return Target(text=f"{row['title']}: {text}", value=row[key], bound=bound, at_least=True)
