"""Run a command with no network and an empty home folder, to prove that it needs neither.

    python scripts/cut_off.py COMMAND ...

The network is cut by the kernel (a network namespace with the loopback device alone, over which a
notebook talks to its kernel); no library has a say in it. Where the system has no such thing or
does not allow it, the command runs all the same, and a line says so. Afterwards the home folder is
looked through: a course that writes there anything but what Jupyter, IPython and matplotlib keep
there has failed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
# What Jupyter's programs and matplotlib keep in a home folder by themselves.
USUAL = (".cache", ".config/matplotlib", ".ipython", ".jupyter", ".local/share/jupyter")


def cut_network() -> None:
    """Leave this process and all it starts with the loopback device only.

    Raises
    ------
    OSError
        If the system cannot do it or does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        raise OSError("this system has no network namespaces")
    user, group = os.getuid(), os.getgid()
    # Root may ask for a network of its own; anyone else needs a user namespace around it.
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(os.strerror(ctypes.get_errno()))
    if os.getuid() != user:  # in a user namespace nobody is anybody until mapped
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


def written_to(home: Path) -> list[str]:
    """Return the files in a home folder that nobody expects there."""
    files = (path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())
    return sorted(name for name in files if not name.startswith(USUAL))


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    try:
        cut_network()
        print("The network is cut, and the home folder is empty.", flush=True)
    except OSError as error:
        print(f"The network could not be cut here ({error}); the home folder is empty.", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        done = subprocess.run(sys.argv[1:], env=kept | {"HOME": home}, check=False)
        if unexpected := written_to(Path(home)):
            print(f"Written to the home folder: {', '.join(unexpected[:9])}", file=sys.stderr)
            return done.returncode or 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
