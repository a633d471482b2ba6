"""Leases: who builds an install right now. Files, not flock: homes are on NFS, where flock may lie.

A lease is made by hard-linking a complete file to its name, which is atomic on NFS too. Its time stamp is the
heartbeat: downloads, which may take hours, renew it, and no other step takes long. Somebody else's lease is taken over
when its heartbeat is older than STALE seconds, or when its holder is known to be dead. Whoever lost a lease that way
notices before publishing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from ansible.module_utils.stack_installs import read_json, write_json

STALE = 30 * 60.0  # seconds


def _read(path: str) -> str:
    """A short file of /proc; "" where there is none, as on a controller that is not Linux."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _machine() -> str:
    """This machine since it was started; two containers on it differ, as their process ids do. "" when not known."""
    boot = _read("/proc/sys/kernel/random/boot_id")
    return f"{boot}/{os.readlink('/proc/self/ns/pid')}" if boot else ""


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot, so that a reused pid is not mistaken; "" if it is gone."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if fields else ""


def this_run() -> dict[str, Any]:
    """Who runs this play, told on the controller: ansible-playbook, the parent of the worker that runs an action."""
    pid = os.getppid()
    known = {"controller": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}
    return {**known, "run": "/".join(map(str, known.values()))}


def has_died(holder: dict[str, Any]) -> bool:
    """Whether the run that holds a lease was on this very controller and is gone. Unknown counts as alive."""
    here = holder.get("controller") == socket.gethostname() and holder.get("machine") == _machine() != ""
    return here and _started(int(holder.get("pid", 0))) != holder.get("started")


def holder_of(run: dict[str, Any]) -> dict[str, Any]:
    """The data of a lease that this server takes for `run`."""
    return {**run, "server": socket.gethostname()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two are one holder: a run, on a server."""
    return bool(one) and all(one.get(key) == other.get(key) for key in ("run", "server"))


def lease_path(prefix: str, role: str, digest: str) -> str:
    """Path of the lease of one install."""
    return os.path.join(prefix, "var", "lease", f"{role}-{digest}.json")


def acquire(path: str, holder: dict[str, Any], dead: str = "") -> dict[str, Any]:
    """Take the lease at `path` for `holder`. Returns {} when it is ours, otherwise the data of who holds it.

    `dead`: the "run" of a holder known to be dead.
    """
    mine = f"{path}.{os.urandom(6).hex()}"
    write_json(mine, holder)
    try:
        for _attempt in range(3):
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)
                return {}
            try:
                # Both times are the file server's: clocks of the servers may differ.
                age = os.stat(mine).st_mtime - os.stat(path).st_mtime
            except FileNotFoundError:
                continue
            other: dict[str, Any] = read_json(path)
            if same(other, holder):
                os.utime(path)
                return {}
            if other and age <= STALE and other.get("run") != dead:
                return other
            _set_aside(path, f"{mine}.old", other)
        return {"run": "", "server": "another server"}
    finally:
        os.unlink(mine)


def _set_aside(path: str, aside: str, expected: dict[str, Any]) -> None:
    """Remove the lease at `path` if it still is the `expected` one: of two that find it stale, one is the first, and
    the other must not remove the first one's new lease."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if read_json(aside) != expected:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        os.unlink(aside)


def beat(folder: str, holder: dict[str, Any]) -> None:
    """Renew the heartbeat of every lease in `folder` that is the holder's. No such folder is fine."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if same(read_json(path), holder):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)


def release(path: str) -> None:
    """Give a lease back; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
