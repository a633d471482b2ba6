#!/usr/bin/python
"""Begin to build an install: take its lease and make its folder."""

from __future__ import annotations

DOCUMENTATION = r"""
module: install_begin
short_description: Begin to build an install, where there is something to build
description:
  - Does nothing when the install is present. Otherwise claims the prefix, takes the install's lease, removes what a
    killed or damaged build left behind, and makes the empty folder to build in.
  - Where another server of a shared home is building it, says so (RV(held_by)) instead of waiting, so that hosts in
    lockstep do not wait for each other. Call it again with O(wait) after the build's tasks; where that says RV(lost),
    begin anew.
  - The action plugin of the same name adds O(run), O(dead) and O(quiet), and shows for whom it waits.
options:
  prefix: {description: The prefix as an absolute path., type: str, required: true}
  stack: {description: Name of the stack., type: str, required: true}
  role: {description: The role whose install it is., type: str, required: true}
  installs: {description: All installs as the role C(stack) looked them up., type: dict, required: true}
  run_tags:
    description: The run's C(--tags); in check mode the roles that they select count as planned, not as missing.
    type: list
    elements: str
    default: [all]
  wait: {description: Wait for this holder (RV(held_by)) to finish; build nothing., type: dict, default: {}}
  seconds: {description: How long to wait until it reports., type: float, default: 15}
  quiet: {description: Seconds for which the heartbeat has not moved while looked at., type: float, default: 0}
  run: {description: Who runs this play., type: dict, default: {}}
  dead: {description: The holder of which is known that it goes on no more., type: dict, default: {}}
"""

RETURN = r"""
build: {description: Whether the caller has to build the install now., type: bool, returned: success}
held_by: {description: Who is building it instead., type: dict, returned: when somebody else builds it}
age: {description: Seconds since their last heartbeat., type: float, returned: when it still waits}
quiet: {description: For the next call., type: float, returned: when it still waits}
lost: {description: Who was building it and does no more., type: dict, returned: when they are gone}
path: {description: The install's folder., type: str, returned: success}
"""

import os
import shutil
import time
from typing import Any

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import (
    RECEIPT,
    StackError,
    claim,
    install_state,
    restrict_umask,
    settled_state,
)
from ansible.module_utils.stack_lookup import processes_at
from ansible.module_utils.stack_temporary import new_temporary, sweep

POLL = 2.0  # seconds
ORPHANS = 300.0  # seconds


def check_space(prefix: str, role: str, needed: int) -> None:
    """Raise StackError unless the prefix's filesystem has `needed` bytes free for us."""
    existing = prefix
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StackError(
            f"{role} needs {needed / 1e9:.1f} GB below {prefix}, and {free / 1e9:.1f} GB are free. "
            "Free some space, or set stack_prefix to a folder on a larger disk."
        )


def check_requires(installs: dict[str, Any], role: str, planned: list[str]) -> None:
    """Raise StackError for the first install that `role` is built against and that is neither there nor planned."""
    for need in installs[role]["requires"]:
        state = install_state(installs[need]["path"])
        if state["state"] != "present" and not {"all", need}.intersection(planned):
            raise StackError(
                f"{role} is built against {need}, which is {state['state']} here ({state['why']}). "
                f"Run `ansible-playbook site.yml --tags {need}` first, or the whole of site.yml."
            )


