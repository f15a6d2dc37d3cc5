"""The command line: thin commands over the layers below, one module a group of them."""

from __future__ import annotations

import signal
import threading

from fedpost.errors import MissingExtraError

# Loading takes a while, and Ctrl-C in the middle of it would be a traceback: until it is done the system ends us.
_loading = (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
)
if _loading:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    import click
    import rich  # noqa: F401 - the commands need it

    from fedpost.cli.compare import compare_command
    from fedpost.cli.compress import compress_command
    from fedpost.cli.convert import convert_command
    from fedpost.cli.diff import diff_command
    from fedpost.cli.inspect import inspect_command
    from fedpost.cli.report import report_command
    from fedpost.cli.run import client_command, run_command, server_command
except ImportError as error:
    if (error.name or "").partition(".")[0] not in {"click", "rich"}:
        raise
    raise MissingExtraError("the command line needs click and rich", hint="pip install 'fedpost[run]'") from error
finally:
    if _loading:
        signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="fedpost")
def main() -> None:
    """Federated learning over whatever the sites share.

    \b
    Examples:
      fedpost run examples/digits/run.yaml
      fedpost inspect runs/digits-…/model.fedwt
      fedpost convert model.fedwt model.safetensors
    """  # noqa: D301 - \b keeps click from joining the lines


for _command in (
    run_command,
    server_command,
    client_command,
    inspect_command,
    convert_command,
    diff_command,
    report_command,
    compare_command,
    compress_command,
):
    main.add_command(_command)
