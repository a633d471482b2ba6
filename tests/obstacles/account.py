"""The server on which obstacles are played: an account in which other installs break.

Its login shell is a csh that prints, its umask 077, its HOME read-only and full of settings for other software.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from fleet import Fleet
from sandbox import Server

from tests.integration.site_run import ROOT, Site, write_inventory

SPOIL_HOME = ROOT / "molecule/shared/files/spoil_home.sh"
LOGIN_SHELL = "/tmp/login_shell_started"  # is there when one was
# What pip install --user and a system with other libraries leave.
LEFT = {".local/lib/python2.7/site-packages/numpy/__init__.py": "", "mine/lib/libcudnn.so.6": ""}


def hostile_site(fleet: Fleet) -> Site:
    """Start that server, unless it runs, and write its inventory."""
    files = spoiled_home() | LEFT
    files[".cshrc"] = f"{for_csh(files['.bashrc'])}echo 'Welcome! The GPUs are free on Sundays.'\n"
    files[".login"] = f"touch {LOGIN_SHELL}\nexec /bin/bash\n"
    server = Server(
        "server1",
        shell="/bin/csh",
        umask="0077",
        read_only_home=True,
        home_files=files,
        data="/data/researcher",
        network=False,  # what a server needs, it is given
    )
    fleet.up([server])
    write_inventory(fleet)
    return Site(fleet, server)


def spoiled_home() -> dict[str, str]:
    """What Molecule's spoil_home.sh puts into a HOME: {path: text}."""
    with tempfile.TemporaryDirectory() as home:
        subprocess.run(["sh", "-e", SPOIL_HOME], env={"HOME": home, "PATH": "/usr/bin:/bin"}, check=True)
        files = (path for path in Path(home).rglob("*") if path.is_file())
        return {str(path.relative_to(home)): path.read_text() for path in files}


def for_csh(exports: str) -> str:
    """The exports of a Bourne shell's start-up file, for csh."""
    words = (word for line in exports.splitlines() if line.startswith("export ") for word in line.split()[1:])
    return "".join(re.sub(r"(\w+)=(.*)", r'setenv \1 "\2"\n', word) for word in words)
