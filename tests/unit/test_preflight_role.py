"""The role's knobs, and the expressions between look-up, probe and message."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from play_role import play_role
from preflight import CATALOGUE

Play = Callable[..., tuple[int, str]]

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/preflight"


def load(path: str) -> Any:
    return yaml.safe_load((ROLE / path).read_text())


def test_every_knob_is_specified_with_the_same_default() -> None:
    defaults = load("defaults/main.yml")
    options = load("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert defaults.keys() == options.keys()
    for name, value in defaults.items():
        computed = isinstance(value, str) and "{{" in value
        assert ("default" not in options[name]) if computed else (options[name]["default"] == value), name


def test_the_documentation_lists_the_catalogue() -> None:
    lines = (ROOT / "docs/preflight.md").read_text().splitlines()
    rows = [tuple(cell.strip(" `") for cell in line.split("|")[1:4]) for line in lines if line.startswith("| `")]
    assert rows == [(check.id, check.severity, check.title) for check in CATALOGUE]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Plays the role's tasks on this machine in check mode, as one whose programs are all in `path`.

    The look-up, which role stack would make, is given as a variable. Returns (exit status, output).
    """

    def run(path: str = os.environ["PATH"], **variables: Any) -> tuple[int, str]:
        requirements = {
            "architecture": os.uname().machine,
            "glibc_min": "2.0",
            "python_min": "3.9",
            "driver_min": "384.81",
            "compute_capabilities": {"code": ["7.0"], "ptx": []},
        }
        accepted = [check.id for check in CATALOGUE if check.severity != "stop"]
        given = {
            "stack_prefix": str(tmp_path / "stack"),
            "stack_lock": {"requirements": requirements},
            "stack_lookup": {"installs": {}},
            "preflight_accepted": accepted,
            **variables,
        }
        return play_role(ROLE, tmp_path, given, "--check", path=path)

    return run


def install(role: str, state: str, disk_bytes: int = 0) -> dict[str, Any]:
    path = f"/opt/stack/opt/{role}/1.0-0123456789ab"
    return {"role": role, "state": state, "path": path, "disk_bytes": disk_bytes}


def test_nothing_to_report_is_one_line_and_no_change(play: Play) -> None:
    status, output = play()
    assert status == 0, output
    assert "msg: No findings." in output
    assert "changed=0" in output


def test_all_that_stops_is_in_one_message(play: Play, tmp_path: Path) -> None:
    huge = 10**18
    (tmp_path / "file").write_text("")
    status, output = play(
        stack_prefix=f"{tmp_path}/file/a stack",
        stack_lookup={"installs": {"caffe2": {**install("caffe2", "absent", huge), "path": f"/{'x' * 120}"}}},
    )
    assert status != 0
    message = output.split("cannot take this stack. Nothing was changed.")[1]
    for identity in ("prefix_not_writable", "prefix_name", "prefix_length", "disk"):
        assert f"STOP  {identity}:" in message
    assert "No findings." not in output


def test_what_is_installed_needs_no_space_and_no_compiler(play: Play) -> None:
    installs = {role: install(role, "present", 10**18) for role in ("caffe2", "cocoapi", "detectron")}
    status, output = play(path="/nowhere", stack_lookup={"installs": installs})
    assert status == 0, output


def test_a_damaged_detectron_needs_a_compiler(play: Play) -> None:
    status, output = play(path="/nowhere", stack_lookup={"installs": {"detectron": install("detectron", "damaged")}})
    assert status != 0
    assert "STOP  compiler:" in output


def test_a_quiet_fleet_shows_only_what_is_asked_for(play: Play) -> None:
    status, output = play(preflight_accepted=[], preflight_show="stop")
    assert status == 0, output
    assert "INFO" not in output and "WARN" not in output
