"""Supervises one run of an experiment, detached from the login that started it: supervise_run.py LEASE RUN_ID.

Runs `run.sh` of the working directory, appends what it says to log.txt, renews the time stamp of LEASE meanwhile, and
leaves exit.json: {"status": int or null, "signal": int or null, "stopped": bool, "ended": seconds since 1970}. SIGTERM
stops the run: its processes get SIGTERM, and 20 seconds later SIGKILL.

Runs on servers: Python >= 3.9, standard library only; it needs nothing of the folder that it was installed from.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

BEAT = 10.0  # seconds between two heartbeats: many within stack_lease.STALE, after which a run counts as lost
GRACE = 20.0  # seconds from SIGTERM to SIGKILL


def write(name: str, data: dict[str, Any]) -> None:
    """Write a JSON file by rename."""
    with open(f"{name}.new", "w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{name}.new", name)


def started(pid: int) -> str:
    """When a process started, in clock ticks since boot."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()[19]


def signal_all(group: int, number: int) -> None:
    """Send a signal to all processes of the run; none left is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def main() -> None:
    lease, run = sys.argv[1:]
    stopped_at: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped_at.append(time.monotonic()))
    with open("log.txt", "ab", buffering=0) as log:
        child = subprocess.Popen(
            ["/bin/sh", "run.sh"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    mine = {"pid": os.getpid(), "started": started(os.getpid()), "group": child.pid, "run": run}
    try:
        write("process.json", mine)
    except OSError:  # a full disk: nobody would know of what was started
        signal_all(child.pid, signal.SIGKILL)
        raise
    due, told = 0.0, False
    while child.poll() is None:
        now = time.monotonic()
        if now >= due:
            due = now + BEAT
            with contextlib.suppress(OSError):  # the file server is away
                os.utime(lease)
        if stopped_at and not told:
            told = True
            signal_all(child.pid, signal.SIGTERM)
        if stopped_at and now - stopped_at[0] > GRACE:
            signal_all(child.pid, signal.SIGKILL)
        time.sleep(0.2)
    signal_all(child.pid, signal.SIGKILL)  # sub-processes that outlive what started them
    status = child.returncode
    write(
        "exit.json",
        {
            "status": status if status >= 0 else None,
            "signal": -status if status < 0 else None,
            "stopped": bool(stopped_at),
            "ended": int(time.time()),
            "run": run,
        },
    )
    with open("events.jsonl", "a", encoding="utf-8") as events:
        events.write(json.dumps({"event": "ended", "when": int(time.time()), "run": run, "status": status}) + "\n")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(lease)


if __name__ == "__main__":
    main()
