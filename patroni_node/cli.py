"""The command line of patroni-node: options in, one call, exit code out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from patroni_node import __version__, tuning_command
from patroni_node.errors import EX_CONFIG, EX_NOPERM, EX_OK, EX_SOFTWARE, InstallError, NodeError, Problem
from patroni_node.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run patroni-node.

    Args:
        argv: arguments without the program's name; sys.argv's by default.

    Returns:
        An exit code of sysexits.h, of which the manual page has a list.
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

    ca = commands.add_parser("ca", help="print the authority that clients check PostgreSQL's certificate with")
    ca.set_defaults(command=_ca)

    renew = commands.add_parser("renew", help="replace this node's certificate where it is due (a timer does it)")
    renew.set_defaults(command=_renew)

    acl = commands.add_parser("acl", help="write Consul's rules for this cluster (a service does it)")
    acl.add_argument("--wait", type=_seconds, default=60, metavar="SECONDS", help="for Consul (default: 60)")
    acl.set_defaults(command=_acl)

    secure = commands.add_parser("secure", help="bring a member of a cluster of before to the protection of today")
    secure.add_argument("--wait", type=_seconds, default=300, metavar="SECONDS", help="for each step (default: 300)")
    secure.set_defaults(command=_secure)

    status = commands.add_parser("status", help="tell who this node is, what was rendered, and whether it runs")
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(command=_status)

    restart = commands.add_parser("restart", help="restart Patroni and PostgreSQL of this node in maintenance mode")
    restart.add_argument("--wait", type=_seconds, default=300, metavar="SECONDS", help="for each step (default: 300)")
    restart.add_argument("--no-postgresql", action="store_true", help="restart Patroni only")
    restart.set_defaults(command=_restart)
    return parser


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 86400):
        raise argparse.ArgumentTypeError("must be a number of seconds from 1 to 86400")
    return int(text)


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


def _status(options: argparse.Namespace) -> int:
    from patroni_node import status

    if os.geteuid() != 0:
        print("patroni-node status: run it as root, who alone may read node.yml", file=sys.stderr)
        return EX_NOPERM
    try:
        return status.run(Paths(), as_json=options.json)
    except Exception as error:
        return _unexpected("status", error)


def _restart(options: argparse.Namespace) -> int:
    from patroni_node import restart

    if os.geteuid() != 0:
        print("patroni-node restart: run it as root, who alone may restart services", file=sys.stderr)
        return EX_NOPERM
    try:
        restart.restart(Paths(), wait=options.wait, postgresql=not options.no_postgresql)
    except NodeError as error:
        print("\n".join(f"patroni-node restart: {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        return _unexpected("restart", error)
    return EX_OK


def _ca(options: argparse.Namespace) -> int:
    paths = Paths()
    try:
        print((paths.tls / "ca.pem").read_text(encoding="ascii"), end="")
    except OSError as error:
        hint = "run it as root" if isinstance(error, PermissionError) else "this node has no certificates"
        print(f"patroni-node ca: {error.filename}: {error.strerror}: {hint}", file=sys.stderr)
        return EX_NOPERM if isinstance(error, PermissionError) else EX_CONFIG
    return EX_OK


def _renew(options: argparse.Namespace) -> int:
    from patroni_node import renew

    return _as_root("renew", lambda: _said(renew.renew(Paths())))


def _said(changed: Sequence[Path]) -> str:
    return f"wrote {', '.join(map(str, changed))}" if changed else "nothing is due"


def _acl(options: argparse.Namespace) -> int:
    from patroni_node import consul_acl

    return _as_root("acl", lambda: consul_acl.run(Paths(), options.wait))


def _secure(options: argparse.Namespace) -> int:
    from patroni_node import secure

    def work() -> str:
        secure.secure(Paths(), wait=options.wait)
        return "done"

    return _as_root("secure", work)


def _as_root(command: str, work: Callable[[], str]) -> int:
    if os.geteuid() != 0:
        print(f"patroni-node {command}: run it as root", file=sys.stderr)
        return EX_NOPERM
    try:
        print(f"patroni-node {command}: {work()}")
    except NodeError as error:
        print("\n".join(f"patroni-node {command}: {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        return _unexpected(command, error)
    return EX_OK


def _unexpected(command: str, error: Exception) -> int:
    # The message of a foreign exception could quote a secret; its type and place cannot.
    print(f"patroni-node {command}: failed unexpectedly ({_place(error)}): please report it", file=sys.stderr)
    return EX_SOFTWARE
