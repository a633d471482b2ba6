"""What a server tells of itself and of its prefix."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ansible.module_utils.stack_installs import publish
from ansible.module_utils.stack_lookup import current_generation, processes_at, seen_at


def sleeping(cwd: Path, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command or ("sleep", "600"), cwd=cwd)


def test_processes_are_found_by_folder_program_argument_and_open_file(tmp_path: Path) -> None:
    install, elsewhere = tmp_path / "install", tmp_path / "elsewhere"
    (install / "bin").mkdir(parents=True)
    elsewhere.mkdir()
    shutil.copy(shutil.which("sleep") or "", install / "bin" / "sleep")
    with (install / "log").open("w") as log:
        processes = [
            sleeping(install / "bin"),
            sleeping(elsewhere, str(install / "bin" / "sleep"), "60"),
            sleeping(elsewhere, sys.executable, "-c", "import time; time.sleep(600)", f"--prefix={install}"),
            subprocess.Popen(["sleep", "600"], stdout=log, cwd=elsewhere),
        ]
    other = sleeping(elsewhere)
    try:
        deadline = time.monotonic() + 60
        while not (found := set(processes_at(str(install)))) >= {process.pid for process in processes}:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not {other.pid, os.getpid()} & found
    finally:
        for process in (*processes, other):
            process.kill()
            process.wait()
    assert processes_at(str(install)) == []


def test_a_process_makes_itself_seen(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with seen_at(str(tmp_path)):
            time.sleep(600)
    try:
        deadline = time.monotonic() + 60
        while processes_at(str(tmp_path)) != [child]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_generation_is_current_only_while_it_is_whole(tmp_path: Path) -> None:
    assert current_generation(str(tmp_path)) == {}
    (tmp_path / "current").symlink_to("generations/1")
    assert current_generation(str(tmp_path)) == {}
    generation = tmp_path / "generations" / "1"
    generation.mkdir(parents=True)
    (generation / "activate.sh").write_text("true\n")
    publish(str(generation), {"digest": "abc", "number": 1})
    found = current_generation(str(tmp_path))
    assert (found["digest"], found["path"]) == ("abc", str(generation))
    os.truncate(generation / "activate.sh", 0)
    assert current_generation(str(tmp_path)) == {}
