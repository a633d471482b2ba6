#!/usr/bin/env python3
"""Build the conda channel of Caffe2 from already fetched and verified inputs (see README.md).

build.py --inputs inputs.json --output DIR/caffe2-channel-1.0.1.tar [--work DIR]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # nothing is written outside the output's folder and --work
    # The writer of conda packages is recipe anaconda2's.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    runpy.run_module("recipes.caffe2_channel.channel", run_name="__main__")
