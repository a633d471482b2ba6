"""The last screen of a run: ladders, results, why a server failed, and how to go on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.stack_failure import cause, unreachable
from stack_summary import CallbackModule, duration, reasons, table, times


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
        (
            {"msg": "No.\nSTOP  disk: Full\n      Cause  Much.\n\nSTOP  glibc: Old"},
            "No. STOP disk: Full STOP glibc: Old",
        ),
        ({"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "a cut"}]}, "a cut"),
    ],
)
def test_the_cause_is_what_a_person_can_act_on(result: dict[str, Any], why: str) -> None:
    assert cause(result) == why


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (
            'Task failed: Data could not be sent to remote host "gpu8". Make sure this host can be reached over ssh: '
            "ssh: connect to host 10.0.0.8 port 22: Connection refused",
            "ssh: connect to host 10.0.0.8 port 22: Connection refused",
        ),
        (
            "Failed to connect to the host via ssh: Warning: Permanently added 'gpu2' to the list of known hosts.\n"
            "alice@gpu2: Permission denied (publickey).\n",
            "alice@gpu2: Permission denied (publickey).",
        ),
        ("Invalid/incorrect password", "Invalid/incorrect password"),
        (
            'Task failed: Data could not be sent to remote host "gpu8". Make sure this host can be reached over ssh: ',
            "the connection broke, and ssh does not say why: did the server go down?",
        ),
        ("", "the connection broke, and ssh does not say why: did the server go down?"),
    ],
)
def test_an_unreachable_server_is_shown_with_the_reason_that_ssh_gives(message: str, why: str) -> None:
    assert unreachable(message) == why


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (1800, "30 min")])
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Terminal:
    """A callback, what is fed to it, and what it shows."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.callback = CallbackModule()
        self.callback._display = SimpleNamespace(display=self.show, banner=self.show)

    def show(self, text: str, color: str | None = None) -> None:
        self.lines += text.splitlines()

    def task(
        self, server: str, name: str, begun: float, ended: float, outcome: str = "ok", tags: tuple[str, ...] = ()
    ) -> None:
        """A task that takes its time."""
        host = SimpleNamespace(get_name=lambda: server)
        task = SimpleNamespace(action="command", args={}, get_name=lambda: name, tags=[*tags])
        with pytest.MonkeyPatch.context() as clock:
            clock.setattr("time.monotonic", lambda: begun)
            self.callback.v2_runner_on_start(host, task)
            clock.setattr("time.monotonic", lambda: ended)
            result = SimpleNamespace(host=host, task=task, result={"msg": "no"})
            getattr(self.callback, f"v2_runner_on_{outcome}")(result)

    def feed(self, event: str, server: str, action: str = "command", **values: Any) -> None:
        host = SimpleNamespace(get_name=lambda: server)
        task = SimpleNamespace(action=action, args={}, get_name=lambda: "caffe2 : Do it", tags=["caffe2"])
        getattr(self.callback, f"v2_{event}")(SimpleNamespace(host=host, task=task, result=values))

    def play(self, *servers: str) -> None:
        known = {"groups": {"all": servers, "stack_mine": servers}, "ansible_play_hosts_all": servers}
        manager = SimpleNamespace(get_vars=lambda play: known)
        self.callback.v2_playbook_on_play_start(SimpleNamespace(get_variable_manager=lambda: manager))

    def ok(self, server: str, action: str, **values: Any) -> None:
        self.feed("runner_on_ok", server, action, **values)

    def end(self) -> list[str]:
        self.callback.v2_playbook_on_stats(None)
        return self.lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Of a person who typed a command with a limit."""
    typed = ["/opt/bin/ansible-playbook", "-i", "my inventory", "site.yml", "--limit", "all", "-e", "a=1"]
    monkeypatch.setattr("sys.argv", typed)
    monkeypatch.setenv("COLUMNS", "300")
    terminal = Terminal()
    terminal.play("gpu1", "gpu2", "gpu3")
    return terminal


def test_a_good_run_shows_ladders_and_what_was_installed(terminal: Terminal) -> None:
    terminal.ok("gpu1", "stack_lookup")
    published = {"role": "caffe2", "version": "1.0"}
    terminal.ok("gpu1", "install_publish", receipt=published, changed=True)
    terminal.ok("gpu1", "ladder_report", ladder=GOOD)
    assert terminal.end() == [
        "CHECK LADDER",
        "server  files   operator",
        "gpu1    passed  n/a",
        "gpu1: operator n/a: no GPU",
        "SERVERS",
        "server  stack  result",
        "gpu1    mine   changed  installed caffe2 1.0",
    ]


def test_a_server_that_waited_names_whom_it_waited_for(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 20.0, 100.0, 1000.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    terminal.ok("gpu2", "stack_lookup")
    for role in ("conda", "caffe2"):
        terminal.ok("gpu2", "install_begin", role=role, build=False, held_by={"host": "gpu1"})
    for role in ("conda", "caffe2"):
        terminal.ok("gpu2", "install_begin", role=role, build=False)
    terminal.ok("gpu2", "generation", changed=True)
    assert terminal.end()[-1] == "gpu2    mine   waited  reused conda, caffe2 from gpu1; waited 18 min"


def test_a_server_that_took_over_is_not_one_that_waited(terminal: Terminal) -> None:
    terminal.ok("gpu2", "stack_lookup")
    terminal.ok("gpu2", "install_begin", role="caffe2", build=False, held_by={"host": "gpu1"})
    terminal.ok("gpu2", "install_begin", role="caffe2", build=True, changed=True)
    terminal.ok("gpu2", "install_publish", receipt={"role": "caffe2", "version": "1.0"}, changed=True)
    assert terminal.end()[-1] == "gpu2    mine   changed  installed caffe2 1.0"


def test_a_run_that_changed_nothing_says_ok(terminal: Terminal) -> None:
    terminal.ok("gpu1", "stack_lookup", changed=False)
    assert terminal.end() == ["SERVERS", "server  stack  result", "gpu1    mine   ok"]


@pytest.mark.parametrize("action", ["ansible.builtin.debug", "generation_info"])
def test_a_run_of_another_playbook_shows_nothing(terminal: Terminal, action: str) -> None:
    terminal.ok("gpu1", action, changed=False)
    assert terminal.end() == []


def test_a_ladder_that_was_not_climbed_is_no_table(terminal: Terminal) -> None:
    terminal.ok("gpu1", "ladder_report", ladder={})
    assert terminal.end() == []


def test_a_server_that_failed_is_shown_with_its_cause_and_the_command_to_go_on(terminal: Terminal) -> None:
    terminal.feed("runner_on_failed", "gpu1", msg="No space below /data.")
    terminal.feed("runner_on_unreachable", "gpu2", msg="Connection timed out")
    terminal.ok("gpu3", "stack_lookup")
    assert terminal.end() == [
        "SERVERS",
        "server  stack  result",
        "gpu1    mine   FAILED       No space below /data. [caffe2 : Do it]",
        "gpu2    mine   unreachable  Connection timed out",
        "gpu3    mine   ok",
        "2 of 3 servers are not done. When what they say is mended, in this folder:",
        "  /opt/bin/ansible-playbook -i 'my inventory' site.yml -e a=1 --limit gpu1,gpu2",
    ]


@pytest.mark.parametrize(
    ("end", "added"),
    [
        ({"full": False, "msg": "caffe2 is not installed: the task above failed."}, ""),
        ({"full": True, "msg": "The disk is full: …"}, " The disk is full: …"),
        ({"msg": "No lease was given back."}, " No lease was given back."),
    ],
)
def test_a_build_that_failed_is_shown_with_what_its_task_said(
    terminal: Terminal, end: dict[str, Any], added: str
) -> None:
    terminal.feed("runner_on_failed", "gpu1", msg="gcc: not found")
    terminal.feed("runner_on_failed", "gpu1", "install_failed", **end)
    assert f"gpu1    mine   FAILED       gcc: not found [caffe2 : Do it]{added}" in terminal.end()


def test_servers_that_the_run_did_not_come_to_are_named_and_come_next(terminal: Terminal) -> None:
    """With serial, a batch of which all failed ends it."""
    terminal.feed("runner_on_failed", "gpu1", msg="No space below /data.")
    lines = terminal.end()
    assert "gpu2    mine   not reached  the run ended before it" in lines
    assert lines[-1].endswith(" --limit gpu1,gpu2,gpu3")


def test_a_server_in_no_stack_is_shown_without_one(terminal: Terminal) -> None:
    terminal.feed("runner_on_failed", "stray", msg="It is in no group named stack_*.")
    assert any(line.startswith("stray   -      FAILED ") for line in terminal.end())


def test_a_failure_that_is_ignored_is_none(terminal: Terminal) -> None:
    terminal.callback.v2_runner_on_failed(SimpleNamespace(), ignore_errors=True)
    assert terminal.end() == []


def test_a_ladder_that_failed_is_in_the_table(terminal: Terminal) -> None:
    terminal.feed("runner_on_failed", "gpu1", "ladder_report", msg="The check ladder failed.", ladder=BAD)
    lines = terminal.end()
    assert "gpu1    passed  FAILED" in lines
    assert "gpu1    mine   FAILED       its check ladder did, see above" in lines


def test_no_line_is_wider_than_100_columns_but_a_long_word(terminal: Terminal) -> None:
    path = "/very/long/path/" + "x" * 150
    servers = [f"server{number}" for number in range(7)]
    terminal.callback.stacks = {}
    for server in servers:
        terminal.feed("runner_on_failed", server, msg=f"Cause {'word ' * 40}. Run {path}")
    lines = terminal.end()
    assert {line.strip() for line in lines if len(line) > 100} == {path}
    assert lines[-2].endswith(" \\")
    assert lines[-1].strip() == f"--limit {','.join(servers)}"


def test_a_secret_of_the_command_is_not_shown(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ansible-playbook", "site.yml", "-e", "proxy_password=hunter2"])
    terminal.callback.stacks = {}
    terminal.feed("runner_on_unreachable", "gpu2", msg="Connection timed out")
    lines = terminal.end()
    assert "  ansible-playbook site.yml -e proxy_password=HIDDEN --limit gpu2" in lines
    assert lines[-1] == "HIDDEN stands for what looks like a secret and is not shown: put it back."


def test_what_each_role_took_on_each_server_is_told(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.callback.started = 100.0
    terminal.task("gpu2", "caffe2 : Unpack", 10, 94)
    terminal.task("gpu1", "preflight : Probe", 0, 2)
    terminal.task("gpu1", "caffe2 : Fetch", 10, 20)
    terminal.task("gpu1", "Another, of no role", 20, 21.2)
    terminal.task("gpu1", "caffe2 : Unpack", 22, 103.4, "failed")
    terminal.task("gpu1", "stack : Look up", 0, 0.4, "skipped", ("preflight", "always"))
    terminal.task("gpu2", "stack : Compile", 0, 5, tags=("verify", "cocoapi"))
    monkeypatch.setattr("time.monotonic", lambda: 260.0)
    lines = terminal.end()
    assert lines[: lines.index("SERVERS")] == [
        "TIME",
        "seconds    gpu1  gpu2",
        "preflight     2     0",
        "caffe2       91    84",
        "cocoapi       0     5",
        "others        2     0",
        "in all       95    89",
        "The run took 3 min.",
    ]


def test_of_servers_that_do_not_fit_the_slowest_is_named() -> None:
    spent = {f"server{number}": {"caffe2": float(number), "stack": 0.1} for number in range(40)}
    assert times(spent, 100) == [
        ["seconds", "least", "most", "on"],
        ["caffe2", "0", "39", "server39"],
        ["others", "0", "0", "server0"],
        ["in all", "0", "39", "server39"],
    ]


def test_a_playbook_of_one_role_has_no_table_of_times(terminal: Terminal) -> None:
    terminal.task("gpu1", "stack : Look up", 0, 2)
    terminal.task("gpu1", "train : Watch", 2, 60)
    assert terminal.end() == []
