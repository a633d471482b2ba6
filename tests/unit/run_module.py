"""Runs a module as Ansible does on a server: a process of its own, arguments and result as JSON.

The process is a fork of this one, in which Ansible is imported already: twenty times as fast as a new Python.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import ansible.module_utils.basic  # what every module imports
from ansible.module_utils.testing import patch_module_args

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
MODULES = PLUGINS / "modules"

ansible.module_utils.__path__.append(str(PLUGINS / "module_utils"))  # for those who use this outside the unit tests


class Running:
    """A module that was started."""

    def __init__(self, name: str, check: bool = False, user: int | None = None, **arguments: Any) -> None:
        """`user`: id of the login that it runs as, which only root can choose."""
        given = {**arguments, "_ansible_check_mode": check, "_ansible_remote_tmp": tempfile.gettempdir()}
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed when this is gone
        self._status: int | None = None
        self._process = os.fork()
        if not self._process:
            if user is not None:
                # What it imports is loaded first: that login may be unable to read this Python.
                runpy.run_path(str(MODULES / f"{name}.py"), run_name="imported")
                importlib.import_module("ansible.template")  # for the result: Ansible loads its encoder late
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            os.dup2(self._output.fileno(), 1)
            os.dup2(self._output.fileno(), 2)
            os._exit(_run(MODULES / f"{name}.py", json.loads(json.dumps(given))))

    def ended(self) -> bool:
        if self._status is None:
            process, status = os.waitpid(self._process, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if process else None
        return self._status is not None

    def status(self) -> int:
        """Wait for the exit status; minus the signal that ended it."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self._process, 0)[1])
        return self._status

    def result(self) -> dict[str, Any]:
        """Wait for the result. A traceback in its place is a failure of the test."""
        status = self.status()
        self._output.seek(0)
        said = self._output.read().strip()
        assert said.startswith("{") and "\n" not in said, said
        result: dict[str, Any] = json.loads(said)
        assert status == (1 if result.get("failed") else 0)
        return result


def _run(program: Path, given: dict[str, Any]) -> int:
    """Run a module in this process; returns its exit status."""
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        try:
            with patch_module_args(given):
                runpy.run_path(str(program), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
    return 70


def run_module(name: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The result of a module."""
    return Running(name, check, **arguments).result()
