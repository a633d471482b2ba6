#!/usr/bin/python
"""Mirror one commit of a git repository, or make what stands in for it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_repository
short_description: Keep one commit of a git repository in a bare repository of the mirror
description:
  - Fetches O(commit) from O(repository) into the bare repository O(path), and writes down in its configuration that
    it came from there. Where that does not answer within O(timeout), or O(upstream) is false, runs O(otherwise) with
    O(otherwise_path), which makes a bare repository and prints a commit id.
options:
  path: {description: The bare repository., type: path, required: true}
  repository: {description: Its upstream., type: str, required: true}
  commit: {description: Full commit id., type: str, required: true}
  timeout: {description: Seconds., type: int, default: 20}
  upstream: {description: Whether to ask its upstream., type: bool, default: true}
  otherwise: {description: Command that makes what stands in; none where that will not do., type: list, elements: str}
  otherwise_path: {description: The bare repository that it makes., type: path, required: true}
"""

RETURN = r"""
record:
  description: What the mirror has, C(path), C(commit), C(origin), C(upstream) (bool), C(why) it is not the upstream.
  type: dict
  returned: success
"""

import os
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_fetch import git, run_git, without_secrets
from ansible.module_utils.stack_installs import StackError


def has_commit(path: str, commit: str) -> bool:
    """Whether the bare repository at `path` has the commit with all its files."""
    return os.path.isdir(path) and not git(path, "archive", "--format=tar", f"--output={os.devnull}", commit)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "repository": {"type": "str", "required": True},
            "commit": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 20},
            "upstream": {"type": "bool", "default": True},
            "otherwise": {"type": "list", "elements": "str"},
            "otherwise_path": {"type": "path", "required": True},
        }
    )
    given = module.params
    path, commit, repository = given["path"], given["commit"], given["repository"]
    record = {"path": path, "commit": commit, "upstream": True, "why": ""}
    note = f"mirror.{commit}.origin"  # a key of the repository's configuration
    try:
        if has_commit(path, commit):
            _said, origin = run_git(f"--git-dir={path}", "config", "--get", note, timeout=60)
            module.exit_json(changed=False, record={**record, "origin": origin.strip()})
        why = "mirror_sources leaves upstreams out"
        if given["upstream"]:
            os.makedirs(path, exist_ok=True)
            refs = f"{commit}:refs/heads/{commit}"
            why = git(path, "init", "--quiet", "--bare", path) or git(
                path, "fetch", "--quiet", "--depth=1", "--", repository, refs, timeout=given["timeout"]
            )
            if not why and has_commit(path, commit):
                origin = without_secrets(repository)
                git(path, "update-server-info")
                git(path, "config", note, origin)
                module.exit_json(changed=True, record={**record, "origin": origin})
        if not given["otherwise"]:
            module.fail_json(
                msg=f"{without_secrets(repository)} did not give commit {commit} ({why}), and mirror_sources allows "
                "nothing in its place. Mirror where it answers, or let mirror_sources have registries as well."
            )
        existed = os.path.isdir(given["otherwise_path"])
        command = [*given["otherwise"], given["otherwise_path"]]
        made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    except StackError as error:
        module.fail_json(msg=str(error))
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"{without_secrets(repository)} could not be mirrored in {path}: {error}.")
    if made.returncode or not made.stdout.split():
        module.fail_json(
            msg=f"{without_secrets(repository)} did not answer ({why}), and what stands in for it could not be made: "
            f"{made.stderr.strip()}"
        )
    record.update(path=given["otherwise_path"], commit=made.stdout.split()[-1], upstream=False, why=why)
    record["origin"] = f"made here by {os.path.basename(command[1])}"
    module.exit_json(changed=not existed, record=record)


if __name__ == "__main__":
    main()
