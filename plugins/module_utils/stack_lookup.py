"""What a server tells of itself and of its prefix. Runs on servers: Python >= 3.9, standard library only."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.stack_installs import read_json


def current_generation(prefix: str) -> dict[str, Any]:
    """What `<prefix>/current` points to; {} where it points nowhere."""
    path = os.path.realpath(os.path.join(prefix, "current"))
    recorded = read_json(os.path.join(path, "generation.json"))
    return {**recorded, "path": path} if isinstance(recorded, dict) else {}


def driver_line() -> str:
    """First line of the loaded NVIDIA driver's version file; "" without a driver."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as stream:
            return stream.readline().strip()
    except OSError:
        return ""
