"""Let conda itself link the packages into the prefix (run by the installer's own, temporary Python 2.7).

Usage: bootstrap.py PREFIX PACKAGE...
"""
from __future__ import print_function

import os
import sys

import conda.cli


def main(prefix, packages):
    meta = os.path.join(prefix, "conda-meta")
    if not os.path.isdir(meta):
        os.makedirs(meta)
    # conda only installs into a folder that has a history, even an empty one.
    open(os.path.join(meta, "history"), "a").close()
    for package in packages:
        print("installing: %s" % os.path.basename(package)[: -len(".tar.bz2")])
    sys.stdout.flush()
    # No solver runs: a list of files is an explicit request.
    sys.argv = ["conda", "install", "--offline", "--yes", "--quiet", "-p", prefix] + packages
    return conda.cli.main()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
