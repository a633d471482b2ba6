"""What the verify tests of all scenarios use. Each test runs on each of the three servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

Python = Callable[..., str]
Provision = Callable[..., subprocess.CompletedProcess[str]]

REPOSITORY = Path(__file__).parents[1]
SHARED_STATE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture
def scenario() -> str:
    """Name of the scenario, which is that of the role under test."""
    return os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture
def prefix(host: Host) -> str:
    """The stack's folder on the servers."""
    return str(host.ansible.get_variables()["scenario_prefix"])


@pytest.fixture
def install(host: Host, scenario: str, prefix: str) -> str:
    """The one install of the role under test: of two servers that share a home, one has made it for both."""
    found: list[str] = host.file(f"{prefix}/opt/{scenario}").listdir()
    assert len(found) == 1, f"{scenario} should be installed once: {found}"
    return f"{prefix}/opt/{scenario}/{found[0]}"


@pytest.fixture
def receipt(host: Host, install: str) -> dict[str, Any]:
    """The receipt of that install."""
    loaded: dict[str, Any] = json.loads(host.file(f"{install}/receipt.json").content_string)
    return loaded


@pytest.fixture
def python(host: Host) -> Python:
    """Run a program with an interpreter of the server; returns what it prints.

    Nothing of the account's own settings, which are hostile, takes part, and nothing is written to its home.
    """

    def run(interpreter: str, program: str, **environment: str) -> str:
        settings = [
            f"{name}={value}" for name, value in {"HOME": "/tmp", "PYTHONNOUSERSITE": "1", **environment}.items()
        ]
        done = host.run(shlex.join(["env", "-i", *settings, interpreter, "-c", program]))
        assert done.rc == 0, done.stdout + done.stderr
        return str(done.stdout).strip()

    return run


@pytest.fixture
def caffe2(host: Host, prefix: str) -> str:
    """The install of caffe2, whose Python runs all that the later roles install."""
    return str(host.check_output(f"echo {prefix}/opt/caffe2/*"))


@pytest.fixture
def provision() -> Provision:
    """Run site.yml once more, with these arguments: the role under test, unless they say otherwise."""

    def run(*arguments: str, tags: str = os.environ["MOLECULE_SCENARIO_NAME"]) -> subprocess.CompletedProcess[str]:
        inventory, sources = f"--inventory={SHARED_STATE}/inventory", f"--extra-vars=@{REPOSITORY}/mirror/sources.yml"
        environment = os.environ | {"ANSIBLE_RUN_TAGS": tags, "ANSIBLE_LOG_PATH": os.devnull, "COLUMNS": "1000"}
        return subprocess.run(
            ["ansible-playbook", inventory, sources, *arguments, REPOSITORY / "site.yml"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def log(scenario: str) -> str:
    """What the runs of this scenario printed, the last one at the end."""
    lines = (SHARED_STATE / f"{scenario}.log").read_text().splitlines(keepends=True)
    return "".join(re.sub(r"^\d{4}-\S+ \S+ .*?\| ", "", line) for line in lines)
