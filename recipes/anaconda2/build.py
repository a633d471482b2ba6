#!/usr/bin/env python3
"""Build the Anaconda2-compatible installer from already fetched and verified inputs (see README.md).

build.py --inputs inputs.json --output DIR/Anaconda2-5.2.0-Linux-x86_64.sh [--work DIR]
"""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("builder", run_name="__main__")
