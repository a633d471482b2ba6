#!/usr/bin/python
"""A person's own writable copy of Detectron: begin it, or say what was changed in it; and finish it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workspace
short_description: Begin or finish a person's own copy of Detectron
description:
  - A workspace is the folder C(work/<name>/) of a prefix, with C(detectron/), C(configs/), C(activate.sh) and
    C(activate.csh). It is there when its C(workspace.json) and its C(detectron/) are; that folder is put in its place
    last, by one rename.
  - With O(state=begun), tells what there is. Where there is nothing yet, makes an empty folder to build in; where the
    workspace is there, tells what its files differ in from those that it began with, and touches nothing.
  - With O(state=finished), makes what was built in O(build) the workspace. With O(state=failed), removes it and fails.
options:
  prefix: {description: The stack's prefix., type: path, required: true}
  workspace: {description: Its name., type: str, required: true}
  state: {description: What to do., type: str, choices: [begun, finished, failed], required: true}
  commit:
    description: With V(begun), the commit that is asked for; empty for that of the install in use.
    type: str
    default: ''
  build: {description: 'With V(finished) and V(failed), the folder that V(begun) made.', type: path, default: ''}
  facts:
    description: "With V(finished), what C(workspace.json) is to say: C(generation), C(installs), C(commit) and more."
    type: dict
    default: {}
"""

RETURN = r"""
build: {description: Folder to build in; empty where nothing is to be built., type: str, returned: with begun}
path: {description: Folder of the workspace., type: str, returned: success}
commit: {description: Commit to build., type: str, returned: with begun}
installs: {description: The current generation's installs by role., type: dict, returned: with begun}
generation: {description: Path of the current generation., type: str, returned: with begun}
expect: {description: Numbers that its check ladder expects of Detectron., type: dict, returned: with begun}
lines: {description: 'What there is, for people.', type: list, returned: success}
"""

import os
import re
import socket
import stat
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.stack_generations import installs_of
from ansible.module_utils.stack_installs import (
    RECEIPT,
    Manifest,
    StackError,
    read_json,
    remove_tree,
    restrict_umask,
    scan,
    sha256_of,
    write_json,
)
from ansible.module_utils.stack_lookup import current_generation

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
FACTS, BASE = "workspace.json", "base.json"
BUILDING = ".building-"  # what is built lies beside the workspaces: in var/tmp another run might take it for garbage
OLD = 3600.0  # seconds: no build takes as long
SHOWN = 40  # changed files that are named
MADE = re.compile(
    r"(^|/)(__pycache__(/|$)|build(/|$)|[^/]+\.(pyc|pyo)$|[^/]+\.egg-info(/|$))"
)  # by running and building

ACTIVATE = """\
# Activates workspace {name}: . {path}/activate.sh
# The generation that it was built and verified with, and this Detectron in place of the installed one.
. '{generation}/activate.sh'
DETECTRON='{path}/detectron'
PYTHONPATH='{cocoapi}/PythonAPI:{path}/detectron'
export DETECTRON PYTHONPATH
"""
ACTIVATE_CSH = """\
# Activates workspace {name}: source {path}/activate.csh
# The generation that it was built and verified with, and this Detectron in place of the installed one.
source '{generation}/activate.csh'
setenv DETECTRON '{path}/detectron'
setenv PYTHONPATH '{cocoapi}/PythonAPI:{path}/detectron'
"""


def changes(root: str, base: Manifest) -> list[str]:
    """What of a tree is not as it was: "modified: …", "added: …", "removed: …"; what running makes left out."""
    found, present = [], set()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not MADE.search(os.path.relpath(os.path.join(folder, name), root))]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in (*names, *links):
            full = os.path.join(folder, name)
            path = os.path.relpath(full, root)
            if MADE.search(path):
                continue
            present.add(path)
            if path not in base:
                found.append(f"added: {path}")
            elif differs(full, base[path]):
                found.append(f"modified: {path}")
    gone = [path for path, entry in base.items() if entry[0] != "dir" and path not in present and not MADE.search(path)]
    return sorted(found + [f"removed: {path}" for path in gone])


def differs(path: str, entry: list[Any]) -> bool:
    """Whether a file has other content than its manifest says; looked at only where size or time do."""
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return [entry[0], entry[4]] != ["link", os.readlink(path)]
    if not stat.S_ISREG(info.st_mode) or [entry[0], entry[2]] != ["file", info.st_size]:
        return True
    return bool(info.st_mtime_ns != entry[3] and sha256_of(path) != entry[4])


def make_writable(root: str) -> None:
    """Give everything to its owner, and nothing to write to others, whatever umask it was built with."""
    for folder, folders, names in os.walk(root):
        for path in [folder, *(os.path.join(folder, name) for name in (*folders, *names))]:
            if not os.path.islink(path):
                mode = stat.S_IMODE(os.stat(path).st_mode) & 0o775
                os.chmod(path, mode | (0o755 if os.path.isdir(path) else 0o644))


