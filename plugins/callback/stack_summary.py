"""The last screen of a run: every server's check ladder, what became of each server, why some failed, how to go on."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import ansible.module_utils

# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[1] / "module_utils"))

from ansible.module_utils.stack_command import HIDDEN, resume, shown  # noqa: E402
from ansible.module_utils.stack_failure import cause, unreachable  # noqa: E402
from ansible.module_utils.stack_ladder import failed_checks  # noqa: E402
from ansible.plugins.callback import CallbackBase  # noqa: E402

DOCUMENTATION = r"""
name: stack_summary
type: aggregate
short_description: Tables of the servers, their check ladders and results
description:
  - Shows, after the play recap, one line per server with each rung of its check ladder, then the reasons of rungs that
    failed or do not apply.
  - Then the seconds that each role took on each server, where they fit, else the shortest, the longest and where.
  - Then one line per server with its stack, its result, and what it installed, reused from a server that shares its
    home, or failed of; and the command that goes on with those that failed.
"""

WIDTH = 100  # columns, at most
REST = "others"
COMMON = {"bootstrap", "stack", REST}  # what every playbook spends time on
MARKS = {"passed": "passed", "failed": "FAILED", "not_applicable": "n/a"}
COLOURS = {"ok": "green", "changed": "yellow", "waited": "yellow", "unreachable": "bright red"}  # others: red


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


def role_of(task: Any) -> str:
    """The role that a task is part of. Source trees are built by tasks of role stack, under the tag of their own."""
    role, colon, _name = task.get_name().partition(" : ")
    borrowed = [tag for tag in task.tags if tag != "verify"] if role == "stack" and "always" not in task.tags else []
    return next(iter(borrowed), role) if colon else REST


def times(spent: dict[str, dict[str, float]], width: int) -> list[list[str]]:
    """Rows of the table of seconds, the header first: a role, and what it took on each server; roles of less than a
    second anywhere in one row. Where servers do not fit: the least, the most, and where that was."""
    roles = list(dict.fromkeys(role for taken in spent.values() for role in taken))
    long = [role for role in roles if any(taken.get(role, 0.0) >= 1 for taken in spent.values())]
    seconds = {
        role: [taken.get(role, 0.0) for taken in spent.values()] for role in sorted(long, key=lambda role: role == REST)
    }
    short = [sum(taken.get(role, 0.0) for role in roles if role not in long) for taken in spent.values()]
    if any(short):
        seconds[REST] = [one + other for one, other in zip(short, seconds.get(REST, [0.0] * len(short)), strict=True)]
    seconds["in all"] = [sum(taken.values()) for taken in spent.values()]
    rows = [["seconds", *spent], *([role, *map(whole, taken)] for role, taken in seconds.items())]
    if sum(max(map(len, column)) + 2 for column in zip(*rows, strict=True)) <= width + 2:
        return rows
    names = list(spent)
    return [
        ["seconds", "least", "most", "on"],
        *(
            [role, whole(min(taken)), whole(max(taken)), names[taken.index(max(taken))]]
            for role, taken in seconds.items()
        ),
    ]


def whole(seconds: float) -> str:
    return f"{seconds:.0f}"


def duration(seconds: float) -> str:
    """A duration for people: 48 s, 12 min."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Row:
    """What is known of one server."""

    def __init__(self, stack: str) -> None:
        self.stack = stack
        self.changed = False
        self.installed: list[str] = []
        self.waits: dict[str, tuple[str, float]] = {}  # role: whom it waits for, since when
        self.reused: dict[str, list[str]] = {}  # server: roles that it built for this one
        self.waited = 0.0  # seconds
        self.failed, self.why = "", ""

    def result(self) -> str:
        """One word."""
        waited = "waited" if self.reused and not self.installed else ""
        return self.failed or waited or ("changed" if self.changed else "ok")

    def notes(self) -> str:
        """What it installed, reused, or failed of."""
        notes = [f"installed {', '.join(self.installed)}"] if self.installed else []
        notes += [f"reused {', '.join(roles)} from {server}" for server, roles in self.reused.items()]
        if self.waited >= 1:
            notes.append(f"waited {duration(self.waited)}")
        return self.why or "; ".join(notes)


