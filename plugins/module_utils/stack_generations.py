"""The generations of a prefix, and who uses them and their installs.

Installs and generations are named relative to the prefix here: `opt/<role>/<version>-<digest>`, `generations/<n>`.

Runs on servers: Python >= 3.9, standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from typing import Any

from ansible.module_utils.stack_installs import MARKER, RECEIPT, StackError, install_state, read_json
from ansible.module_utils.stack_lease import FORGOTTEN
from ansible.module_utils.stack_lookup import mentions
from ansible.module_utils.stack_temporary import new_temporary

SHOWN = 100  # characters of a process's command that are told


def folder_of(prefix: str, number: int) -> str:
    """Folder of a generation."""
    return os.path.join(prefix, "generations", str(number))


def numbers(prefix: str) -> list[int]:
    """Numbers of the generations that there are, newest first."""
    folder = os.path.join(prefix, "generations")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def current_number(prefix: str) -> int:
    """Number of the generation that `current` points to, whole or not; 0 where it points to none."""
    try:
        name = os.path.basename(os.readlink(os.path.join(prefix, "current")))
    except OSError:
        return 0
    return int(name) if name.isdigit() else 0


def flip(prefix: str, path: str) -> None:
    """Point `current` to `path`, by one rename."""
    new = new_temporary(prefix, "current")
    os.symlink(os.path.relpath(path, prefix), new)
    os.replace(new, os.path.join(prefix, "current"))


def installs_of(prefix: str, number: int) -> dict[str, str]:
    """Installs of a generation by role. Its links say it, which are there also where its receipt is damaged."""
    top, installs = os.path.realpath(prefix), {}
    with os.scandir(folder_of(prefix, number)) as found:
        for entry in found:
            path = os.path.relpath(os.path.realpath(entry.path), top)
            if entry.is_symlink() and path.startswith("opt/"):
                installs[entry.name] = path
    return dict(sorted(installs.items()))


def generations(prefix: str) -> list[dict[str, Any]]:
    """All generations, newest first: number, digest, installs by role, current, made (seconds since 1970), and
    problem, a clause that says what of it or of its installs is not whole ("" when all is)."""
    states: dict[str, str] = {}

    def problem(path: str) -> str:
        if path not in states:  # generations share installs, and a look at one takes a stat for each of its files
            state = install_state(os.path.join(prefix, path))
            states[path] = "" if state["state"] == "present" else f"{path} is {state['state']} ({state['why']})"
        return states[path]

    found = []
    for number in numbers(prefix):
        path = f"generations/{number}"
        receipt = os.path.join(prefix, path, RECEIPT)
        installs = installs_of(prefix, number)
        found.append(
            {
                "number": number,
                "digest": read_json(receipt).get("digest", ""),
                "installs": installs,
                "current": number == current_number(prefix),
                "made": int(os.stat(receipt).st_mtime) if os.path.exists(receipt) else 0,
                "problem": next(filter(None, map(problem, [path, *installs.values()])), ""),
            }
        )
    return found


def shown(generation: dict[str, Any]) -> str:
    """A generation in one line."""
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(generation["made"])) if generation["made"] else "?"
    state = " (current)" if generation["current"] else ""
    if generation["problem"]:
        state += f" NOT WHOLE: {generation['problem']}"
    installs = ", ".join(path[len("opt/") :] for path in generation["installs"].values())
    return f"generation {generation['number']}{state}, made {made}: {installs}"


# --- Who uses them ----------------------------------------------------------------------------------------------------


def uses(prefix: str) -> list[dict[str, Any]]:
    """Processes of this server that use an install, a generation or a run of the prefix: pid, command, paths.

    A shell that has sourced activate.sh and started nothing since does not show it: /proc tells the environment that a
    process was started with.
    """
    spellings = "|".join({re.escape(prefix), re.escape(os.path.realpath(prefix))})
    pattern = re.compile(rf"(?:{spellings})/(opt/[\w.+-]+/[\w.+-]+|(?:generations|runs|work)/[\w.+-]+)")
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        paths = {path for text in mentions(process) for path in pattern.findall(text)}
        if paths and int(process) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as stream:
                command = os.fsdecode(stream.read()).replace("\0", " ").strip()[:SHOWN]
                found.append({"pid": int(process), "command": command, "paths": sorted(paths)})
    return found


def identity(prefix: str) -> str:
    """What tells servers that they share this prefix: its marker is one file. "" without a prefix."""
    try:
        marker = os.stat(os.path.join(prefix, MARKER))
    except OSError:
        return ""
    return f"{marker.st_ino}-{marker.st_mtime_ns}"


def running_python(prefix: str) -> str:
    """The Python that role bootstrap put into the prefix, relative to it, where this runs on it; "" elsewhere."""
    path = os.path.relpath(os.path.realpath(sys.base_prefix), os.path.realpath(prefix))
    return path if path.startswith("var/python3/") else ""


def usage(prefix: str) -> dict[str, Any]:
    """This server's part of what `sharing` joins: its name, the prefix's identity, its processes, its Python."""
    return {
        "server": socket.gethostname(),
        "identity": identity(prefix),
        "uses": uses(prefix),
        "python": running_python(prefix),
    }


def sharing(prefix: str, usages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a run's usages that are about this very prefix; the first server does what is to be done once."""
    own = identity(prefix)
    return [usage for usage in usages if own and usage["identity"] == own]


