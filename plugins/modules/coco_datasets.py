#!/usr/bin/python
"""Find and check the datasets of a server, and write which Detectron may use."""

from __future__ import annotations

DOCUMENTATION = r"""
module: coco_datasets
short_description: Find and check the datasets of a server
description:
  - Finds the datasets of Detectron's catalogue below O(path), and takes those in O(datasets); all in COCO's format.
  - Reads their annotation files and looks at their images as Detectron will, and tells what is wrong, with cause and
    remedy. A dataset is read again only when the time or size of its annotation file, or the time of a folder of its
    images, has changed.
  - Writes what it found to C(checks/<server>/datasets.json) in O(prefix), and nothing else. Fails only on what cannot
    be a dataset; findings are the caller's to judge.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  stack: {description: Name of the stack., type: str, required: true}
  path: {description: 'Folder of COCO on the server; C("") is none.', type: str, default: ''}
  datasets:
    description: >-
      Datasets of one's own: C(name), C(images) (folder), C(annotations) (file), and perhaps C(prefix), with which the
      names of the images begin beside what the annotation file says.
    type: list
    elements: dict
    default: []
  accepted: {description: Ids of findings that are left out., type: list, elements: str, default: []}
  deep: {description: 'Read everything again, whether it seems changed or not.', type: bool, default: false}
"""

RETURN = r"""
datasets:
  description: >-
    By name, C(image_directory), C(annotation_file) and C(image_prefix) of each dataset that nothing stops.
  type: dict
  returned: success
reports: {description: 'By name, what was found of each dataset.', type: dict, returned: success}
findings:
  description: >-
    All findings, what stops first: C(dataset), C(id), C(severity), C(breaks), C(title), C(what), C(cause), C(remedy),
    C(count), C(examples).
  type: list
  returned: success
file: {description: The file that tells all this., type: str, returned: success}
"""

import json
import os
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.coco_datasets import check_all, listed, usable
from ansible.module_utils.stack_installs import StackError, claim, read_json, restrict_umask, write_json


def shown(content: dict[str, Any]) -> str:
    """What the file says, for a difference."""
    lines = [
        f"{name}: {report['counts']['images']} images, {report['counts']['annotations']} annotations, "
        f"{', '.join(finding['id'] for finding in report['findings']) or 'nothing found'}\n"
        for name, report in sorted(content.get("reports", {}).items())
    ]
    return "".join(lines) + json.dumps(content.get("datasets", {}), indent=1, sort_keys=True) + "\n"


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "stack": {"type": "str", "required": True},
            "path": {"type": "str", "default": ""},
            "datasets": {"type": "list", "elements": "dict", "default": []},
            "accepted": {"type": "list", "elements": "str", "default": []},
            "deep": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    folder = os.path.join(given["prefix"], "checks", socket.gethostname())
    file = os.path.join(folder, "datasets.json")
    path = given["path"] and os.path.abspath(os.path.expanduser(os.path.expandvars(given["path"])))
    try:
        before = read_json(file)
        result = check_all(path, given["datasets"], before, given["deep"])
        findings = listed(result, given["accepted"])
        content = {"datasets": usable(result, findings), **result}
        changed = content != before
        if changed and not module.check_mode:
            claim(given["prefix"], given["stack"])
            os.makedirs(folder, exist_ok=True)
            write_json(file, content)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The datasets could not be looked at, or {file} not be written: {error}.")
    diff = {
        "before": shown(before) if before else "",
        "after": shown(content),
        "before_header": file,
        "after_header": file,
    }
    module.exit_json(
        changed=changed,
        datasets=content["datasets"],
        reports=content["reports"],
        findings=findings,
        file=file,
        diff=diff if changed else {},
    )


if __name__ == "__main__":
    main()
