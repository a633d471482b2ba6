"""Runs an action plugin without a connection: its modules run as processes of this machine, its commands in a shell."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from run_module import run_module

ACTIONS = Path(__file__).resolve().parents[2] / "plugins" / "action"


class Action:
    """One task that uses an action plugin; `run` may be called again and again, as by one person after the other."""

    def __init__(self, name: str, transport: str = "ssh", **arguments: Any) -> None:
        self.name, self.arguments, self.transport = name, arguments, transport
        self.modules: list[dict[str, Any]] = []  # arguments of each module call
        self.commands: list[str] = []
        self.shown: list[str] = []
        self.options: dict[str, Any] = {}  # of the connection
        self.variables: dict[str, Any] = {}
        self.cut_command: int | None = None  # the number of the command whose connection breaks half-way
        spec = importlib.util.spec_from_file_location(f"action_{name}", ACTIONS / f"{name}.py")
        assert spec and spec.loader
        self.plugin = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.plugin)

    def run(self, check: bool = False) -> dict[str, Any]:
        """The task's result. Raises AnsibleActionFail as the plugin does."""
        self.modules, self.commands, self.shown = [], [], []
        task = SimpleNamespace(args=self.arguments, async_val=0, check_mode=check, action=self.name, environment=[])
        self.task = task
        shell = SimpleNamespace(tmpdir="")
        connection = SimpleNamespace(transport=self.transport, _shell=shell, set_option=self.options.__setitem__)
        display = SimpleNamespace(
            display=lambda text, color=None: self.shown.append(text), vvv=lambda *_words: None, columns=119
        )
        action = self.plugin.ActionModule(task, connection, None, None, None, None)
        action._display = display
        action._execute_module = self._execute_module
        action._low_level_execute_command = self._low_level_execute_command
        result: dict[str, Any] = action.run(task_vars={"inventory_hostname": "gpu1", **self.variables})
        return result

    def _execute_module(
        self,
        module_name: str = "",
        module_args: dict[str, Any] | None = None,
        task_vars: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        given = self.arguments if module_args is None else module_args
        self.modules.append(given)
        return run_module(module_name or self.name, **given)

    def _low_level_execute_command(self, command: str, in_data: bytes, sudoable: bool) -> dict[str, Any]:
        self.commands.append(command)
        if self.cut_command == len(self.commands):
            subprocess.run(command, shell=True, input=in_data[: len(in_data) // 2], check=True)
            return {"rc": 1, "stdout": "", "stderr": ""}
        done = subprocess.run(command, shell=True, input=in_data, capture_output=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}
