#!/usr/bin/python
"""Remove a stack from a server, as if it had never been there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_remove
short_description: Remove a stack, as if it had never been there
description:
  - Removes everything in the prefix, and the folders that were made for it where they are empty then. Refuses a prefix
    that is not this stack's.
  - Refuses while a process uses it, while a run builds in it, or while a server that shares it could not be asked,
    unless O(running) says so; and refuses where the prefix holds files of a person's own, unless O(results) says so.
  - Where servers share the prefix, the first of O(usages) does it.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  stack: {description: Name of the stack., type: str, required: true}
  running: {description: Remove it although processes use it. They are not ended., type: bool, default: false}
  results:
    description: Remove also runs, working copies and all else that people put there.
    type: bool
    default: false
  usages:
    description: What C(generation_info) said on each server of the run.
    type: list
    elements: dict
    required: true
"""

RETURN = r"""
lines: {description: 'What was removed, for people.', type: list, returned: success}
"""

import contextlib
import os
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import builders, sharing, unasked
from ansible.module_utils.stack_installs import MARKER, StackError, check_owner, owner_of, read_json, remove_tree

OURS = ("opt", "generations", "current", "checks", "var")
PEOPLES = ("work", "runs")  # a folder for each thing that somebody made
ORDER = ("current", "generations")  # first, so that nobody activates what is half gone


def obstacles(prefix: str, usages: list[dict[str, Any]]) -> list[str]:
    """A clause for each reason to think that somebody uses the prefix now."""
    found = [
        f"process {use['pid']} on {usage['server']} ({use['command']}) uses {', '.join(use['paths'])}"
        for usage in usages
        for use in usage["uses"]
    ]
    found += [f"{server} has used it too and could not be asked what runs there" for server in unasked(prefix, usages)]
    found += [
        f"{lease.get('server', 'a server')} builds in it (run from {lease.get('controller', 'another controller')})"
        for lease in builders(prefix).values()
    ]
    return found


def foreign(prefix: str) -> list[str]:
    """What in the prefix installing did not make, workspaces and runs by name; empty folders do not count."""
    found = []
    for name in sorted(os.listdir(prefix)):
        path = os.path.join(prefix, name)
        if name in OURS or name.startswith(MARKER):
            continue
        if os.path.islink(path) or not os.path.isdir(path):
            found.append(name)
        elif inside := sorted(os.listdir(path)):
            found += [f"{name}/{part}" for part in inside] if name in PEOPLES else [name]
    return found


def check(prefix: str, usages: list[dict[str, Any]], running: bool, results: bool) -> None:
    """Raise StackError unless the prefix may be removed."""
    used = obstacles(prefix, usages) if not running else []
    if used:
        raise StackError(
            f"{prefix} is in use: {'; '.join(used)}. Nothing was removed. End that first, or remove it all the same "
            "with -e remove_running=true: what runs will then fail."
        )
    own = foreign(prefix) if not results else []
    if own:
        raise StackError(
            f"{prefix} holds what is not part of the installation, such as people's own code and results: "
            f"{', '.join(own)}. Nothing was removed. Move it away first, or remove it as well with "
            "-e remove_results=true."
        )


def remove(prefix: str) -> None:
    """Remove all that is in the prefix, the marker last: a removal that was killed can be repeated."""
    made = read_json(os.path.join(prefix, MARKER)).get("made", [prefix])
    rest = [name for name in sorted(os.listdir(prefix)) if name not in (*ORDER, MARKER)]
    for name in (*ORDER, *rest, MARKER):
        remove_tree(os.path.join(prefix, name))
    for folder in made:
        if prefix == folder or prefix.startswith(folder + os.sep):
            with contextlib.suppress(OSError):  # it holds something else by now
                os.rmdir(folder)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "running": {"type": "bool", "default": False},
            "results": {"type": "bool", "default": False},
            "usages": {"type": "list", "elements": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix = given["prefix"]
    usages = sharing(prefix, given["usages"])
    first = usages[0]["server"] if usages else socket.gethostname()
    if first != socket.gethostname():
        module.exit_json(changed=False, lines=[f"{first} shares this prefix and does it."])
    try:
        check_owner(prefix, given["stack"])
        if owner_of(prefix) is None:
            module.exit_json(changed=False, lines=[f"{prefix} is not there: nothing to remove."])
        check(prefix, usages, given["running"], given["results"])
        names = ", ".join([*sorted(set(os.listdir(prefix)) & {*OURS, MARKER}), *foreign(prefix)])
        if not module.check_mode:
            remove(prefix)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{prefix} could not be removed: {error}. Mend that and run the same command again.")
    verb = "would be removed" if module.check_mode else "was removed"
    module.exit_json(changed=True, lines=[f"{prefix} {verb}, with {names}"])


if __name__ == "__main__":
    main()
