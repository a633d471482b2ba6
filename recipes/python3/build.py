#!/usr/bin/env python3
"""Build a standalone Python 3 from already fetched and verified inputs (see README.md).

build.py --inputs inputs.json --output DIR/python3-VERSION.tar.gz [--work DIR]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # nothing is written outside the output's folder and --work
    # The reader of Debian packages, and what makes libraries find each other, are recipe anaconda2's.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    runpy.run_module("recipes.python3.standalone", run_name="__main__")
