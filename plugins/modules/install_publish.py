#!/usr/bin/python
"""Publish a finished build as an install."""

from __future__ import annotations

DOCUMENTATION = r"""
module: install_publish
short_description: Publish a finished build as an immutable install
description:
  - Makes the folder read-only, records every path with its sha256 in C(manifest.json), writes C(receipt.json) last
    and by rename, and gives the build's lease back.
  - Fails when somebody else has taken the lease over meanwhile. The action plugin of the same name adds O(run).
options:
  prefix: {description: The prefix as an absolute path., type: str, required: true}
  role: {description: The role whose install it is., type: str, required: true}
  installs: {description: All installs as the role C(stack) looked them up., type: dict, required: true}
  checks: {description: Findings of the build's own checks for the receipt., type: dict, default: {}}
  origin: {description: Where each artifact came from for the receipt., type: dict, default: {}}
  cache: {description: Folder of the cache., type: path, required: true}
  discard: {description: Downloads to remove from the cache., type: list, elements: path, default: []}
  run: {description: Who runs this play., type: dict, default: {}}
"""

RETURN = r"""
receipt: {description: The receipt as written., type: dict, returned: success}
"""

import contextlib
import os
import platform
import subprocess

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_fetch import ORIGIN
from ansible.module_utils.stack_installs import StackError, publish, remove_tree, restrict_umask
from ansible.module_utils.stack_lookup import seen_at


def compiler() -> str:
    """First line of `cc --version`; empty without a compiler."""
    try:
        shown = subprocess.run(["cc", "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout.partition("\n")[0]


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "role": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "checks": {"type": "dict", "default": {}},
            "origin": {"type": "dict", "default": {}},
            "cache": {"type": "path", "required": True},
            "discard": {"type": "list", "elements": "path", "default": []},
            "run": {"type": "dict", "default": {}},
        }
    )
    given = module.params
    prefix, role = given["prefix"], given["role"]
    install = given["installs"][role]
    lease = stack_lease.lease_path(prefix, role, install["digest"])
    holder = stack_lease.holder_of(given["run"])
    facts = {name: install[name] for name in ("role", "version", "recipe", "digest", "inputs", "requires")}
    facts.update(
        origin=given["origin"],
        checks=given["checks"],
        compiler=compiler(),
        glibc=" ".join(platform.libc_ver()).strip(),
    )
    try:
        if not stack_lease.same(stack_lease.look(lease)[0], holder):
            raise StackError(
                f"{role} is not published: its build took so long without a sign of life that another run took it "
                "over. Run the same command again; it waits for that run or goes on from it."
            )
        stack_lease.beat(os.path.dirname(lease), holder)
        with seen_at(install["path"]):
            receipt = publish(install["path"], facts)
        stack_lease.release(lease)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"{role} could not be published: {error}. Check space and permissions below {prefix}, then run again."
        )
    for download in given["discard"]:
        if download.startswith(given["cache"] + os.sep):
            with contextlib.suppress(OSError):  # what stays only takes space
                remove_tree(download)
                remove_tree(download + ORIGIN)
                os.rmdir(os.path.dirname(download))
    size = f"{receipt['paths']} paths, {receipt['bytes'] / 1e6:.0f} MB"
    module.exit_json(changed=True, receipt=receipt, msg=f"{role} {install['version']} published: {size}")


if __name__ == "__main__":
    main()
