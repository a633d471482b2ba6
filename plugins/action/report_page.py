"""Writes the page about all servers and their runs, from what they have told. Runs on the controller alone."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils import report_page, report_state  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


class ActionModule(ActionBase):
    """Arguments: path (the page), state (the folder of what servers told), servers, asked (names of servers)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given = self._task.args
        path, folder = Path(given["path"]).expanduser(), Path(given["state"]).expanduser()
        states = [report_state.load(folder, str(name)) for name in given["servers"]]
        now = time.time()
        found = report_page.view(states, [str(name) for name in given["asked"]], now)
        try:
            written = report_page.page(found, ROOT / "files/report", now, _commit()).encode("utf-8", "replace")
            if not self._task.check_mode:
                _write(path, written)
        except OSError as error:
            raise AnsibleActionFail(f"The page could not be written: {error}") from error
        lines = _lines(found, path, len(written), self._task.check_mode, now)
        return {"changed": True, "path": str(path), "bytes": len(written), "lines": lines}


def _write(path: Path, page: bytes) -> None:
    """Write by rename: a reader sees the old page or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(page)
    draft.replace(path)


def _commit() -> str:
    """The commit of this project."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _lines(found: dict[str, Any], path: Path, size: int, check: bool, now: float) -> list[str]:
    """What the page says, for the terminal."""
    if check:  # which keeps nothing of what servers have just told
        return [f"{path} would be written, about {_counted(len(found['servers']), 'server')}."]
    states = ", ".join(f"{count} {name}" for name, count in found["states"])
    count = f"{_counted(len(found['servers']), 'server')}, {_counted(len(found['runs']), 'run')}"
    count += f" ({states})" if states else ""
    lines = [f"{path} is written: {count}, {report_page.size(size)}."]
    for row in found["silent"]:
        last = f"its last answer is {report_page.ago(row['answered'], now)}" if row["answered"] else "it never did"
        if row["problem"]:
            what = "DID NOT ANSWER" if row["became"] == "silent" else "COULD NOT BE LOOKED AT"
            lines.append(f"{row['host']} {what}; {last}: {report_page.short(row['problem'], 300)}")
        else:
            lines.append(f"{row['host']} was never asked.")
    return lines
