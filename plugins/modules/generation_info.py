#!/usr/bin/python
"""Tell what generations a stack has, and which processes use it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generation_info
short_description: Tell what generations a stack has, and which processes use it
description:
  - Lists the generations of a prefix and whether each of them, with all its installs, is whole.
  - Tells which processes of this login use an install, a generation or a run of it. Other servers' processes cannot be
    seen; the modules that remove things take the RV(usage) of all servers of a run.
  - Changes nothing.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
"""

RETURN = r"""
generations:
  description: >-
    All generations, newest first, each with C(number), C(digest), C(installs), C(current), C(made) and C(problem).
  type: list
  returned: success
current: {description: Number of the current generation; 0 without one., type: int, returned: success}
lines: {description: The generations and the processes, for people., type: list, returned: success}
usage: {description: This server's name, the prefix's identity, and processes., type: dict, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import current_number, generations, shown, usage


def main() -> None:
    module = AnsibleModule(
        argument_spec={"prefix": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    prefix = module.params["prefix"]
    try:
        found, used = generations(prefix), usage(prefix)
        current = current_number(prefix)
    except OSError as error:
        module.fail_json(msg=f"The generations below {prefix} cannot be listed: {error}. Run the same command again.")
    lines = [shown(generation) for generation in found] or [f"{prefix} has no generations."]
    lines += [f"process {use['pid']} ({use['command']}) uses {', '.join(use['paths'])}" for use in used["uses"]]
    module.exit_json(changed=False, generations=found, current=current, lines=lines, usage=used)


if __name__ == "__main__":
    main()
