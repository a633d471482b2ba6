"""Shows progress while a check ladder runs: on a GPU newer than the stack, the driver compiles for minutes first.

The ladder itself runs detached on the server; each call of the module waits for a slice of time and says where it is.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

SLICE = 15.0  # seconds that the module waits before it reports


class ActionModule(ActionBase):
    """Calls the module until the ladder has ended: once, in most cases."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        started, announced = time.monotonic(), ""
        arguments = {**self._task.args, "seconds": SLICE}
        while True:
            result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
            climbing = result.get("climbing")
            if climbing is None:
                return result
            arguments["follow"] = True
            server = f"[{(task_vars or {}).get('inventory_hostname')}] check ladder"
            notice = climbing.get("notice", "")
            if notice and notice != announced:
                announced = notice
                self._display.display(f"{server}: {notice}")
            self._display.display(
                f"{server}: {climbing.get('rung', 'starting')} {climbing.get('check', '')}, "
                f"{climbing['seconds']:.0f} s of {time.monotonic() - started:.0f} s, "
                f"compilation cache {climbing['cache_bytes'] / 1e6:.0f} MB"
            )
