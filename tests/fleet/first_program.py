"""The first program of a throwaway server: gives HOME its skeleton, then starts a real sshd for each connection.

Runs inside the sandbox, on the system's Python >= 3.9. The listening socket was opened outside and is inherited, so
that a server without any network can still be logged in to.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys


def fill_home(home: str, skeleton: str = "/run/fleet/home") -> None:
    """Give a new account the files that useradd, or its owner, would have given it; a HOME in use is left alone."""
    if not os.listdir(home):
        shutil.copytree(skeleton, home, dirs_exist_ok=True)


def serve(listener: socket.socket, sshd: list[str]) -> None:
    """Start `sshd` (argv, inetd mode) with each accepted connection as its stdin and stdout; its log goes to stderr."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: the kernel reaps
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(connection.fileno(), 0)
            os.dup2(connection.fileno(), 1)
            os.execve(sshd[0], sshd, {})  # Python's descriptors, the listener among them, close on exec
        connection.close()


def main() -> None:
    """Arguments: the listening descriptor, HOME, a program for sh that tells who we are, and sshd or nothing."""
    descriptor, home, who, *sshd = sys.argv[1:]
    fill_home(home)
    told = subprocess.run(["/bin/sh", "-c", who], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print("Account:", "|".join((told.stdout + told.stderr).splitlines()), file=sys.stderr, flush=True)
    while not sshd:
        signal.pause()  # nobody can log in
    listener = socket.socket(fileno=int(descriptor))
    os.set_inheritable(listener.fileno(), False)
    serve(listener, sshd)


if __name__ == "__main__":
    main()