class CallbackModule(CallbackBase):
    """Collects results as they come and prints at the end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "stack_summary"

    def __init__(self) -> None:
        super().__init__()
        self.ladders: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, Row] = {}
        self.stacks: dict[str, str] = {}  # of all servers of the play
        self.begun: dict[str, float] = {}  # by server: when its present task was begun
        self.spent: dict[str, dict[str, float]] = {}  # by server and role: seconds
        self.started = time.monotonic()
        self.provisions = False  # whether this is a run that looks up installs, unlike that of another playbook

    def _row(self, server: str) -> Row:
        return self.rows.setdefault(server, Row(self.stacks.get(server, "") or "-"))

    def v2_playbook_on_play_start(self, play: Any) -> None:
        known = play.get_variable_manager().get_vars(play=play)
        groups = {name: members for name, members in known["groups"].items() if name.startswith("stack_")}
        for server in known["ansible_play_hosts_all"]:
            stacks = [name.removeprefix("stack_") for name in sorted(groups) if server in groups[name]]
            self.stacks[server] = " ".join(stacks)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self.begun[host.get_name()] = time.monotonic()

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._end(result)

    def _end(self, result: Any) -> None:
        """Add what a task took to its role's time on the server."""
        server, role = result.host.get_name(), role_of(result.task)
        if server in self.begun:
            taken = time.monotonic() - self.begun.pop(server)
            spent = self.spent.setdefault(server, {})
            spent[role] = spent.get(role, 0.0) + taken

    def v2_runner_on_ok(self, result: Any) -> None:
        self._end(result)
        server, values, action = result.host.get_name(), result.result, result.task.action
        row = self._row(server)
        row.changed = row.changed or bool(values.get("changed"))
        self.provisions = self.provisions or action == "stack_lookup"
        if action == "ladder_report":
            self.ladders[server] = values["ladder"]
        elif action == "install_publish" and values.get("receipt"):
            row.installed.append(f"{values['receipt']['role']} {values['receipt']['version']}")
        elif action == "install_begin":
            role = result.task.args.get("role", values.get("role", ""))
            if values.get("held_by"):
                row.waits.setdefault(role, (values["held_by"].get("host", "?"), time.monotonic()))
            elif role in row.waits and not values.get("build"):
                whom, since = row.waits.pop(role)
                row.reused.setdefault(whom, []).append(role)
                row.waited += time.monotonic() - since

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if ignore_errors:  # Ansible's name for a play's own decision; no play of this project ignores an error
            return
        self._end(result)
        row, values = self._row(result.host.get_name()), result.result
        # The end of a build whose task has said why.
        if result.task.action in ("install_failed", "workspace") and row.failed:
            row.why += "" if values.get("full") is False else f" {cause(values)}"
            return
        row.failed, row.why = "FAILED", f"{cause(values)} [{result.task.get_name()}]"
        if result.task.action == "ladder_report":
            self.ladders[result.host.get_name()] = values["ladder"]
            row.why = "its check ladder did, see above"

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._end(result)
        row = self._row(result.host.get_name())
        row.failed, row.why = "unreachable", unreachable(str(result.result.get("msg", "")))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if any(row.failed for row in self.rows.values()):
            for server in self.stacks.keys() - self.rows.keys():
                row = self._row(server)
                row.failed, row.why = "not reached", "the run ended before it"
        # In the order of the play recap, not in that of arrival.
        self.ladders, self.rows = dict(sorted(self.ladders.items())), dict(sorted(self.rows.items()))
        if any(self.ladders.values()):  # in check mode, before a first run, there is none to show
            self._print_ladders()
        failed = [server for server, row in self.rows.items() if row.failed]
        if len({role for taken in self.spent.values() for role in taken} - COMMON) > 1:
            self._print_times()
        if failed or self.provisions:
            self._print_servers()
        if failed:
            self._print_resume(failed)

    @staticmethod
    def _width() -> int:
        return min(shutil.get_terminal_size().columns, WIDTH)

    def _wrapped(self, start: str, text: str, colour: str | None = None, indent: str = "  ") -> None:
        self._display.display(
            textwrap.fill(
                " ".join(text.split()),
                self._width(),
                initial_indent=start,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            or start.rstrip(),
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

    def _print_times(self) -> None:
        rows = times(dict(sorted(self.spent.items())), self._width())
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        self._display.banner("TIME")
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            self._display.display("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
        self._display.display(f"The run took {duration(time.monotonic() - self.started)}.")

    def _print_servers(self) -> None:
        cells = [("server", "stack", "result")]
        cells += [(server, row.stack, row.result()) for server, row in self.rows.items()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        self._display.banner("SERVERS")
        notes = ["", *(row.notes() for row in self.rows.values())]
        for row, note in zip(cells, notes, strict=True):
            line = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=True))
            colour = None if row is cells[0] else COLOURS.get(row[2], "red")
            self._wrapped(line, note, colour, indent=" " * min(len(line), 40))

    def _print_resume(self, servers: list[str]) -> None:
        command = resume(sys.argv, servers)
        count = f"{len(servers)} of {len(self.rows)} servers are not done"
        self._display.display(f"{count}. When what they say is mended, in this folder:")
        for line in shown(command, self._width() - 2):
            self._display.display(f"  {line}")
        if any(HIDDEN in word for word in command):
            self._display.display(f"{HIDDEN} stands for what looks like a secret and is not shown: put it back.")
