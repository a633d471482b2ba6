"""Runs that are killed at any moment: who works sees nothing of it, the next run brings all to its end.

An upgrade of the tiny stack (tiny_stack.yml) is killed on many servers, each at a moment of its own. To repeat what a
failure printed: KILLS_SEED=<seed> pytest tests/integration/test_kills.py
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from fleet import Fleet
from sandbox import Server

from tests.integration.tiny_run import FILES, PREFIX, TINY_STACK, WORK, play, prepare, started

SEED = int(os.environ.get("KILLS_SEED", random.SystemRandom().randrange(1 << 32)))

OLD = ("-e", "tiny_version=1.0", "-e", "tiny_data=1")
NEW = ("-e", "tiny_version=2.0", "-e", "tiny_data=2")

# Tasks of an upgrade that do something on a server. What writes rests after each of 61 files.
TASKS = (
    *("Look up what the server has", "Begin data", "Fetch data", "Unpack data", "Write data", "Publish data"),
    *("Begin tool", "Write tool", "Publish tool", "Make the generation", "Make the generation current"),
)
WRITES = {"Write data": "/opt/data/2-", "Write tool": "/opt/tool/2.0-"}  # in the command lines of what they start
# Number of files.
WHOLE = {"opt/data/2-*/packed*/*": FILES, "opt/data/2-*/part*/*": 60, "opt/tool/2.0-*/tool/*.py": 61}
PAUSE = 0.4  # seconds: so that a write is still at work when its moment comes, or the next run, on the slowest machine
# Seconds, at most, between the start of a task's module on the server and the kill: about what a module takes, so that
# some are killed at work, some between two calls. A write is always killed at work.
LATEST, LATEST_OF_WRITES = 0.3, 1.5

OF_WORK = ("rounds", "rounds.new", "work.py", "stop")


@dataclasses.dataclass(frozen=True)
class Kill:
    """Who is killed, and when."""

    server: str
    whom: str  # "both" | "server" | "controller": all of its processes | "playbook": only ansible-playbook's first one
    task: str  # "" for after the last
    after: float | None  # seconds after the task's module has started on the server; None: at once, before it starts

    def __str__(self) -> str:
        when = "right before" if self.after is None else f"{self.after:.2f} s into"
        return f"{self.server}: {self.whom} killed {when} {self.task or 'the end'}"

    @property
    def leaves_orphans(self) -> bool:
        """Whether what ran on the server goes on."""
        return self.whom in ("controller", "playbook")


def chosen() -> list[Kill]:
    """A random moment in every task, one after each of the two installs and the generation; and of one side alone."""
    dice = random.Random(SEED)
    moments: list[tuple[str, str, float | None]]
    moments = [("both", task, LATEST) for task in TASKS if task not in WRITES]
    moments += [("both", "Write tool", LATEST_OF_WRITES)]
    moments += [("both", task, None) for task in ("Begin tool", "Make the generation", "")]
    moments += [("server", "Write data", LATEST_OF_WRITES)]
    # These last: what they leave on the server is still at work when the next run comes.
    moments += [("controller", "Write tool", LATEST_OF_WRITES), ("playbook", "Write data", LATEST_OF_WRITES)]
    return [
        Kill(f"server{number}", whom, task, None if latest is None else dice.uniform(0, latest))
        for number, (whom, task, latest) in enumerate(moments, start=1)
    ]


KILLS = chosen()


def descendants(process: int) -> list[int]:
    """Process ids of a process and all that it started, directly or not."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(name))
    found = [process]
    for one in found:
        found += parents.get(one, [])
    return found


