"""Running the tiny stack, and playbooks that work on it, against throwaway servers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from fleet import Fleet

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "detectron/tiny"  # below HOME, by the default of stack_prefix
AT_ONCE = {"ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"}  # else Ansible names a task when it has ended, not when it begins
TINY_STACK = "tests/integration/tiny_stack.yml"
FILES = 500  # in the archive of `data`: so many that a kill can hit their unpacking and publishing
PATIENCE = 1500  # seconds: a run takes one minute, but a build that went wrong may be waited for without end

# A job: imports all of a package anew, over and over, counts the rounds, and reads what is current, as one does that
# starts workers for days.
WORK = """
import importlib, os, sys, time
sys.dont_write_bytecode = True
rounds = 0
while not os.path.exists("stop"):
    for number in range(60):
        module = importlib.import_module(f"tool.part{number}")
        assert module.version == sys.argv[1], module.version
    for name in [name for name in sys.modules if name.startswith("tool")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    assert "DETECTRON_GENERATION" in open("detectron/tiny/current/activate.sh").read()
    rounds += 1
    with open("rounds.new", "w") as stream:
        stream.write(str(rounds))
    os.rename("rounds.new", "rounds")
    time.sleep(0.3)
"""


def prepare(fleet: Fleet) -> None:
    """Write an inventory, a lock, and a mirror that holds what the lock names, beside the fleet."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(FILES):
            member = tarfile.TarInfo(f"packed{number % 7}/{number}")
            member.size = 50 * len(str(number))
            archive.addfile(member, io.BytesIO(str(number).encode() * 50))
    content = packed.getvalue()
    file = {"filename": "data.tar", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    mirrored = fleet.state / "mirror/sha256" / str(file["sha256"]) / "data.tar"
    mirrored.parent.mkdir(parents=True)
    mirrored.write_bytes(content)
    lock = fleet.state / "group_vars/stack_tiny/lock.json"
    lock.parent.mkdir(parents=True)
    mirror = f"controller:{fleet.state}/mirror"
    lock.write_text(json.dumps({"stack_lock": {"name": "tiny", "data": file}, "stack_mirror": mirror}))
    (fleet.state / "inventory.yml").write_text(json.dumps(fleet.inventory({"stack_tiny": []})))


def started(
    fleet: Fleet, playbook: str, *arguments: str, inventory: Path | None = None, folder: Path = ROOT
) -> subprocess.Popen[str]:
    """A run that has begun, in `folder`; both of its streams come in `stdout`. By default with the inventory of
    `prepare`."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    return subprocess.Popen(
        [program, "--inventory", str(inventory or fleet.state / "inventory.yml"), str(ROOT / playbook), *arguments],
        env=os.environ
        | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "COLUMNS": "1000", "PWD": str(folder), **AT_ONCE},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def play(fleet: Fleet, playbook: str, *arguments: str) -> str:
    """Output, in one line, of a run that succeeds."""
    process = started(fleet, playbook, *arguments)
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"The run does not end:\n{process.communicate()[0]}") from None
    assert process.returncode == 0, said
    return " ".join(said.split())
