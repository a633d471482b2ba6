"""A login that answers late is waited for; one that never does is not."""

from __future__ import annotations

import subprocess
import sys

import pytest
from action_plugin import Action

# What goes on in the process that has started an ssh, in one of its own: all that this one has started are ended.
PROGRAM = """
import sys, subprocess, time
sys.path.insert(0, {actions!r})
import stack_lookup
stack_lookup.PATIENCE, stack_lookup.ANSWER = 0.2, 0.2
ssh = subprocess.Popen(["sleep", {lasts!r}])
with stack_lookup.watched(lambda: time.sleep({answers})) as silent:
    print(ssh.wait(), silent.is_set())
"""


@pytest.mark.parametrize(
    ("lasts", "answers", "said"),
    [
        pytest.param("0", 600, "0 False", id="an answer at once"),
        pytest.param("3", 0, "0 False", id="a look-up that takes long, where commands run"),
        pytest.param("600", 600, "-15 True", id="no command runs"),
    ],
)
def test_only_where_no_command_runs_the_wait_ends(lasts: str, answers: int, said: str) -> None:
    actions = str(Action("stack_lookup").plugin.__file__).rpartition("/")[0]
    program = PROGRAM.format(actions=actions, lasts=lasts, answers=answers)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == said + "\n", done.stderr


def test_what_is_given_back_is_what_the_module_says(monkeypatch: pytest.MonkeyPatch) -> None:
    action = Action("stack_lookup")
    monkeypatch.setattr(action.plugin, "PATIENCE", 600.0)
    monkeypatch.setattr(Action, "_execute_module", lambda *_given, **_named: {"changed": False, "server": "gpu1"})
    assert action.run() == {"changed": False, "server": "gpu1"}
