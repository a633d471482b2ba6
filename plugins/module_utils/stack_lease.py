"""Leases: who builds an install right now. Files, not flock: homes are on NFS, where flock may lie.

A lease is made by hard-linking a complete file to its name, which is atomic on NFS too. Its time stamp is the
heartbeat: a process on the builder's server, the heart, renews it every BEAT seconds while something works on the
install there, and IDLE seconds longer, since the servers of a run go in lockstep and a fast one waits for a slow one.

Who finds a lease taken waits, and watches the heartbeat. A holder is lost
- when its heartbeat is older than STALE and did not move in WATCH seconds of looking;
- or, where its run is known to be dead, or its server to be lost to its run, when it is older than WATCH, likewise. A
  note beside the lease tells so, and a heart that finds it gives the lease back as soon as nothing works any more.

STALE is what a server may be frozen, or cut off from the file server, and go on afterwards. (While the file server
itself does not answer, nobody can look either, and looking is what counts.) Shorter would be a gamble: two would write
in one folder. Longer would make others wait for nothing: a server that is gone does not beat.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.stack_installs import RECEIPT, read_json, write_json
from ansible.module_utils.stack_lookup import HEART, processes_at
from ansible.module_utils.stack_temporary import OLD

BEAT = 10.0  # seconds between two heartbeats
WATCH = 3 * BEAT
STALE = 5 * 60.0  # seconds
IDLE = 30 * 60.0  # seconds
FORGOTTEN = 30 * 60.0  # seconds, for those who clean up and go by their own server's clock
NOTICE = 1.0  # seconds until a heart notices that its lease was given back

Holder = dict[str, Any]


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


def started_at(pid: int) -> str:
    """When a process started, in clock ticks since boot, so that a reused pid is not mistaken; "" if it is gone."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if fields else ""


# --- Holders ----------------------------------------------------------------------------------------------------------


def this_run(host: str = "") -> Holder:
    """Who runs this play on `host`, told on the controller: ansible-playbook, the parent of the worker that runs an
    action."""
    pid = os.getppid()
    known = {"controller": socket.gethostname(), "machine": _machine(), "pid": pid, "started": started_at(pid)}
    return {**known, "run": "/".join(map(str, known.values())), "host": host}


def has_died(holder: Holder) -> bool:
    """Whether the run that holds a lease was on this very controller and is gone. Unknown counts as alive."""
    here = holder.get("controller") == socket.gethostname() and holder.get("machine") == _machine() != ""
    return here and started_at(int(holder.get("pid", 0))) != holder.get("started")


def holder_of(run: Holder) -> Holder:
    """The data of a lease that this server takes for `run`."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {**run, "server": socket.gethostname(), "server_machine": _machine(), "since": since}


def same(one: Holder, other: Holder) -> bool:
    """Whether both are one holder: a run, on a server."""
    return bool(one) and all(one.get(key) == other.get(key) for key in ("run", "host", "server"))


def is_here(holder: Holder) -> bool:
    """Whether a holder's server is this one, since it was started: what it left running can be seen here."""
    return holder.get("server_machine") == _machine() != ""


def described(holder: Holder) -> str:
    """A holder for people: server, run, since when."""
    host, server = holder.get("host") or "", holder.get("server") or "another server"
    name = host or server if host in ("", server) else f"{host}, {server}"
    run = f"run from {holder.get('controller') or 'another controller'}"
    run += f", process {holder['pid']}" if holder.get("pid") else ""
    return f"{name} ({run}{', since ' + str(holder['since']).rpartition(' ')[2] if holder.get('since') else ''})"


# --- Leases -----------------------------------------------------------------------------------------------------------


def lease_path(prefix: str, role: str, digest: str) -> str:
    """Path of the lease of one install."""
    return os.path.join(prefix, "var", "lease", f"{role}-{digest}.json")


def look(path: str) -> tuple[Holder, float]:
    """(holder, heartbeat) of the lease at `path`; ({}, 0.0) when nobody has it.

    Opened, not only asked for its time: NFS then asks the file server instead of its own memory.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            heartbeat = os.fstat(stream.fileno()).st_mtime
    except FileNotFoundError:
        return {}, 0.0
    return read_json(path), heartbeat


def new_probe(path: str) -> str:
    """A file beside the lease at `path` that tells the file server's time."""
    probe = f"{path}.{os.urandom(6).hex()}"
    with open(probe, "w", encoding="utf-8"):
        return probe


