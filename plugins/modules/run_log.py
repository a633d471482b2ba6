#!/usr/bin/python
"""Tell of all runs that a server's log of experiments has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_log
short_description: Tell of all runs that a server's log of experiments has
description:
  - Returns the records of C(runs/.log/), start and end of each run in one; of a run that works, how far it is.
  - Records the ends that nobody has recorded yet. That is no change of the server.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  signatures: {description: 'What is wrong, by how a log says it.', type: list, elements: dict, default: []}
"""

RETURN = r"""
records: {description: Runs, newest first., type: list, returned: success}
left_out: {description: A sentence for each record that was left out., type: list, returned: success}
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.experiment_log import gather
from ansible.module_utils.stack_installs import restrict_umask


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "signatures": {"type": "list", "elements": "dict", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    restrict_umask()
    records, left_out = gather(given["prefix"], given["signatures"], time.time(), write=not module.check_mode)
    module.exit_json(changed=False, records=records, left_out=left_out)


if __name__ == "__main__":
    main()
