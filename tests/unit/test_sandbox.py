"""What somebody else's bytes can do where they are parsed: each of these got something before there was a sandbox."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from foundry import files, image, recorded, run, sandbox, tree
from foundry.errors import CommandFailed, ConfigError, CorruptArtifact
from foundry.workspace import Workspace
from tests.unit.test_tree import START, TABLE

pytestmark = pytest.mark.real_process
SECRET = "what only this host knows"


def shell(script: str, **more: object) -> str:
    return sandbox.run_in(["sh", "-c", script], name="try", check=False, **more).output  # type: ignore[arg-type]


def test_what_is_not_lent_is_not_there(tmp_path: Path) -> None:
    secret, lent = tmp_path / "secret", tmp_path / "lent"
    secret.write_text(SECRET)
    lent.write_text("a disk")
    said = shell(f"cat {lent} {secret} /etc/shadow /etc/hostname; ls / /root /home /proc", readable=[lent])
    assert said.startswith("a disk") and SECRET not in said
    assert said.count("No such file or directory") >= 5


def test_only_what_is_lent_for_writing_is_written(tmp_path: Path) -> None:
    out, lent = tmp_path / "out", tmp_path / "lent"
    out.mkdir()
    lent.write_text("a disk")
    shell(f"echo 1 >{out}/a; echo 2 >{lent}; echo 3 >{tmp_path}/b; echo 4 >/usr/c", readable=[lent], writable=[out])
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a", "lent"]
    assert lent.read_text() == "a disk"
    assert out.stat().st_mode & 0o777 == 0o700


def test_it_has_no_rights_and_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"/usr/bin/setpriv --dump; id -u; exec 3<>/dev/tcp/127.0.0.1/{port} && echo CONNECTED"
        said = sandbox.run_in(["bash", "-c", script], name="try", check=False).output
    assert "CONNECTED" not in said
    assert "Capability bounding set: [none]" in said or os.geteuid() != 0
    assert "no_new_privs: 1" in said
    if os.geteuid() == 0:
        assert f"uid: {sandbox.USER}" in said and "\n0\n" not in said


def test_it_sees_no_process_and_no_device_of_the_host() -> None:
    said = shell("kill -0 2 3 4 5; ls /dev; ls /sys /proc")
    assert "sda" not in said and "vda" not in said and "mem" not in said.split()
    assert "/proc" in said and "/sys" in said


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(sandbox, "_MEMORY", 64 * 2**20)
    greedy = "x = b'x' * (256 * 2**20); print('GOT', len(x))"
    said = sandbox.run_in(["/usr/bin/python3", "-c", greedy], name="try", check=False).output
    assert "MemoryError" in said
    shell(f"head -c 3000000 /dev/zero >{out}/large", writable=[out], largest=1_000_000)
    assert (out / "large").stat().st_size <= 1_000_000
    with pytest.raises(CommandFailed, match="took longer than 1 s"):
        sandbox.run_in(["sleep", "60"], name="try", seconds=1)
    monkeypatch.setattr(sandbox, "_OUTPUT", 10_000)
    with pytest.raises(CommandFailed, match=r"said more than 10\.0 kB"):
        sandbox.run_in(["yes"], name="try")


def test_a_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    room = os.statvfs(out)
    monkeypatch.setattr(sandbox, "_LEFT_FREE", room.f_bavail * room.f_frsize + 2**40)
    with pytest.raises(CommandFailed, match="were free"):
        sandbox.run_in(["sh", "-c", f"echo more >{out}/all; sleep 60"], name="try", writable=[out], largest=2**26)


def test_what_others_may_not_read_is_lent_as_a_copy(tmp_path: Path) -> None:
    own = tmp_path / "disk"
    own.write_text("a disk")
    own.chmod(0o600)
    with sandbox.lent(own, tmp_path) as seen:
        assert shell(f"cat {seen}", readable=[seen]) == "a disk"
        assert os.geteuid() != 0 or seen != own
    assert [p.name for p in tmp_path.iterdir()] == ["disk"]


def disk_with(folder: Path, names: list[str]) -> Path:
    """A raw disk whose /boot has files of these names, each with a line in it."""
    root = folder / "root"
    (root / "boot").mkdir(parents=True)
    for name in names:
        (root / "boot" / name).write_text("written by a stranger\n")
    raw = folder / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(12 * 1024 * 1024)
    table = folder / "table"
    table.write_text(TABLE)
    with table.open("rb") as stream:
        run.run(["sfdisk", "-q", raw], stdin=stream)
    run.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^metadata_csum", "-d", root, "-E", f"offset={START}", raw, "8M"]
    )
    return raw


def test_a_name_that_leads_out_of_the_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = disk_with(tmp_path, ["vmlinuz-1", "AAAAAAAAAAAESCAPED"])
    data = raw.read_bytes()
    assert data.count(b"AAAAAAAAAAAESCAPED") == 1
    raw.write_bytes(data.replace(b"AAAAAAAAAAAESCAPED", b"../../../../ESCAPE"))
    target = tmp_path / "a/b/target"
    with pytest.raises(CorruptArtifact, match="not whole"):
        tree.boot_files(raw, target)
    assert not list(tmp_path.rglob("ESCAPE"))
    # And were e2fsck to miss it.
    monkeypatch.setattr(tree, "_check", lambda *_: None)
    with pytest.raises(CorruptArtifact):
        tree.boot_files(raw, target)
    assert not list(tmp_path.rglob("ESCAPE"))


def test_links_of_an_image_are_not_followed_to_this_host(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinuz-1"
    kernel.write_text(SECRET)
    (tmp_path / "root/boot").mkdir(parents=True)
    (tmp_path / "root/boot/vmlinuz-1").symlink_to(kernel)
    (tmp_path / "other").mkdir()
    raw = disk_with(tmp_path / "other", [])
    run.run(["debugfs", "-w", "-R", f"symlink /boot/vmlinuz-1 {kernel}", f"{raw}?offset={START}"])
    with pytest.raises(CorruptArtifact, match="no kernel"):
        tree.boot_files(raw, tmp_path / "target")


def test_files_of_an_image_are_in_a_folder_of_roots_whatever_their_modes(tmp_path: Path) -> None:
    raw = disk_with(tmp_path, ["vmlinuz-1"])
    run.run(["debugfs", "-w", "-R", "sif /boot/vmlinuz-1 mode 0104755", f"{raw}?offset={START}"])
    target = tree.dump(raw, "/", tmp_path / "target")
    assert target.stat().st_mode & 0o777 == 0o700
    assert os.geteuid() != 0 or (target / "boot/vmlinuz-1").stat().st_uid == sandbox.USER


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.bin"
    path.write_bytes(SECRET.encode().ljust(65536, b"."))
    return path


def test_an_image_with_a_backing_file_is_refused(tmp_path: Path, secret: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, evil])
    with pytest.raises(CorruptArtifact, match=r"from another file, '.*secret\.bin'"):
        tree.raw(evil, "qcow2", tmp_path / "disk.raw")
    with pytest.raises(CorruptArtifact, match="from another file"):
        tree.size(evil, "qcow2", tmp_path)
    assert not (tmp_path / "disk.raw").exists()


@pytest.mark.parametrize("name", ["json:{}", "nbd://127.0.0.1:1/x", "/dev/vda"])
def test_whatever_kind_of_file_is_behind_an_image(tmp_path: Path, name: str) -> None:
    evil = tmp_path / "evil.qcow2"
    run.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", name, evil, "1M"])
    with pytest.raises(CorruptArtifact, match="from another file"):
        tree.raw(evil, "qcow2", tmp_path / "disk.raw")


def test_an_image_with_its_data_in_another_file_is_refused(tmp_path: Path, secret: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    options = f"data_file={secret},data_file_raw=on"
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, evil, "64k"])
    secret.write_bytes(SECRET.encode().ljust(65536, b"."))
    with pytest.raises(CorruptArtifact, match=r"cannot be opened by itself|from another file"):
        tree.raw(evil, "qcow2", tmp_path / "disk.raw")
    assert not (tmp_path / "disk.raw").exists()


def test_a_disk_that_claims_more_than_any_is_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.qcow2"
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", huge, "60T"])
    with pytest.raises(CorruptArtifact, match="more than"):
        tree.raw(huge, "qcow2", tmp_path / "disk.raw")


def test_an_encrypted_disk_and_other_formats_are_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x"]
    run.run([*words, "-o", "encrypt.format=aes,encrypt.key-secret=s", locked, "1M"])
    with pytest.raises(CorruptArtifact, match=r"encrypted|by itself"):
        tree.raw(locked, "qcow2", tmp_path / "disk.raw")
    with pytest.raises(CorruptArtifact, match="vmdk is no format"):
        tree.raw(locked, "vmdk", tmp_path / "disk.raw")


def test_raw_disks_are_read_by_nobody_else(tmp_path: Path) -> None:
    image = tmp_path / "image.qcow2"
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"])
    assert tree.raw(image, "qcow2", tmp_path / "disk.raw").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk.raw", "image.qcow2"]


def test_no_link_of_an_image_leads_to_this_host(tmp_path: Path) -> None:
    root, secret = tmp_path / "1/2/3/root", tmp_path / "secret"
    secret.write_text(SECRET)
    for folder in ("etc", "usr/bin", "a/b/c"):
        (root / folder).mkdir(parents=True)
    (root / "etc/release").write_text("of the image")
    links = {
        "etc/absolute": str(secret),
        "etc/up": "../../../../../secret",
        "etc/folder": str(tmp_path),
        "a/b/c/top": "../../..",
        "etc/through": "../a/b/c/top/../../../../secret",
        "etc/round": "round",
        "usr/good": "/etc/release",
        "usr/bin/good": "../../../../../../../../../etc/release",
        "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
        "etc/masked": "/dev/null",
        "etc/none": "/usr/lib/nothing",
    }
    for name, goal in links.items():
        (root / name).symlink_to(goal)
    tree.confine(root)
    for path in root.rglob("*"):
        assert path.is_dir() or not path.exists() or path == root / "etc/masked" or SECRET not in path.read_text()
    assert not (root / "etc/folder").exists() and not (root / "etc/through").exists()
    assert (root / "usr/good").read_text() == (root / "usr/bin/good").read_text() == "of the image"
    assert str((root / "etc/resolv.conf").readlink()).startswith("../run/systemd")
    assert str((root / "etc/masked").readlink()) == "/dev/null"


@pytest.mark.parametrize(
    "name", ["../../../etc/shadow", "/etc/shadow", "a/b", "", ".hidden", "-rf", "x" * 300, "a\nb", 7, None]
)
def test_a_manifest_names_nothing_but_files_beside_it(tmp_path: Path, name: object) -> None:
    files.write_json(tmp_path / image.MANIFEST, {"files": [{"name": name, "sha256": "0" * 64}]})
    with pytest.raises(ConfigError, match="beside it"):
        image.load(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"files": 1}', '{"files": []}', '{"files": [1]}', "[1]", "\xff"])
def test_a_manifest_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / image.MANIFEST).write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError):
        image.load(tmp_path)


def test_a_manifest_without_an_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / image.MANIFEST).symlink_to("/dev/zero")
    with pytest.raises(ConfigError):
        image.load(tmp_path)
    with pytest.raises(ConfigError):
        recorded.load(tmp_path, "", [], Workspace.at(tmp_path))
    (tmp_path / image.MANIFEST).unlink()
    with (tmp_path / image.MANIFEST).open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(ConfigError):
        image.load(tmp_path)


def test_a_file_that_claims_terabytes_fills_nothing(tmp_path: Path) -> None:
    raw = disk_with(tmp_path, ["vmlinuz-1"])
    run.run(["debugfs", "-w", "-R", "sif /boot/vmlinuz-1 size 3000000000", f"{raw}?offset={START}"])
    with pytest.raises((CorruptArtifact, CommandFailed)):
        tree.dump(raw, "/boot", tmp_path / "target", largest=10_000_000)
    assert sum(p.stat().st_blocks * 512 for p in (tmp_path / "target").rglob("*")) < 20_000_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_what_has_changed_its_user_ends_with_who_started_it() -> None:
    """The kernel forgets the leash of such a process: QEMU went on for ever after a `kill -9` of this program."""
    become = ["setpriv", f"--reuid={sandbox.USER}", f"--regid={sandbox.USER}", "--clear-groups", "--", "sleep", "6521"]
    script = (
        "import sys, time; from pathlib import Path; from foundry import run, sandbox\n"
        f"with run.Process(sandbox.leashed({become!r}), name='x'): time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as starter:
        wait_for(lambda: sleepers() != [])
        starter.kill()
    wait_for(lambda: sleepers() == [])


def sleepers() -> list[str]:
    found = []
    for words in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if words.read_bytes() == b"sleep\x006521\x00":
                found.append(words.parent.name)
    return found


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
