#!/usr/bin/python
"""List what an inference has left."""

from __future__ import annotations

DOCUMENTATION = r"""
module: infer_results
short_description: Bring home what an inference has left
description:
  - Lists C(results.json) and the pictures of a run with their sums. Changes nothing.
  - The action plugin of the same name brings to a folder of the controller what is not there yet, and removes from it
    the pictures that an earlier run of the name has left and this one has not.
options:
  folder: {description: The run's folder., type: path, required: true}
  to: {description: 'Folder on the controller, for the action plugin.', type: path, default: ''}
"""

RETURN = r"""
files: {description: 'Files by path in the run: C(size), C(sha256).', type: dict, returned: success}
seen: {description: What results.json says., type: dict, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import read_json, sha256_of


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "to": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    folder = module.params["folder"]
    results = read_json(os.path.join(folder, "results.json"))
    names = ["results.json"] if results else []
    for image in results.get("images", []):
        names += [f"pictures/{name}" for name in [*image["pictures"], image.get("small", "")] if name]
    paths = {name: os.path.join(folder, name) for name in names}
    files = {
        name: {"size": os.path.getsize(path), "sha256": sha256_of(path)}
        for name, path in paths.items()
        if os.path.isfile(path)
    }
    module.exit_json(changed=False, files=files, seen=results)


if __name__ == "__main__":
    main()
