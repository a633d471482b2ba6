"""Hands a server's check ladder to the summary, and fails on failed rungs. Runs on the controller alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_ladder import failed_checks  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402


class ActionModule(ActionBase):
    """Arguments: ladder (a result of check_ladder; {} in check mode before the first run), stop_at (rung names)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        ladder, rungs = self._task.args["ladder"], self._task.args["stop_at"]
        wrong = [sentence for rung, sentence in failed_checks(ladder) if rung in rungs]
        result: dict[str, Any] = {"changed": False, "ladder": ladder}
        if wrong:
            result.update(failed=True, msg="The check ladder failed. " + " | ".join(wrong))
        return result
