"""Says so where a server's Python is too old, or not there, to run modules, or where a login runs no command at all.

It is the first module that a run sends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleConnectionFailure  # noqa: E402
from ansible.module_utils.stack_failure import no_commands  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

OLDEST = (3, 9)
HERE = "-- the command answers --"
PATIENCE = 20.0  # seconds without an answer of the module, after which a login is asked whether it runs commands at all
ANSWER = 20.0  # seconds that it has to run the least one


def started() -> list[int]:
    """Processes that this one has started, such as the connection's ssh."""
    mine = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1] == str(os.getpid()):
                mine.append(int(entry.parent.name))
    return mine


@contextlib.contextmanager
def watched(ask: Callable[[], object]) -> Iterator[threading.Event]:
    """While this goes on: after PATIENCE, `ask` the server for something small, beside what it is doing. Where that
    does not come back within ANSWER, the event is set, and what waits for the server, ended."""
    over, silent = threading.Event(), threading.Event()

    def watch() -> None:
        if over.wait(PATIENCE):
            return
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER)
        if asking.is_alive() and not over.is_set():
            silent.set()
            for process in started():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield silent
    finally:
        over.set()


def explanation(python: str, said: str) -> str:
    """Why modules cannot run on a server, from what `python --version` says there; "" when that is not the reason."""
    found = re.search(r"^Python (\d+)\.(\d+)", said, re.MULTILINE)
    if found and (int(found[1]), int(found[2])) >= OLDEST:
        return ""
    needed = ".".join(map(str, OLDEST))
    return (
        f"{python} on the server cannot run Ansible's modules ({said.strip() or 'it says nothing'}): they "
        f"need Python {needed} or newer. Set bootstrap_python: true for this server in your inventory, and the run "
        "puts one into stack_prefix; or set ansible_python_interpreter to one that is there. Only Ansible uses it: "
        "the stack brings a Python of its own."
    )


class ActionModule(ActionBase):
    """Runs the module; when that fails, asks the interpreter for its version.

    A shell that a start-up file has put in the place of the login's reads standard input, the module at first, instead
    of running a command. Without an end of it, it would read for ever. A start-up file that waits for something itself
    reads nothing.
    """

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = str((task_vars or {}).get("inventory_hostname"))

        def least() -> None:
            with contextlib.suppress(Exception):
                self._connection.exec_command("echo", in_data=b"\n", sudoable=False)

        with watched(least) as silent:
            try:
                result: dict[str, Any] = self._execute_module(task_vars=task_vars)
            except AnsibleConnectionFailure:
                if not silent.is_set():
                    raise
        if silent.is_set():
            return {"failed": True, "msg": no_commands(host, f"it waited for more than {PATIENCE + ANSWER:.0f} s")}
        if result.get("failed"):
            python = str(self._used_interpreter).removeprefix("#!")
            ask = f"echo '{HERE}'; {shlex.quote(python)} --version 2>&1"
            done = self._low_level_execute_command(ask, in_data=b"\n", sudoable=False)
            _before, answers, said = done["stdout"].partition(HERE)
            if not answers:
                return {"failed": True, "msg": no_commands(host, "it was not run")}
            why = explanation(python, said)
            if why:
                return {"failed": True, "msg": why}
        return result
