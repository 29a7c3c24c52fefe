"""PostgreSQL's parameters from the size of the machine: PGTune's formulas, as they were in August 2023.

Source: github.com/le0pard/pgtune at 4baaff6a434d (8 August 2023), src/features/configuration/configurationSlice.js
and, for the units, src/common/components/configurationView/index.jsx; operating system Linux, version 15. The comments
beside the formulas name its selectors. What is not PGTune's says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from patroni_node.hardware import MIB, Hardware

WORKLOADS = ("web", "oltp", "dw", "desktop", "mixed")
STORAGES = ("ssd", "hdd", "san")

Value = str | int | float

KB, MB, GB = 1, 1024, 1024 * 1024
"""PGTune reckons in kB, of 1024 bytes."""

# Patroni takes max_connections only from here on (postgresql/config.py, CMDLINE_OPTIONS); PGTune has 20 for desktop.
LEAST_CONNECTIONS = 25

# What Patroni gives PostgreSQL on its command line, from the cluster's configuration only, since a standby must not
# have less of it than its primary.
CLUSTER_WIDE = frozenset(
    {
        "max_connections",
        "max_wal_senders",
        "max_prepared_transactions",
        "max_locks_per_transaction",
        "max_replication_slots",
        "max_worker_processes",
        "track_commit_timestamp",
        "wal_keep_size",
        "wal_level",
        "wal_log_hints",
    }
)

# From where on Patroni takes these (postgresql/config.py, CMDLINE_OPTIONS), instead of its own default without a word;
# `patroni --validate-config` asks for a whole number, up to here.
LEAST = {
    "max_locks_per_transaction": 32,
    "max_prepared_transactions": 0,
    "max_replication_slots": 4,
    "max_wal_senders": 3,
    "max_worker_processes": 2,
}
MOST = 262143

# Not PGTune's: WAL never gets more of the disk, so that most is left for data, and for WAL beyond this soft limit.
WAL_SHARE = 4
LEAST_WAL = 80 * MB

# Not of this edition of PGTune: its next one begins to ask for huge pages at 32 GB of memory, 8 GB of them buffers.
HUGE_PAGES_FROM = 8 * GB
HUGE_PAGE = 2 * MB

_SIZES = {"MB": MIB, "MiB": MIB, "GB": 1024 * MIB, "GiB": 1024 * MIB, "TB": 1024 * 1024 * MIB, "TiB": 1024 * 1024 * MIB}


@dataclass(frozen=True)
class Wishes:
    """What node.yml says below `tuning:`. memory (bytes) and cpus stand in for the machine's own.

    parameters: explicit values, which win.
    """

    workload: str = "mixed"
    storage: str = "ssd"
    max_connections: int | None = None
    memory: int | None = None
    cpus: int | None = None
    parameters: Mapping[str, Value] = field(default_factory=dict)


def parse_size(text: str) -> int:
    """Return the bytes that a size like 4096MiB or 4GB means; GB is 1024 MB, as PostgreSQL and PGTune count.

    Raises:
        ValueError: when it is no such size.
    """
    found = re.fullmatch(r"([1-9]\d{0,8})(MB|MiB|GB|GiB|TB|TiB)", text)
    if not found:
        raise ValueError(f"{text} is not a size like 4096MiB or 4GB")
    return int(found[1]) * _SIZES[found[2]]


def parameters(hardware: Hardware, wishes: Wishes) -> dict[str, Value]:
    """Return all parameters for a machine, in the order and notation of PGTune's own output.

    PGTune's wal_level=minimal and max_wal_senders=0 for desktop are left out: a member of a cluster replicates.
    """
    kind = wishes.workload
    memory = (wishes.memory or hardware.memory) // 1024
    cpus = wishes.cpus or hardware.cpus
    connections = wishes.max_connections or _connections(kind)
    buffers = memory // (16 if kind == "desktop" else 4)  # selectSharedBuffers
    parallel = _parallel(kind, cpus)
    least_wal, most_wal = _wal_sizes(kind, hardware.disk)
    found: dict[str, Value] = {
        "max_connections": connections,
        "shared_buffers": spell(buffers),
        # selectEffectiveCacheSize
        "effective_cache_size": spell(memory // 4 if kind == "desktop" else memory * 3 // 4),
        # selectMaintenanceWorkMem
        "maintenance_work_mem": spell(min(memory // (8 if kind == "dw" else 16), 2 * GB)),
        "checkpoint_completion_target": 0.9,
        "wal_buffers": spell(_wal_buffers(buffers)),
        "default_statistics_target": 500 if kind == "dw" else 100,
        "random_page_cost": 4 if wishes.storage == "hdd" else 1.1,
        "effective_io_concurrency": {"hdd": 2, "ssd": 200, "san": 300}[wishes.storage],
        "work_mem": spell(_work_mem(kind, memory - buffers, connections, parallel)),
        "min_wal_size": spell(least_wal),
        "max_wal_size": spell(most_wal),
        **parallel,
    }
    return found | dict(wishes.parameters)


def _connections(kind: str) -> int:
    """selectMaxConnections."""
    return max(LEAST_CONNECTIONS, {"web": 200, "oltp": 300, "dw": 40, "desktop": 20, "mixed": 100}[kind])


def _parallel(kind: str, cpus: int) -> dict[str, int]:
    """selectParallelSettings."""
    if cpus < 4:
        return {}
    half = math.ceil(cpus / 2)
    return {
        "max_worker_processes": cpus,
        "max_parallel_workers_per_gather": half if kind == "dw" else min(half, 4),
        "max_parallel_workers": cpus,
        "max_parallel_maintenance_workers": min(half, 4),
    }


def _wal_buffers(buffers: int) -> int:
    """selectWalBuffers."""
    value = min(3 * buffers // 100, 16 * MB)
    if value > 14 * MB:
        return 16 * MB
    return max(value, 32 * KB)


def _work_mem(kind: str, left: int, connections: int, parallel: Mapping[str, int]) -> int:
    """selectWorkMem; 2 is PostgreSQL's own max_parallel_workers_per_gather."""
    share = left / (connections * 3) / parallel.get("max_parallel_workers_per_gather", 2)
    return max(64 * KB, math.floor(share / {"web": 1, "oltp": 1, "dw": 2, "desktop": 6, "mixed": 2}[kind]))