def wait_for(path: str, lease: str, holder: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What is known after a while of a build of `path` that somebody else began: {} when it is published, "lost" when
    they do not go on, else "held_by", "age" and "quiet".

    Raises StackError when the builder is a server of this same run and failed: this one would fail of the same.
    """
    held_by, quiet, deadline = given["wait"], given["quiet"], time.monotonic() + given["seconds"]
    last = None
    probe = stack_lease.new_probe(lease)
    try:
        while True:
            other, heartbeat = stack_lease.look(lease)
            # After the lease, which is given back after publishing: else what happens between would look like failure.
            if install_state(path)["state"] == "present":
                return {}
            if not heartbeat:
                if held_by.get("run") != holder["run"] or stack_lease.is_told_dead(lease, held_by):
                    return {"lost": held_by}
                raise StackError(
                    f"{stack_lease.described(held_by)} shares this prefix, was building {path}, and failed. "
                    "Its own message says why; mend that and run the same command again."
                )
            # Hosts of one run go in lockstep: when this runs, a builder of the same run has published, or failed and
            # given its lease back, or it is unreachable.
            dead = other.get("run") == holder["run"] or stack_lease.same(other, given["dead"])
            quiet = 0.0 if last not in (None, (other, heartbeat)) or not stack_lease.same(other, held_by) else quiet
            held_by, last = other, (other, heartbeat)
            age = stack_lease.probed(probe) - heartbeat
            if dead:
                stack_lease.tell_dead(lease, other)
            if stack_lease.is_lost(age, quiet, dead) or (dead and stack_lease.is_here(other)):
                stack_lease.set_aside(lease, other)
                return {"lost": other}
            if time.monotonic() > deadline:
                return {"held_by": other, "age": age, "quiet": quiet}
            time.sleep(POLL)
            quiet += POLL  # not by the clock: while the file server does not answer, nobody has looked
    finally:
        os.unlink(probe)


def set_aside(prefix: str, path: str) -> None:
    """Rename what a killed run began, or what is damaged, so that `path` is free. Raises StackError."""
    if not os.path.lexists(path):
        return
    # A killed ansible-playbook leaves its last command running here, and that would go on writing into the new build.
    deadline = time.monotonic() + ORPHANS
    while not os.path.exists(os.path.join(path, RECEIPT)) and (processes := processes_at(path)):
        if time.monotonic() > deadline:
            numbers = " ".join(map(str, processes))
            raise StackError(
                f"An earlier run that was killed still works at {path} (process {numbers}). "
                f"Wait until it has ended, or end it with `kill {numbers}`; then run the same command again."
            )
        time.sleep(POLL)
    os.chmod(path, 0o755)  # a folder must be writable to be renamed
    os.rename(path, new_temporary(prefix, "garbage"))


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "stack": {"type": "str", "required": True},
            "role": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "run_tags": {"type": "list", "elements": "str", "default": ["all"]},
            "wait": {"type": "dict", "default": {}},
            "seconds": {"type": "float", "default": 15},
            "quiet": {"type": "float", "default": 0},
            "run": {"type": "dict", "default": {}},
            "dead": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, role, installs = given["prefix"], given["role"], given["installs"]
    install, path = installs[role], installs[role]["path"]
    lease = stack_lease.lease_path(prefix, role, install["digest"])
    holder = stack_lease.holder_of(given["run"])
    try:
        # By content where the look-up found damage, which may be of a kind that no stat shows. A faster server that
        # shares it may be renaming it aside meanwhile.
        state = settled_state(path, deep=install["state"] == "damaged")
        if state["state"] == "present":
            module.exit_json(changed=False, build=False, path=path)
        diff = {"before": f"{role}: {state['state']} ({state['why']})\n", "after": f"{role}: {path}\n"}
        check_requires(installs, role, given["run_tags"] if module.check_mode else [])
        if given["wait"]:
            module.exit_json(changed=False, build=False, path=path, **wait_for(path, lease, holder, given))
        if not module.check_mode:
            sweep(prefix)
        if not os.path.lexists(path):  # else the space that it takes is about to be freed
            check_space(prefix, role, install["disk_bytes"])
        if module.check_mode:
            module.exit_json(changed=True, build=False, path=path, diff=diff)
        claim(prefix, given["stack"])
        dead = given["dead"]
        # What a dead run left running here is waited for below. On another server, its heart is to say when it ended.
        held_by = stack_lease.acquire(lease, holder, dead if stack_lease.is_here(dead) else None)
        if held_by:
            if stack_lease.same(held_by, dead):
                stack_lease.tell_dead(lease, dead)
            module.exit_json(changed=False, build=False, path=path, held_by=held_by)
        set_aside(prefix, path)
        sweep(prefix)
        os.makedirs(path)
        # Until it is published: what is built in it by other programs has their umask, which may be 000.
        os.chmod(path, 0o700)
        stack_lease.start_heart(lease, holder, path)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{role} cannot be built below {prefix}: {error}. Check its space and permissions.")
    module.exit_json(changed=True, build=True, path=path, diff=diff)


if __name__ == "__main__":
    main()
