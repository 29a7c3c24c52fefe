from __future__ import annotations

from pathlib import Path

import pytest

from foundry import wheels

LOCK = """\
# by ./inv lock
psycopg2==2.9.13 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
patroni[consul,systemd]==4.1.5 --hash=sha256:{c}
""".format(a="a" * 64, b="b" * 64, c="c" * 64)


def test_lock_gives_every_hash(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(LOCK)
    assert wheels.locked(lock) == {"psycopg2": {"a" * 64, "b" * 64}, "patroni": {"c" * 64}}


def best(*names: str) -> str | None:
    order = wheels.tags((3, 11))
    ranked = [(rank, n) for n in names if (rank := wheels._rank(n, order)) is not None]
    return min(ranked)[1] if ranked else None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("x-1-py3-none-any.whl", "x-1.tar.gz"), "x-1-py3-none-any.whl"),
        (("x-1-cp311-cp311-win_amd64.whl", "x-1.tar.gz"), "x-1.tar.gz"),
        (("x-1-cp312-cp312-manylinux_2_17_x86_64.whl", "x-1.tar.gz"), "x-1.tar.gz"),
        (("x-1-cp36-abi3-manylinux_2_12_x86_64.whl", "x-1.tar.gz"), "x-1-cp36-abi3-manylinux_2_12_x86_64.whl"),
        (
            ("x-1-cp311-cp311-manylinux_2_17_x86_64.whl", "x-1-py3-none-any.whl"),
            "x-1-cp311-cp311-manylinux_2_17_x86_64.whl",
        ),
        (("x-1-cp311-cp311-manylinux_2_39_x86_64.whl",), None),
        (("x-1.exe",), None),
    ],
)
def test_the_target_gets_what_it_can_use(names: tuple[str, ...], expected: str | None) -> None:
    assert best(*names) == expected
