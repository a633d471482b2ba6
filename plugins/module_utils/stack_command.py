"""The command that goes on with what failed: the one that was given, for the servers that failed, without secrets.

Runs on the controller.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

import yaml

HIDDEN = "HIDDEN"
SECRET = re.compile(r"(?<!no_)proxy|pass|pwd|secret|token|credential|api_?key|private|auth", re.IGNORECASE)
# User and password of an address, as a proxy's or a repository's; not the bare user of ssh://git@host.
LOGIN = re.compile(r"(https?://|\w[\w+.-]*://(?=[^/@\s'\"]*:))[^/@\s'\"]+@")
PAIR = re.compile(r"""([^\s='"]+)=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)""")

SHORT = tuple(
    f"-{letter}" for letter in "efiltucTM"
)  # ansible-playbook's that take a value; others are flags, as in -CD


def without_secrets(value: str) -> str:
    """One --extra-vars with HIDDEN in place of all that looks like a secret: by its name, or as part of an address."""
    shown = LOGIN.sub(rf"\1{HIDDEN}@", value)
    if value.startswith("@"):
        return shown
    if value.lstrip().startswith(("{", "[")):
        try:
            data = yaml.safe_load(value)
        except yaml.YAMLError:
            return HIDDEN
        hidden = _hide(data)
        return shown if hidden == data else LOGIN.sub(rf"\1{HIDDEN}@", json.dumps(hidden, default=str))
    return PAIR.sub(lambda pair: f"{pair[1]}={HIDDEN}" if SECRET.search(pair[1]) else pair[0], shown)


def _hide(data: Any, secret: bool = False) -> Any:
    """`data` with HIDDEN for each value below a name that looks like a secret's."""
    if isinstance(data, dict):
        return {name: _hide(value, secret or bool(SECRET.search(str(name)))) for name, value in data.items()}
    if isinstance(data, list):
        return [_hide(value, secret) for value in data]
    return HIDDEN if secret else data


def words(arguments: Sequence[str]) -> list[tuple[str, str | None]]:
    """The arguments as (option, value), (option, None) or ("", word); short options that stand together taken apart."""
    found: list[tuple[str, str | None]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            found += [("", other) for other in rest]
            break
        if word.startswith("--"):
            name, mark, value = word.partition("=")
            # argparse takes any beginning of a long name that is no other's.
            name = next((full for full in ("--limit", "--extra-vars") if len(name) > 4 and full.startswith(name)), name)
            if not mark and name in ("--limit", "--extra-vars") and rest:
                mark, value = "=", rest.pop(0)
            found.append((name, value if mark else None))
        elif word.startswith("-") and word != "-":
            flags = word[1:]
            while flags and f"-{flags[0]}" not in SHORT:
                found.append((f"-{flags[0]}", None))
                flags = flags[1:]
            if flags:
                found.append((f"-{flags[0]}", flags[1:].removeprefix("=") or (rest.pop(0) if rest else "")))
        else:
            found.append(("", word))
    return found


def resume(argv: Sequence[str], servers: Sequence[str]) -> list[str]:
    """The command `argv` again, limited to `servers`, its other options as they were.

    In parts quoted for a shell, an option together with its value.
    """
    program = os.path.basename(argv[0])
    command = [[program if shutil.which(program) == argv[0] else argv[0]]]
    for option, value in words(argv[1:]):
        if option in ("--limit", "-l"):
            continue
        if option in ("--extra-vars", "-e"):
            value = without_secrets(value or "")
        if value is None:
            command.append([option])
        elif option in ("--extra-vars", *SHORT):
            command.append([option, value])
        else:
            command.append([f"{option}={value}" if option else value])
    return [shlex.join(part) for part in [*command, ["--limit", ",".join(servers)]]]


def shown(command: Sequence[str], width: int) -> list[str]:
    """The parts of a command as lines for a shell, joined by backslashes; none wider than `width` but by a part."""
    lines = [command[0]]
    for part in command[1:]:
        if len(lines[-1]) + 1 + len(part) > width - 2:
            lines.append(f"    {part}")
        else:
            lines[-1] += f" {part}"
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