class Job:
    """Somebody's work on a server, with the generation that is current when it starts."""

    def __init__(self, fleet: Fleet, server: Server, version: str) -> None:
        self.home = fleet.state / "homes" / server.home_folder
        for name in OF_WORK:
            (self.home / name).unlink(missing_ok=True)
        (self.home / "work.py").write_text(WORK)
        command = f". {PREFIX}/current/activate.sh; exec python3 work.py {version} 2>&1"
        self.process = subprocess.Popen(
            [*fleet.ssh(server), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # ssh's own words about a connection that was killed
            text=True,
        )

    def wait_for_a_round(self) -> None:
        before = self._rounds()
        deadline = time.monotonic() + 60
        while self._rounds() == before:
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _rounds(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.home / "rounds").read_text()
        return ""

    def was_killed(self) -> bool:
        """Whether it ended without a word, as a program that failed does not."""
        said, _ = self.process.communicate(timeout=60)
        assert said == ""
        return self.process.returncode != 0

    def stop(self) -> None:
        (self.home / "stop").touch()
        said, _ = self.process.communicate(timeout=60)
        assert (said, self.process.returncode) == ("", 0)
        for name in OF_WORK:
            (self.home / name).unlink(missing_ok=True)


@dataclasses.dataclass
class Killed:
    """What was seen of a run that was killed."""

    kill: Kill
    busy: list[str]  # command lines of what Ansible ran on the server at that moment
    said: str  # by ansible-playbook, as far as it lived
    status: int
    current: str  # generation right after it
    job: Job  # started right after it, and still working


class Lab:
    """Many servers with the old generation, and what happened to each."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.outside: dict[str, set[str]] = {}

    def prefix(self, server: str) -> Path:
        return self.fleet.state / "homes" / server / PREFIX

    def outside_prefix(self, server: str) -> set[str]:
        """Paths in HOME, /tmp and /var/tmp outside of the prefix."""
        named = self.fleet.named(server)
        return set(self.fleet.snapshot(named, [f"{named.home}/{name}" for name in (PREFIX, *OF_WORK)]))

    def kill(self, kill: Kill) -> Killed:
        """Upgrade one server, and kill that run at its moment."""
        server = self.fleet.named(kill.server)
        job = Job(self.fleet, server, "1.0")
        job.wait_for_a_round()
        pause = PAUSE if kill.task in WRITES else 0
        run = started(self.fleet, TINY_STACK, "--limit", kill.server, *NEW, "-e", f"tiny_pause={pause}")
        assert run.stdout
        said = until_task(run.stdout, kill.task)
        if kill.after is not None:
            self.wait_for_work(server, WRITES.get(kill.task, ""))
            time.sleep(kill.after)
        busy = self.fleet.at_work(server)
        if kill.whom == "playbook":
            run.kill()
        if kill.whom in ("both", "controller"):
            for process in descendants(run.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        if not kill.leaves_orphans:
            self.fleet.kill_all(server)
        current = os.readlink(self.prefix(kill.server) / "current")
        if not kill.leaves_orphans:
            assert job.was_killed(), kill
            job = Job(self.fleet, server, "1.0" if current == "generations/1" else "2.0")
        job.wait_for_a_round()
        rest = "" if kill.leaves_orphans else run.stdout.read()  # a child may hold the pipe open
        return Killed(kill, busy, said + rest, run.wait(), current, job)

    def wait_for_work(self, server: Server, wanted: str) -> None:
        """Return when Ansible runs something on the server in whose command line `wanted` stands."""
        deadline = time.monotonic() + 120
        while not any(wanted in command for command in self.fleet.at_work(server)):
            assert time.monotonic() < deadline, f"nothing was seen at work on {server.name}"
            time.sleep(0.01)


def until_task(stream: IO[str], task: str) -> str:
    """What a run prints until it begins with a task, or with its summary where that is ""."""
    line_of_task = rf"TASK \[(\w+ : )?{re.escape(task)}\]" if task else "PLAY RECAP"
    said = ""
    for line in stream:
        said += line
        if re.match(line_of_task, line):
            return said
    raise AssertionError(f"{task!r} never began:\n{said}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    print(f"KILLS_SEED={SEED}", *KILLS, sep="\n")
    fleet = Fleet(tmp_path_factory.mktemp("f"))
    try:
        fleet.up([Server(kill.server) for kill in KILLS])
        prepare(fleet)
        yield Lab(fleet)
    finally:
        fleet.down()


@pytest.fixture(scope="module")
def killed(lab: Lab) -> list[Killed]:
    """All servers after their kills, with a job on each that goes on."""
    play(lab.fleet, TINY_STACK, *OLD)
    lab.outside = {kill.server: lab.outside_prefix(kill.server) for kill in KILLS}
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lab.kill, KILLS))
    for one in found:
        print(one.kill, *[f"({command[-70:]})" for command in one.busy[-1:]])
    return found


@pytest.fixture(scope="module")
def converged(lab: Lab, killed: list[Killed]) -> str:
    """What the next run says, which finds some builds going on that have lost their run."""
    for one in killed:
        assert bool(lab.fleet.at_work(lab.fleet.named(one.kill.server))) == one.kill.leaves_orphans, one.kill
    said = play(lab.fleet, TINY_STACK, *NEW)
    for one in killed:
        one.job.stop()
    return said


def test_some_are_killed_at_work(killed: list[Killed]) -> None:
    """Not all between two calls, when nothing can be half done."""
    for one in killed:
        if one.kill.task in WRITES:
            assert any(WRITES[one.kill.task] in command for command in one.busy), one.kill
    others = [one for one in killed if one.kill.task not in WRITES and one.kill.after is not None]
    assert sum(bool(one.busy) for one in others) >= 3, [str(one.kill) for one in others]


def test_the_old_generation_works_all_along(killed: list[Killed], converged: str) -> None:
    """The jobs, which ran through kills and the next run, said nothing (Job); and there was always a current one."""
    seen = [one.current for one in killed]
    assert set(seen) <= {"generations/1", "generations/2"}
    assert seen.count("generations/1") >= 10, "too few of the kills came before the upgrade's end"


def test_the_next_run_finishes_what_was_begun(lab: Lab, converged: str) -> None:
    for kill in KILLS:
        prefix = lab.prefix(kill.server)
        assert os.readlink(prefix / "current") == "generations/2", kill
        files = {pattern: len(list(prefix.glob(pattern))) for pattern in WHOLE}
        assert files == WHOLE, kill
    said = play(lab.fleet, TINY_STACK, *NEW, "-e", "stack_deep=true")
    assert said.count("changed=0") == len(KILLS)


def test_nothing_is_left_over(lab: Lab, converged: str) -> None:
    for kill in KILLS:
        prefix = lab.prefix(kill.server)
        found = [str(path) for path in (prefix / "var").rglob("*") if not path.is_dir()]
        assert found == [], kill
        installs = sorted(str(path.relative_to(prefix / "opt")).rpartition("-")[0] for path in prefix.glob("opt/*/*"))
        assert installs == ["data/1", "data/2", "tool/1.0", "tool/2.0"], kill
        assert sorted(os.listdir(prefix / "generations")) == ["1", "2"], kill
        assert set(os.listdir(prefix)) == {".stack.json", "checks", "current", "generations", "opt", "var"}, kill
        left = lab.outside_prefix(kill.server) - lab.outside[kill.server]
        # Before the look-up has told where the prefix is, Ansible can unpack its modules in /tmp only.
        payloads = {path for path in left if path.startswith("/tmp/ansible_stack_lookup_payload_")}
        assert left == (payloads if kill.task == TASKS[0] else set()), kill


def test_a_run_whose_server_died_says_so(killed: list[Killed]) -> None:
    for one in killed:
        if one.kill.whom == "server":
            assert one.status == 4, one.said
            said = " ".join(one.said.split())
            assert re.search(f"{one.kill.server} tiny unreachable (.* closed|the connection broke)", said), said
            assert "1 of 1 servers are not done. When what they say is mended, in this folder:" in said
