"""Leases: who builds an install right now. Files, not flock: homes are on NFS, where flock may lie.

A lease is made by hard-linking a complete file to its name, which is atomic on NFS too. Its age is counted from
its time stamp (the heartbeat), which every step of a build renews. Somebody else's lease is taken over when its
heartbeat is older than STALE seconds, or when its holder is known to be dead.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable

from ansible.module_utils.stack_installs import read_json, write_json

STALE = 30 * 60.0  # seconds: longer than any single step of a build


def acquire(
    path: str, holder: dict[str, Any], dead: str = "", clock: Callable[[], float] = time.time
) -> dict[str, Any] | None:
    """Take the lease at `path` for `holder` (JSON data with a unique "run").

    `dead`: the "run" of a holder known to be dead. Returns None when the lease is ours, otherwise the holder's
    data plus "age" in seconds since its last heartbeat.
    """
    temporary = f"{path}.{os.urandom(6).hex()}"
    write_json(temporary, holder)
    try:
        for _attempt in range(3):
            try:
                os.link(temporary, path)
                return None
            except FileExistsError:
                other = read_json(path) or {"run": "", "server": "unknown"}
            try:
                age = clock() - os.stat(path).st_mtime
            except FileNotFoundError:
                continue
            if other == holder:
                beat(path)
                return None
            if age <= STALE and other["run"] != dead:
                return {**other, "age": age}
            # Renamed, not removed: of two that find it stale, one wins.
            try:
                os.rename(path, f"{temporary}.old")
                os.unlink(f"{temporary}.old")
            except FileNotFoundError:
                continue
        return {"run": "", "server": "unknown", "age": 0.0}
    finally:
        os.unlink(temporary)


def beat(path: str) -> None:
    """Renew a lease's heartbeat; a lease that is gone stays gone."""
    try:
        os.utime(path)
    except FileNotFoundError:
        pass


def release(path: str) -> None:
    """Give a lease back; one that is gone already is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
