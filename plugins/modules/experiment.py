#!/usr/bin/python
"""Start an experiment detached, or stop it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: experiment
short_description: Start an experiment detached from the login, or stop it
description:
  - O(state=started) writes C(runs/<experiment>/) and starts C(run.sh) in it, under a supervisor that outlives the login
    and the controller.
  - O(state=stopped) ends it, and all that it has started. What its last checkpoint holds is kept.
  - An experiment runs once at a time, also where servers share the folder.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  experiment: {description: Name of the experiment., type: str, required: true}
  state: {description: What to bring about., type: str, choices: [started, stopped], required: true}
  host: {description: The server's name in the inventory., type: str, default: ''}
  resume: {description: Go on with what an earlier start left., type: bool, default: false}
  replace: {description: Remove what an earlier start left., type: bool, default: false}
  keep: {description: Names in its folder that O(replace) leaves., type: list, elements: str, default: []}
  gpus: {description: Number of free GPUs to pick; 0 for none., type: int, default: 0}
  gpu_ids: {description: GPUs to take instead of picking., type: list, elements: int, default: []}
  facts: {description: What experiment.json and the log of experiments are to say., type: dict, default: {}}
  files: {description: Text files to write into its folder., type: dict, default: {}}
  environment: {description: All environment variables of the run., type: dict, default: {}}
  signatures:
    description: What is wrong, by how a log says it, for the record of an earlier start's end.
    type: list
    elements: dict
    default: []
"""

RETURN = r"""
folder: {description: The experiment's folder., type: str, returned: success}
outcome: {description: What became of it., type: dict, returned: success}
gpu_ids: {description: GPUs that it was given., type: list, returned: success}
set_aside: {description: Cut off models that a resume would have failed on., type: list, returned: success}
"""

import os
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.experiment_log import record_start, settle
from ansible.module_utils.experiment_runs import (
    LEASE,
    NAME,
    choose_gpus,
    claim,
    claims,
    clear,
    cut_off,
    folder_of,
    gpus,
    log_event,
    one_at_a_time,
    refuse_unless_new_or_resumed,
    remember,
    set_aside,
    spawn,
    state_of,
    stop,
    write_files,
)
from ansible.module_utils.stack_installs import StackError, restrict_umask
from ansible.module_utils.stack_lease import release

STOP_SECONDS = 60.0


def pick(given: dict[str, Any]) -> list[int]:
    """GPUs for an experiment."""
    if not given["gpus"]:
        return []
    picked: list[int] = choose_gpus(gpus(), claims(given["prefix"]), given["gpus"], given["gpu_ids"])
    return picked


def start(given: dict[str, Any], check: bool) -> tuple[dict[str, Any], list[int], list[str]]:
    """Start an experiment; returns its state, the GPUs that it got, and cut off models that were set aside."""
    prefix, name = given["prefix"], given["experiment"]
    folder = folder_of(prefix, name)
    refuse_unless_new_or_resumed(state_of(folder), name, given["resume"], given["replace"])
    if check:
        return {"state": "running"}, pick(given), cut_off(folder) if given["resume"] else []
    os.makedirs(folder, exist_ok=True)
    holder = claim(folder, given["host"])
    try:
        settle(prefix, name, given["signatures"], time.time(), over=True)
        aside = cut_off(folder) if given["resume"] else []
        for path in aside:
            set_aside(path)
        if given["replace"]:
            clear(folder, given["keep"])
        with one_at_a_time(prefix):
            picked = pick(given)
            facts = {**given["facts"], "name": name, "gpu_ids": picked, "run": holder["run"]}
            facts.update(server=socket.gethostname(), host=given["host"], since=holder["since"])
            remember(folder, facts)
        numbers = ",".join(map(str, picked))
        write_files(folder, {path: text.replace("@GPUS@", numbers) for path, text in given["files"].items()})
        log_event(folder, {"event": "resumed" if given["resume"] else "started", **facts})
        record_start(prefix, facts, given["files"], given["resume"], time.time())
        spawn(folder, holder, given["environment"])
    except BaseException:
        release(os.path.join(folder, LEASE))
        raise
    return state_of(folder), picked, aside


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "experiment": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped"], "required": True},
            "host": {"type": "str", "default": ""},
            "resume": {"type": "bool", "default": False},
            "replace": {"type": "bool", "default": False},
            "keep": {"type": "list", "elements": "str", "default": []},
            "gpus": {"type": "int", "default": 0},
            "gpu_ids": {"type": "list", "elements": "int", "default": []},
            "facts": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "signatures": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    restrict_umask()
    folder = folder_of(given["prefix"], given["experiment"])
    picked: list[int] = []
    aside: list[str] = []
    try:
        if not NAME.fullmatch(given["experiment"]):
            raise StackError(
                f"{given['experiment']!r} cannot be the name of an experiment: it names a folder. Use letters, "
                "digits and ._+- (at most 100)."
            )
        before = state_of(folder)
        changed = given["state"] == "started" or (before["state"] == "running" and before["here"])
        if given["state"] == "started":
            after, picked, aside = start(given, module.check_mode)
        elif changed and not module.check_mode:
            after = stop(folder, STOP_SECONDS)
            settle(given["prefix"], given["experiment"], given["signatures"], time.time())
        else:
            after = before
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{folder} cannot be used: {error}. Mend that, and run the same command again.")
    module.exit_json(changed=changed, folder=folder, outcome=after, gpu_ids=picked, set_aside=aside)


if __name__ == "__main__":
    main()
