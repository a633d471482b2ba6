"""Asks a server what a page about it shows, and keeps it on the controller: also that it did not answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleConnectionFailure  # noqa: E402
from ansible.module_utils import report_state  # noqa: E402
from ansible.module_utils.stack_failure import unreachable as why_unreachable  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

UNUSED = ("log", "not", "given", "not_given")


class ActionModule(ActionBase):
    """Arguments: those of the module, stack (the server's; "" where it is in none), state (a folder of files)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        folder, stack = Path(arguments.pop("state")).expanduser(), str(arguments.pop("stack"))
        host = str((task_vars or {}).get("inventory_hostname"))
        known = {**report_state.load(folder, host), "stack": stack}
        # Without the examples, which are half of the catalogue, and for its own tests and page.
        arguments["signatures"] = [
            {key: value for key, value in signature.items() if key not in UNUSED}
            for signature in arguments.get("signatures", [])
        ]
        unreachable: AnsibleConnectionFailure | None = None
        if not stack:
            told: dict[str, Any] = {"failed": True, "msg": f"{host} is in no group stack_*. Put it into one."}
        else:
            try:
                told = self._execute_module(
                    module_name="report_info",
                    module_args={**arguments, **report_state.question(known)},
                    task_vars=task_vars,
                )
            except AnsibleConnectionFailure as failure:
                unreachable, told = failure, {"failed": True, "msg": why_unreachable(str(failure))}
        now = time.time()
        problem = _problem(told)
        after = (
            report_state.unanswered(known, problem, now, unreachable is None)
            if problem
            else report_state.answered(known, told, now)
        )
        if not self._task.check_mode:
            report_state.save(folder, after)
        if unreachable:
            raise unreachable
        return {"changed": False, "problem": after["problem"], "runs": len(after["runs"])}


def _problem(told: dict[str, Any]) -> str:
    """Why a server told nothing; "" where it did."""
    if told.get("failed") or told.get("unreachable"):
        said = [str(told[key]).strip() for key in ("msg", "module_stderr", "module_stdout") if told.get(key)]
        return " ".join(said)[:2000] or "It failed without a word."
    return "" if isinstance(told.get("server"), dict) else "It did not answer as the module report_info does."
