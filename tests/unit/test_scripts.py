"""What the Makefile's scripts promise, without running the long steps."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

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
