#!/usr/bin/python
"""Make a generation, and point `current` to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generation
short_description: Make a generation of a stack, or make one current
description:
  - A generation is a folder C(generations/<n>/) with a link to one install per role, the fake C(usr/local), and the
    activation files. It is made under another name and gets its own by one rename, with a manifest and a receipt as
    an install has them; it is never modified.
  - O(state=staged) makes it, unless one with the same digest is there. O(state=current) points C(current) to it,
    by one rename, and removes what killed runs left.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  state: {description: What to bring about., type: str, choices: [staged, current], required: true}
  digest: {description: Identity of the generation., type: str, required: true}
  installs: {description: All installs as the role C(stack) looked them up., type: dict, required: true}
  deep:
    description: Whether to compare contents too, where a generation that is there is taken for whole.
    type: bool
    default: false
  run_tags: {description: The run's C(--tags)., type: list, elements: str, default: [all]}
  links: {description: 'Further links by relative path: their targets.', type: dict, default: {}}
  files:
    description: >-
      Content by relative path; C(@GENERATION@) becomes the generation's folder. Names below C(bin/) and C(tools/) are
      executable.
    type: dict
    default: {}
"""

RETURN = r"""
path: {description: Folder of the generation., type: str, returned: success}
number: {description: 'Its number; in check mode the one that it would get.', type: int, returned: success}
"""

import errno
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import flip, folder_of, numbers
from ansible.module_utils.stack_installs import (
    RECEIPT,
    StackError,
    install_state,
    publish,
    read_json,
    remove_tree,
    restrict_umask,
)
from ansible.module_utils.stack_lookup import current_generation, seen_at
from ansible.module_utils.stack_temporary import new_temporary, sweep


def find(prefix: str, digest: str, deep: bool) -> int:
    """Number of the newest whole generation with `digest`; 0 without one."""
    for number in numbers(prefix):
        path = folder_of(prefix, number)
        same = read_json(os.path.join(path, RECEIPT)).get("digest") == digest
        if same and install_state(path, deep)["state"] == "present":
            return int(number)
    return 0


def check_installs(installs: dict[str, Any], planned: list[str]) -> None:
    """Raise StackError for the first install that is neither there nor planned."""
    for role, install in installs.items():
        state = install_state(install["path"])
        if state["state"] != "present" and not {"all", role}.intersection(planned):
            raise StackError(
                f"A generation needs {role}, which is {state['state']} here ({state['why']}). "
                f"Run `ansible-playbook site.yml --tags {role}` first, or the whole of site.yml."
            )


def write(folder: str, path: str, links: dict[str, str], files: dict[str, str]) -> None:
    """Fill `folder`, which will be renamed to `path`."""
    for name in [*links, *files]:
        os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    for name, target in links.items():
        os.symlink(target, os.path.join(folder, name))
    for name, content in files.items():
        full = os.path.join(folder, name)
        with open(full, "w", encoding="utf-8") as stream:
            stream.write(content.replace("@GENERATION@", path))
        os.chmod(full, 0o755 if name.startswith(("bin/", "tools/")) else 0o644)


def next_number(prefix: str) -> int:
    """Number that a new generation gets."""
    return max(numbers(prefix), default=0) + 1


def stage(
    prefix: str, digest: str, deep: bool, installs: dict[str, str], links: dict[str, str], files: dict[str, str]
) -> int:
    """Make the generation and return its number. Two servers of a shared home may do this at once.

    `installs`: path by role.
    """
    while not (existing := find(prefix, digest, deep)):
        number = next_number(prefix)
        path = folder_of(prefix, number)
        building = new_temporary(prefix, "generation")
        try:
            os.makedirs(building)
            with seen_at(building):
                write(building, path, {**installs, **links}, files)
                publish(building, {"number": number, "digest": digest, "installs": installs})
            os.chmod(building, 0o755)  # a folder must be writable to be renamed
            os.rename(building, path)
            os.chmod(path, 0o555)
            return number
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            remove_tree(building)
    return existing


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["staged", "current"], "required": True},
            "digest": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "deep": {"type": "bool", "default": False},
            "run_tags": {"type": "list", "elements": "str", "default": ["all"]},
            "links": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, digest, deep = given["prefix"], given["digest"], given["deep"]
    installs = {role: install["path"] for role, install in given["installs"].items()}
    try:
        before = current_generation(prefix, deep)
        number = find(prefix, digest, deep)
        if given["state"] == "staged":
            check_installs(given["installs"], given["run_tags"] if module.check_mode else [])
            changed = not number
            if changed and module.check_mode:
                number = next_number(prefix)
            elif changed:
                number = stage(prefix, digest, deep, installs, given["links"], given["files"])
        else:
            changed = before.get("digest") != digest
            if changed and not module.check_mode:
                if not number:
                    raise StackError(f"{prefix} has no generation {digest} to make current. Stage it first.")
                flip(prefix, folder_of(prefix, number))
                sweep(prefix)  # the last step of a run: also what killed runs left after their last build
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The generation could not be made below {prefix}: {error}. The current one is untouched.")

    def shown(paths: dict[str, str]) -> str:
        return "".join(f"{role}: {path}\n" for role, path in sorted(paths.items()))

    diff = {"before": shown(before.get("installs", {})), "after": shown(installs)}
    path = folder_of(prefix, number) if number else ""
    module.exit_json(changed=changed, number=number, path=path, diff=diff if changed else {})


if __name__ == "__main__":
    main()
