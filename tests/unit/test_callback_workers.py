"""A run that is killed does not go on working."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def children(process: int) -> set[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return set(map(int, text.split()))


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


def test_a_worker_ends_with_its_run(tmp_path: Path) -> None:
    task = {
        "name": "Work",
        "ansible.builtin.command": f"touch {tmp_path}/{{{{ item }}}}",
        "loop": "{{ range(99) | list }}",
    }
    play = {"name": "Work long", "hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml")]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    try:
        while not (tmp_path / "1").exists():
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.05)
        workers = children(run.pid)
    finally:
        run.kill()
        run.wait()
    assert workers
    time.sleep(0.5)
    assert [worker for worker in workers if not ended(worker)] == []
