"""Spares the remote call when the install is present; otherwise adds who runs this play, and whether a lease's holder
has died, and shows for whom it waits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_lease import described, has_died, this_run  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

SLICE = 15.0  # seconds between two lines of progress


class ActionModule(ActionBase):
    """Runs the module once, and again when the lease that it met belongs to a dead run, or while it waits."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        role = self._task.args["role"]
        install = self._task.args["installs"][role]
        if install["state"] == "present":  # the look-up of role stack has seen it whole
            return {"changed": False, "build": False, "path": install["path"]}
        host = str(self._vars.get("inventory_hostname"))
        self._about = f"[{host}] {role}"
        arguments = {**self._task.args, "run": this_run(host)}
        result = self._wait(arguments) if arguments.get("wait") else self._begin(arguments)
        return {**result, "role": role}

    def _module(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=self._vars)
        return result

    def _begin(self, arguments: dict[str, Any]) -> dict[str, Any]:
        result = self._module(arguments)
        held_by = result.get("held_by")
        if held_by and has_died(held_by):
            result = self._module({**arguments, "dead": held_by})
            held_by = result.get("held_by")
        if held_by:
            self._display.display(
                f"{self._about}: {described(held_by)} builds it in this shared prefix; waits for that"
            )
        return result

    def _wait(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call the module until the build has ended; each call is a slice of time."""
        held_by, started, quiet = arguments["wait"], time.monotonic(), 0.0
        while True:
            dead = held_by if has_died(held_by) else {}
            result = self._module({**arguments, "wait": held_by, "dead": dead, "quiet": quiet, "seconds": SLICE})
            if "lost" in result:
                self._display.display(f"{self._about}: {described(result['lost'])} does not go on with it")
            if "held_by" not in result:
                return result
            held_by, quiet = result["held_by"], result["quiet"]
            gone = ", whose run has died" if has_died(held_by) else ""
            self._display.display(
                f"{self._about}: waits for {described(held_by)}{gone}, {time.monotonic() - started:.0f} s so far; "
                f"last heartbeat {max(result['age'], 0):.0f} s ago"
            )