def _wal_sizes(kind: str, disk: int | None) -> tuple[int, int]:
    """selectCheckpointSegments, and no more than the disk can hold (bytes)."""
    least = {"web": 1024, "oltp": 2048, "dw": 4096, "desktop": 100, "mixed": 1024}[kind] * MB
    most = {"web": 4096, "oltp": 8192, "dw": 16384, "desktop": 2048, "mixed": 4096}[kind] * MB
    if disk is not None:
        room = max(LEAST_WAL, disk // 1024 // WAL_SHARE // MB * MB)
        most = min(most, room)
        least = min(least, most)
    return least, most


def spell(kilobytes: int) -> str:
    """Return a size as PGTune writes it: in the largest unit that loses nothing (formatValue)."""
    for unit, name in ((GB, "GB"), (MB, "MB")):
        if kilobytes % unit == 0:
            return f"{kilobytes // unit}{name}"
    return f"{kilobytes}kB"


def split(found: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return (this node's own, the cluster's) of parameters.

    The cluster's are read once, from the node that makes the cluster; what differs on its other machines stays theirs.
    """
    local = {name: value for name, value in found.items() if name not in CLUSTER_WIDE}
    return local, {name: value for name, value in found.items() if name in CLUSTER_WIDE}


def huge_pages(found: Mapping[str, Value]) -> int:
    """Return how many huge pages of 2 MiB PostgreSQL's shared memory would fill; 0 where they are not worth it.

    Below 8 GB of shared_buffers the page tables of 100 connections are a few hundred MB at worst, while pages that are
    set aside and too few are lost to everybody. Shared memory is the buffers, about 2 % for their descriptors and
    locks, wal_buffers and what connections need (PostgreSQL 15 documentation, section 19.4.5, tells the exact number
    only for a server that is down); pages that are not used are given back by nobody, so the surplus is small.
    """
    size = _kilobytes(found.get("shared_buffers"))
    if size is None or size < HUGE_PAGES_FROM or str(found.get("huge_pages", "try")) not in ("try", "on"):
        return 0
    connections = found.get("max_connections", 100)
    extra = size // 50 + 64 * MB + (int(connections) * 32 if isinstance(connections, (int, str)) else 0)
    return -(-(size + extra) // HUGE_PAGE)


def _kilobytes(value: Value | None) -> int | None:
    found = re.fullmatch(r"(\d+)\s*(kB|MB|GB)?", str(value))
    if not found:
        return None
    # Without a unit PostgreSQL counts shared_buffers in blocks of 8 kB.
    return int(found[1]) * {"kB": KB, "MB": MB, "GB": GB, None: 8}[found[2]]
