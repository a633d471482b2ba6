"""Shows how experiments get on, until they end or have begun to learn. Ctrl-C ends the watching alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.training_status import experiment_lines, how_far  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

POLL = 2.0  # seconds between two looks at first; a run of days is looked at more seldom
SELDOM = 20.0
_EXAMPLES = ("log", "not", "given", "not_given")
ENDED = ("finished", "failed", "stopped", "died", "")


def _news(experiment: dict[str, Any]) -> str:
    """How far an experiment is, in a line: for a rehearsal what it says last, since its numbers are not Detectron's."""
    if experiment["state"]["state"] != "running":
        return ""
    end = experiment["log"]["end"]
    return str(end[-1].strip() if experiment["facts"].get("rehearsal") and end else how_far(experiment))


def _has_failed(experiment: dict[str, Any]) -> bool:
    return experiment["state"]["state"] in ("failed", "died")


def _why(failed: dict[str, dict[str, Any]]) -> str:
    """What the experiments that failed say, for a person."""
    lines = []
    for name, experiment in failed.items():
        lines += experiment_lines({name: experiment})
        shown = any(finding["line"] for finding in experiment["log"]["findings"])
        if not shown and not experiment["verdict"]:
            lines += [f"  log.txt: {end}" for end in experiment["log"]["end"][-5:]]
    return "\n".join(lines)


class ActionModule(ActionBase):
    """Calls module experiment_info until there is nothing more to wait for."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        fail = bool(arguments.pop("fail", False))
        to_the_end, seconds = bool(arguments.pop("to_the_end", False)), float(arguments.pop("seconds", 0))
        # Without the examples, which are half of the catalogue, and for its own tests and page.
        arguments["signatures"] = [
            {key: value for key, value in signature.items() if key not in _EXAMPLES}
            for signature in arguments.get("signatures", [])
        ]
        started = time.monotonic()
        shown: dict[str, str] = {}
        server = (task_vars or {}).get("inventory_hostname")
        while True:
            result: dict[str, Any] = self._execute_module(
                module_name="experiment_info", module_args=arguments, task_vars=task_vars
            )
            if result.get("failed"):
                return result
            experiments = result["experiments"]
            for name, experiment in experiments.items():
                line = _news(experiment)
                if line and line != shown.get(name):
                    shown[name] = line
                    self._display.display(f"[{server}] {name}: {line}")
            waiting = [name for name, experiment in experiments.items() if experiment["state"]["state"] not in ENDED]
            begun = all(experiments[name]["log"]["state"]["last"] for name in waiting)
            arguments["logs"] = {name: experiment["log"]["state"] for name, experiment in experiments.items()}
            elapsed = time.monotonic() - started
            if not waiting or (not to_the_end and (begun or elapsed >= seconds)):
                failed = {name: experiments[name] for name in experiments if fail and _has_failed(experiments[name])}
                for name, experiment in experiments.items():
                    if fail and experiment["verdict"] and name not in failed:
                        self._display.display("\n".join(experiment_lines({name: experiment})))
                if failed:
                    return {"failed": True, "msg": _why(failed)}
                return {**result, "changed": False}
            time.sleep(min(SELDOM, POLL + elapsed / 30))
