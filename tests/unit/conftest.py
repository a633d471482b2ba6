"""Makes the project's plugins importable the way Ansible does it, without Ansible running."""

from __future__ import annotations

import sys
from pathlib import Path

import ansible.module_utils

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"

ansible.module_utils.__path__.append(str(PLUGINS / "module_utils"))
for kind in ("modules", "action", "filter", "callback"):
    sys.path.insert(0, str(PLUGINS / kind))
