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
    lockstep do not wait for each other. Call it again with O(wait) after the build's tasks.
  - The action plugin of the same name adds O(run) and O(dead_run).
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
  wait: {description: Wait for whoever is building it; build nothing., type: bool, default: false}
  run: {description: Who runs this play., type: dict, default: {}}
  dead_run: {description: The run that is known to have died., type: str, default: ''}
"""

RETURN = r"""
build: {description: Whether the caller has to build the install now., type: bool, returned: always}
held_by: {description: Who is building it instead., type: dict, returned: when somebody else builds it}
path: {description: The install's folder., type: str, returned: always}
"""

import os
import shutil
import socket
import time
from typing import Any

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import StackError, claim, garbage, install_state, read_json, remove_tree

POLL = 2.0  # seconds


def sweep(prefix: str) -> None:
    """Remove what earlier runs renamed aside and were killed before removing."""
    folder = os.path.join(prefix, "var", "tmp")
    for name in os.listdir(folder):
        if name.startswith("garbage-"):
            remove_tree(os.path.join(folder, name))


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


def wait_for(path: str, lease: str, held_by: dict[str, object], run: str) -> None:
    """Return when somebody else has published `path`; raise StackError when they gave up."""
    who = f"{held_by.get('server')} (run from {held_by.get('controller', 'another controller')})"
    while install_state(path)["state"] != "present":
        # Hosts of one run go in lockstep: when this runs, the builder of the same run has published or failed.
        try:
            age = time.time() - os.stat(lease).st_mtime
        except FileNotFoundError:
            age = stack_lease.STALE + 1
        if held_by.get("run") == run or age > stack_lease.STALE:
            raise StackError(
                f"{who} shares this prefix, was building {path}, and did not finish it. "
                "Its own message says why; mend that and run the same command again."
            )
        time.sleep(POLL)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "stack": {"type": "str", "required": True},
            "role": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "run_tags": {"type": "list", "elements": "str", "default": ["all"]},
            "wait": {"type": "bool", "default": False},
            "run": {"type": "dict", "default": {}},
            "dead_run": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, role, installs = given["prefix"], given["role"], given["installs"]
    install, path = installs[role], installs[role]["path"]
    lease = os.path.join(prefix, "var", "lease", f"{role}-{install['digest']}.json")
    holder = {**given["run"], "server": socket.gethostname()}
    try:
        state = install_state(path)
        if state["state"] == "present":
            module.exit_json(changed=False, build=False, path=path)
        check_requires(installs, role, given["run_tags"] if module.check_mode else [])
        check_space(prefix, role, install["disk_bytes"])
        diff = {"before": f"{role}: {state['state']} ({state['why']})\n", "after": f"{role}: {path}\n"}
        if module.check_mode:
            module.exit_json(changed=True, build=False, path=path, diff=diff)
        if given["wait"]:
            wait_for(path, lease, read_json(lease) or {}, holder["run"])
            module.exit_json(changed=False, build=False, path=path)
        claim(prefix, given["stack"])
        held_by = stack_lease.acquire(lease, holder, given["dead_run"])
        if held_by:
            module.exit_json(changed=False, build=False, path=path, held_by=held_by)
        if os.path.lexists(path):
            # A published install's folder is read-only, and a folder must be writable to be renamed.
            os.chmod(path, 0o755)
            os.rename(path, garbage(prefix))
        sweep(prefix)
        os.makedirs(path)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{role} cannot be built below {prefix}: {error}. Check that the prefix is writable.")
    module.exit_json(changed=True, build=True, path=path, diff=diff)


if __name__ == "__main__":
    main()
