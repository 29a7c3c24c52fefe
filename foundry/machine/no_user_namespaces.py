"""Run a command that can make no user namespace, nor can anything that it starts: `python FILE COMMAND …`.

Root of a container has few rights there, and all of them in a user namespace of its own making: it mounts a /proc there
in which the host's kernel.core_pattern can be written, and that is a command that the host runs. Neither a capability
nor systemd-nspawn's own filter, which knows names of system calls only, stands against that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# linux/seccomp.h, linux/filter.h, linux/audit.h, linux/sched.h; the numbers of asm/unistd_64.h.
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, FAIL = 0x7FFF0000, 0x00050000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
X86_64, X32 = 0xC000003E, 0x40000000
CLONE, UNSHARE, CLONE3, IO_URING_SETUP = 56, 272, 435, 425
CLONE_NEWUSER = 0x10000000

# Each with where to go on if it holds, and if not: so many steps further.
FILTER = (
    (LOAD, 0, 0, ARCHITECTURE),
    (EQUAL, 0, 10, X86_64),
    (LOAD, 0, 0, NUMBER),
    (AT_LEAST, 8, 0, X32),
    # Known for its faults, which are the host's kernel's; nothing in an image asks for it.
    (EQUAL, 7, 0, IO_URING_SETUP),
    # Its flags lie in memory, where no filter looks; the C library then takes clone.
    (EQUAL, 6, 0, CLONE3),
    (EQUAL, 2, 0, CLONE),
    (EQUAL, 1, 0, UNSHARE),
    (RETURN, 0, 0, ALLOW),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (ANY_BIT, 2, 3, CLONE_NEWUSER),
    (RETURN, 0, 0, ALLOW),
    (RETURN, 0, 0, FAIL | errno.ENOSYS),
    (RETURN, 0, 0, FAIL | errno.EPERM),
    (RETURN, 0, 0, ALLOW),
)


def forbid() -> None:
    """Take user namespaces from this process and all that it starts; for root. Raises OSError."""
    code = b"".join(struct.pack("HBBI", *step) for step in FILTER)
    steps = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(FILTER), ctypes.addressof(steps)))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no seccomp filter can be set: {os.strerror(number)}")


if __name__ == "__main__":
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
