"""Runs in the guest as root, on its own Python: collects what the tests look at and prints it as JSON.

Its one argument is base64 of a JSON object: address, cluster, secret, and whether the node was restarted: then it
collects what only that shows.
"""

import base64
import grp
import json
import os
import pwd
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LEADER_SECONDS = 120
RULES_SECONDS = 60
CA = "/etc/patroni/tls/ca.pem"
CERTIFICATE = "/etc/patroni/tls/node.pem"
KEY = "/etc/patroni/tls/node.key"
TOKEN = "/etc/consul.d/patroni-node-token"
CONSUL = "http://127.0.0.1:8500/v1"
MARK = "-- "
CLOUD_INIT_LOG = "/var/log/cloud-init.log"
SEARCHED = (
    "/etc",
    "/run",
    "/var/log",
    "/var/lib/cloud",
    "/var/lib/patroni-node",
    "/var/lib/consul",
    "/tmp",
    "/var/tmp",
)
CONTENTS = (
    "/etc/patroni/patroni.yml",
    "/etc/consul.d/patroni-node.json",
    "/etc/machine-id",
    "/proc/cmdline",
    CA,
    CERTIFICATE,
    "/etc/consul.d/patroni-node-ca.pem",
    "/etc/consul.d/patroni-node-cert.pem",
    "/var/lib/patroni-node/security.json",
)
MODES = (
    "/etc/patroni",
    "/etc/patroni/node.yml",
    KEY,
    "/etc/consul.d/patroni-node-key.pem",
    TOKEN,
    "/etc/consul.d",
    "/etc/shadow",
    "/var/lib/postgresql/15/main",
    "/var/lib/consul",
    "/usr/lib/systemd/system/patroni.service",
    "/dev/watchdog",
)
# Where something may be written; the rest is of packages, and the image itself is searched block by block.
WRITTEN = ("/boot", "/etc", "/home", "/mnt", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var")
UNITS = (
    "patroni.service",
    "patroni-node.service",
    "consul.service",
    "postgresql.service",
    "ssh.service",
    "patroni-node-acl.service",
    "patroni-node-renew.service",
    "patroni-node-renew.timer",
)
COMMANDS = {
    "failed units": "systemctl list-units --failed --plain --no-legend",
    "system": "systemctl is-system-running",
    "cloud-init": "cloud-init status --long",
    "hostname": "hostname",
    "own name": "getent hosts $(hostname)",
    "addresses": "ip -o -br address show scope global",
    "listening": "ss -Htln",
    "listening by udp": "ss -Huln",
    "patroni version": "patroni --version",
    "packages": "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'",
    "audit": "dpkg --audit",
    "owner of patroni": "dpkg -S $(readlink -f /usr/bin/patroni)",
    "owner of unit": "dpkg -S /usr/lib/systemd/system/patroni.service",
    "owner of root's consul": "dpkg -S /usr/sbin/consul",
    "node's certificate": f"openssl verify -CAfile {CA} {CERTIFICATE}",
    "consul's certificate": "cd /etc/consul.d; openssl verify -CAfile patroni-node-ca.pem patroni-node-cert.pem",
    "consul's by the other": f"openssl verify -CAfile {CA} /etc/consul.d/patroni-node-cert.pem",
    "renewal": "systemctl start patroni-node-renew && systemctl show -P Result patroni-node-renew",
    "psycopg": "find $(dirname $(readlink -f /usr/bin/patroni))/.. -name '_psycopg*.so' -exec ldd {} +",
    # The cycle's end as it is when the clock has just been set back by an hour: how long would Patroni sleep?
    # An event for /mpp from who says no password, a body that is longer than is read of it, a line that never ends.
    "patroni's code": """/usr/lib/patroni-venv/bin/python3 -c '
import io, socket, threading, time, types
from patroni import api
from patroni.__main__ import Patroni
from patroni.api import RestApiHandler as Handler
naps = []
dcs, ha = types.SimpleNamespace(loop_wait=10), types.SimpleNamespace(watch=naps.append)
Patroni.schedule_next_run(types.SimpleNamespace(next_run=time.time() + 3600, dcs=dcs, ha=ha))
print(*naps)
asked = types.SimpleNamespace(check_access=lambda handler, **_: print("who is it"))
Handler.do_POST_mpp(types.SimpleNamespace(server=asked, _read_json_content=lambda: print("read")))
for length in ("-1", "1_0", str(2**20 + 1), "3"):
    request = types.SimpleNamespace(headers={"content-length": length}, rfile=io.BytesIO(b"{}"), send_error=print)
    Handler._read_json_content(request)
api.REQUEST_TIMEOUT = 0.5
ours, theirs = socket.socketpair()
drip = lambda: [time.sleep(0.1) or theirs.send(b"x") for _ in range(100)]
threading.Thread(target=drip, daemon=True).start()
try: io.BufferedReader(api.RequestReader(ours)).readline()
except TimeoutError: print("too slow")'""",
    "pip": "find $(dirname $(readlink -f /usr/bin/patroni))/.. -name 'pip*' -maxdepth 5",
    "clusters": "pg_lsclusters -h",
    "root size": "df --output=size -BM /",
    "disk size": "lsblk --bytes --nodeps --noheadings -o SIZE $(lsblk -npo PKNAME $(findmnt -no SOURCE /))",
    "host keys": "cat /etc/ssh/ssh_host_*_key.pub",
    "boot": "cat /proc/sys/kernel/random/boot_id",
    "order": "systemctl list-jobs --no-legend; journalctl -b -q -o cat -g 'ordering cycle' | head",
    "exposure": "systemd-analyze security --no-pager patroni patroni-node consul patroni-node-acl patroni-node-renew"
    " | grep Overall",
    "kernel settings": "sysctl vm.overcommit_memory vm.overcommit_ratio vm.swappiness kernel.yama.ptrace_scope",
    "transparent huge pages": "cat /sys/kernel/mm/transparent_hugepage/enabled",
    "postmaster": "cat /proc/$(head -n 1 /var/lib/postgresql/15/main/postmaster.pid)/oom_score_adj",
    "backend": "cat /proc/$(pgrep -f '^postgres: .*checkpointer')/oom_score_adj",
    "patroni": "cat /proc/$(systemctl show -P MainPID patroni)/oom_score_adj",
    "kernel problems": "journalctl -b -q -k -p err -o cat | head",
}
SQL = {
    "settings": "SELECT json_object_agg(name, setting) FROM pg_settings",
    "shown": "SELECT json_object_agg(name, current_setting(name)) FROM pg_settings",
    "pending": "SELECT to_json(count(*)) FROM pg_settings WHERE pending_restart",
    "encodings": "SELECT json_object_agg(datname, pg_encoding_to_char(encoding)) FROM pg_database",
    "version": "SELECT to_json(current_setting('server_version_num')::int / 10000)",
    "recovery": "SELECT to_json(pg_is_in_recovery())",
    "jit": "SELECT to_json(pg_jit_available())",
    "hba": "SELECT json_agg(json_build_object('type', type, 'database', database, 'user', user_name,"
    " 'address', address, 'method', auth_method, 'error', error)) FROM pg_hba_file_rules",
    "passwords": "SELECT json_object_agg(rolname, left(rolpassword, 13)) FROM pg_authid WHERE rolcanlogin",
    "identifier": "SELECT to_json(system_identifier::text) FROM pg_control_system()",
    "written": "CREATE TABLE IF NOT EXISTS verified (boot uuid PRIMARY KEY, at timestamptz DEFAULT now());"
    " INSERT INTO verified VALUES ('{boot}') ON CONFLICT DO NOTHING; SELECT json_agg(boot) FROM verified",
}
# Not beside the others: a job of systemd's, of which "order" is to find none.
ALONE = ("renewal",)
# What only a restart shows; the rest was seen before it.
RESTARTED = {
    "commands": ("boot", "failed units", "host keys", "hostname", "system"),
    "files": ("/etc/machine-id", "/etc/patroni/patroni.yml", CA, CERTIFICATE, "/var/lib/patroni-node/security.json"),
    "sql": ("identifier", "written"),
}


def shell(command):
    """Exit code and output of a shell command."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    return {"rc": done.returncode, "out": done.stdout.strip(), "err": done.stderr.strip()}


def describe(path, content=False):
    """Mode, owner and group of a file, and its text if asked for; None where there is no such file."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    row = {"mode": f"{stat.S_IMODE(status.st_mode):04o}"}
    row["owner"] = pwd.getpwuid(status.st_uid).pw_name
    row["group"] = grp.getgrgid(status.st_gid).gr_name
    if content:
        with open(path, encoding="utf-8") as stream:
            row["content"] = stream.read()
    return row


def fetch(url, headers=()):
    """Status and text of a GET, by https with the cluster's own authority; status 0 where nobody answers."""
    try:
        context = ssl.create_default_context(cafile=CA) if url.startswith("https:") else None
        request = urllib.request.Request(url, headers=dict(headers))
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}
    except OSError as error:
        return {"status": 0, "body": str(error)}


