"""Where the tested sources are. (Not in conftest.py: there are several modules of that name.)"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LADDER = ROOT / "files" / "py27" / "check_ladder.py"
STANDIN = ROOT / "standin"
