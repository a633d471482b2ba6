"""Shows, compares and writes down the runs of all servers. Runs on the controller alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.run_table import as_csv, as_json, chosen, compared, comparison, listed  # noqa: E402
from ansible.module_utils.stack_installs import StackError  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

WRITERS = {".json": as_json, ".csv": as_csv}
MOST = 160  # columns of a table on a wide terminal


def joined(servers: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all servers, newest first. Of servers that share a folder each has the same ones; the one that a
    run is on knows best how far it is."""
    found: dict[str, dict[str, Any]] = {}
    for server, result in servers.items():
        for record in result.get("records", []):
            if record["run"] not in found or server == record.get("host"):
                found[record["run"]] = record
    return sorted(found.values(), key=lambda record: (record["started"], record["run"]), reverse=True)


class ActionModule(ActionBase):
    """Arguments: see module run_table."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given = {"servers": {}, "missing": [], "only": "", "compare": "", "file": "", **self._task.args}
        now = time.time()
        try:
            # Plain types: Ansible's own subclasses of text slow everything down.
            every = joined(given["servers"])
            records = chosen(every, str(given["only"]))
            lines: list[tuple[str, str | None]]
            if given["compare"]:
                runs = compared(every, str(given["compare"]))
                lines = [(line, None) for line in comparison(runs, self._width(), now)]
            else:
                lines = listed(records, self._width(), now) if records else [("No run is recorded.", None)]
            result = self._write(str(given["file"]), records, given["missing"])
        except (StackError, OSError) as error:
            return {"failed": True, "msg": str(error)}
        for server, found in given["servers"].items():
            lines += [(f"{server}: {line}", "bright purple") for line in found.get("left_out", [])]
        if given["missing"]:
            lines.append(
                (f"Without the runs of {', '.join(given['missing'])}, which could not be asked.", "bright red")
            )
        if result["file"]:
            written = "would be written" if self._task.check_mode else "is written"
            count = "1 run" if len(records) == 1 else f"{len(records)} runs"
            lines.append((f"{result['file']} {written}: {count}.", None))
        for line, colour in ("", None), *lines:
            self._display.display(line, color=colour)
        return {**result, "lines": [line for line, _colour in lines]}

    def _width(self) -> int:
        """Columns of the terminal, which a worker does not have any more."""
        given = os.environ.get("COLUMNS", "")
        return min(int(given) if given.isdigit() and int(given) else self._display.columns + 1, MOST)

    def _write(self, file: str, records: list[dict[str, Any]], missing: list[str]) -> dict[str, Any]:
        """Write all that is known into a file, where one is named, by rename. Raises StackError, OSError."""
        if not file:
            return {"changed": False, "file": ""}
        path = Path(file).expanduser().absolute()
        writer = WRITERS.get(path.suffix)
        if not writer:
            raise StackError(f"runs_file is {file}: give a name that ends in {' or '.join(WRITERS)}.")
        new = writer(records, missing).encode("utf-8", "replace")
        changed = not path.is_file() or path.read_bytes() != new
        if changed and not self._task.check_mode:
            draft = path.with_name(f".{path.name}.new")
            draft.write_bytes(new)
            draft.replace(path)
        return {"changed": changed, "file": str(path)}
