"""`patroni-node tuning`: what this machine, or another, would get."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from patroni_node import hardware, tuning
from patroni_node.errors import EX_OK, EX_USAGE


def add_command(commands: Any) -> None:
    """Add `tuning` to a program's subcommands."""
    parser = commands.add_parser("tuning", help="print PostgreSQL's parameters for a machine's size")
    add_options(parser)
    parser.set_defaults(command=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a parser."""
    parser.add_argument("--memory", metavar="SIZE", help="such as 4096MiB or 4GB (default: this machine's)")
    parser.add_argument("--cpus", type=int, metavar="N", help="default: this machine's")
    parser.add_argument("--workload", choices=tuning.WORKLOADS, default="mixed")
    parser.add_argument("--storage", choices=tuning.STORAGES, default="ssd")
    parser.add_argument("--connections", type=int, metavar="N", help="default: PGTune's number for the workload")
    parser.add_argument(
        "--disk", metavar="SIZE", help="of the data disk, which limits max_wal_size (default: no limit)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the parameters, as lines of postgresql.conf or as JSON; returns an exit code of sysexits.h."""
    try:
        found = parameters(options)
    except ValueError as error:
        print(f"patroni-node tuning: {error}", file=sys.stderr)
        return EX_USAGE
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(f"{name} = {value}" for name, value in found.items()))
    return EX_OK


def parameters(options: argparse.Namespace) -> dict[str, tuning.Value]:
    """Return what the options ask for. Raises ValueError where one makes no sense."""
    if options.connections is not None and options.connections < tuning.LEAST_CONNECTIONS:
        raise ValueError(f"--connections: Patroni takes no fewer than {tuning.LEAST_CONNECTIONS}")
    if options.cpus is not None and options.cpus < 1:
        raise ValueError("--cpus: at least 1")
    memory = options.memory and tuning.parse_size(options.memory)
    disk = options.disk and tuning.parse_size(options.disk)
    found = hardware.read() if memory is None or options.cpus is None else hardware.Hardware(memory, options.cpus)
    machine = hardware.Hardware(memory or found.memory, options.cpus or found.cpus, disk)
    wishes = tuning.Wishes(options.workload, options.storage, options.connections)
    return tuning.parameters(machine, wishes)