def unasked(prefix: str, usages: list[dict[str, Any]]) -> list[str]:
    """Servers that have climbed a ladder in this prefix and are not among those that said what runs on them."""
    folder = os.path.join(prefix, "checks")
    known = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(set(known) - {usage["server"] for usage in usages})


def builders(prefix: str) -> dict[str, dict[str, Any]]:
    """Leases of the prefix that give a sign of life, by path: their data."""
    folder = os.path.join(prefix, "var", "lease")
    found = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        path = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):
            if name.endswith(".json") and time.time() - os.stat(path).st_mtime <= FORGOTTEN:
                found[path] = read_json(path)
    return found


def users(usages: list[dict[str, Any]]) -> dict[str, str]:
    """Who uses a path, a clause for each path: {"opt/caffe2/1.0.1-…": "process 17 on gpu3 (python train_net.py)"}."""
    return {
        path: f"process {use['pid']} on {usage['server']} ({use['command']})"
        for usage in usages
        for use in usage["uses"]
        for path in use["paths"]
    }


def workspaces(prefix: str) -> dict[str, str]:
    """Generations that people's own copies of Detectron were built with and go on with, and which:
    {"generations/3": "workspace alice goes on with it"}."""
    found = {}
    folder, own = os.path.join(prefix, "work"), os.path.realpath(os.path.join(prefix, "generations"))
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        generation = str(read_json(os.path.join(folder, name, "workspace.json")).get("generation", ""))
        if os.path.realpath(os.path.dirname(generation)) == own:
            found[f"generations/{os.path.basename(generation)}"] = f"workspace {name} goes on with it"
    return found


def choose(found: list[dict[str, Any]], current: int, wanted: int) -> dict[str, Any]:
    """The generation to go back to: number `wanted`, or (0) the newest before number `current`.

    `found`: as `generations` gives them. Raises StackError when there is none, or when it is not whole.
    """
    known = ", ".join(str(generation["number"]) for generation in found) or "none"
    if wanted:
        chosen = next((generation for generation in found if generation["number"] == wanted), None)
    elif current:
        chosen = next((generation for generation in found if generation["number"] < current), None)
    else:
        raise StackError(
            f"No generation is current here, so none is before it (there are: {known}). "
            "Name one with -e rollback_to=N, or make one with `ansible-playbook site.yml`."
        )
    if chosen is None:
        what = f"There is no generation {wanted}" if wanted else f"There is no generation before {current}"
        raise StackError(
            f"{what} (there are: {known}). Name one of them with -e rollback_to=N. One that was pruned comes "
            "back by running site.yml with the versions that it had."
        )
    if chosen["problem"]:
        raise StackError(
            f"Generation {chosen['number']} cannot be used: {chosen['problem']}. Name another one with -e "
            "rollback_to=N, or run site.yml with the versions that it had, which rebuilds what is broken."
        )
    return chosen
