"""ssh's ProxyCommand with ProxyUseFdpass: connect to a port of the loopback of the namespace that this runs in.

`python -m foundry.machine.pass_socket PORT` hands the connected socket to ssh, which is its standard output, and ends.
"""

from __future__ import annotations

import socket
import sys

OUTPUT = 1


def main(port: int) -> None:
    """Connect, and pass the socket on. Raises OSError where nobody listens."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as stream, socket.socket(fileno=OUTPUT) as ssh:
        stream.setblocking(True)
        socket.send_fds(ssh, [b"\0"], [stream.fileno()])


if __name__ == "__main__":
    main(int(sys.argv[1]))
