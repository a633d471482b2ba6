"""A table at the end of a run: every server and every rung of its check ladder, what changed, what failed and why."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_ladder import failed_checks  # noqa: E402
from ansible.plugins.callback import CallbackBase  # noqa: E402

DOCUMENTATION = r"""
name: stack_summary
type: aggregate
short_description: Table of servers and rungs of the check ladder
description:
  - Shows, after the play recap, one line per server with each rung of its check ladder, then the reasons of rungs that
    failed or do not apply, what was installed, and for a server that failed, why and how to go on.
requirements: [enable in ansible.cfg]
"""

MARKS = {"passed": "passed", "failed": "FAILED", "not_applicable": "n/a"}


def table(ladders: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Rows of the table, the header first: server, then a mark per rung ("-" where no ladder was climbed)."""
    rungs = list(dict.fromkeys(rung["rung"] for ladder in ladders.values() for rung in ladder.get("rungs", [])))
    rows = [["server", *rungs]]
    for server, ladder in ladders.items():
        marks = {rung["rung"]: MARKS[rung["status"]] for rung in ladder.get("rungs", [])}
        rows.append([server, *[marks.get(rung, "-") for rung in rungs]])
    return rows


def reasons(ladders: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """(servers, sentence) for all that did not pass; rungs and servers of which the same is true share a line."""
    absent: dict[tuple[str, str], list[str]] = {}
    found: dict[str, list[str]] = {}
    for server, ladder in ladders.items():
        for rung in ladder.get("rungs", []):
            if rung["status"] == "not_applicable":
                absent.setdefault((server, rung["reason"]), []).append(rung["rung"])
        for sentence in [sentence for _rung, sentence in failed_checks(ladder)] + ladder.get("notes", []):
            found.setdefault(sentence, []).append(server)
    for (server, reason), rungs in absent.items():
        found.setdefault(f"{', '.join(rungs)} n/a: {reason}", []).append(server)
    return [(", ".join(servers), sentence) for sentence, servers in found.items()]


def cause(result: dict[str, Any]) -> str:
    """Why a task failed: its message, for a loop that of the first item that failed, for a command what it said."""
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    said = str(failed.get("stderr") or failed.get("stdout") or "").strip().splitlines()[-5:]
    return " ".join([str(failed.get("msg", "no message")).strip(), *said])


class CallbackModule(CallbackBase):
    """Collects results as they come and prints at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stack_summary"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.ladders: dict[str, dict[str, Any]] = {}
        self.installed: dict[str, list[str]] = {}
        self.failed: dict[str, str] = {}

    def v2_runner_on_ok(self, result: Any) -> None:
        server, values = result.host.get_name(), result.result
        if result.task.action == "ladder_report":
            self.ladders[server] = values["ladder"]
        elif result.task.action == "install_publish" and values.get("receipt"):
            self.installed.setdefault(server, []).append(values["msg"])

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        server, values = result.host.get_name(), result.result
        self.failed[server] = cause(values)
        if result.task.action == "ladder_report":
            self.ladders[server] = values["ladder"]
            self.failed[server] = "its check ladder did, see above"

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self.failed[result.host.get_name()] = "not reachable: " + str(result.result.get("msg", ""))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if any(self.ladders.values()):  # in check mode, before a first run, there is none to show
            self._print_ladders()
        for server, lines in self.installed.items():
            self._display.display(f"{server}: " + "; ".join(lines))
        if self.failed:
            for server, why in self.failed.items():
                self._wrapped(f"{server} failed: ", why, "red")
            self._display.display(f"After mending it: the same command with --limit {','.join(self.failed)}")

    def _wrapped(self, start: str, text: str, colour: str | None = None) -> None:
        width = min(shutil.get_terminal_size().columns, 120)
        self._display.display(
            textwrap.fill(
                " ".join(text.split()),
                width,
                initial_indent=start,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            ),
            color=colour,
        )

    def _print_ladders(self) -> None:
        rows = table(self.ladders)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        self._display.banner("CHECK LADDER")
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            worst = "red" if "FAILED" in row else "green" if "passed" in row else None
            self._display.display(line.rstrip(), color=worst)
        for servers, why in reasons(self.ladders):
            self._wrapped(f"{servers}: ", why)
