#!/usr/bin/python
"""Run the check ladder in the 2.7 environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_ladder
short_description: Run the check ladder, of a whole generation or of one build
description:
  - With O(generation), runs its C(bin/check-ladder), which activates it first, all rungs, and records the result for
    this server in C(checks/<server>/ladder.json). Changed when the outcome is another than the recorded one.
  - Otherwise runs O(program) on O(installs) with O(python), the checks of the roles O(only); fails on a failed check.
options:
  generation: {description: Folder of a generation., type: path}
  prefix: {description: The stack's prefix., type: path, required: true}
  program: {description: Source of the ladder., type: str, default: ''}
  python: {description: The 2.7 interpreter., type: path}
  installs: {description: Installs by role., type: dict, default: {}}
  environment: {description: The ladder's whole environment., type: dict, required: true}
  only: {description: Roles whose checks to run., type: list, elements: str, default: []}
  expect:
    description: Numbers that the lock expects; a generation brings its own.
    type: dict
    default: {}
"""

RETURN = r"""
ladder: {description: The ladder's result (schema in files/py27/README.md)., type: dict, returned: success}
"""

import json
import os
import socket
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import RECEIPT, read_json, write_json
from ansible.module_utils.stack_ladder import failed_checks
from ansible.module_utils.stack_lookup import driver_line

TIMEOUT = 45 * 60  # seconds: a GPU newer than the stack compiles its kernels once, for over ten minutes
BUILD_RUNGS = ("linkage", "import", "numerics")


def outcome(record: dict[str, Any]) -> list[Any]:
    """What a record says, without times: which generation on which driver, and every check's status."""
    statuses = [(check["name"], check["status"]) for rung in record.get("rungs", []) for check in rung["checks"]]
    return [record.get("digest"), record.get("driver"), statuses]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "generation": {"type": "path"},
            "prefix": {"type": "path", "required": True},
            "program": {"type": "str", "default": ""},
            "python": {"type": "path"},
            "installs": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "required": True},
            "only": {"type": "list", "elements": "str", "default": []},
            "expect": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    options = ["--json", "-"]
    if given["generation"]:
        command = [os.path.join(given["generation"], "bin", "check-ladder"), *options]
    else:
        # The rung "files" is about published installs, and a build's checks are those that any server would give.
        command = [given["python"], "-", *options, "--rungs", ",".join(BUILD_RUNGS), "--only", ",".join(given["only"])]
        command += ["--expect", json.dumps(given["expect"])]
        for role, path in given["installs"].items():
            command += ["--install", f"{role}={path}"]
    if module.check_mode:
        module.exit_json(changed=bool(given["generation"]), ladder={})
    try:
        done = subprocess.run(
            command,
            input=given["program"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            cwd=given["prefix"],
            env=given["environment"],
        )
        ladder = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"The check ladder could not be run: {error}.")
    except ValueError:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        module.fail_json(msg=f"The check ladder broke off with exit code {done.returncode}: {said}")
    if given["generation"]:
        folder = os.path.join(given["prefix"], "checks", socket.gethostname())
        path = os.path.join(folder, "ladder.json")
        climbed = read_json(os.path.join(given["generation"], RECEIPT))
        record = {"digest": climbed.get("digest", ""), "driver": driver_line(), "time": int(time.time()), **ladder}
        changed = outcome(record) != outcome(read_json(path))
        try:
            os.makedirs(folder, exist_ok=True)
            write_json(path, record)
        except OSError as error:
            module.fail_json(msg=f"The check ladder's result cannot be kept: {error}. Check space and permissions.")
        module.exit_json(changed=changed, ladder=record)
    failed = failed_checks(ladder)
    if failed:
        module.fail_json(
            msg="The build does not pass its checks. " + " | ".join(sentence for _rung, sentence in failed)
        )
    module.exit_json(changed=False, ladder=ladder)


if __name__ == "__main__":
    main()
