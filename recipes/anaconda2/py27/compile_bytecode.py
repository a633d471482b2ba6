"""Compile each module below the given folders for Python 2.7 (run by that Python, while the packages are built).

Packages carry their byte code, as conda's always did: an installed prefix is read-only, and without it each start of
Python would compile again all that it imports. The recorded file name is relative; Python puts the real one in its place.
"""
from __future__ import print_function

import os
import py_compile
import sys


def main(roots):
    for root in roots:
        for folder, subfolders, files in os.walk(root):
            subfolders.sort()
            for name in sorted(files):
                if name.endswith(".py"):
                    path = os.path.join(folder, name)
                    try:
                        py_compile.compile(path, dfile=os.path.relpath(path, root), doraise=True)
                    except py_compile.PyCompileError:
                        # Modules for Python 3 only, which their packages import under a version check.
                        print("  not for Python 2.7: %s" % os.path.relpath(path, root))


main(sys.argv[1:])