def from_consul(path):
    """The agent's answer to who shows root's token."""
    try:
        token = Path(TOKEN).read_text(encoding="ascii").strip()
    except OSError as error:
        return {"status": 0, "body": str(error)}
    return fetch(f"{CONSUL}/{path}", headers={"X-Consul-Token": token})


def await_leader(address):
    """Wait until this node leads; gives up at once when Patroni is not running any more."""
    begin = time.monotonic()
    while True:
        answer = fetch(f"https://{address}:8008/primary")
        waited = time.monotonic() - begin
        down = shell("systemctl is-active patroni")["out"] in ("failed", "inactive")
        if answer["status"] == 200 or down or waited > LEADER_SECONDS:
            return {**answer, "waited": round(waited, 1)}
        time.sleep(1)


def await_rules():
    """Wait until Consul's rules are written: Patroni leads as soon as its token is there, and some come after it."""
    begin = time.monotonic()
    while shell("systemctl is-active patroni-node-acl")["out"] in ("active", "activating"):
        if time.monotonic() - begin > RULES_SECONDS:
            return
        time.sleep(1)


def psql(statements):
    """The JSON value that each statement gives to the database superuser, or the errors' text; one session for all."""
    words = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", "postgres"]
    script = "".join(f"\\echo {MARK}{name}\n{text};\n" for name, text in statements.items())
    done = subprocess.run(words, input=script, capture_output=True, text=True, timeout=120, check=False, cwd="/")
    found = {name: {"error": done.stderr.strip()} for name in statements}
    for block in done.stdout.split(MARK)[1:]:
        name, *lines = block.strip().splitlines()
        if lines:
            found[name] = json.loads(lines[-1])
    return found


