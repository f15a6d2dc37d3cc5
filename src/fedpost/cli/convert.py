"""``fedpost convert``: a file of tensors into another kind of file."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from fedpost.checksums import CHECKSUMS, DEFAULT_CHECKSUM
from fedpost.cli.errors import as_json_text, errors
from fedpost.cli.progress import progress
from fedpost.cli.signals import terminable
from fedpost.conversion import KINDS, Target, convert, kind_of
from fedpost.report.units import human_bytes, human_seconds, plain
from fedpost.tensors import FORMATS

__all__ = ["convert_command"]


@click.command("convert")
@click.argument("source", metavar="IN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("destination", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "format_name", type=click.Choice(list(FORMATS)), help="The tensor format of OUT.")
@click.option("--frame/--bare", "framed", default=None, help="A fedpost frame, or the file that other programs open.")
@click.option("--compression", default="none", metavar="NAME", help="none, zstd(3), gzip(6), lz4, lx: for a frame.")
@click.option(
    "--checksum", type=click.Choice(list(CHECKSUMS)), default=DEFAULT_CHECKSUM, help="The digests of a frame."
)
@click.option("--from", "kind", type=click.Choice(KINDS), help="What IN is, if its content does not tell.")
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@click.option("--check", is_flag=True, help="Read the result back and compare every bit before it is called OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def convert_command(
    source: Path,
    destination: Path,
    format_name: str | None,
    framed: bool | None,
    compression: str,
    checksum: str,
    kind: str | None,
    force: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Write the tensors and metadata of IN to OUT, in another format, compressed, or without a frame.

    IN is known by its content: a frame of any format, .safetensors, .npz, FEDWT001, msgpack, JSON. OUT is what its
    suffix says: .fedwt or .frame for a frame; .safetensors, .npz, .fedwt1, .msgpack, .json or .pb for a bare file.

    \b
    Examples:
      fedpost convert model.fedwt model.safetensors
      fedpost convert model.safetensors model.fedwt --compression lx --check
      fedpost convert weights.npz weights.frame --format fedwt1 --compression "zstd(9)"
      fedpost convert message.pb model.fedwt --from protobuf
    """  # noqa: D301 - \b keeps click from joining the lines
    with errors(as_json=as_json), terminable(), progress() as show:
        target = Target.for_path(
            destination, format=format_name, framed=framed, compression=compression, checksum=checksum
        )
        kind = kind_of(source) or kind
        done = convert(source, destination, target, kind=kind, force=force, check=check, progress=show)
    console = Console(stderr=True)
    for note in done.notes:
        console.print(Text.assemble(("note: ", "bold"), plain(note)), soft_wrap=True)
    if as_json:
        click.echo(as_json_text(done))
        return
    count = f"{done.tensors} tensor{'' if done.tensors == 1 else 's'}"
    checked = ", compared bit for bit" if done.checked else ""
    click.echo(
        f"{plain(destination, limit=4096)}: {done.target.encoding}, {count}, "
        f"{human_bytes(done.raw)} in {human_bytes(done.target.bytes)} ({done.ratio:.2f}x), "
        f"{human_seconds(done.seconds)}, {done.mb_per_second:.0f} MB/s{checked}"
    )
