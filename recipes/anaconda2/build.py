#!/usr/bin/env python3
"""Build the Anaconda2-compatible installer from already fetched and verified inputs (see README.md).

build.py --inputs inputs.json --output DIR/Anaconda2-5.2.0-Linux-x86_64.sh [--work DIR]
"""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # nothing is written outside the output's folder and --work
    runpy.run_module("builder", run_name="__main__")
