"""Rollback, prune, repair and removal on two servers that share a home, over SSH.

The stack is a tiny one (tiny_stack.yml), made by the real mechanism in seconds. The tests tell one story, in order.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from sandbox import Server

from tests.integration.tiny_run import PREFIX, TINY_STACK, WORK, play, prepare, started


class Lab:
    """Two servers with one home, and how to play against them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        [home] = (fleet.state / "homes").iterdir()
        self.home, self.prefix = home, home / PREFIX
        self.before = self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """All that lies in HOME, /tmp and /var/tmp, but what the work counts in."""
        server = self.fleet.named("server1")
        return self.fleet.snapshot(server, [f"{server.home}/rounds", f"{server.home}/rounds.new"])

    def play(self, playbook: str, *arguments: str) -> str:
        """Output, in one line, of a run that succeeds."""
        return play(self.fleet, playbook, *arguments)

    def fails(self, playbook: str, *arguments: str) -> str:
        """Output, in one line, of a run that fails."""
        process = started(self.fleet, playbook, *arguments)
        said, _ = process.communicate()
        assert process.returncode == 2, said
        return " ".join(said.split())

    def install(self, version: str, *arguments: str) -> str:
        return self.play(TINY_STACK, "-e", f"tiny_version={version}", *arguments)

    def current(self) -> str:
        return os.readlink(self.prefix / "current")

    def installs(self) -> set[str]:
        """Installs as <role>/<version>."""
        return {str(path.relative_to(self.prefix / "opt")).rpartition("-")[0] for path in self.prefix.glob("opt/*/*")}

    def published(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each install's receipt, by version."""
        found = {path: path.stat() for path in self.prefix.glob("opt/*/*/receipt.json")}
        return {path.parent.name.rpartition("-")[0]: (info.st_ino, info.st_mtime_ns) for path, info in found.items()}

    def start(self, version: str) -> subprocess.Popen[str]:
        """Work on server2, with the generation that is current now."""
        (self.home / "work.py").write_text(WORK)
        command = f". {PREFIX}/current/activate.sh; exec python3 work.py {version}"
        return subprocess.Popen(
            [*self.fleet.ssh(self.fleet.named("server2")), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rounds(self) -> int:
        path = self.home / "rounds"
        return int(path.read_text()) if path.exists() else 0

    def wait_for_rounds(self, process: subprocess.Popen[str], count: int) -> None:
        deadline = time.monotonic() + 120
        while self.rounds() < count:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, process: subprocess.Popen[str]) -> None:
        """End the work; a failure of it is the test's."""
        (self.home / "stop").touch()
        said, _ = process.communicate(timeout=120)
        for name in ("stop", "rounds", "work.py"):
            (self.home / name).unlink()
        assert process.returncode == 0, said


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    fleet = Fleet(tmp_path_factory.mktemp("f"))
    try:
        fleet.up([Server(name, shared_home="lab") for name in ("server1", "server2")])
        prepare(fleet)
        yield Lab(fleet)
    finally:
        fleet.down()


def changes(output: str) -> int:
    """Changed tasks of all servers, from the recap."""
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def test_whoever_works_sees_nothing_of_upgrade_and_prune(lab: Lab) -> None:
    lab.install("1.0")
    worker = lab.start("1.0")
    lab.wait_for_rounds(worker, 3)
    lab.install("2.0")
    assert lab.current() == "generations/2"
    output = lab.play("playbooks/prune.yml", "-e", "prune_keep=0")
    assert re.search(r"kept generations/1: process \d+ on server2 \(python3 work.py 1.0\)", output)
    assert lab.installs() == {"data/1", "tool/1.0", "tool/2.0"}
    lab.wait_for_rounds(worker, lab.rounds() + 3)
    lab.stop(worker)


def test_prune_removes_what_nobody_uses_any_more(lab: Lab) -> None:
    output = lab.play("playbooks/prune.yml", "-e", "prune_keep=0")
    assert "removed generations/1" in output and "freed 0." in output
    assert "server1 shares this prefix and does it." in output
    assert lab.installs() == {"data/1", "tool/2.0"}
    assert os.listdir(lab.prefix / "generations") == ["2"]


def test_rollback_moves_current_back_once(lab: Lab) -> None:
    """Two servers share `current`, and the second one must not go back once more."""
    lab.install("1.0")
    assert lab.current() == "generations/3"
    assert "Generation 2 would become current" in lab.play("playbooks/rollback.yml", "--check")
    assert lab.current() == "generations/3"
    output = lab.play("playbooks/rollback.yml")
    assert "generation 3 (current), made 20" in output and "Generation 2 is current now." in output
    assert "The next run of site.yml brings back" in output
    assert lab.current() == "generations/2"
    lab.install("1.0")
    assert lab.current() == "generations/3"


def writable(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A change to a file of an install, as by somebody who takes the protection away first."""

    def changed(path: Path) -> None:
        folder = path.parent.stat().st_mode
        path.parent.chmod(0o755)
        path.chmod(0o644)
        change(path)
        if path.exists() and path.stat().st_mode & 0o777 == 0o644:
            path.chmod(0o444)
        path.parent.chmod(folder)

    return changed


def flip(path: Path) -> None:
    """Change one bit and put the times back: no stat shows it."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


DAMAGE = {
    "deleted": Path.unlink,
    "truncated": lambda path: os.truncate(path, 1),
    "opened to all": lambda path: path.chmod(0o666),
}


def damage(install: Path, kinds: list[Callable[[Path], object]], count: int) -> None:
    """Damage `count` random files of an install, each in one of the ways of `kinds`."""
    files = [
        path for path in sorted(install.rglob("*")) if path.is_file() and path.suffix != ".json" and path.stat().st_size
    ]
    for number, path in enumerate(random.sample(files, count)):
        writable(kinds[number % len(kinds)])(path)


def test_only_what_is_broken_is_rebuilt(lab: Lab) -> None:
    """What a stat shows by the next run, what content alone shows by one that re-hashes; verify names all of both."""
    random.seed(50)
    [tool], [data] = lab.prefix.glob("opt/tool/1.0-*"), lab.prefix.glob("opt/data/1-*")
    before = lab.published()
    damage(tool, [*DAMAGE.values(), flip], 25)
    damage(data, [flip], 25)

    def rebuilt(since: dict[str, tuple[int, int]]) -> set[str]:
        return {name for name, receipt in lab.published().items() if receipt != since[name]}

    said = lab.fails(TINY_STACK, "-e", "tiny_version=1.0", "--tags", "verify")
    assert "tool is damaged: " in said and "data is damaged: " in said and "has other content" in said
    assert rebuilt(before) == set()
    lab.install("1.0")
    assert rebuilt(before) == {"1.0"}
    repaired = lab.published()
    said = lab.fails(TINY_STACK, "-e", "tiny_version=1.0", "--tags", "verify")
    assert "data is damaged: " in said and "tool is" not in said and "and 22 more" in said
    lab.install("1.0", "-e", "stack_deep=true")
    assert rebuilt(repaired) == {"1"}
    lab.install("1.0", "--tags", "verify")
    assert lab.current() == "generations/3"


def test_remove_leaves_the_account_as_it_was(lab: Lab) -> None:
    installed = lab.snapshot()
    assert "Nothing was removed. To do it: -e remove=yes" in lab.play("playbooks/remove.yml")
    assert lab.snapshot() == installed
    assert changes(lab.play("playbooks/remove.yml", "-e", "remove=yes")) == 1
    assert lab.snapshot() == lab.before
