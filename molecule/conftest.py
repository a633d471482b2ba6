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
SOURCES = os.environ.get("SCENARIO_SOURCES") or REPOSITORY / "mirror/sources.yml"
SHARED_STATE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture
def scenario() -> str:
    """Name of the scenario, which is that of the role under test."""
    return os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture
def prefix(host: Host) -> str:
    """The stack's folder on the servers."""
    return str(host.ansible.get_variables()["scenario_prefix"])


def by_age(host: Host, folder: str) -> list[str]:
    """The installs in a role's folder, the oldest first."""
    return str(host.check_output(f"ls -tr {folder}/*/receipt.json | xargs -n 1 dirname")).split()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is said of an install holds for the one that converge made and for the one that an upgrade put beside it."""
    if "install" in metafunc.fixturenames:
        upgraded = (SHARED_STATE / f"{os.environ['MOLECULE_SCENARIO_NAME']}-upgrade.log").exists()
        metafunc.parametrize("install", ["converged", "upgraded"] if upgraded else ["converged"], indirect=True)


@pytest.fixture
def install(request: pytest.FixtureRequest, host: Host, scenario: str, prefix: str) -> str:
    """An install of the role under test. Of two servers that share a home, one has made it for both."""
    found = by_age(host, f"{prefix}/opt/{scenario}")
    upgraded = (SHARED_STATE / f"{scenario}-upgrade.log").exists()
    assert len(found) == 1 + upgraded, f"{scenario} should be installed once by each run: {found}"
    return found[-1] if request.param == "upgraded" else found[0]


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
    """The install of caffe2 as the lock wants it, whose Python runs all that the later roles install."""
    return by_age(host, f"{prefix}/opt/caffe2")[0]


@pytest.fixture
def cocoapi(host: Host, prefix: str) -> str:
    """The install of cocoapi, as the lock wants it."""
    return by_age(host, f"{prefix}/opt/cocoapi")[0]


@pytest.fixture
def provision() -> Provision:
    """Run site.yml once more, with these arguments: the role under test, unless they say otherwise."""

    def run(*arguments: str, tags: str = os.environ["MOLECULE_SCENARIO_NAME"]) -> subprocess.CompletedProcess[str]:
        inventory, sources = f"--inventory={SHARED_STATE}/inventory", f"--extra-vars=@{SOURCES}"
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
    """What the scenario's own runs printed, the last one at the end; its upgrade has a log of its own."""
    lines = (SHARED_STATE / f"{scenario}.log").read_text().splitlines(keepends=True)
    text = "".join(re.sub(r"^\d{4}-\S+ \S+ .*?\| ", "", line) for line in lines)
    return text.partition("PLAY [Upgrade]")[0]