def outputs(commands):
    """What each command prints: two at once, since the node has two processors."""
    found = {name: shell(command) for name, command in commands.items() if name in ALONE}
    others = {name: command for name, command in commands.items() if name not in ALONE}
    with ThreadPoolExecutor(2) as pool:
        return found | dict(zip(others, pool.map(shell, others.values()), strict=True))


def exposures(words):
    """Files that every user may read, and command lines, with a secret in them."""
    found = []
    needles = [w.encode() for w in words]
    for top in SEARCHED:
        for folder, names, members in os.walk(top):
            names[:] = [n for n in names if os.lstat(os.path.join(folder, n)).st_mode & stat.S_IXOTH]
            for member in members:
                path = os.path.join(folder, member)
                try:
                    status = os.lstat(path)
                    if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IROTH:
                        continue
                    with open(path, "rb") as stream:
                        data = stream.read()
                except OSError:
                    continue
                if any(n in data for n in needles):
                    found.append(path)
    words = ["journalctl", "-b", "-q", "-o", "cat"]
    journal = subprocess.run(words, capture_output=True, timeout=120, check=False).stdout
    found += ["the journal"] if any(n in journal for n in needles) else []
    for path in map(str, Path("/proc").glob("[0-9]*/cmdline")):
        try:
            with open(path, "rb") as stream:
                data = stream.read()
        except OSError:
            continue
        # This script is not in question: its argument holds the secret in base64 only.
        found += [path] if any(n in data for n in needles) else []
    return found


