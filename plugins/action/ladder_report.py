"""Hands a server's check ladder to the summary, and fails on failed rungs. Runs on the controller alone."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


def failed_checks(ladder: dict[str, Any], rungs: list[str]) -> list[str]:
    """A sentence per failed check of `rungs`: which, why, remedy."""
    return [
        f"{rung['rung']}, {check['name']}: {check.get('reason') or check.get('detail')} "
        f"{check.get('remedy') or ''}".strip()
        for rung in ladder.get("rungs", [])
        if rung["rung"] in rungs
        for check in rung["checks"]
        if check["status"] == "failed"
    ]


class ActionModule(ActionBase):
    """Arguments: ladder (a result of check_ladder; {} in check mode before the first run), stop_at (rung names)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        ladder, rungs = self._task.args["ladder"], self._task.args["stop_at"]
        wrong = failed_checks(ladder, rungs)
        result: dict[str, Any] = {"changed": False, "ladder": ladder}
        if wrong:
            result.update(failed=True, msg="The check ladder failed. " + " | ".join(wrong))
        return result
