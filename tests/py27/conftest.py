"""What the tests of the Python 2.7 code share: the ladder as a module, and a Python 2.7 if there is one."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from types import ModuleType

import pytest
from py27_sources import LADDER


@pytest.fixture(scope="session")
def ladder() -> ModuleType:
    """The check ladder, which is written to load in Python 3 as well."""
    spec = importlib.util.spec_from_file_location("check_ladder", LADDER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def python27() -> str:
    """A working Python 2.7: $PYTHON27, which must work where it is set, else python2.7 on PATH."""
    named = os.environ.get("PYTHON27") or shutil.which("python2.7")
    if named:
        probe = [named, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return named
    if "PYTHON27" in os.environ:
        pytest.fail(f"PYTHON27 names no working Python 2.7: {named!r}")
    pytest.skip("no Python 2.7: set PYTHON27, for instance to the bin/python of an installed stack's caffe2")
