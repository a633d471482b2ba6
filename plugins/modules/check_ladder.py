#!/usr/bin/python
"""Run the check ladder in the 2.7 environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_ladder
short_description: Run the check ladder, of a whole generation or of one build
description:
  - With O(generation), runs its C(bin/check-ladder), which activates it first, all rungs, and records the result for
    this server in C(checks/<server>/ladder.json). Changed when the outcome is another than the recorded one.
  - That ladder runs detached, because on some GPUs it takes minutes. It survives a broken connection, and a run that
    finds one running waits for that instead of starting another. The action plugin of the same name calls the module
    until it has ended, and shows progress.
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
  seconds: {description: How long to wait for a generation's ladder in this call., type: float, default: 2700}
  follow: {description: An earlier call has started the ladder., type: bool, default: false}
"""

RETURN = r"""
ladder: {description: The ladder's result (docs/check-ladder.md)., type: dict, returned: when it has ended}
climbing:
  description: "What a ladder that has not ended is doing: C(rung), C(check), C(seconds), C(notice), C(cache_bytes)."
  type: dict
  returned: when it has not
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import RECEIPT, read_json, restrict_umask, write_json
from ansible.module_utils.stack_ladder import failed_checks
from ansible.module_utils.stack_lookup import driver_line

BUILD_TIMEOUT = 15 * 60  # seconds
BUILD_RUNGS = ("linkage", "import", "numerics")
LOOK_EVERY = 0.1  # seconds


def outcome(record: dict[str, Any]) -> list[Any]:
    """What a record says, without times: which generation on which driver, and every check's status."""
    statuses = [(check["name"], check["status"]) for rung in record.get("rungs", []) for check in rung["checks"]]
    return [record.get("digest"), record.get("driver"), statuses]


def is_climbing(report: str) -> bool:
    """Whether a ladder runs on this server that will write its result to the file `report`.

    It is looked for twice: for a moment, a process that starts a program shows no arguments.
    """
    if is_seen(report):
        return True
    time.sleep(LOOK_EVERY)
    return is_seen(report)


def is_seen(report: str) -> bool:
    """Whether a process shows the arguments of such a ladder."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended, or is not ours to look at
        if b"--json" in arguments and os.fsencode(report) in arguments:
            return True
    return False


def size_of(folder: str) -> int:
    """Bytes of the files in a folder; 0 where there is none."""
    total = 0
    for root, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # the driver replaces files
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def takes_progress(generation: str) -> bool:
    """Whether a generation's ladder can tell what it is doing.

    The ladder is a part of the generation, which an older release of this project may have made. Such a one is climbed
    all the same, without progress: somebody may have gone back to it (playbooks/rollback.yml) to stay.
    """
    return b"--progress" in Path(generation, "check_ladder.py").read_bytes()


class Climb:
    """A generation's ladder: a process of its own, which tells by files in var/log what it does and what it found."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.generation = os.path.realpath(module.params["generation"])
        self.prefix = module.params["prefix"]
        self.server = socket.gethostname()
        stem = os.path.join(self.prefix, "var", "log", f"ladder-{self.server}")
        self.report, self.progress, self.log = f"{stem}.json", f"{stem}.progress.json", f"{stem}.log"

    def start(self) -> None:
        """Start it in a session of its own: it does not end with this module, nor with the connection."""
        os.makedirs(os.path.dirname(self.report), exist_ok=True)
        if os.path.exists(self.report):
            os.unlink(self.report)
        write_json(self.progress, {"generation": self.generation})
        command = [os.path.join(self.generation, "bin", "check-ladder"), "--json", self.report]
        if takes_progress(self.generation):
            command += ["--progress", self.progress]
        with open(self.log, "wb") as log:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.prefix,
                env=self.module.params["environment"],
                start_new_session=True,
            )

    def wait(self, deadline: float) -> bool:
        """Wait for the end of what climbs; returns whether something did. Ends the module at the deadline."""
        met = False
        while is_climbing(self.report):
            met = True
            if time.monotonic() > deadline:
                doing = read_json(self.progress)
                cache = os.path.join(self.prefix, "var", "cache", "cuda")
                since = doing.get("since", time.time())
                self.module.exit_json(
                    changed=False,
                    climbing={**doing, "seconds": time.time() - since, "cache_bytes": size_of(cache)},
                )
            time.sleep(LOOK_EVERY)
        return met

    def result(self) -> dict[str, Any]:
        """The result of the ladder: of the one that an earlier call started, that runs already, or a new one."""
        deadline = time.monotonic() + self.module.params["seconds"]
        ours = (self.wait(deadline) or self.module.params["follow"]) and (
            read_json(self.progress).get("generation") == self.generation
        )
        if not ours:
            self.start()
            self.wait(deadline)
        ladder: dict[str, Any] = read_json(self.report)
        if not ladder:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                said = log.read().strip()[-2000:]
            self.module.fail_json(msg=f"The check ladder broke off. {self.log} says: {said or 'nothing'}")
        return ladder

    def record(self, ladder: dict[str, Any]) -> bool:
        """Keep the result as this server's; returns whether its outcome is another than before."""
        folder = os.path.join(self.prefix, "checks", self.server)
        path = os.path.join(folder, "ladder.json")
        climbed = read_json(os.path.join(self.generation, RECEIPT))
        record = {"digest": climbed.get("digest", ""), "driver": driver_line(), "time": int(time.time())}
        ladder.update(record)
        changed = outcome(ladder) != outcome(read_json(path))
        os.makedirs(folder, exist_ok=True)
        write_json(path, ladder)
        return changed


def check_generation(module: AnsibleModule) -> None:
    """Run the ladder of a whole generation, detached, and record it."""
    climb = Climb(module)
    try:
        ladder = climb.result()
        changed = climb.record(ladder)
    except OSError as error:
        module.fail_json(msg=f"The check ladder cannot be run or kept: {error}. Check space and permissions.")
    module.exit_json(changed=changed, ladder=ladder)


def check_build(module: AnsibleModule) -> None:
    """Run a build's own checks, those that any server would give, and fail on a failed one."""
    given = module.params
    command = [given["python"], "-", "--json", "-"]
    # The rung "files" is about published installs.
    command += ["--rungs", ",".join(BUILD_RUNGS), "--only", ",".join(given["only"])]
    command += ["--expect", json.dumps(given["expect"])]
    for role, path in given["installs"].items():
        command += ["--install", f"{role}={path}"]
    try:
        done = subprocess.run(
            command,
            input=given["program"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=BUILD_TIMEOUT,
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
    failed = failed_checks(ladder)
    if failed:
        module.fail_json(
            msg="The build does not pass its checks. " + " | ".join(sentence for _rung, sentence in failed)
        )
    module.exit_json(changed=False, ladder=ladder)


def main() -> None:
    restrict_umask()
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
            "seconds": {"type": "float", "default": 2700},
            "follow": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    generation = module.params["generation"]
    if module.check_mode:
        module.exit_json(changed=bool(generation), ladder={})
    if generation:
        check_generation(module)
    else:
        check_build(module)


if __name__ == "__main__":
    main()
