"""./inv on hosts of several kinds: a copy of it in an empty project, with made-up commands on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_process
PROJECT = Path(__file__).parents[2]
PLAIN_TOOLS = ("sh", "cat", "dirname", "readlink", "sed", "env", "id", "sha256sum", "flock", "rm")


class Host:
    """A PATH with only what a test puts there, and a record of how its made-up commands were called."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.bin = folder / "bin"
        self.calls = folder / "calls"
        self.calls.touch()
        (self.project / "requirements").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(PROJECT / "inv", self.project)
        (self.project / "requirements/host.txt").write_text(
            "# why\nfirst-package  cat\nsecond-package  no-such-tool\nthird -\n"
        )
        for name in ("patroni-build.txt", "foundry.txt"):
            (self.project / "requirements" / name).touch()
        for name in PLAIN_TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))

    def command(self, name: str, body: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls}\n{body}\n')
        path.chmod(0o755)

    def inv(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / "inv", *args],
            env={"PATH": str(self.bin), "HOME": os.environ.get("HOME", "/")},
            cwd=self.project.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_apt_it_names_the_missing_commands(host: Host) -> None:
    done = host.inv("--list")
    assert done.returncode == 3
    assert done.stderr.startswith("error: this host lacks: no-such-tool\n  hint: ")
    assert done.stdout == ""


def test_missing_packages_are_named_and_installed(host: Host) -> None:
    host.command("dpkg-query", "echo 'installed/first-package config-files/second-package '; exit 1")
    host.command("id", "echo 0")
    host.command("apt-get", 'echo apt talks; case "$*" in *install*) exit 100 ;; esac')
    done = host.inv("--list")
    assert done.returncode == 4
    assert "inv: installing of Debian: second-package third\n" in done.stderr
    assert "could not install: second-package third" in done.stderr
    assert done.stdout == ""
    calls = host.calls.read_text()
    assert "apt-get -qq update" in calls
    assert "apt-get -qq install -y --no-install-recommends second-package third" in calls


def test_a_user_installs_with_sudo(host: Host) -> None:
    host.command("dpkg-query", "exit 1")
    host.command("id", "echo 1000")
    host.command("apt-get", "exit 1")
    host.command("sudo", "exit 1")
    assert host.inv().returncode == 4
    assert "sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install" in host.calls.read_text()


def test_a_user_without_sudo_is_told_what_to_do(host: Host) -> None:
    host.command("dpkg-query", "exit 1")
    host.command("id", "echo 1000")
    host.command("apt-get", "exit 1")
    done = host.inv()
    assert done.returncode == 3
    assert "as root: apt-get install first-package second-package third" in done.stderr


def test_a_half_made_venv_is_made_anew_and_a_failure_leaves_no_whole_one(host: Host) -> None:
    host.command("dpkg-query", "echo 'installed/first-package installed/second-package installed/third '")
    host.command("apt-get", "exit 1")
    half = host.project / ".venv/bin"
    half.mkdir(parents=True)
    (half / "python").write_text("#!/bin/sh\necho half\n")
    (host.project / "requirements/patroni-build.txt").write_text("this is no requirement\n")
    done = host.inv()
    assert done.returncode == 4
    assert "error: pip could not install requirements/patroni-build.txt" in done.stderr
    assert "half" not in done.stdout
    assert not (host.project / ".venv/recipe").exists()
