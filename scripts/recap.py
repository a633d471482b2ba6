#!/usr/bin/env python3
"""Fail unless a run of ansible-playbook changed nothing. Usage: recap.py LOG_FILE

Reads the PLAY RECAP in what the run printed, with or without colours.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOST = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=\d+(?:\s+\w+=\d+)+)\s*$", re.MULTILINE)


def counts_by_host(log: str) -> dict[str, dict[str, int]]:
    """The counts of each host in the last PLAY RECAP: {"server1": {"ok": 5, "changed": 0, …}}; empty without one."""
    _, _, recap = COLOUR.sub("", log).rpartition("PLAY RECAP ")
    return {
        found["host"]: {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", found["counts"])}
        for found in HOST.finditer(recap)
    }


def complaint(log: str) -> str:
    """Why this run is not one that changed nothing, or an empty string."""
    hosts = counts_by_host(log)
    if not hosts:
        return "The run ended without a PLAY RECAP, or had no hosts."
    bad = [
        f"{host}: {name}={counts[name]}"
        for host, counts in hosts.items()
        for name in ("changed", "unreachable", "failed")
        if counts[name]
    ]
    return f"The run should have changed nothing, but: {', '.join(bad)}." if bad else ""


def main() -> int:
    """Exit status 0 when nothing changed."""
    path = Path(sys.argv[1])
    if found := complaint(path.read_text()):
        print(f"{found} Its tasks marked `changed:` are in {path}.", file=sys.stderr)
        return 1
    print("The run changed nothing.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
