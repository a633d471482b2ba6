#!/usr/bin/python
"""Make a generation, and point `current` to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generation
short_description: Make a generation of a stack, or make one current
description:
  - A generation is a folder C(generations/<n>/) with a link to one install per role, the fake C(usr/local), and the
    activation files. It is made under another name and gets its own by one rename; it is never modified.
  - O(state=staged) makes it, unless one with the same digest is there. O(state=current) points C(current) to it,
    by one rename.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  state: {description: What to bring about., type: str, choices: [staged, current], required: true}
  digest: {description: Identity of the generation., type: str, required: true}
  installs: {description: All installs as the role C(stack) looked them up., type: dict, required: true}
  run_tags: {description: The run's C(--tags)., type: list, elements: str, default: [all]}
  links: {description: 'Further links by relative path: their targets.', type: dict, default: {}}
  files:
    description: >-
      Content by relative path; C(@GENERATION@) becomes the generation's folder. Names below C(bin/) are executable.
    type: dict
    default: {}
"""

RETURN = r"""
path: {description: Folder of the generation., type: str, returned: success}
number: {description: Its number; 0 where check mode made none., type: int, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_installs import (
    StackError,
    garbage,
    install_state,
    make_read_only,
    read_json,
    remove_tree,
    write_json,
)
from ansible.module_utils.stack_lookup import current_generation


def numbers(prefix: str) -> list[int]:
    """Numbers of the generations that there are, newest first."""
    folder = os.path.join(prefix, "generations")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def find(prefix: str, digest: str) -> int:
    """Number of the newest generation with `digest`; 0 without one."""
    for number in numbers(prefix):
        recorded = read_json(os.path.join(prefix, "generations", str(number), "generation.json"))
        if isinstance(recorded, dict) and recorded.get("digest") == digest:
            return number
    return 0


def check_installs(installs: dict, planned: list[str]) -> None:
    """Raise StackError for the first install that is neither there nor planned."""
    for role, install in installs.items():
        state = install_state(install["path"])
        if state["state"] != "present" and not {"all", role}.intersection(planned):
            raise StackError(
                f"A generation needs {role}, which is {state['state']} here ({state['why']}). "
                f"Run `ansible-playbook site.yml --tags {role}` first, or the whole of site.yml."
            )


def stage(prefix: str, digest: str, installs: dict, links: dict, files: dict) -> int:
    """Make the generation and return its number. Two servers of a shared home may do this at once."""
    while True:
        number = (numbers(prefix) or [0])[0] + 1
        path = os.path.join(prefix, "generations", str(number))
        building = garbage(prefix)
        for name, target in {**{role: install["path"] for role, install in installs.items()}, **links}.items():
            os.makedirs(os.path.dirname(os.path.join(building, name)), exist_ok=True)
            os.symlink(target, os.path.join(building, name))
        for name, content in files.items():
            os.makedirs(os.path.dirname(os.path.join(building, name)), exist_ok=True)
            with open(os.path.join(building, name), "w", encoding="utf-8") as stream:
                stream.write(content.replace("@GENERATION@", path))
            os.chmod(os.path.join(building, name), 0o555 if name.startswith("bin/") else 0o444)
        recorded = {"number": number, "digest": digest, "installs": {k: v["path"] for k, v in installs.items()}}
        write_json(os.path.join(building, "generation.json"), recorded)
        try:
            os.rename(building, path)
        except OSError:
            remove_tree(building)
            if find(prefix, digest):
                return find(prefix, digest)
            continue
        make_read_only(path)
        return number


def flip(prefix: str, path: str) -> None:
    """Point `current` to `path`, by one rename."""
    new = os.path.join(prefix, f".current.{os.urandom(6).hex()}")
    os.symlink(os.path.relpath(path, prefix), new)
    os.replace(new, os.path.join(prefix, "current"))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["staged", "current"], "required": True},
            "digest": {"type": "str", "required": True},
            "installs": {"type": "dict", "required": True},
            "run_tags": {"type": "list", "elements": "str", "default": ["all"]},
            "links": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, digest, installs = given["prefix"], given["digest"], given["installs"]
    before = current_generation(prefix)
    number = find(prefix, digest)
    try:
        if given["state"] == "staged":
            check_installs(installs, given["run_tags"] if module.check_mode else [])
            changed = not number
            if changed and not module.check_mode:
                number = stage(prefix, digest, installs, given["links"], given["files"])
        else:
            changed = before.get("digest") != digest
            if changed and not module.check_mode:
                flip(prefix, os.path.join(prefix, "generations", str(number)))
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The generation could not be made below {prefix}: {error}. The current one is untouched.")

    def shown(paths: dict) -> str:
        return "".join(f"{role}: {path}\n" for role, path in sorted(paths.items()))

    diff = {"before": shown(before.get("installs", {})), "after": shown({k: v["path"] for k, v in installs.items()})}
    path = os.path.join(prefix, "generations", str(number)) if number else ""
    module.exit_json(changed=changed, number=number, path=path, diff=diff if changed else {})


if __name__ == "__main__":
    main()
