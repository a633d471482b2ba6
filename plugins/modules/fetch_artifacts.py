#!/usr/bin/python
"""Fetch verified artifacts into a server's cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_artifacts
short_description: Fetch verified artifacts
description:
  - Brings each artifact from the cache, the mirror or its upstream, in this order, and verifies it before use.
  - Works for O(seconds) and then returns what is still to come, so that the action plugin of the same name can show
    progress and call again; downloads resume. The action plugin also pushes files from a mirror on the controller.
options:
  artifacts:
    description: >-
      Files (C(filename), C(sha256), C(size), C(source) and its fields), built files (C(filename), C(built)), or git
      trees (C(filename), C(repository), C(commit)).
    type: list
    elements: dict
    required: true
  cache: {description: Folder of the cache., type: path, required: true}
  mirror:
    description: URL or folder of a mirror; C(controller:FOLDER) is for the action plugin.
    type: str
    default: ''
  upstream: {description: Whether original sources may be asked., type: bool, default: true}
  pypi_index: {description: Package index; by default pip's own setting., type: str, default: ''}
  debian_mirror: {description: Debian mirror; by default that of APT's settings., type: str, default: ''}
  verified: {description: Paths by filename that an earlier slice found verified., type: dict, default: {}}
  seconds: {description: Length of a slice., type: float, default: 10}
  leases: {description: Folder of the leases that this run's builds keep alive., type: path, default: ''}
  run: {description: Who runs this play; the action plugin adds it., type: dict, default: {}}
  git_timeout: {description: Seconds that a git repository has to answer., type: float, default: 600}
"""

RETURN = r"""
files: {description: Path of each artifact so far by filename., type: dict, returned: success}
origin: {description: Where each came from by filename., type: dict, returned: success}
missing:
  description: What is still to come, resolved, each with C(have) (bytes there) and C(part) (path to append to).
  type: list
  returned: success
"""

import os
from typing import Any

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_fetch import Fetcher, OutOfTime, Upstream, export_commit, in_mirror, resolve
from ansible.module_utils.stack_installs import StackError, remove_tree


def export(artifact: dict[str, Any], cache: str, mirror: str, upstream: bool, timeout: float) -> tuple[str, str]:
    """(tar, repository) of a git tree; a mirror's own copy of the repository is asked first."""
    folder = os.path.join(cache, "git", artifact["commit"])
    remove_tree(folder)  # what a killed run left in it
    os.makedirs(folder)
    tar = os.path.join(folder, artifact["filename"])
    repositories = [in_mirror(mirror, f"git/{artifact['mirrored']}")] if mirror else []
    if upstream:
        repositories.append(artifact["repository"])
    return tar, export_commit(repositories, artifact["commit"], tar, timeout)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "artifacts": {"type": "list", "elements": "dict", "required": True},
            "cache": {"type": "path", "required": True},
            "mirror": {"type": "str", "default": ""},
            "upstream": {"type": "bool", "default": True},
            "pypi_index": {"type": "str", "default": ""},
            "debian_mirror": {"type": "str", "default": ""},
            "verified": {"type": "dict", "default": {}},
            "seconds": {"type": "float", "default": 10},
            "leases": {"type": "path", "default": ""},
            "run": {"type": "dict", "default": {}},
            "git_timeout": {"type": "float", "default": 600},
        }
    )
    given = module.params
    upstream = Upstream(given["pypi_index"], given["debian_mirror"]) if given["upstream"] else None
    fetcher = Fetcher(given["cache"], given["mirror"], upstream, given["seconds"])
    files, origin, missing, changed = dict(given["verified"]), {}, [], False
    out_of_time = given["seconds"] <= 0
    try:
        stack_lease.beat(given["leases"], stack_lease.holder_of(given["run"]))
        for artifact in given["artifacts"]:
            name = artifact["filename"]
            if name in files:
                continue
            if "commit" in artifact:
                if out_of_time:
                    missing.append(artifact)
                else:
                    files[name], origin[name] = export(
                        artifact, given["cache"], given["mirror"], given["upstream"], given["git_timeout"]
                    )
                    changed = True
                continue
            artifact = resolve(artifact, given["mirror"])
            path, found_in = fetcher.find(artifact)
            try:
                if not path and not out_of_time:
                    path, found_in = fetcher.fetch(artifact)
                    changed = True
            except OutOfTime:
                out_of_time = True
            if path:
                files[name], origin[name] = path, found_in
            else:
                missing.append(fetcher.missing(artifact))
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Artifacts cannot be kept in {given['cache']}: {error}. Check its space and permissions.")
    module.exit_json(changed=changed, files=files, origin=origin, missing=missing)


if __name__ == "__main__":
    main()
