#!/usr/bin/python
"""Tell of a server, of what is installed on it and of its runs, what is new since an earlier look."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report_info
short_description: Tell what a page about a server shows
description:
  - Tells of a server its system, GPUs and disk, the generations and installs of a prefix, its last check ladder, and of
    each run what became of it, how far it is, what is wrong with it, its results and small pictures of detections.
  - Of each run's log only the part is read, and of its curves only the points are told, that an earlier look has not.
  - Changes nothing.
  - The action plugin of the same name keeps what a server told, on the controller, and adds what it tells anew. It also
    keeps that a server did not answer.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  server: {description: 'Folder of this server in C(checks/); by default its own name.', type: str, default: ''}
  signatures: {description: 'What is wrong, by how a log says it.', type: list, elements: dict, default: []}
  known:
    description: >-
      What an earlier look told of runs, by name: C(run), C(log), and the C(id) of each of their C(pictures).
    type: dict
    default: {}
  past:
    description: Runs, by C(run), whose folders were gone at an earlier look already; they are not told of again.
    type: list
    elements: str
    default: []
"""

RETURN = r"""
server: {description: 'The server, and what is installed on it.', type: dict, returned: success}
runs: {description: Its runs by name., type: dict, returned: success}
past:
  description: Runs that only the log of experiments tells of, because their folders are gone.
  type: list
  returned: success
left_out: {description: How many older runs are not told of., type: int, returned: success}
"""

import os
import socket
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.report_gather import past, runs, server
from ansible.module_utils.stack_installs import StackError, no_full_path


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "server": {"type": "str", "default": ""},
            "signatures": {"type": "list", "elements": "dict", "default": []},
            "known": {"type": "dict", "default": {}},
            "past": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, now = given["prefix"], time.time()
    try:
        if not os.path.isabs(prefix):
            raise no_full_path(prefix)
        told = server(prefix, given["server"] or socket.gethostname(), now)
        found = runs(prefix, given["signatures"], given["known"], now)
        gone = past(prefix, given["past"])
    except (StackError, OSError) as failure:
        module.fail_json(msg=str(failure))
    module.exit_json(changed=False, server=told, runs=found["runs"], past=gone, left_out=found["left_out"])


if __name__ == "__main__":
    main()
