"""One command over many servers: two stacks, shared homes, and servers that fail, are unreachable, or are lost midway.

The stacks are tiny ones (tiny_stack.yml), made by the real mechanism in seconds, over SSH.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest
from fleet import Fleet
from sandbox import Server

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = "tests/integration/tiny_stack.yml"
GROUPS = {
    "stack_tiny": ["tiny1", "tiny2", "offline", "plain", "full", "gone"],
    "stack_small": ["small1", "small2"],
}
CONVERGED = ["offline", "plain", "small1", "small2", "tiny1", "tiny2"]
BALLAST = 30_000_000  # bytes; with the ones of an install more than the disk of `full` has
DISK = 40_000_000


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: int
    output: str

    def recap(self, count: str) -> dict[str, int]:
        """Of each server that number of the play recap: {"plain": 3}."""
        return {name: int(number) for name, number in re.findall(rf"^(\S+) +: ok=.* {count}=(\d+)", self.output, re.M)}

    def row(self, server: str) -> str:
        """What the table of servers says of one, in one line."""
        table = self.output.rpartition("SERVERS ***")[2]
        found = re.search(rf"^{server} +(\S.*(?:\n  +\S.*)*)", table, re.M)
        assert found, self.output
        return " ".join(found[1].split())

    def resume(self) -> str:
        """The command that the last screen names, as a person would copy it."""
        found = re.search(r"in this folder:\n((?:  .*\n?)+)", self.output)
        assert found, self.output
        return found[1]


class Lab:
    """A fleet, and how to play against it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "COLUMNS": "100",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def command(self, *arguments: str) -> list[str]:
        inventory = f"{self.fleet.state}/inventory.yml"
        return ["ansible-playbook", "-i", inventory, "-e", "tiny_version=1.0", *arguments, PLAYBOOK]

    def play(self, *arguments: str) -> Outcome:
        return self.run(self.command(*arguments))

    def run(self, command: list[str]) -> Outcome:
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Outcome(done.returncode, done.stdout)

    def start(self, log: IO[str], *arguments: str) -> subprocess.Popen[str]:
        """A run in the background."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def home(self, server: str) -> Path:
        return self.fleet.state / "homes" / self.fleet.named(server).home_folder

    def shell(self, server: str, program: str) -> str:
        login = [*self.fleet.ssh(self.fleet.named(server)), "/bin/sh -e"]
        return subprocess.run(login, input=program, check=True, capture_output=True, text=True).stdout

    def kill(self, server: str) -> None:
        """The whole server at once, as by a power cut."""
        process = self.fleet.process_id(self.fleet.named(server))
        assert process
        os.kill(process, signal.SIGKILL)

    def revive(self, server: str) -> None:
        deadline = time.monotonic() + 120
        while self.fleet.process_id(self.fleet.named(server)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        self.fleet.up([*self.fleet.servers.values()])

    def published(self, server: str) -> dict[str, int]:
        """When each install of a home was published."""
        receipts = self.home(server).glob("detectron/*/opt/*/*/receipt.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in receipts}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    fleet = Fleet(tmp_path_factory.mktemp("f"))
    servers = [
        *(Server(name, shared_home="tiny") for name in ("tiny1", "tiny2")),
        *(Server(name, shared_home="small") for name in ("small1", "small2")),
        Server("offline", network=False),
        Server("plain"),
        Server("full", home_size=DISK),
        Server("gone"),
    ]
    try:
        fleet.up(servers)
        (fleet.state / "inventory.yml").write_text(json.dumps(fleet.inventory(GROUPS)))
        for group in GROUPS:
            lock = fleet.state / "group_vars" / group / "lock.yml"
            lock.parent.mkdir(parents=True)
            lock.write_text(f"stack_lock: {{name: {group.removeprefix('stack_')}}}\n")
        yield Lab(fleet)
    finally:
        fleet.down()


@pytest.fixture(scope="module")
def first(lab: Lab) -> Outcome:
    """One command for all eight, of which one is down and one has too little space."""
    lab.kill("gone")
    lab.shell("full", f"head -c {BALLAST} /dev/zero >ballast")
    return lab.play("-e", "tiny_bytes=20000000", "-e", "a_password=hunter2")


def test_servers_that_fail_do_not_stop_the_others(first: Outcome) -> None:
    assert first.status != 0
    assert first.recap("failed") == dict.fromkeys(CONVERGED, 0) | {"full": 1, "gone": 0}
    assert first.recap("unreachable") == dict.fromkeys([*CONVERGED, "full"], 0) | {"gone": 1}


@pytest.mark.parametrize("stack", ["tiny", "small"])
def test_work_on_a_shared_home_is_done_once_and_the_other_says_for_whom_it_waits(first: Outcome, stack: str) -> None:
    servers = {f"{stack}1", f"{stack}2"}
    for role in ("data", "tool"):
        [(waiter, builder)] = re.findall(rf"\[({stack}.)\] {role}: (\S+) \(run from .*\) builds it", first.output)
        assert {waiter, builder} == servers
        assert re.search(rf"installed .*{role} 1", first.row(builder))
        assert re.search(rf"reused .*{role}.* from {builder}", first.row(waiter))
    assert all(f"{server} {stack} " in f"{server} {first.row(server)}" for server in servers)


def test_the_last_screen_says_which_failed_and_why(first: Outcome) -> None:
    assert first.row("plain").startswith("tiny changed installed data 1, tool 1.0")
    unreachable = first.row("gone")
    assert re.match(r"tiny unreachable ssh: connect to host \S+ port \d+: Connection refused$", unreachable), (
        unreachable
    )
    full = first.row("full")
    assert full.startswith("tiny FAILED ")
    assert "No space left on device [Write data] The disk is full: data needs 0 MB below /home/" in full
    assert "Free some space there, or set stack_prefix to a folder on a larger disk." in full
    assert all(len(line) <= 100 for line in first.output.rpartition("SERVERS ***")[2].splitlines())


def test_what_failed_of_a_full_disk_leaves_nothing_half_built(lab: Lab, first: Outcome) -> None:
    assert "2 of 8 servers are not done." in first.output
    assert lab.shell("full", "cd detectron/tiny; ls opt/data var/lease var/tmp/full; ls -A generations").split() == [
        *("opt/data:", "var/lease:", "var/tmp/full:")
    ]


def test_no_secret_is_on_the_last_screen(first: Outcome) -> None:
    assert "-e a_password=HIDDEN" in first.resume()
    assert "hunter2" not in first.output


def test_the_command_that_it_names_converges_the_rest_and_then_nothing_changes(lab: Lab, first: Outcome) -> None:
    assert "--limit full,gone" in first.resume()
    lab.revive("gone")
    lab.shell("full", "rm ballast")
    before = lab.published("tiny1") | lab.published("small1") | lab.published("plain")
    resumed = lab.run(["/bin/sh", "-c", first.resume()])
    assert resumed.status == 0, resumed.output
    assert set(resumed.recap("changed")) == {"full", "gone"}
    again = lab.play("-e", "tiny_bytes=20000000")
    assert again.status == 0, again.output
    assert set(again.recap("changed").values()) == {0}
    assert {again.row(server).split()[1] for server in (*CONVERGED, "full", "gone")} == {"ok"}
    assert lab.published("tiny1") | lab.published("small1") | lab.published("plain") == before


def test_one_server_after_the_other_does_not_lock_itself_out(lab: Lab, first: Outcome) -> None:
    done = lab.play("-e", "tiny_version=2.0", "-e", "stack_serial=1", "--forks=1", "--limit=tiny1,tiny2")
    assert done.status == 0, done.output
    assert "installed tool 2.0" in done.row("tiny1")
    assert "waits for" not in done.output


# --- A builder that is lost while another waits -----------------------------------------------------------------------


def wait_until(true: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def is_built(prefix: Path) -> bool:
    """Whether all files of the new tool are there, of which nothing is published."""
    return any(prefix.glob("opt/tool/3.0-*/tool/part59.py"))


@pytest.fixture(scope="module")
def lost(lab: Lab, first: Outcome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Two stories at once, each on a shared home, since both take half a minute.

    killed: the run that builds on tiny1 is killed while another run waits on tiny2; its last command is still at work.
    power cut: small1 or small2 is lost while the other one waits in the same run.
    """
    folder = tmp_path_factory.mktemp("logs")
    logs = {name: folder / name for name in ("killed", "waiting", "power cut")}
    new = ["-e", "tiny_version=3.0", "-e", "tiny_until=go", "--limit"]
    with logs["killed"].open("w") as one, logs["waiting"].open("w") as two, logs["power cut"].open("w") as three:
        building = lab.start(one, *new, "tiny1")
        cut = lab.start(three, *new, "small1,small2")
        working = [lab.home(server) / "detectron" / stack for server, stack in (("tiny1", "tiny"), ("small1", "small"))]
        for prefix, log in zip(working, (logs["killed"], logs["power cut"]), strict=True):
            wait_until(partial(is_built, prefix), log)

        builder = re.findall(r"^\[small.\] tool: (small\d) ", logs["power cut"].read_text(), re.M)
        lab.kill(builder[-1])
        waiting = lab.start(two, *new, "tiny2")
        wait_until(lambda: "waits for tiny1" in logs["waiting"].read_text(), logs["waiting"])
        building.kill()
        building.wait()
        wait_until(lambda: ", whose run has died, " in logs["waiting"].read_text(), logs["waiting"])
        assert list(working[0].glob("var/lease/tool-*.json")), "what it left running still writes there"
        for server in ("tiny2", "small1"):
            (lab.home(server) / "go").touch()
        statuses = {"waiting": waiting.wait(), "power cut": cut.wait()}
    return {name: Outcome(status, logs[name].read_text()) for name, status in statuses.items()}


def test_who_waits_for_a_run_that_was_killed_takes_its_place_when_its_last_command_has_ended(
    lost: dict[str, Outcome],
) -> None:
    waited = lost["waiting"]
    assert waited.status == 0, waited.output
    assert re.search(
        r"^\[tiny2\] tool: waits for tiny1 \(run from \S+, process \d+, since [0-9:]{8}\), whose run has died, "
        r"\d+ s so far; last heartbeat \d+ s ago$",
        waited.output,
        re.M,
    ), waited.output
    assert "tool: tiny1" in waited.output and "does not go on with it" in waited.output
    assert "installed tool 3.0" in waited.row("tiny2")


def test_who_waits_for_a_server_that_is_gone_takes_its_place_in_the_same_run(lost: dict[str, Outcome]) -> None:
    cut = lost["power cut"]
    gone, left = sorted(("small1", "small2"), key=lambda server: "unreachable" not in cut.row(server))
    assert cut.recap("unreachable") == {gone: 1, left: 0}, cut.output
    assert cut.recap("failed") == {gone: 0, left: 0}, cut.output
    assert "installed tool 3.0" in cut.row(left)
    assert cut.resume().strip().endswith(f"--limit {gone}")
