"""What a server tells of itself and of its prefix. Runs on servers: Python >= 3.9, standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.stack_installs import RECEIPT, install_state, read_json


def current_generation(prefix: str) -> dict[str, Any]:
    """The receipt of the generation that `<prefix>/current` points to, with its "path"; {} unless it is whole."""
    path = os.path.realpath(os.path.join(prefix, "current"))
    if install_state(path)["state"] != "present":
        return {}
    return {**read_json(os.path.join(path, RECEIPT)), "path": path}


def driver_line() -> str:
    """First line of the loaded NVIDIA driver's version file; "" without a driver."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def seen_at(folder: str) -> Iterator[None]:
    """Have processes_at find this process at `folder`, in which it writes by full paths."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield
    finally:
        os.close(opened)


def processes_at(path: str) -> list[int]:
    """Processes that run a program at or below `path`, work in it, have something of it open, or name it in their
    arguments. Other logins' processes are not seen."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as stream:
                said = [os.fsdecode(stream.read())]
            links = ["exe", "cwd", *(f"fd/{name}" for name in os.listdir(f"/proc/{process}/fd"))]
            said += [os.readlink(f"/proc/{process}/{link}") for link in links]
        except OSError:
            continue  # it has ended, or is not ours to look at
        if int(process) != os.getpid() and any(path in text for text in said):
            found.append(int(process))
    return found
