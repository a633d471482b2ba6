"""Runs a module as Ansible does on a server: a process of its own, arguments as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODULES = HERE.parents[1] / "plugins" / "modules"

PROGRAM = """
import json, runpy, sys
import conftest  # where module_utils are
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


def start_module(name: str, arguments: dict[str, Any], check: bool = False) -> subprocess.Popen[str]:
    """Start a module; `finished` gives its result."""
    given = {**arguments, "_ansible_check_mode": check, "_ansible_no_log": False}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(MODULES / f"{name}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE,
    )
    assert process.stdin
    process.stdin.write(json.dumps(given))
    process.stdin.close()
    process.stdin = None
    return process


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a module that was started. A traceback instead of one is a failure of the test."""
    said, error = process.communicate(timeout=60)
    lines = [line for line in said.splitlines() if line.startswith("{")]
    assert len(lines) == 1 and not error, said + error
    result: dict[str, Any] = json.loads(lines[0])
    assert process.returncode == (1 if result.get("failed") else 0)
    assert "Traceback" not in said
    return result


def run_module(name: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The result of a module."""
    return finished(start_module(name, arguments, check))
