"""Puts a Python for Ansible's modules into a prefix, on a server that has sh, tar, gzip and sha256sum.

What needs no Python is done by files/bootstrap.sh, a verb per remote call; the module of the same name, run by the
Python that came, publishes it.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ansible.module_utils

UTILS = Path(__file__).resolve().parents[1] / "module_utils"
# The controller does not look for module_utils beside its plugins; the servers get them by module_utils in ansible.cfg.
ansible.module_utils.__path__.append(str(UTILS))

from ansible.errors import AnsibleActionFail  # noqa: E402
from ansible.module_utils.parsing.convert_bool import boolean  # noqa: E402
from ansible.module_utils.stack_fetch import in_mirror, mirrored_at, resolve, without_secrets  # noqa: E402
from ansible.module_utils.stack_installs import (  # noqa: E402
    StackError,
    built_key,
    marker_of,
    no_full_path,
    not_a_folder,
    not_ours,
    of_another,
)
from ansible.module_utils.stack_push import push  # noqa: E402
from ansible.plugins.action import ActionBase  # noqa: E402

PROGRAM = UTILS.parents[1] / "files" / "bootstrap.sh"
# Run by a Python that is there: its state as the look-up tells it of every install.
STATE = """
import sys
state = install_state(sys.argv[1], sys.argv[2] == "deep")
print(state["state"], state["why"])
"""

Answer = list[tuple[str, str]]


def program(*words: str) -> bytes:
    """The text for `/bin/sh -s` that does the verb and its arguments `words`."""
    text = PROGRAM.read_text(encoding="utf-8")
    state = (UTILS / "stack_installs.py").read_text(encoding="utf-8") + STATE
    return f"set -- {shlex.join(words)}\n{text.replace('@STATE@', state)}".encode()


def answer(text: str) -> Answer:
    """The (key, value) of each KEY=value line."""
    return [(key, value) for key, _mark, value in (line.strip().partition("=") for line in text.splitlines())]


def values(said: Answer, key: str) -> list[str]:
    """All values of a key."""
    return [value for name, value in said if name == key]


def value(said: Answer, key: str) -> str:
    """The first value of a key; "" where there is none."""
    return next(iter(values(said, key)), "")


def numbers(version: str) -> tuple[int, ...]:
    """A version of digits and dots, comparable: "2.31" -> (2, 31)."""
    return tuple(map(int, version.split(".")))


def folder_name(python: dict[str, Any]) -> str:
    """Name of the folder of one Python: version, and digest of all that pins its bytes."""
    archive = python["archive"]
    pinned = built_key(archive) if "inputs" in archive else archive["sha256"][:12]
    return f"{python['version']}-{pinned}"


def refusal(looked: Answer, stack: str) -> StackError | None:
    """Why nothing is put into this prefix."""
    prefix = value(looked, "prefix")
    if not prefix.startswith("/"):
        return no_full_path(prefix)
    foreign, owner = value(looked, "foreign"), value(looked, "owner")
    if foreign:
        return not_a_folder(prefix) if foreign == "file" else not_ours(prefix)
    return of_another(prefix, owner, stack) if owner not in ("", stack) else None


def suitable(looked: Answer, pythons: dict[str, Any], prefer: Iterable[str]) -> list[str]:
    """Names of the Pythons that can run there, in the order of preference. Raises StackError when none can."""
    machine, glibc, lacks = value(looked, "machine"), value(looked, "glibc"), values(looked, "lacks")
    if machine != "x86_64":
        raise StackError(f"The server is {machine}, and the Pythons that can be put there are for x86_64.")
    if lacks:
        raise StackError(f"The server lacks {', '.join(lacks)}, without which no Python can be put there.")
    found = [name for name in prefer if glibc and numbers(glibc) >= numbers(pythons[name]["glibc_min"])]
    if not found:
        wanted = "; ".join(f"{name} needs glibc {pythons[name]['glibc_min']}" for name in prefer)
        raise StackError(
            f"No Python of bootstrap_from can run there: the server has {f'glibc {glibc}' if glibc else 'no glibc'}, "
            f"and {wanted}. Set ansible_python_interpreter to a Python 3.9 or newer of your own."
        )
    return found


class ActionModule(ActionBase):
    """Arguments: prefix, stack, pythons, prefer, mirror, upstream, deep, repair (as role bootstrap gives them), claim
    (whether to make a prefix that is not there)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        try:
            return self._bootstrap(self._task.args)
        except StackError as error:
            raise AnsibleActionFail(str(error)) from error

    def _bootstrap(self, given: dict[str, Any]) -> dict[str, Any]:
        pythons, prefer = given["pythons"], given["prefer"]
        unknown = sorted(set(prefer) - set(pythons))
        if unknown or not prefer:
            raise StackError(
                f"bootstrap_from names {', '.join(unknown) or 'nothing'}: give one or more of {', '.join(pythons)}."
            )
        names = {name: folder_name(pythons[name]) for name in prefer}
        deep = "deep" if boolean(given["deep"]) else ""
        looked = self._ask("look", given["prefix"], deep, *names.values())
        refused = refusal(looked, given["stack"])
        if refused:
            raise refused
        prefix = os.path.normpath(value(looked, "prefix"))
        folder = f"{prefix}/var/python3"
        present = dict(entry.split(" ", 1) for entry in values(looked, "present"))
        for name in names.values():
            if name in present:
                return {"changed": False, "python": f"{folder}/{name}/bin/python3", "msg": f"{name} is there"}
        damaged = [
            f"The Python in {folder}/{entry.replace(' ', ' is damaged: ', 1)}." for entry in values(looked, "damaged")
        ]
        if damaged and not boolean(given["repair"]):
            raise StackError(
                f"{' '.join(damaged)} Mend it with: ansible-playbook site.yml "
                f"--limit {self._vars.get('inventory_hostname')} --extra-vars stack_deep=true"
            )
        suited = suitable(looked, pythons, prefer)
        what = f"Python {pythons[suited[0]]['version']} into {folder}/{names[suited[0]]}"
        if not boolean(given.get("claim", False)) and not value(looked, "owner"):
            msg = f"Nothing is installed in {prefix}, and no Python is there to tell more. site.yml puts one there."
            return {"changed": False, "python": "", "msg": msg}
        if self._task.check_mode:
            return {
                "changed": True,
                "python": "",
                "msg": f"Would put {what}. What else would be done there cannot be told before: all else needs a "
                "Python. A run with --tags bootstrap puts it there and does nothing more.",
            }
        draft = f"{prefix}/var/tmp/{value(looked, 'server')}/python3-{os.urandom(6).hex()}"
        made = values(looked, "made")
        marker = json.dumps(marker_of(given["stack"], made), indent=1, sort_keys=True)
        self._ask("begin", prefix, marker, draft)
        name, origin = self._bring(suited, given, draft)
        self._display.vvv(f"{name} came from {origin}")
        facts = {
            "role": "bootstrap",
            "version": pythons[name]["version"],
            "inputs": pythons[name]["archive"],
            "origin": {pythons[name]["archive"]["filename"]: origin},
        }
        arguments = {"prefix": prefix, "folder": names[name], "draft": draft, "facts": facts, "deep": bool(deep)}
        result: dict[str, Any] = self._execute_module(
            module_args=arguments,
            task_vars={**self._vars, "ansible_python_interpreter": f"{draft}/python/bin/python3"},
        )
        if not result.get("failed"):
            result["msg"] = f"{what}, from {origin}"
        return result

    def _bring(self, names: list[str], given: dict[str, Any], draft: str) -> tuple[str, str]:
        """Have the first of `names` that can be had unpacked in `draft`: (name, where it came from)."""
        tried = []
        for name in names:
            archive = given["pythons"][name]["archive"]
            try:
                sha256, origin = self._bring_archive(archive, given, draft)
                said = self._ask("unpack", draft, sha256)
                version = value(said, "python")
                if not version:
                    raise StackError(self._not_unpacked(archive, value(said, "failed"), origin))
                if version != given["pythons"][name]["version"]:
                    raise StackError(f"{archive['filename']} holds Python {version}: correct its version in the lock.")
                return name, origin
            except StackError as error:
                tried.append(str(error))
        raise StackError(" ".join(tried))

    def _not_unpacked(self, archive: dict[str, Any], why: str, origin: str) -> str:
        if why == "sum":
            return (
                f"{archive['filename']}, {origin}, does not have the sha256 that it should, so nothing was unpacked. "
                "Remove it from the mirror and fill the mirror again: `ansible-playbook playbooks/mirror.yml`."
            )
        return f"{archive['filename']} could not be unpacked on the server: {why or 'the connection broke'}."

    def _bring_archive(self, archive: dict[str, Any], given: dict[str, Any], draft: str) -> tuple[str, str]:
        """Have `draft`/archive written: (the sha256 that it should have, where it came from)."""
        mirror = str(given["mirror"])
        artifact = {**archive, "built": built_key(archive)} if "inputs" in archive else archive
        sources = []
        if mirror.startswith("controller:"):
            here = Path(mirror.partition(":")[2]).expanduser()
            artifact = resolve(artifact, str(here))
            path = here / mirrored_at(artifact)
            if path.is_file():
                for _have in push(self._execute, path, f"{draft}/archive"):
                    pass
                return artifact["sha256"], "pushed from the controller's mirror"
        elif mirror:
            artifact = resolve(artifact, mirror, self._read)
            sources.append(in_mirror(mirror, mirrored_at(artifact)))
        if boolean(given["upstream"]):
            sources += artifact.get("urls", [])
        said = self._ask("fetch", draft, artifact["sha256"], *sources)
        if value(said, "fetched"):
            return artifact["sha256"], without_secrets(sources[int(value(said, "fetched"))])
        reasons = [entry.partition(" ") for entry in values(said, "tried")]
        why = "; ".join(f"{without_secrets(sources[int(number)])}: {reason}" for number, _blank, reason in reasons)
        raise StackError(
            f"{archive['filename']} could not be had: {why or 'no mirror has it, no upstream may be asked'}. "
            f"Save it in the mirror, as {mirrored_at(artifact)}."
        )

    def _read(self, where: str) -> Any:
        """The JSON at a place that only the server sees."""
        done = self._execute("/bin/sh -s", program("download", where, "-"))
        if done["rc"]:
            raise OSError(done["stderr"].strip() or "it does not answer")
        return json.loads(done["stdout"])

    def _ask(self, *words: str) -> Answer:
        """What the server answers to a verb. Raises StackError where it cannot do it."""
        done = self._execute("/bin/sh -s", program(*words))
        if done["rc"]:
            why = (done["stderr"] or done["stdout"]).strip().splitlines()[-1:] or ["the connection broke"]
            raise StackError(f"No Python could be put on the server ({words[0]}): {why[0]}.")
        return answer(done["stdout"])

    def _execute(self, command: str, data: bytes) -> dict[str, Any]:
        done: dict[str, Any] = self._low_level_execute_command(command, in_data=data, sudoable=False)
        return done
