"""What the Makefile's scripts promise, without running the long steps."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from packaging.markers import Marker

REPOSITORY = Path(__file__).resolve().parents[2]

RECAP = """\
TASK [Say something] *****
changed: [server1]

PLAY RECAP *********************************************************************
\x1b[0;32mserver1\x1b[0m   : \x1b[0;32mok=12  \x1b[0m changed=0    unreachable=0    failed=0    skipped=3    ignored=0
server-2   : ok=12   changed={changed}    unreachable=0    failed=0    skipped=3    ignored=0

Check ladder: passed
"""


@pytest.fixture(scope="module")
def recap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recap", REPOSITORY / "scripts/recap.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_run_that_changed_nothing_is_recognised(recap: ModuleType) -> None:
    assert set(recap.counts_by_host(RECAP.format(changed=0))) == {"server1", "server-2"}
    assert recap.complaint(RECAP.format(changed=0)) == ""


def test_host_that_changed_is_named(recap: ModuleType) -> None:
    assert "server-2: changed=2." in recap.complaint(RECAP.format(changed=2))


@pytest.mark.parametrize("log", ["", "ERROR! no hosts matched", "PLAY RECAP ****\n\n"])
def test_run_without_hosts_is_no_success(recap: ModuleType, log: str) -> None:
    assert "no hosts" in recap.complaint(log)


def system_check(tmp_path: Path, with_apt: bool) -> subprocess.CompletedProcess[str]:
    """Run the check as an ordinary user of a machine without gcc; the fake apt-get must not be called."""
    for program in ("git", "ssh", "true"):
        (tmp_path / program).symlink_to(shutil.which("true") or "/bin/true")
    for program, script in {"id": "echo 1000", **({"apt-get": "echo called"} if with_apt else {})}.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / program).chmod(0o755)
    bash = shutil.which("bash") or "/bin/bash"
    return subprocess.run(
        [bash, REPOSITORY / "scripts/system.sh", "demo"],
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_missing_command_of_a_debian_is_named_with_the_one_command_that_installs_it(tmp_path: Path) -> None:
    done = system_check(tmp_path, with_apt=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "Not installed: gcc g++. Run: sudo apt-get install --yes gcc g++\n"


def test_missing_command_elsewhere_is_named(tmp_path: Path) -> None:
    done = system_check(tmp_path, with_apt=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Not installed: gcc g++. Install them with your system's package manager")


def test_help_lists_every_target_with_what_it_does() -> None:
    told = subprocess.run(["make", "-C", REPOSITORY], stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    for target in ("demo", "site", "test", "clean"):
        assert f"  make {target}" in told


def summary(not_run: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Pass one step and end, with the given things not run."""
    program = f'. {REPOSITORY}/scripts/steps.sh; step "First" true; not_run=({not_run}); summary "make test"'
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", program],
        env={"PATH": os.defpath, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_what_was_not_run_is_named_and_not_counted_as_passed() -> None:
    done = summary('"lane 2.21: no Python"')
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("make test: 1 steps passed, 1 NOT RUN")
    assert done.stderr == "NOT RUN: lane 2.21: no Python\n"
    assert "make test: all 1 steps passed" in summary("").stdout


def test_where_everything_must_run_what_was_not_run_is_a_failure() -> None:
    assert summary('"lane 2.21: no Python"', CI="true").returncode == 1
    assert summary("", CI="true").returncode == 0


LANES = [line.split()[:3] for line in re.findall(r'^  "(.*)"$', (REPOSITORY / "scripts/lanes.sh").read_text(), re.M)]


@pytest.mark.parametrize(("core", "first", "limit"), LANES)
def test_a_lane_is_the_pythons_that_get_its_ansible_core(core: str, first: str, limit: str) -> None:
    requirements = (REPOSITORY / "requirements.txt").read_text()
    pins = re.findall(r"^ansible-core==(\S+) ; (python_version .*)$", requirements, re.MULTILINE)
    minors = range(int(first.partition(".")[2]), int(limit.partition(".")[2]))
    for minor in minors:
        [pin] = [pin for pin, marker in pins if Marker(marker).evaluate({"python_version": f"3.{minor}"})]
        assert pin.startswith(f"{core}."), f"Python 3.{minor}"


def test_lane_without_a_python_is_told_by_its_own_exit_status(tmp_path: Path) -> None:
    command = ["bash", str(REPOSITORY / "scripts/venv.sh"), str(tmp_path / "venv"), "1.0"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "No Python of lane 1.0, with its module venv, was found.\n"
    assert not (tmp_path / "venv").exists()
