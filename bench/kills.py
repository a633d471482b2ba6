#!/usr/bin/env python3
"""Kill runs of site.yml on a throwaway server, and see that the next run brings each to its end.

    .venv/bin/python bench/kills.py [--kills 10] [--after ROLE …] [--seed 1]

Wants a filled mirror (`make demo` fills it), 8 GB of disk, and some minutes for each kill. Installs stack_cuda90_wheel.
Then, for each kill, upgrades to a stack in which every install has another version (the same bytes under another name,
so that all roles build anew), ends all processes of the server and of the run with SIGKILL, and runs the same command
again. Meanwhile a job imports Caffe2 and the mask operators from the old generation, over and over, started anew after
the kill. Prints a line for each; exit status 1 when the job failed, the next run did, or anything is left over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/fleet"))

from fleet import Fleet  # noqa: E402
from sandbox import Server  # noqa: E402

STATE = ROOT / ".fleet/kills"
SERVER = Server("server1")
STACK = "cuda90_wheel"
ROLES = ("nvidia_libs", "anaconda2", "caffe2", "cocoapi", "detectron", "activation")
VERSIONED = ("nvidia_libs", "anaconda2", "caffe2")  # what is built against them changes with them
JOB = """
. detectron/cuda90_wheel/current/activate.sh
while [ ! -e stop ]; do
  python -c 'from caffe2.python import workspace; import pycocotools.mask, detectron' 2>&1 | grep -E 'Error|Traceback'
  [ -e detectron/cuda90_wheel/current/activate.sh ] || echo there is no current generation
  date > round
done
"""


class Lab:
    """The server, and its runs."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.home = fleet.state / "homes" / SERVER.home_folder
        self.prefix = self.home / "detectron" / STACK
        self.job: subprocess.Popen[str] | None = None
        self.lock = yaml.safe_load((ROOT / f"group_vars/stack_{STACK}/lock.yml").read_text())["stack_lock"]

    def start(self, number: int) -> tuple[subprocess.Popen[bytes], Path]:
        """Begin a run that wants the stack's variant `number`; returns it and where its output goes."""
        lock = {**self.lock, **{role: dict(self.lock[role]) for role in VERSIONED}}
        for role in VERSIONED:
            lock[role]["version"] = f"{self.lock[role]['version']}-{number}"
        variant, log = self.fleet.state / "variant.json", self.fleet.state / f"run{number}.log"
        variant.write_text(json.dumps({"stack_lock": lock}))
        with log.open("ab") as stream:
            run = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ansible-playbook")),
                    *("-i", f"{self.fleet.state}/inventory.yml", "-e", f"@{ROOT}/mirror/sources.yml"),
                    *("-e", f"@{variant}", str(ROOT / "site.yml")),
                ],
                # Skipped ones are shown so that Ansible names a task when it begins, instead of when it has ended.
                env=os.environ
                | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
                | {"ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return run, log

    def run(self, number: int) -> float:
        """A run to its end; returns its seconds. Raises CalledProcessError."""
        started = time.monotonic()
        run, log = self.start(number)
        if run.wait():
            raise SystemExit(f"The run failed, see {log}:\n{log.read_text()[-3000:]}")
        return time.monotonic() - started

    def work(self) -> None:
        """Start the job with the generation that is current now, and wait for its first round."""
        for name in ("round", "stop"):
            (self.home / name).unlink(missing_ok=True)
        command = [*self.fleet.ssh(SERVER), JOB]
        self.job = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        while not (self.home / "round").exists():
            if self.job.poll() is not None:
                raise SystemExit(f"The job ended: {self.job.communicate()[0]}")
            time.sleep(0.2)

    def complaints(self) -> str:
        """What the job has said until its end, which is now."""
        assert self.job
        (self.home / "stop").touch()
        return self.job.communicate()[0].strip()

    def current(self) -> str:
        return os.readlink(self.prefix / "current")

    def leftovers(self) -> list[str]:
        """Files of runs, and installs without a receipt."""
        var = [
            path for folder in ("tmp", "lease", "cache/sha256") for path in (self.prefix / "var" / folder).rglob("*")
        ]
        unfinished = [path for path in self.prefix.glob("opt/*/*") if not (path / "receipt.json").exists()]
        found = [*unfinished, *(path for path in var if not path.is_dir()), *self.prefix.glob(".current.*")]
        outside = [*(self.fleet.folder(SERVER) / "tmp").iterdir(), *(self.fleet.folder(SERVER) / "var_tmp").iterdir()]
        return [str(path.relative_to(self.fleet.state)) for path in [*found, *outside]]


def last_task(log: Path) -> str:
    """The task that a run has begun last."""
    tasks = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("TASK [")]
    return tasks[-1].partition("[")[2].partition("]")[0] if tasks else "start"


