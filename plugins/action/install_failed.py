"""Fails with what is to be done, after the module has given the lease of a failed build back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_failure import cause  # noqa: E402
from ansible.module_utils.stack_lease import this_run  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402


class ActionModule(ActionBase):
    """For a rescue section: diagnoses and fails."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        known = task_vars or {}
        given = self._task.args
        reason = cause(known.get("ansible_failed_result", {}))
        arguments = {**given, "run": this_run(str(known.get("inventory_hostname"))), "reason": reason}
        # Not unpacked among the prefix's temporary files: what failed may have filled that disk.
        self._task.environment = [*(self._task.environment or []), {"TMPDIR": ""}]
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if result.get("failed"):
            return result
        install = given["installs"][given["role"]]
        remedy = (
            f"The disk is full: {given['role']} needs {install['disk_bytes'] / 1e6:.0f} MB below {given['prefix']}, "
            f"and {result['free'] / 1e6:.0f} MB are free (a quota may leave less). What was half built is removed. "
            "Free some space there, or set stack_prefix to a folder on a larger disk."
        )
        # Why it failed stands above, in the task's own words.
        message = remedy if result["full"] else f"{given['role']} is not installed: the task above failed."
        return {**result, "failed": True, "msg": message}
