#!/usr/bin/python
"""Make an earlier generation current again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generation_rollback
short_description: Make an earlier generation current again
description:
  - Points C(current), by one rename, to a generation that is there and whole with all its installs; otherwise fails and
    changes nothing.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  current:
    description:
      - Number of the generation that was current before any server of this run moved it, 0 for none. Servers may share
        the prefix, and the second one must not go back once more.
    type: int
    required: true
  to: {description: 'Number of the generation to go to; 0 for the newest before O(current).', type: int, default: 0}
"""

RETURN = r"""
number: {description: Number of the generation that is current now., type: int, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import choose, current_number, flip, folder_of, generations, shown
from ansible.module_utils.stack_installs import StackError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "current": {"type": "int", "required": True},
            "to": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix = given["prefix"]
    try:
        found = generations(prefix)
        chosen = choose(found, given["current"], given["to"])
        number = chosen["number"]
        changed = number != current_number(prefix)
        if changed and not module.check_mode:
            flip(prefix, folder_of(prefix, number))
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"current could not be moved below {prefix}: {error}. It is as it was.")
    before = [shown(generation) + "\n" for generation in found if generation["number"] == given["current"]]
    diff = {"before": "".join(before), "after": shown({**chosen, "current": True}) + "\n"}
    module.exit_json(changed=changed, number=number, diff=diff if changed else {})


if __name__ == "__main__":
    main()
