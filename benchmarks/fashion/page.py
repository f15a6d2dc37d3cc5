"""The page of the table: what was measured, how, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from table import target_line
from units import factor

from fashion.plot import plot
from fashion.rows import ROWS
from fashion.summary import targets

__all__ = ["cells", "gone_rows", "render"]

_HEADS = ("up / down", "seeds", "accuracy, %", "loss", "loss, 2nd half", "up", "down, packet", "down, fetched, all")

_SEEDS: Final = 5
_UNKNOWN: Final = ""

_METHOD = """\
## What is measured

The setting of `examples/fashion_mnist`: the 60,000 training images are split over 100 sites, each class by its own
Dirichlet(0.3) draw. In each of 100 rounds 10 sites are drawn without replacement, and train a network of 215,370
parameters (two 5 x 5 convolutions, two linear layers) for one epoch by plain SGD: learning rate 0.05, batches of 32,
the last partial one left out. A site with fewer than 32 images sits out. The results are averaged by numbers of
images. The accuracy of a run is the mean of its last four evaluations, after rounds 85, 90, 95 and 100, on the 10,000
test images.

Five seeds each draw a split, a first model, the sites of each round and the order of the images; all rows of a seed
have the same. *Accuracy* is the mean over the seeds, *loss* the mean of dense less the row in points, seed by seed,
both with a 95 % interval (Student's t). Intervals of the loss are narrower, since a split that is hard is hard for all
rows. Accuracy goes up and down by points from round to round, with the sites that were drawn; *loss, 2nd half* is the
same loss over the ten evaluations from round 55 on, which are a steadier measure than four.

Every update becomes bytes, and what the server averages is what it decoded from those bytes. With *down* the global
model is `ref[v] = ref[v-1] + decode(packet[v])` at the server too: it applies the packet that it sent, and what the
packet lost goes into the next one. Sites train from that model, and are evaluated on it.

## How bytes are counted

- Ours are whole frames, with prologue, header, names, steps and digests. The peers' are their bare streams: an SZ3
  stream has no names or shapes, and neither peer has a digest.
- *Up* and *down* are bytes of the model as float32 over bytes sent, summed over all rounds and seeds. 1 means dense.
- *Down, packet* is the packet of a round. That is what a site fetches that takes part in every round, the usual case
  between institutions. It is worked out from the packets of these runs, in which 10 of 100 trained; counting the
  snapshot of each site's first fetch as well, it is *every site, first model counted* above.
- *Down, fetched, all* is what the sites of these runs would have fetched, 10 of 100 a round. A site that has version u
  and needs v fetches the packets u + 1 to v, or a snapshot of v where that is smaller; in its first round it fetches a
  snapshot (`dense | fedwt | lx`), which has a third of the model's bytes where models go down in bfloat16. A site comes
  back after ten rounds on average, so it fetches about ten packets at a time: this figure is far below that of a
  packet, and it is the one to plan a fleet of phones with. Each site's first model counts in it. In *fetched after the
  first model* it does not: that is what sites fetch that return, and what the target of 5 was set for. The other figure
  is judged by the same bound, in a line of its own.
- Where *down* is dense, a site fetches the model as it is, once a round in which it takes part.

## What to know before quoting it

- One data set, one small network, one law of splitting. Ratios and losses of other models and data are other.
- Results of a round are simulated in one process, with the real codecs and real frames, but without a transport: no
  message is lost, and every site answers.
- NNCodec codes with row skipping, and quantizes without its trellis, which made updates about 15 % larger. Its step,
  relative to the root mean square of the update, is found on the first update of a run such that its error is that of
  `uq(2.75)` there, and kept relative. It has error feedback, as in its own federated mode.
- SZ3 codes what changed, with a bound relative to each tensor's range; FedSZ codes the weights themselves, which
  gives less: 5.8 on a first update here, at twice the error of what changed.
- int8 scales blocks of 256 values by their greatest; with one scale a tensor there would be more zeros and fewer
  bytes.
- top-k and STC choose among each tensor's values, not among all.
- The network is run with its channels last in memory and pooled before it is rectified, which saves time. The first
  changes the rounding of sums, the second no bit.
- `make fashion-table` makes the runs (three to five minutes each on one core; it may be stopped and goes on where it
  was) and rewrites this page; `python benchmarks/fashion_table.py --render` rewrites it from
  `benchmarks/fashion-table.json`.
"""


def cells(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The table's heads, and the cells of each row by its name."""
    return _HEADS, {
        row["name"]: [
            row["title"],
            str(row["seeds"]),
            _with_interval(row["accuracy"], row["accuracy_interval"]),
            *(_with_interval(row[key], row[f"{key}_interval"]) if key in row else "-" for key in ("loss", "loss_half")),
            factor(row["up"]),
            factor(row["down_packet"]),
            factor(row["down_fetched"]),
        ]
        for row in rows
    }


def render(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``fashion-table.md`` and its plot.

    Args:
        results: What ``fashion-table.json`` holds.
        folder: Where the page is.
    """
    rows, machine = [row for row in results["rows"] if row["name"] in ROWS], results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        "# Accuracy against bytes",
        "",
        "Fashion-MNIST, learned by 100 sites, 10 in each of 100 rounds, with every update codec and two peers.",
        f"Made on {machine['date']} with Python {machine['python']}, {versions}.",
        "",
        "![Accuracy against megabytes](fashion-table.svg)",
        "",
        *_table(*cells(rows).__iter__()),
    ]
    if results["missing"]:
        lines += ["Not measured: " + "; ".join(results["missing"]) + ".", ""]
    if gone := gone_rows(results):
        lines += [f"Left out, as there are no such rows any more: {', '.join(gone)}.", ""]
    lines += [
        *_codecs(results["runs"]),
        *_unfinished(rows, len(ROWS) - len(results["missing"])),
        *_packets(rows),
        "## Targets",
        "",
    ]
    lines += [f"- {target_line(target)}" for target in targets(rows)]
    lines += ["", "## The rows", ""]
    lines += [f"- *{row['title']}* (`{ROWS[row['name']].up}`): {ROWS[row['name']].law}." for row in rows]
    lines += ["", *_calibration(results)]
    (folder / "fashion-table.md").write_text("\n".join(lines) + "\n" + _METHOD, encoding="utf-8")
    plot(folder / "fashion-table.svg", rows)


def gone_rows(results: Mapping[str, Any]) -> list[str]:
    """The names of rows that results have, and :data:`~fashion.rows.ROWS` has no more."""
    return [row["name"] for row in results["rows"] if row["name"] not in ROWS]


def _codecs(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which rows were made by which source of the codecs; nothing where all were made by the same, or nobody knows."""
    made: dict[str, dict[str, None]] = {}
    for run in runs:
        if run["row"] in ROWS:
            made.setdefault(run.get("codecs") or _UNKNOWN, {})[ROWS[run["row"]].title] = None
    if len(made) < 2:
        return []
    said = [
        f"{'codecs not recorded' if key == _UNKNOWN else f'made by codecs {key}'}: {'; '.join(made[key])}"
        for key in made
    ]
    return [
        "**The runs were not all made by the same source of the codecs.**",
        "",
        *(f"- {line}." for line in said),
        "",
    ]


def _table(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", "|:--" + "|--:" * (len(heads) - 1) + "|"]
    for name, row in rows.items():
        title = f"**{row[0]}**" if ROWS[name].packets else row[0]
        lines.append(f"| {' | '.join([title, *row[1:]])} |")
    return [*lines, ""]


def _unfinished(rows: Sequence[Mapping[str, Any]], possible: int) -> list[str]:
    """A warning where a row has fewer runs than it shall have, or none although it is possible here."""
    short = [row["title"] for row in rows if row["seeds"] < _SEEDS]
    if not short and len(rows) == possible:
        return []
    what = f"fewer than {_SEEDS} seeds so far: {'; '.join(short)}" if short else "rows are missing"
    return [f"**The table is not complete**, {what}. {len(rows)} of {possible} rows are there.", ""]


def _packets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ("down", "by packet", "fetched, all", "fetched after the first model", "every site, first model counted")
    body = {
        row["name"]: [
            row["title"],
            *(factor(row[key]) for key in ("down_packet", "down_fetched", "down_later", "down_everyone")),
        ]
        for row in rows
        if ROWS[row["name"]].packets
    }
    if not body:
        return []
    said = [
        f"- {row['title']}: with 10 sites of 100 a round a site that returns fetches {factor(row['down_later'])} less "
        f"than the raw model, by packets or a snapshot; all that is fetched, first models too, is "
        f"{factor(row['down_fetched'])} less."
        for row in rows
        if row["name"] in body
    ]
    return ["## The way down", "", *_table(heads, body), *said, ""]


def _calibration(results: Mapping[str, Any]) -> list[str]:
    found = [run["chosen"] for run in results["runs"] if run["row"] == "nncodec"]
    if not found:
        return []
    ours, theirs = (sum(chosen[key] for chosen in found) for key in ("uq_bytes", "bytes"))
    text = (
        "On the first update of each run, at equal relative error, NNCodec's bare stream has on average "
        f"{theirs / len(found):,.0f} bytes, the frame of `uq(2.75)` {ours / len(found):,.0f}."
    )
    return [text, ""]


def _with_interval(mean: float, interval: float | None) -> str:
    return f"{mean:.2f}" if interval is None else f"{mean:.2f} ± {interval:.2f}"
