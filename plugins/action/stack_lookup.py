"""Says so where a server's Python is too old, or not there, to run modules. It is the first one that a run sends."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ansible.plugins.action import ActionBase

OLDEST = (3, 9)


def explanation(python: str, said: str) -> str:
    """Why modules cannot run on a server, from what `python --version` says there; "" when that is not the reason."""
    found = re.search(r"^Python (\d+)\.(\d+)", said, re.MULTILINE)
    if found and (int(found[1]), int(found[2])) >= OLDEST:
        return ""
    needed = ".".join(map(str, OLDEST))
    return (
        f"{python} on the server cannot run Ansible's modules ({said.strip() or 'it says nothing'}): they "
        f"need Python {needed} or newer. Set bootstrap_python: true for this server in your inventory, and the run "
        "puts one into stack_prefix; or set ansible_python_interpreter to one that is there. Only Ansible uses it: "
        "the stack brings a Python of its own."
    )


class ActionModule(ActionBase):
    """Runs the module; when that fails, asks the interpreter for its version."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        result: dict[str, Any] = self._execute_module(task_vars=task_vars)
        if result.get("failed"):
            python = str(self._used_interpreter).removeprefix("#!")
            done = self._low_level_execute_command(f"{shlex.quote(python)} --version 2>&1", sudoable=False)
            why = explanation(python, done["stdout"])
            if why:
                return {"failed": True, "msg": why}
        return result
