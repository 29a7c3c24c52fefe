"""Runs in the guest as root, on its own Python: tries each door of the node, with keys and without, and prints JSON.

Its one argument is base64 of a JSON object: address, cluster.
"""

import base64
import http.client
import json
import os
import pwd
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request

CA = "/etc/patroni/tls/ca.pem"
CERTIFICATE = "/etc/patroni/tls/node.pem"
KEY = "/etc/patroni/tls/node.key"
STORE = "/etc/consul.d/patroni-node-"
CONSUL = "http://127.0.0.1:8500/v1"
# Status.Ping of Consul's RPC, which asks for no token, in MessagePack. A byte before it says what is spoken
# (pool.RPCConsul, RPCRaft, RPCTLS).
PING = b"\x82\xadServiceMethod\xabStatus.Ping\xa3Seq\x01\x80"


def trust(certificate=False):
    """Whom requests believe: the cluster's own authority, for the address that is asked. certificate: show ours."""
    context = ssl.create_default_context(cafile=CA)
    if certificate:
        context.load_cert_chain(CERTIFICATE, KEY)
    return context


def fetch(url, method="GET", body=None, headers=(), certificate=False):
    """Status and text of a request; status 0 where nobody answers, or not in HTTP."""
    try:
        context = trust(certificate) if url.startswith("https:") else None
        request = urllib.request.Request(url, body, dict(headers), method=method)
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}
    except (OSError, http.client.HTTPException) as error:
        return {"status": 0, "body": str(error)}


def nobody(words):
    """Exit code and output of a command of a user who has no rights at all."""
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    return {"rc": done.returncode, "out": done.stdout.strip(), "err": done.stderr.strip()}


def asked_by_nobody(cluster):
    """What the agent answers to a local user, who has no token: code and text."""
    curl = ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}"]
    kv = f"{CONSUL}/kv/service/{cluster}"
    asked = {
        "a key": [f"{kv}/config"],
        "all keys": [f"{kv}/?recurse"],
        "names of keys": [f"{kv}/?keys"],
        "writes": ["-X", "PUT", "-d", "{}", f"{kv}/config"],
        "sessions": [f"{CONSUL}/session/list"],
        "new session": ["-X", "PUT", f"{CONSUL}/session/create"],
        "agent": [f"{CONSUL}/agent/self"],
        "tokens": [f"{CONSUL}/acl/tokens"],
        "raft": [f"{CONSUL}/operator/raft/configuration"],
        "snapshot": [f"{CONSUL}/snapshot"],
        "names": [f"{CONSUL}/catalog/service/{cluster}"],
    }
    return {name: nobody([*curl, *words])["out"] for name, words in asked.items()}


def connect(address, port, account):
    """A connection of an account of this node."""
    os.seteuid(pwd.getpwnam(account).pw_uid)
    try:
        return socket.create_connection((address, port), timeout=10)
    finally:
        os.seteuid(0)


def speak(address, port, data, account="root"):
    """What a server answers to bytes in the clear, as hex; a word where it cannot be reached."""
    try:
        with connect(address, port, account) as link:
            link.sendall(data)
            return link.recv(4096).hex()
    except ConnectionRefusedError:
        return "refused"
    except ConnectionResetError:
        return ""
    except OSError as error:
        return type(error).__name__


def shakes_hands(address, port, data, certificate=None):
    """Whether a server takes TLS of Consul's account, after some bytes of its protocol, and what it says to more bytes.

    certificate: paths of what is shown, and of its key.
    """
    context = ssl.create_default_context(cafile=f"{STORE}ca.pem")
    if certificate:
        context.load_cert_chain(*certificate)
    try:
        with connect(address, port, "consul") as link:
            link.sendall(data[0])
            with context.wrap_socket(link, server_hostname=address) as tls:
                tls.sendall(data[1])
                return tls.recv(4096).hex()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def rpc(address):
    """What Consul's port for servers says to a stranger, to one who speaks TLS, and to a member.

    All of them by Consul's account, which is the only one of this node that the packet filter lets call there.
    """
    ping = (b"\x03", b"\x00" + PING)
    return {
        "another account": speak(address, 8300, b"\x00" + PING),
        "in the clear": speak(address, 8300, b"\x00" + PING, "consul"),
        "without certificate": shakes_hands(address, 8300, ping),
        "with patroni's": shakes_hands(address, 8300, ping, (CERTIFICATE, KEY)),
        "with consul's": shakes_hands(address, 8300, ping, (f"{STORE}cert.pem", f"{STORE}key.pem")),
        "raft in the clear": speak(address, 8300, b"\x01\x00", "consul"),
    }


def rest_api(address, password):
    """What Patroni's REST API lets whom do. The change that is asked for would change nothing."""
    login = base64.b64encode(f"patroni:{password}".encode()).decode()
    change = {"method": "PATCH", "body": b'{"nothing": null}'}
    known = {"headers": {"Authorization": f"Basic {login}"}}
    url = f"https://{address}:8008"
    return {
        "plain": fetch(f"http://{address}:8008/primary"),
        "plain change": fetch(f"http://{address}:8008/config", **change, **known),
        "on loopback": fetch("https://127.0.0.1:8008/primary"),
        "without certificate": fetch(f"{url}/config", **change, **known),
        "without password": fetch(f"{url}/config", **change, certificate=True),
        "with both": fetch(f"{url}/config", **change, **known, certificate=True),
    }


def over_the_network(address, password, options):
    """What psql is told at the node's address: whether its connection is encrypted, or why there is none."""
    ask = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    words = ["psql", "-XAtqc", ask, f"host={address} user=postgres dbname=postgres connect_timeout=10 {options}"]
    environment = {**os.environ, "PGPASSWORD": password}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=environment)
    return {"rc": done.returncode, "out": done.stdout.strip(), "err": done.stderr.strip()}


def main():
    import yaml

    told = json.loads(base64.b64decode(sys.argv[1]))
    address = told["address"]
    with open("/etc/patroni/patroni.yml", encoding="utf-8") as stream:
        patroni_yml = yaml.safe_load(stream)
    password = patroni_yml["postgresql"]["authentication"]["superuser"]["password"]
    found = {
        "nobody": asked_by_nobody(told["cluster"]),
        "rpc": rpc(address),
        "other datacenters": speak(address, 8302, b"\x00"),
        "rest": rest_api(address, patroni_yml["restapi"]["authentication"]["password"]),
        "encrypted": over_the_network(address, password, f"sslmode=verify-full sslrootcert={CA}"),
        "in the clear": over_the_network(address, password, "sslmode=disable"),
    }
    print(json.dumps(found))


main()
