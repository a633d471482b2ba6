#!/usr/bin/python
"""End a build that failed: give its lease back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: install_failed
short_description: End a build that failed
description:
  - Gives the build's lease back, so that others need not wait, and tells whether the disk is full. What was half built
    stays for whoever wants to look, until the next run, except where the disk is full.
  - For the rescue section of a build. The action plugin of the same name adds O(run) and O(reason), and fails with
    that and with what is to be done.
options:
  prefix: {description: The prefix as an absolute path., type: str, required: true}
  role: {description: The role whose install it is., type: str, required: true}
  installs: {description: All installs as the role C(stack) looked them up., type: dict, required: true}
  reason: {description: What the task that failed said., type: str, default: ''}
  run: {description: Who runs this play., type: dict, default: {}}
"""

RETURN = r"""
full: {description: Whether the disk is full or a quota used up., type: bool, returned: success}
free: {description: Bytes that the file system has free., type: int, returned: success}
"""

import contextlib
import errno
import os
import re
import shutil

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import RECEIPT, remove_tree
from ansible.module_utils.stack_temporary import new_temporary

SAID = re.compile(r"No space left on device|Disk quota exceeded|\[?Errno (28|122)\b|File too large")
ENOUGH = 1 << 20  # bytes


def can_write(prefix: str) -> bool:
    """Whether the prefix takes another MB; only a try tells, since file systems do not tell of quotas."""
    path = new_temporary(prefix, "space")
    try:
        with open(path, "wb") as stream:
            stream.write(b"\1" * ENOUGH)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "role": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "reason": {"type": "str", "default": ""},
            "run": {"type": "dict", "default": {}},
        }
    )
    given = module.params
    prefix, install = given["prefix"], given["installs"][given["role"]]
    lease = stack_lease.lease_path(prefix, given["role"], install["digest"])
    try:
        full = bool(SAID.search(given["reason"])) or not can_write(prefix)
        free = shutil.disk_usage(prefix).free
        if stack_lease.same(stack_lease.look(lease)[0], stack_lease.holder_of(given["run"])):
            if full and not os.path.exists(os.path.join(install["path"], RECEIPT)):
                remove_tree(install["path"])
            stack_lease.release(lease)
    except OSError as error:
        module.fail_json(msg=f"The lease of {given['role']} below {prefix} could not be given back: {error}.")
    module.exit_json(changed=True, full=full, free=free)


if __name__ == "__main__":
    main()
