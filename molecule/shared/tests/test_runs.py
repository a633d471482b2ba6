"""What holds after the runs of every scenario."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from testinfra.host import Host

from scripts.recap import complaint, counts_by_host

SPOIL_HOME = Path(__file__).parents[1] / "files/spoil_home.sh"
PLAY_IN_CHECK_MODE = "PLAY [Provision the servers] [CHECK MODE]"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as prepare leaves it, without the skeleton of a new account."""
    subprocess.run(["sh", "-e", SPOIL_HOME], env={"HOME": str(tmp_path), "PATH": os.defpath}, check=True)
    return tmp_path


def test_check_mode_says_that_nothing_would_change(log: str) -> None:
    assert PLAY_IN_CHECK_MODE in log, "run `molecule check` before `molecule verify`"
    assert complaint(log[log.rindex(PLAY_IN_CHECK_MODE) :]) == ""


def test_each_server_took_part(log: str, host: Host) -> None:
    assert host.check_output("hostname") in counts_by_host(log)


def test_home_holds_what_it_held_before_and_at_most_the_prefix(host: Host, home: Path) -> None:
    before = {*host.check_output("ls -A /etc/skel").split(), *os.listdir(home)}
    assert set(host.check_output("ls -A ~").split()) - {"detectron"} == before


def test_settings_of_the_person_are_untouched(host: Host, home: Path) -> None:
    find = f"cd $HOME && find {' '.join(os.listdir(home))} -type f -exec sha256sum {{}} +"
    before = subprocess.run(
        ["sh", "-c", find], env={"HOME": str(home), "PATH": os.defpath}, capture_output=True, text=True
    )
    assert sorted(host.check_output(find).splitlines()) == sorted(before.stdout.splitlines())
