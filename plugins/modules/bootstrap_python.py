#!/usr/bin/python
"""Put a Python for Ansible's modules into a prefix."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bootstrap_python
short_description: Put a Python for Ansible's modules into a prefix
description:
  - The action plugin of the same name does all that needs no Python on the server - it looks at what there is, brings
    the archive, verifies and unpacks it - and then has this module run by the Python that was unpacked.
  - The module compiles the standard library, makes the draft an install like all others (read-only, manifest,
    receipt), and gives it its name by one rename. Where another server of a shared prefix was faster, its own is kept.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  folder: {description: 'Name of its folder in C(var/python3): version and digest.', type: str, required: true}
  draft: {description: Folder in which the archive was unpacked., type: path, required: true}
  facts: {description: What the receipt says of it., type: dict, required: true}
  deep: {description: Take one that is there for damaged also where only contents differ., type: bool, default: false}
"""

RETURN = r"""
python: {description: 'The interpreter; empty where there is none yet, in check mode for example.', type: str,
         returned: success}
"""

import compileall
import contextlib
import os
import platform
import py_compile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import RECEIPT, StackError, publish, remove_tree, settled_state
from ansible.module_utils.stack_temporary import new_temporary


def compile_library(tree: str) -> None:
    """Compile the standard library: nobody can later, and modules start several times faster.

    Byte code that is never compared with its source again: the clocks of file servers do not matter then.
    """
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(os.path.join(tree, "lib"), quiet=2, invalidation_mode=mode)


def settle(tree: str, path: str, aside: str, deep: bool) -> bool:
    """Give the finished `tree` its name `path`; False where a whole one has it. A damaged one is renamed to `aside`."""
    if settled_state(path, deep)["state"] != "present":
        with contextlib.suppress(FileNotFoundError):
            os.chmod(path, 0o755)  # a folder must be writable to be renamed
            os.rename(path, aside)
    os.chmod(tree, 0o755)
    try:
        os.rename(tree, path)
    except OSError:
        if not os.path.exists(os.path.join(path, RECEIPT)):
            raise
        return False  # another server's is there, whole: it was finished before it got this name
    os.chmod(path, 0o555)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "folder": {"type": "str", "required": True},
            "draft": {"type": "path", "required": True},
            "facts": {"type": "dict", "required": True},
            "deep": {"type": "bool", "default": False},
        }
    )
    given = module.params
    path = os.path.join(given["prefix"], "var", "python3", given["folder"])
    tree, aside = os.path.join(given["draft"], "python"), new_temporary(given["prefix"], "garbage")
    facts: dict[str, Any] = {**given["facts"], "glibc": " ".join(platform.libc_ver()).strip()}
    try:
        compile_library(tree)
        publish(tree, facts)
        settled = settle(tree, path, aside, given["deep"])
        for garbage in (aside, given["draft"]):
            # Files that a program still has open cannot all be removed over NFS (.nfs…): a later run tries again.
            with contextlib.suppress(OSError):
                remove_tree(garbage)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(
            msg=f"The Python could not be published: {error}. Check space and permissions, then run again."
        )
    module.exit_json(changed=settled, python=os.path.join(path, "bin", "python3"))


if __name__ == "__main__":
    main()
