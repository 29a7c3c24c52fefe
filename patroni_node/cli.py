"""The command line of patroni-node: options in, one call, exit code out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from patroni_node import __version__, tuning_command
from patroni_node.errors import EX_OK, EX_SOFTWARE, InstallError, NodeError, Problem
from patroni_node.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run patroni-node.

    Args:
        argv: arguments without the program's name; sys.argv's by default.

    Returns:
        An exit code of sysexits.h: 0, 74 (a file cannot be written), 78 (refused configuration).
    """
    options = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="patroni-node", description="One node.yml in, a Patroni node out.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("configure", help="render patroni.yml and Consul's configuration from node.yml")
    run.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="render below DIR; sets no owners")
    run.add_argument("--node-file", type=Path, metavar="FILE", help="read FILE, and node.d beside it")
    run.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for the address to appear")
    run.set_defaults(command=_configure)

    check = commands.add_parser("check", help="validate a node.yml, or find mistakes in a patroni.yml")
    check.add_argument("file", type=Path, nargs="?", metavar="FILE", help="default: /etc/patroni/node.yml")
    check.set_defaults(command=_check)
    tuning_command.add_command(commands)
    return parser


def _configure(options: argparse.Namespace) -> int:
    # Imported here so that `check` starts without Jinja2.
    from patroni_node.configure import configure

    paths = Paths(options.root.resolve(), options.node_file)
    try:
        done = configure(paths, wait=options.wait)
    except NodeError as error:
        return _refuse(paths, error)
    except OSError as error:
        message = f"{error.strerror or type(error).__name__}: run as root, on a file system that can be written"
        return _refuse(paths, InstallError(Problem(message, str(error.filename))))
    except Exception as error:
        # The message of a foreign exception could quote a secret; its type and place cannot.
        _refuse(paths, NodeError(f"failed unexpectedly ({_place(error)}): please report it"))
        return EX_SOFTWARE
    wrote = ", ".join(str(path) for path in done.changed) or "nothing, all as it was"
    print(f"patroni-node: {done.name} ({done.address}) of cluster {done.cluster}; wrote {wrote}")
    return EX_OK


def _refuse(paths: Paths, error: NodeError) -> int:
    from patroni_node import notice

    notice.show(paths, error)
    print("\n".join(notice.lines(error)), file=sys.stderr)
    return error.exit_code


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return type(error).__name__ + where


def _check(options: argparse.Namespace) -> int:
    from patroni_node import check

    try:
        print(check.check(options.file))
    except NodeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EX_OK
