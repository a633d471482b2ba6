"""The table at the end of a run, and why a server failed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from stack_summary import CallbackModule, cause, reasons, table


def rung(name: str, status: str = "passed", reason: str = "", check: dict[str, str] | None = None) -> dict[str, Any]:
    return {"rung": name, "status": status, "reason": reason, "checks": [check] if check else []}


def ladder(*rungs: dict[str, Any]) -> dict[str, Any]:
    return {"rungs": list(rungs)}


FAILED = {"name": "narrow", "status": "failed", "reason": "no kernel image", "remedy": "Use another GPU."}
GOOD = ladder(rung("files"), rung("operator", "not_applicable", "no GPU"))
BAD = ladder(rung("files"), rung("operator", "failed", check=FAILED))


def test_a_table_has_a_row_per_server_and_a_mark_per_rung() -> None:
    assert table({"gpu1": GOOD, "gpu2": BAD, "gpu3": ladder(rung("files")), "gpu4": {}}) == [
        ["server", "files", "operator"],
        ["gpu1", "passed", "n/a"],
        ["gpu2", "passed", "FAILED"],
        ["gpu3", "passed", "-"],
        ["gpu4", "-", "-"],
    ]


def test_a_reason_that_several_servers_share_is_said_once() -> None:
    assert reasons({"gpu1": GOOD, "gpu2": GOOD, "gpu3": BAD}) == [
        ("gpu3", "operator FAILED, narrow: no kernel image Remedy: Use another GPU."),
        ("gpu1, gpu2", "operator n/a: no GPU"),
    ]


def test_rungs_of_one_reason_share_a_line() -> None:
    both = ladder(rung("operator", "not_applicable", "no GPU"), rung("multi_gpu", "not_applicable", "no GPU"))
    assert reasons({"gpu1": both}) == [("gpu1", "operator, multi_gpu n/a: no GPU")]


def test_a_check_without_a_reason_says_what_it_saw() -> None:
    check = {"name": "caffe2", "status": "failed", "reason": "", "detail": "2 files missing"}
    assert reasons({"gpu1": ladder(rung("files", "failed", check=check))}) == [
        ("gpu1", "files FAILED, caffe2: 2 files missing")
    ]


def test_a_ladder_that_passed_has_no_reasons() -> None:
    assert reasons({"gpu1": ladder(rung("files")), "gpu2": {}}) == []


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"msg": "No space."}, "No space."),
        ({}, "no message"),
        (
            {"msg": "non-zero return code", "stderr": "warning\ngcc: not found\n"},
            "non-zero return code warning gcc: not found",
        ),
        ({"msg": "failed", "stdout": "said", "stderr": ""}, "failed said"),
        ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "a cut"}]}, "a cut"),
    ],
)
def test_the_cause_is_what_a_person_can_act_on(result: dict[str, Any], why: str) -> None:
    assert cause(result) == why


class Terminal:
    """A callback, what is fed to it, and what it shows."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.callback = CallbackModule()
        self.callback._display = SimpleNamespace(display=self.show, banner=self.show)

    def show(self, text: str, color: str | None = None) -> None:
        self.lines += text.splitlines()

    def feed(self, event: str, server: str, action: str = "command", **values: Any) -> None:
        host, task = SimpleNamespace(get_name=lambda: server), SimpleNamespace(action=action)
        getattr(self.callback, f"v2_{event}")(SimpleNamespace(host=host, task=task, result=values))

    def end(self) -> list[str]:
        self.callback.v2_playbook_on_stats(None)
        return self.lines


def test_a_good_run_shows_ladders_and_what_was_installed() -> None:
    terminal = Terminal()
    terminal.feed("runner_on_ok", "gpu1", "install_publish", receipt={"role": "caffe2"}, msg="caffe2 1.0 published")
    terminal.feed("runner_on_ok", "gpu1", "ladder_report", ladder=GOOD)
    lines = terminal.end()
    assert lines[:3] == ["CHECK LADDER", "server  files   operator", "gpu1    passed  n/a"]
    assert "gpu1: caffe2 1.0 published" in lines
    assert not any("failed" in line for line in lines)


@pytest.mark.parametrize("action", ["ansible.builtin.debug", "stack_lookup"])
def test_a_run_that_did_nothing_shows_nothing(action: str) -> None:
    terminal = Terminal()
    terminal.feed("runner_on_ok", "gpu1", action, changed=False)
    assert terminal.end() == []


def test_a_ladder_that_was_not_climbed_is_no_table() -> None:
    terminal = Terminal()
    terminal.feed("runner_on_ok", "gpu1", "ladder_report", ladder={})
    assert terminal.end() == []


def test_a_server_that_failed_is_shown_with_its_cause_and_how_to_go_on() -> None:
    terminal = Terminal()
    terminal.feed("runner_on_failed", "gpu1", msg="No space below /data.")
    terminal.feed("runner_on_unreachable", "gpu2", msg="Connection timed out")
    assert terminal.end() == [
        "gpu1 failed: No space below /data.",
        "gpu2 failed: not reachable: Connection timed out",
        "After mending it: the same command with --limit gpu1,gpu2",
    ]


def test_a_ladder_that_failed_is_in_the_table() -> None:
    terminal = Terminal()
    terminal.feed("runner_on_failed", "gpu1", "ladder_report", msg="The check ladder failed.", ladder=BAD)
    lines = terminal.end()
    assert "gpu1    passed  FAILED" in lines
    assert any(line.startswith("gpu1 failed: ") for line in lines)


def test_long_causes_are_wrapped_without_breaking_commands() -> None:
    terminal = Terminal()
    command = "/very/long/path/" + "x" * 150
    terminal.feed("runner_on_failed", "gpu1", msg=f"Cause {'word ' * 40}. Run {command}")
    lines = terminal.end()
    assert len(lines) > 2
    assert f"  {command}" in lines