def existing(path: str, asked: str, current: dict[str, str]) -> list[str]:
    """Lines about a workspace that is there. Raises StackError where it is of another commit than is asked for.

    current: what it would be made of now: generation, commit.
    """
    facts, tree = read_json(os.path.join(path, FACTS)), os.path.join(path, "detectron")
    if asked and asked != facts.get("commit"):
        raise StackError(
            f"{path} is of commit {facts.get('commit')}, not of {asked}, and a workspace is never overwritten. Choose "
            "another workspace_name for the other commit."
        )
    lines = [f"{path} is there, of commit {facts.get('commit')}, and is left as it is."]
    changed = changes(tree, read_json(os.path.join(path, BASE)))
    lines.append(f"It differs from that commit in {len(changed)} files." if changed else "Nothing in it was changed.")
    lines += changed[:SHOWN] + ([f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else [])
    if not os.path.isdir(str(facts.get("generation"))):
        lines.append(
            f"The generation that it was built with, {facts.get('generation')}, is gone: it cannot be activated. "
            "Make a new workspace and copy your changes into it."
        )
    elif facts["generation"] != current["generation"]:
        lines.append(f"It goes on with {facts['generation']}; {current['generation']} is current.")
    if current["commit"] != facts.get("commit"):
        lines.append(f"The installed Detectron is of commit {current['commit']}.")
    return lines


def begin(module: AnsibleModule, prefix: str, path: str) -> dict[str, Any]:
    """What there is, and where to build what is not. Raises StackError, OSError."""
    generation = current_generation(prefix)
    if not generation:
        raise StackError(f"{prefix} has no current generation that is whole. Run `ansible-playbook site.yml` first.")
    installs = installs_of(prefix, int(os.path.basename(generation["path"])))
    if missing := {"caffe2", "cocoapi", "detectron"} - installs.keys():
        raise StackError(f"The current generation of {prefix} has no {' and no '.join(sorted(missing))}.")
    installs = {role: os.path.join(prefix, install) for role, install in installs.items()}
    asked, installed = module.params["commit"], read_json(os.path.join(installs["detectron"], RECEIPT))
    commit = str(installed.get("inputs", {}).get("commit", ""))
    found = {
        "path": path,
        "build": "",
        "changed": False,
        "commit": asked or commit,
        "installs": installs,
        "generation": generation["path"],
        # The numbers are those of the installed commit alone.
        "expect": read_json(os.path.join(generation["path"], "expect.json")).get("detectron", {})
        if asked in ("", commit)
        else {},
    }
    tree = os.path.join(path, "detectron")
    if os.path.exists(os.path.join(path, FACTS)) and os.path.isdir(tree):
        lines = existing(path, asked, {"generation": generation["path"], "commit": commit})
        return {**found, "lines": lines}
    if os.path.lexists(tree) or (os.path.lexists(path) and not os.path.isdir(path)):
        raise StackError(
            f"{tree if os.path.isdir(path) else path} is there, and no workspace that this playbook made. Nothing was "
            "changed. Choose another workspace_name, or move it away."
        )
    diff = {"before": "", "after": f"{tree}: Detectron at commit {found['commit']}, built\n"}
    lines = [f"{path} would be made, of commit {found['commit']}."]
    if not module.check_mode:
        work = os.path.dirname(path)
        os.makedirs(work, exist_ok=True)
        for name in os.listdir(work):
            left = os.path.join(work, name)
            if name.startswith(BUILDING) and time.time() - os.stat(left).st_mtime > OLD:
                remove_tree(left)
        found["build"] = tempfile.mkdtemp(prefix=f"{BUILDING}{os.path.basename(path)}-", dir=work)
    return {**found, "changed": True, "lines": lines, "diff": diff}


def finish(prefix: str, name: str, path: str, build: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Make what was built the workspace. Raises StackError, OSError."""
    built, tree = os.path.join(build, "detectron"), os.path.join(path, "detectron")
    make_writable(built)
    os.makedirs(os.path.join(path, "configs"), exist_ok=True)
    written = {"name": name, "path": path, "generation": facts["generation"], "cocoapi": facts["installs"]["cocoapi"]}
    for file, text in (("activate.sh", ACTIVATE), ("activate.csh", ACTIVATE_CSH)):
        with open(os.path.join(path, file), "w", encoding="utf-8") as stream:
            stream.write(text.format(**written))
    write_json(os.path.join(path, BASE), scan(built))
    write_json(
        os.path.join(path, FACTS), {"name": name, **facts, "server": socket.gethostname(), "made": int(time.time())}
    )
    try:
        os.rename(built, tree)
    except OSError as error:
        raise StackError(
            f"{tree} cannot be put in its place: {error.strerror}. Another run has made it meanwhile; run the same "
            "command again, which tells."
        ) from error
    remove_tree(build)
    lines = [f"{path} was made, of commit {facts['commit']}, and passes the check ladder's checks of Detectron."]
    lines.append(f"Activate it in place of the installed one: . {path}/activate.sh")
    return {"changed": True, "path": path, "lines": lines}


def main() -> None:
    restrict_umask()
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "workspace": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["begun", "finished", "failed"], "required": True},
            "commit": {"type": "str", "default": ""},
            "build": {"type": "path", "default": ""},
            "facts": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    given = module.params
    prefix, name = given["prefix"], given["workspace"]
    if not NAME.fullmatch(name):
        module.fail_json(
            msg=f"workspace_name is {name!r}: give letters, digits, '.', '_', '+' and '-' alone, the first of them a "
            "letter or digit, as in -e workspace_name=alice."
        )
    path, build = os.path.join(prefix, "work", name), given["build"]
    try:
        if given["state"] == "begun":
            result = begin(module, prefix, path)
        elif not os.path.basename(build).startswith(f"{BUILDING}{name}-") or os.path.dirname(build) != f"{prefix}/work":
            raise StackError(f"{build} is no folder in which {path} is built.")
        elif given["state"] == "finished":
            result = finish(prefix, name, path, build, given["facts"])
        else:
            remove_tree(build)
            raise StackError(f"{path} is not made: the task above failed. What was half built is removed.")
    except StackError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{path}: {error}. Check space and permissions below {prefix}, then run again.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
