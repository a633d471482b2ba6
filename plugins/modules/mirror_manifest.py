#!/usr/bin/python
"""Add a stack to the manifest of a mirror."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_manifest
short_description: Add a stack to the manifest of a mirror
description:
  - Writes into C(manifest.json) what a stack needs, where it came from, its sums, sizes and licences. What other stacks
    need stays in it, and so does the origin of what was fetched by an earlier run.
options:
  path: {description: The mirror., type: path, required: true}
  stack: {description: Name of the stack., type: str, required: true}
  files: {description: The files of its lock., type: list, elements: dict, required: true}
  origin: {description: Where each came from by filename., type: dict, required: true}
  built: {description: Results of the module mirror_built., type: list, elements: dict, required: true}
  git: {description: Records of the module mirror_repository., type: list, elements: dict, required: true}
"""

RETURN = r"""
manifest: {description: The manifest as it is now., type: dict, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.mirror_manifest import merged
from ansible.module_utils.stack_fetch import MANIFEST
from ansible.module_utils.stack_installs import read_json, write_json


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "origin": {"type": "dict", "required": True},
            "built": {"type": "list", "elements": "dict", "required": True},
            "git": {"type": "list", "elements": "dict", "required": True},
        }
    )
    given = module.params
    where = os.path.join(given["path"], MANIFEST)
    new = {
        "files": [
            {
                **{key: entry[key] for key in ("filename", "sha256", "size", "licence")},
                "origin": "" if given["origin"][entry["filename"]] == "cache" else given["origin"][entry["filename"]],
            }
            for entry in given["files"]
        ],
        "built": [{**result["record"], "folder": os.path.basename(result["folder"])} for result in given["built"]],
        "git": [{**record, "path": os.path.relpath(record["path"], given["path"])} for record in given["git"]],
    }
    try:
        old = read_json(where)
        manifest = merged(old, given["stack"], new, lambda path: os.path.exists(os.path.join(given["path"], path)))
        if manifest != old:
            write_json(where, manifest)
    except OSError as error:
        module.fail_json(msg=f"{where} could not be written: {error}. Check space and permissions.")
    module.exit_json(changed=manifest != old, manifest=manifest)


if __name__ == "__main__":
    main()
