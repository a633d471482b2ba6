#!/usr/bin/python
"""Build an artifact of the mirror, once per recipe and inputs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_built
short_description: Build an artifact of the mirror
description:
  - Runs C(program --inputs inputs.json --output FILE) and records the file's sum and size with O(record) in
    C(artifact.json), which is written last. Does nothing where that is there and its file is whole, unless O(manifest)
    says otherwise.
options:
  folder: {description: 'The artifact''s folder, named after its recipe and inputs.', type: path, required: true}
  filename: {description: Name of the file to build., type: str, required: true}
  program: {description: The recipe., type: path, required: true}
  inputs: {description: Path of each input by filename., type: dict, required: true}
  record: {description: What to record besides., type: dict, required: true}
  manifest: {description: The mirror's manifest., type: path, required: true}
"""

RETURN = r"""
record: {description: The artifact's record., type: dict, returned: success}
folder: {description: Its folder., type: str, returned: success}
"""

import os
import subprocess
import sys
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_fetch import listed, verified
from ansible.module_utils.stack_installs import read_json, sha256_of, write_json


def contradicted(manifest: str, folder: str, record: dict[str, Any]) -> bool:
    """Whether the manifest knows the folder for something else than its record says."""
    known, key = read_json(manifest), os.path.basename(folder)
    entries = [entry for entry in known.get("built", []) if entry.get("folder") == key]
    return bool(entries) and not listed({"built": entries}, key, record)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "filename": {"type": "str", "required": True},
            "program": {"type": "path", "required": True},
            "inputs": {"type": "dict", "required": True},
            "record": {"type": "dict", "required": True},
            "manifest": {"type": "path", "required": True},
        }
    )
    given = module.params
    output = os.path.join(given["folder"], given["filename"])
    where = os.path.join(given["folder"], "artifact.json")
    try:
        record = read_json(where)
        if record and verified(output, record) and not contradicted(given["manifest"], given["folder"], record):
            module.exit_json(changed=False, record=record, folder=given["folder"])
        os.makedirs(given["folder"], exist_ok=True)
        with tempfile.TemporaryDirectory(dir=given["folder"]) as work:
            listed = os.path.join(work, "inputs.json")
            write_json(listed, given["inputs"])
            command = [sys.executable, given["program"], "--inputs", listed, "--output", output, "--work", work]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            module.fail_json(msg=f"{given['filename']} could not be built: {said}")
        built = {"filename": given["filename"], "sha256": sha256_of(output), "size": os.path.getsize(output)}
        record = {**given["record"], **built}
        write_json(where, record)
    except OSError as error:
        module.fail_json(msg=f"{given['filename']} could not be built: {error}. Check space and permissions.")
    module.exit_json(changed=True, record=record, folder=given["folder"])


if __name__ == "__main__":
    main()
