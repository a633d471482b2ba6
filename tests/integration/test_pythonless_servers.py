"""Two servers that share a home and have no Python at all: one whose login is a csh with a narrow umask, and another.

The stack is a tiny one (tiny_stack.yml); the Python is the real one of the mirror. The tests tell one story, in order.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from sandbox import Server

ROOT = Path(__file__).resolve().parents[2]
MIRROR = ROOT / "mirror"


class Lab:
    """Two servers with one home, and how to play against them."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        [home] = (fleet.state / "homes").iterdir()
        self.prefix = home / "detectron/tiny"  # by the default of stack_prefix
        self.before = self.snapshot()

    def snapshot(self) -> dict[str, Any]:
        """All that lies in HOME, /tmp and /var/tmp."""
        return self.fleet.snapshot(self.fleet.named("server1"), [])

    def start(self, playbook: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("--inventory", str(self.fleet.state / "inventory.yml"), str(ROOT / playbook), *arguments),
            ],
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "1000"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def play(self, playbook: str, *arguments: str, fails: bool = False) -> str:
        """Output, in one line, of a run that succeeds, or fails where it should."""
        run = self.start(playbook, *arguments)
        said = run.communicate()[0]
        assert (run.returncode != 0) == fails, said
        return " ".join(said.split())

    def install(self, *arguments: str, **options: bool) -> str:
        return self.play("tests/integration/tiny_stack.yml", "-e", "tiny_version=1.0", *arguments, **options)

    def pythons(self) -> list[str]:
        return sorted(path.name for path in self.prefix.glob("var/python3/*"))

    def sessions(self) -> list[int]:
        """SSH sessions of each server since the last call."""
        found = []
        for server in self.fleet.servers.values():
            found.append(self.fleet.calls(server)["sessions"])
            self.fleet.reset_calls(server)
        return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    fleet = Fleet(tmp_path_factory.mktemp("f"))
    try:
        fleet.up(
            [
                Server("server1", shared_home="lab", python="none", shell="/bin/csh", umask="0077"),
                Server("server2", shared_home="lab", python="none"),
            ]
        )
        inventory = fleet.inventory({"stack_tiny": []})
        inventory["all"]["vars"]["bootstrap_python"] = True
        (fleet.state / "inventory.yml").write_text(json.dumps(inventory))
        lock = fleet.state / "group_vars/stack_tiny/lock.yml"
        lock.parent.mkdir(parents=True)
        lock.write_text("stack_lock: {name: tiny}\n")
        yield Lab(fleet)
    finally:
        fleet.down()


def changes(output: str) -> int:
    """Changed tasks of all servers, from the recap."""
    return sum(map(int, re.findall(r"changed=(\d+)", output)))


def test_check_mode_says_what_it_cannot_tell_and_writes_nothing(lab: Lab) -> None:
    output = lab.install("--check", "--diff")
    assert output.count("Would put Python 3.9.2 into /home/researcher/detectron/tiny/var/python3/3.9.2-") == 2
    assert "What else would be done there cannot be told before" in output
    assert lab.snapshot() == lab.before


def test_a_tampered_archive_is_refused(lab: Lab, tmp_path: Path) -> None:
    """Its record in the mirror tells the sum that it should have; one bit is another."""
    [archive] = MIRROR.glob("built/*/python3-3.9.2.tar.gz")
    copy = tmp_path / "built" / archive.parent.name
    shutil.copytree(archive.parent, copy)
    shutil.copy(MIRROR / "manifest.json", tmp_path)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    (copy / archive.name).write_bytes(content)
    wrong = ("-e", f"stack_mirror=controller:{tmp_path}", "-e", "stack_upstream=false", "--limit=server1")
    output = lab.install(*wrong, fails=True)
    assert "does not have the sha256 that it should, so nothing was unpacked" in output
    assert lab.pythons() == []
    assert not list(lab.prefix.glob("var/tmp/*/*/python"))


def test_a_run_that_is_killed_leaves_no_python_and_the_next_one_goes_on(lab: Lab) -> None:
    killed = set(lab.prefix.glob("var/tmp/*/*/archive"))
    run = lab.start("tests/integration/tiny_stack.yml", "-e", "tiny_version=1.0")
    deadline = time.monotonic() + 120
    while not set(lab.prefix.glob("var/tmp/*/*/archive")) - killed:
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()[0]
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    lab.install()
    [python] = lab.pythons()
    assert python.startswith("3.9.2-")
    assert os.readlink(lab.prefix / "current") == "generations/1"


def test_a_second_run_changes_nothing_and_looks_once(lab: Lab) -> None:
    before = lab.snapshot()
    assert changes(lab.install()) == 0
    lab.sessions()
    lab.install("--tags", "bootstrap", "--limit=server1")
    assert lab.sessions()[0] == 2  # for the Python, and for the stack
    assert lab.snapshot() == before


def test_what_was_damaged_is_replaced(lab: Lab) -> None:
    [library] = lab.prefix.glob("var/python3/*/lib/python3.9/xmlrpc")
    library.chmod(0o755)
    (library / "client.py").unlink()
    assert "lib/python3.9/xmlrpc/client.py is missing" in lab.install("--tags=verify", "--limit=server1", fails=True)
    assert changes(lab.install("--tags", "bootstrap")) in (1, 2)  # two servers, one Python
    assert len(lab.pythons()) == 1


def test_prune_keeps_the_python_that_it_runs_on(lab: Lab) -> None:
    output = lab.play("playbooks/prune.yml")
    assert re.search(r"kept var/python3/3.9.2-\w+: the modules of this run run on it", output)
    assert len(lab.pythons()) == 1


def test_remove_leaves_the_account_as_it_was(lab: Lab) -> None:
    """The Python goes that the removal runs on, and the next play says that nothing is there."""
    assert changes(lab.play("playbooks/remove.yml", "-e", "remove=yes")) == 1
    assert lab.snapshot() == lab.before
    output = lab.play("playbooks/remove.yml", "-e", "remove=yes")
    assert "Nothing is installed in /home/researcher/detectron/tiny" in output
    assert lab.snapshot() == lab.before
