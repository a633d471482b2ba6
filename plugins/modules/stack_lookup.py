#!/usr/bin/python
"""Look up, in one remote call, all that a server has of a stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_lookup
short_description: Look up all that a server has of a stack
description:
  - Works out from O(specs) which installs are wanted, and refuses inputs that do not pin their bytes.
  - Reads the receipts of all wanted installs, compares each manifest with what lies on disk (by stat, or by content
    with O(deep)), and reads the current generation and this server's recorded check ladder.
  - Changes nothing. Refuses a prefix that is not empty and belongs to nobody, or to another stack.
  - The action plugin of the same name explains a Python that cannot run modules.
options:
  prefix:
    description: The stack's prefix, an absolute path; C(~) is the login's home, C($NAME) its environment's.
    type: path
    required: true
  stack: {description: Name of the stack., type: str, required: true}
  specs:
    description: >-
      By role, what shapes its install: C(version), C(recipe) (int), C(inputs), C(requires) (the roles whose installs it
      is built against).
    type: dict
    required: true
  deep: {description: Re-hash every file of every install and of the current generation., type: bool, default: false}
"""

RETURN = r"""
prefix: {description: The prefix as an absolute path., type: str, returned: success}
server: {description: The server's own name for itself., type: str, returned: success}
installs:
  description: The wanted installs, paths made absolute, each with C(state) (present, absent, damaged) and C(why).
  type: dict
  returned: success
current:
  description: C(path), C(state) and C(why) of what C(current) points to.
  type: dict
  returned: success
generation:
  description: The current generation (C(number), C(digest), C(path), C(installs)); empty where there is no whole one.
  type: dict
  returned: success
ladder: {description: This server's last check ladder and what it was run on., type: dict, returned: success}
driver: {description: The loaded NVIDIA driver's version line; empty without one., type: str, returned: success}
"""

import os
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import StackError, check_owner, install_state, no_full_path, read_json
from ansible.module_utils.stack_lookup import current_generation, current_state, driver_line
from ansible.module_utils.stack_wanted import wanted_installs


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "specs": {"type": "dict", "required": True},
            "deep": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix = given["prefix"]
    server = socket.gethostname()
    try:
        if not os.path.isabs(prefix):
            raise no_full_path(prefix)
        prefix = os.path.normpath(prefix)
        check_owner(prefix, given["stack"])
        installs = {}
        for role, wanted in wanted_installs(given["specs"]).items():
            path = os.path.join(prefix, wanted["path"])
            installs[role] = {**wanted, "path": path, **install_state(path, given["deep"])}
        found = {
            "current": current_state(prefix, given["deep"]),
            "generation": current_generation(prefix, given["deep"]),
            "ladder": read_json(os.path.join(prefix, "checks", server, "ladder.json")),
            "driver": driver_line(),
        }
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename} cannot be read: {error.strerror}. Is it really yours? See stack_prefix."
        )
    module.exit_json(changed=False, prefix=prefix, server=server, installs=installs, **found)


if __name__ == "__main__":
    main()
