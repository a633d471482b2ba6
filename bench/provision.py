#!/usr/bin/env python3
"""Time site.yml on throwaway servers: the first run, and a second one that has nothing to do.

    .venv/bin/python bench/provision.py [--servers 3] [--shared-home 0]

Wants a filled mirror (`make demo` fills it). Prints, for each run, its wall time, the CPU time of this machine's
processes that it waited for (controller and SSH clients; not the servers' own), and what each server was asked.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = ".fleet/bench"
BIN = Path(sys.executable).parent


def fleet(*arguments: str) -> str:
    """Run the test fleet's program and return what it prints."""
    command = [sys.executable, "tests/fleet/fleet.py", arguments[0], "--state", STATE, *arguments[1:]]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def provision(log: Path) -> tuple[float, float]:
    """Run site.yml; its output goes to `log`. Returns (wall, CPU) in seconds; raises CalledProcessError."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [BIN / "ansible-playbook", "-i", f"{STATE}/inventory.yml", "-e", "@mirror/sources.yml", "site.yml"]
    with log.open("w") as stream:
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        subprocess.run(command, cwd=ROOT, check=True, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--shared-home", type=int, default=0, help="how many of them share one home")
    options = parser.parse_args()
    names = [f"server{number}" for number in range(1, options.servers + 1)]
    shared = ["--shared-home", str(options.shared_home)] if options.shared_home else []
    fleet("up", "--servers", str(options.servers), *shared)
    try:
        fleet("inventory", "--group", "stack_cuda90_wheel")
        print(f"{options.servers} server(s), {options.shared_home or 'none'} of them with one home")
        for run in ("first run", "second run"):
            for name in names:
                fleet("calls", name, "--reset")
            wall, cpu = provision(ROOT / STATE / f"{run.split()[0]}.log")
            calls = [json.loads(fleet("calls", name))["sessions"] for name in names]
            print(f"{run:10}  {wall:6.1f} s wall  {cpu:6.1f} s CPU  remote calls {' '.join(map(str, calls))}")
    finally:
        fleet("down")


if __name__ == "__main__":
    main()