def newest(commands: list[str]) -> str:
    """What the server was busy with, in few words: the last started of what Ansible ran."""
    words = commands[-1].split()
    return " ".join(word.rpartition("/")[2] for word in words)[:70]


def kill(lab: Lab, number: int, seconds: float, after_role: str) -> tuple[str, str]:
    """Upgrade, and kill that run at the first moment with work on the server `seconds` after its start, or right after
    a role. Returns (moment, what ran)."""
    run, log = lab.start(number)
    started, ended = time.monotonic(), False
    busy: list[str] = []
    while after_role and run.poll() is None and not ended:
        text = log.read_text(errors="replace")
        ended = f"TASK [{after_role} : " in text and not last_task(log).startswith((f"{after_role} : ", "start"))
        time.sleep(0.1)
    while not after_role and run.poll() is None and not busy:
        time.sleep(0.1)
        if time.monotonic() > started + seconds:
            busy = lab.fleet.at_work(SERVER)
    if run.poll() is not None:
        lab.fleet.kill_all(SERVER)
        return "its end", f"nothing (after {after_role})" if after_role else "nothing"
    moment, task = f"{time.monotonic() - started:.0f} s", last_task(log)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    lab.fleet.kill_all(SERVER)
    run.wait()
    return moment, f"{task} (after {after_role})" if after_role else f"{task}: {newest(busy)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="at random moments")
    parser.add_argument(
        "--after", nargs="*", default=[], choices=ROLES, help="also one right after each of these roles"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    print(f"--seed {options.seed}", flush=True)
    STATE.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(STATE)
    fleet.up([SERVER])
    failed = 0
    try:
        (STATE / "inventory.yml").write_text(json.dumps(fleet.inventory({f"stack_{STACK}": []})))
        lab = Lab(fleet)
        whole = lab.run(0)
        print(f"first install: {whole:.0f} s", flush=True)
        moments = [(whole * (number + dice.random()) / options.kills, "") for number in range(options.kills)]
        moments += [(0.0, role) for role in options.after]
        for number, (seconds, role) in enumerate(moments, start=1):
            before = lab.current()
            lab.work()
            moment, task = kill(lab, number, seconds, role)
            assert lab.job
            said = lab.job.communicate()[0].strip()
            between = lab.current()
            lab.work()
            took = lab.run(number)
            said += lab.complaints()
            left = lab.leftovers()
            # A run that is killed after activation, or not before its end, has put its generation into use already.
            good = not said and not left and between in (before, lab.current()) and before != lab.current()
            failed += not good
            print(
                f"{'ok ' if good else 'BAD'} killed at {moment:>7} in {task}: {between} is current; "
                f"next run {took:.0f} s, {lab.current()} {left or ''} {said}",
                flush=True,
            )
            subprocess.run(
                [
                    str(Path(sys.executable).with_name("ansible-playbook")),
                    *("-i", f"{STATE}/inventory.yml", "-e", "prune_keep=0", str(ROOT / "playbooks/prune.yml")),
                ],
                env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                check=True,
                stdout=subprocess.DEVNULL,
            )
    finally:
        fleet.down()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