def holders(words):
    """Every file that holds a secret, whoever may read it; the secrets come by stdin, so that no command line does."""
    command = ["grep", "-rlaFs", "--devices=skip", "--file=-", *WRITTEN]
    done = subprocess.run(command, input="\n".join(words), capture_output=True, text=True, timeout=300, check=False)
    return sorted(done.stdout.splitlines())


SECRET_KEYS = ("password", "encrypt", "token", "agent", "master")


def passwords(value):
    """Every value of a key that is called as passwords, keys and tokens are, in a nested structure."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k in SECRET_KEYS and isinstance(v, str)]
        return own + [p for v in value.values() for p in passwords(v)]
    return [p for v in value for p in passwords(v)] if isinstance(value, list) else []


def rendered():
    """patroni.yml and the agent's configuration, parsed."""
    import yaml

    found = []
    for path in CONTENTS[:2]:
        try:
            with open(path, encoding="utf-8") as stream:
                found.append(yaml.safe_load(stream))
        except OSError:
            found.append({})
    return found


def key_lines():
    """The lines of base64 that the node's private keys are made of."""
    found = []
    for path in (KEY, "/etc/consul.d/patroni-node-key.pem"):
        try:
            lines = Path(path).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        found += [line for line in lines if line and "-----" not in line]
    return found


def unit_properties():
    """Of each of our units."""
    properties = "Id,LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,After,NRestarts"
    properties += ",Type,KillMode,Restart,TimeoutStopUSec,OOMPolicy,MemoryAccounting,Result,ExecMainStatus"
    blocks = shell(f"systemctl show -p {properties} {' '.join(UNITS)}")["out"].split("\n\n")
    units = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    return {u["Id"]: u for u in units}


def lasting(told, boot):
    """What a restart may change, and what it must not."""
    return {
        "commands": outputs({name: COMMANDS[name] for name in RESTARTED["commands"]}),
        "files": {path: describe(path, content=True) for path in RESTARTED["files"]},
        "sql": psql({name: SQL[name].replace("{boot}", boot) for name in RESTARTED["sql"]}),
        "consul service": from_consul(f"catalog/service/{told['cluster']}"),
    }


def everything(told, boot):
    """All that the suite looks at."""
    cluster = told["cluster"]
    secret_words = [*passwords(rendered()), *key_lines()]
    return {
        "commands": outputs(COMMANDS),
        "units": unit_properties(),
        "files": {
            **{p: describe(p, content=True) for p in CONTENTS},
            **{p: describe(p) for p in MODES},
        },
        "cloud-init": {
            name: json.loads(shell(f"cat /run/cloud-init/{name}.json")["out"]) for name in ("result", "status")
        },
        "warnings": shell(f"grep -E '\\[(WARNING|ERROR|CRITICAL)\\]:' {CLOUD_INIT_LOG}")["out"].splitlines(),
        "sql": psql({name: text.replace("{boot}", boot) for name, text in SQL.items()}),
        "consul service": from_consul(f"catalog/service/{cluster}"),
        "consul health": from_consul(f"health/service/{cluster}?passing"),
        "consul leader": from_consul("status/leader"),
        "consul agent": from_consul("agent/self"),
        "consul keys": from_consul(f"kv/service/{cluster}/?keys"),
        "secrets": len(secret_words),
        "weak": [w for w in secret_words if len(w) < 16],
        "exposed": exposures([told["secret"], *secret_words]),
        "holders": holders([told["secret"], *secret_words]),
    }


def main():
    told = json.loads(base64.b64decode(sys.argv[1]))
    leader = await_leader(told["address"])
    await_rules()
    boot = shell(COMMANDS["boot"])["out"]
    collect = lasting if told["restarted"] else everything
    print(json.dumps({"leader": leader, **collect(told, boot)}))


main()
