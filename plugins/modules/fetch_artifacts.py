#!/usr/bin/python
"""Fetch verified artifacts into a server's cache."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fetch_artifacts
short_description: Fetch verified artifacts
description:
  - Brings each artifact from the cache, the mirror or its upstream, in this order, and verifies it before use.
  - Works on O(parallel) artifacts at a time for O(seconds), and then returns what is still to come, so that the action
    plugin of the same name can show progress and call again; downloads resume. The action plugin also pushes files from
    a mirror on the controller.
  - An artifact that cannot be had does not stop the others; in the end the module fails and names all of them. Where
    one after the other fails and no byte comes, it does not try the rest.
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
  sources:
    description: >-
      Which of them, in this order: C(upstream), the addresses in the lock, and C(registries), PyPI and Debian.
    type: list
    elements: str
    default: [upstream, registries]
  transfers:
    description: How many files the controller pushes at once, over all servers; 0 is no limit. For the action plugin.
    type: int
    default: 0
  pypi_index: {description: Package index; by default pip's own setting., type: str, default: ''}
  debian_mirror: {description: Debian mirror; by default that of APT's settings., type: str, default: ''}
  proxy:
    description: >-
      Proxy of all downloads and of git, C(http://host:port) or C(http://user:password@host:port); by default that of
      the environment.
    type: str
    default: ''
  no_proxy: {description: "Hosts and domains without it, joined by commas.", type: str, default: ''}
  ca_bundle:
    description: File of the certificates to trust; by default what the environment or the system names.
    type: path
    default: ''
  verified: {description: Paths by filename that an earlier slice found verified., type: dict, default: {}}
  errors: {description: Messages by filename about what an earlier slice could not have., type: dict, default: {}}
  parallel: {description: How many artifacts are fetched at the same time., type: int, default: 4}
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
errors: {description: Messages by filename about what could not be had so far., type: dict, returned: success}
received: {description: Bytes that this call brought., type: int, returned: success}
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ansible.module_utils import stack_lease
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_fetch import (
    Fetcher,
    OutOfTime,
    Upstream,
    all_errors,
    export_commit,
    in_mirror,
    resolve,
)
from ansible.module_utils.stack_installs import StackError, remove_tree, restrict_umask
from ansible.module_utils.stack_network import use_network

GIVE_UP = 8  # errors, and no byte in a whole slice: the network is not there, and each of the others would take as long


class Got(NamedTuple):
    """What became of one artifact: it has a path, or is still to come, or cannot be had."""

    path: str = ""
    origin: str = ""
    changed: bool = False
    received: int = 0  # bytes
    missing: dict[str, Any] | None = None
    error: str = ""


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


def bring(artifact: dict[str, Any], fetcher: Fetcher, given: dict[str, Any]) -> Got:
    """One artifact, from where it can be had. Raises OSError when the cache cannot be written."""
    try:
        if "commit" in artifact:
            if not fetcher.in_time():
                return Got(missing=artifact)
            path, origin = export(artifact, given["cache"], given["mirror"], given["upstream"], given["git_timeout"])
            return Got(path, origin, changed=True, received=os.path.getsize(path))
        artifact = resolve(artifact, given["mirror"])
        path, origin = fetcher.find(artifact)
        if path:
            return Got(path, origin)
        had = fetcher.missing(artifact)["have"]
        if fetcher.in_time():
            try:
                path, origin = fetcher.fetch(artifact)
                return Got(path, origin, changed=True, received=artifact["size"] - had)
            except OutOfTime:
                pass
        missing = fetcher.missing(artifact)
        return Got(missing=missing, received=max(0, missing["have"] - had))
    except StackError as error:
        return Got(error=str(error))


def bring_all(given: dict[str, Any]) -> dict[str, Any]:
    """The module's result, with C(msg) where it fails. Raises OSError when the cache cannot be written."""
    upstream = Upstream(given["pypi_index"], given["debian_mirror"], given["sources"]) if given["upstream"] else None
    fetcher = Fetcher(given["cache"], given["mirror"], upstream, given["seconds"])
    known = given["verified"].keys() | given["errors"].keys()
    artifacts = {artifact["filename"]: artifact for artifact in given["artifacts"] if artifact["filename"] not in known}
    # The largest first, so that none of them is left alone at the end.
    order = sorted(artifacts, key=lambda name: -artifacts[name].get("size", 0))
    with ThreadPoolExecutor(max(1, given["parallel"])) as pool:
        waiting = {name: pool.submit(bring, artifacts[name], fetcher, given) for name in order}
        try:
            found = {name: waiting[name].result() for name in artifacts}
        finally:
            pool.shutdown(cancel_futures=True)  # after an error that concerns all
    missing = [got.missing for got in found.values() if got.missing]
    errors = given["errors"] | {name: got.error for name, got in found.items() if got.error}
    result = {
        "changed": any(got.changed for got in found.values()),
        "files": given["verified"] | {name: got.path for name, got in found.items() if got.path},
        "origin": {name: got.origin for name, got in found.items() if got.path},
        "missing": missing,
        "errors": errors,
        "received": sum(got.received for got in found.values()),
    }
    hopeless = len(errors) >= GIVE_UP and not result["received"]
    if errors and (hopeless or not missing):
        rest = [f"{len(missing)} more were not tried to the end."] if missing else []
        result["msg"] = " ".join([all_errors(list(errors.values())), *rest])
    return result


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "artifacts": {"type": "list", "elements": "dict", "required": True},
            "cache": {"type": "path", "required": True},
            "mirror": {"type": "str", "default": ""},
            "upstream": {"type": "bool", "default": True},
            "sources": {"type": "list", "elements": "str", "default": ["upstream", "registries"]},
            "transfers": {"type": "int", "default": 0},
            "pypi_index": {"type": "str", "default": ""},
            "debian_mirror": {"type": "str", "default": ""},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
            "ca_bundle": {"type": "path", "default": ""},
            "verified": {"type": "dict", "default": {}},
            "errors": {"type": "dict", "default": {}},
            "parallel": {"type": "int", "default": 4},
            "seconds": {"type": "float", "default": 10},
            "leases": {"type": "path", "default": ""},
            "run": {"type": "dict", "default": {}},
            "git_timeout": {"type": "float", "default": 600},
        }
    )
    given = module.params
    try:
        stack_lease.beat(given["leases"], stack_lease.holder_of(given["run"]))
        use_network(given["proxy"], given["no_proxy"], given["ca_bundle"])
        result = bring_all(given)
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Artifacts cannot be kept in {given['cache']}: {error}. Check its space and permissions.")
    if "msg" in result:
        module.fail_json(msg=result["msg"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
