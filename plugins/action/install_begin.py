"""Spares the remote call when the install is present; otherwise adds who runs this play, and whether a lease's holder
has died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_lease import has_died, this_run  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402


class ActionModule(ActionBase):
    """Runs the module once, and again when the lease that it met belongs to a dead run."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        install = self._task.args["installs"][self._task.args["role"]]
        if install["state"] == "present":  # the look-up of role stack has seen it whole
            return {"changed": False, "build": False, "path": install["path"]}
        host = str((task_vars or {}).get("inventory_hostname"))
        arguments = {**self._task.args, "run": {**this_run(), "host": host}}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        held_by = result.get("held_by")
        if held_by and has_died(held_by):
            arguments["dead_run"] = held_by["run"]
            result = self._execute_module(module_args=arguments, task_vars=task_vars)
        elif held_by:
            self._display.display(
                f"[{host}] {arguments['role']}: {held_by.get('host') or held_by['server']} is building it in this "
                "shared prefix; waiting for that"
            )
        return {**result, "role": arguments["role"]}
