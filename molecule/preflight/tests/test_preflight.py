"""preflight: says what it found, stops on what would break the install, and writes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fleet import Fleet

Provision = Callable[..., subprocess.CompletedProcess[str]]

# A prefix that is not there: what preflight sees is a server before its first install.
NEW_PREFIX = "--extra-vars=stack_prefix=/home/researcher/new"


@pytest.fixture
def unchanged() -> Iterator[None]:
    """All that lies in the servers' HOME, /tmp and /var/tmp is the same after the test."""
    fleet = Fleet(Path(__file__).parents[3] / os.environ.get("SCENARIO_SERVERS", ".fleet/molecule"))
    before = {name: fleet.snapshot(server, []) for name, server in fleet.servers.items()}
    yield
    for name, server in fleet.servers.items():
        assert fleet.snapshot(server, []) == before[name]


def test_settings_that_break_other_installs_are_found(provision: Provision, unchanged: None) -> None:
    done = provision(NEW_PREFIX, "--extra-vars=preflight_show=info")
    assert done.returncode == 0, done.stdout
    for finding, evidence in {
        "python_environment": "PYTHONPATH=:/home/researcher/mine/python",
        "loader_environment": "LD_LIBRARY_PATH=:/home/researcher/mine/lib",
        "installer_environment": "PIP_USER=1",
        "compiler_environment": "CFLAGS=-no-such-option",
        "config_files": "/home/researcher/.pydistutils.cfg",
    }.items():
        assert finding in done.stdout
        assert evidence in done.stdout


def test_server_without_enough_space_is_left_as_it_is(provision: Provision, unchanged: None) -> None:
    done = provision(NEW_PREFIX, "--extra-vars=preflight_needed_bytes=1000000000000000", tags="all")
    assert done.returncode != 0
    for server in ("server1", "server2", "server3"):
        assert f"{server} cannot take this stack. Nothing was changed." in done.stdout
    assert "STOP" in done.stdout
    assert "Remedy" in done.stdout