def probed(probe: str) -> float:
    """The file server's time now, in seconds."""
    os.utime(probe)
    return os.stat(probe).st_mtime


def acquire(path: str, holder: Holder, dead: Holder | None = None) -> Holder:
    """Take the lease at `path` for `holder`. Returns {} when it is ours, otherwise the data of who holds it.

    `dead`: a holder of which nothing is left, so that its lease is free.
    """
    mine = f"{path}.{os.urandom(6).hex()}"
    write_json(mine, holder)
    try:
        for _attempt in range(3):
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)
                return {}
            other, heartbeat = look(path)
            if not heartbeat:
                continue
            if same(other, holder):
                os.utime(path)
                return {}
            if other and not same(dead or {}, other):
                return other
            set_aside(path, other)
        return {"run": "", "server": "another server"}
    finally:
        os.unlink(mine)


def set_aside(path: str, expected: Holder) -> None:
    """Remove the lease at `path` if it still is the `expected` one: of two that find it lost, one is the first, and
    the other must not remove the first one's new lease."""
    aside = f"{path}.{os.urandom(6).hex()}.old"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if read_json(aside) != expected:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        os.unlink(aside)


def beat(folder: str, holder: Holder) -> None:
    """Renew the heartbeat of every lease in `folder` that is the holder's. No such folder is fine."""
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        if name.endswith(".json") and same(read_json(path), holder):
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)


def release(path: str) -> None:
    """Give a lease back; one that is gone already is fine."""
    for name in (path, _note(path)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


# --- Death ------------------------------------------------------------------------------------------------------------


def _note(path: str) -> str:
    return f"{path}.dead"


def tell_dead(path: str, holder: Holder) -> None:
    """Tell the heart of a holder, by a note that it finds beside its lease, that its run goes on no more."""
    if not is_told_dead(path, holder):
        write_json(_note(path), holder)


def is_told_dead(path: str, holder: Holder) -> bool:
    """Whether somebody has told the holder's death."""
    return same(read_json(_note(path)), holder)


def is_lost(age: float, quiet: float, dead: bool) -> bool:
    """Whether a holder is lost, from its heartbeat's age and for how long it did not move while looked at, in seconds.

    Both are the file server's or this server's own time alone: clocks of servers may differ.
    """
    return quiet >= WATCH and age > (WATCH if dead else STALE)


def keep_beating(
    path: str,
    holder: Holder,
    works: Callable[[], bool],
    done: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """The heart: renew the lease at `path` while it is the holder's and its build is alive. Returns when it is not.

    `works`: whether something works on the install now; a heartbeat that somebody else gave is a sign of life as well.
    `done`: whether it is published, which the lease outlives when the run is killed just then.
    """
    begun = seen = clock()
    due, last = begun, look(path)[1]
    while True:
        with contextlib.suppress(OSError):  # the file server is away: go on when it is back
            other, heartbeat = look(path)
            if not same(other, holder):
                return
            now = clock()
            if now >= due:
                due = now + BEAT
                given = heartbeat != last
                if now - seen <= IDLE:
                    os.utime(path)
                last = look(path)[1]
                if given or works():
                    seen = now
                elif done() or (now - seen > BEAT and (is_told_dead(path, holder) or has_died(holder))):
                    set_aside(path, other)
                    return
                if now - begun > OLD:
                    return
        sleep(NOTICE)


def start_heart(path: str, holder: Holder, install: str) -> None:
    """Start the heart of the lease at `path`: a process that outlives this one, and works when it sees others that
    have been started since and have to do with the folder `install`."""
    if os.fork():
        return
    try:
        os.setsid()
        os.chdir("/")
        with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="utf-8") as stream:
            stream.write(HEART)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.closerange(3, min(os.sysconf("SC_OPEN_MAX"), 1 << 16))
        since = int(started_at(os.getpid()) or 0)
        keep_beating(
            path,
            holder,
            works=lambda: any(int(started_at(process) or 0) >= since for process in processes_at(install)),
            done=lambda: os.path.exists(os.path.join(install, RECEIPT)),
        )
    finally:
        os._exit(0)
