#!/usr/bin/python
"""Unpack an archive safely."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unpack_archive
short_description: Unpack a tar, zip, wheel or Debian package into a folder, and nothing outside it
description:
  - Refuses members with absolute paths, with C(..), through links, links that point outside, devices, sockets and
    pipes, before anything is written. Drops setuid, setgid and write permission for others.
options:
  src: {description: The archive., type: path, required: true}
  dest: {description: Folder to unpack into; made if missing., type: path, required: true}
  members:
    description: Only these members, as shell patterns, by the name that they get below O(dest); all when empty.
    type: list
    elements: str
    default: []
  flatten: {description: Drop the folders of the members' names., type: bool, default: false}
"""

RETURN = r"""
files: {description: Number of files unpacked., type: int, returned: success}
bytes: {description: Their size., type: int, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import StackError, restrict_umask
from ansible.module_utils.stack_unpack import unpack


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "members": {"type": "list", "elements": "str", "default": []},
            "flatten": {"type": "bool", "default": False},
        }
    )
    given = module.params
    try:
        files, size = unpack(given["src"], given["dest"], given["members"], given["flatten"])
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{given['src']} could not be unpacked into {given['dest']}: {error}.")
    module.exit_json(changed=True, files=files, bytes=size)


if __name__ == "__main__":
    main()
