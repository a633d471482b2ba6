"""Spares the remote call when the install is present; otherwise adds who runs this play, and whether a lease's holder
has died."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot, so that a reused pid is not mistaken; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_run() -> dict[str, Any]:
    """Who runs this play: the ansible-playbook process, which is the parent of the worker that runs the action."""
    pid = os.getppid()
    return describe_run(socket.gethostname(), _boot_id(), pid, _started(pid))


def describe_run(controller: str, boot: str, pid: int, started: str) -> dict[str, Any]:
    """A lease holder's data; "run" names it uniquely."""
    return {
        "controller": controller,
        "boot": boot,
        "pid": pid,
        "started": started,
        "run": f"{controller}/{boot}/{pid}/{started}",
    }


def has_died(holder: dict[str, Any]) -> bool:
    """Whether the run that holds a lease was on this very controller and is gone. Unknown counts as alive."""
    here = holder.get("controller") == socket.gethostname() and holder.get("boot") == _boot_id() != ""
    return here and _started(int(holder.get("pid", 0))) != holder.get("started")


class ActionModule(ActionBase):
    """Runs the module once, and again when the lease that it met belongs to a dead run."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        install = self._task.args["installs"][self._task.args["role"]]
        if install["state"] == "present":  # the look-up of role stack has seen it whole
            return {"changed": False, "build": False, "path": install["path"]}
        arguments = {**self._task.args, "run": this_run()}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        held_by = result.get("held_by")
        if held_by and has_died(held_by):
            arguments["dead_run"] = held_by["run"]
            result = self._execute_module(module_args=arguments, task_vars=task_vars)
        elif held_by:
            self._display.display(
                f"[{(task_vars or {}).get('inventory_hostname')}] {arguments['role']}: "
                f"{held_by['server']} is building it in this shared prefix; waiting for that"
            )
        return result
