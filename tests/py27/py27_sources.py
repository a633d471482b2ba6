"""Where the tested sources are. (Not in conftest.py: there are several modules of that name.)"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ROOT / "files" / "py27"
LADDER = CODE / "check_ladder.py"
PROGRAMS = ROOT / "tests" / "py27" / "programs"
STANDIN = ROOT / "standin"
