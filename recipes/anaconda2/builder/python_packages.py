"""PyPI's wheels and sdists, laid out as they lie in a Python 2.7 prefix."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

from .errors import RecipeError
from .inputs import Member, read_sdist, read_zip
from .tree import PLACEHOLDER, write_member, write_text

SITE_PACKAGES = "lib/python2.7/site-packages"
_SCRIPT = """\
#!{prefix}/bin/python
import sys

from {module} import {function}

sys.exit({function}())
"""


def write_script(root: Path, name: str, entry_point: str) -> None:
    """Write ``bin/<name>`` for an entry point ``module:function``; conda sets the prefix when it links."""
    module, _, function = entry_point.partition(":")
    text = _SCRIPT.format(prefix=PLACEHOLDER, module=module.strip(), function=function.strip())
    write_text(root, f"bin/{name}", text, executable=True)


def script_name(declared: str) -> str:
    """Name a script after this Python: wheels carry the version they were built with (pip3.8, easy_install-3.8)."""
    return re.sub(r"3(\.\d+)?$", lambda match: "2.7" if match[1] else "2", declared)


def lay_out_wheel(wheel: Path, root: Path) -> None:
    """Unpack a wheel and write its scripts.

    Of a wheel's ``.data``, only scripts are handled: none of ours holds anything else, and one that does is refused.
    """
    for member in read_zip(wheel):
        top, _, rest = member.name.partition("/")
        if top.endswith(".data"):
            kind, _, script = rest.partition("/")
            if kind != "scripts":
                raise RecipeError(f"{wheel.name} holds {member.name}: this recipe only knows plain wheels.")
            first_line, _, program = member.data.decode("utf-8").partition("\n")
            if first_line != "#!python":
                raise RecipeError(f"{wheel.name} holds {member.name}, which is no script of Python.")
            write_text(root, f"bin/{script}", f"#!{PLACEHOLDER}/bin/python\n{program}", executable=True)
            continue
        write_member(root, f"{SITE_PACKAGES}/{member.name}", member)
        if top.endswith(".dist-info") and rest == "entry_points.txt":
            for name, entry_point in console_scripts(member.data.decode("utf-8")).items():
                write_script(root, name, entry_point)
        if top.endswith(".dist-info") and rest == "METADATA":
            write_text(root, f"{SITE_PACKAGES}/{top}/INSTALLER", "conda\n")


def console_scripts(entry_points: str) -> dict[str, str]:
    """Read the console scripts of an ``entry_points.txt``, named for Python 2.7."""
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    parser.read_string(entry_points)
    if not parser.has_section("console_scripts"):
        return {}
    return {script_name(name): entry_point for name, entry_point in parser["console_scripts"].items()}


def lay_out_sdist(sdist: Path, project: str, version: str, source: str, root: Path) -> None:
    """Copy what lies in the folder ``source`` of a pure Python sdist, without tests, and write its scripts."""
    metadata = f"{SITE_PACKAGES}/{project}-{version}-py2.7.egg-info"
    for member in read_sdist(sdist):
        top, _, name = member.name.partition("/")
        package, _, rest = name.partition("/")
        if top != source or not rest or package == "tests":
            continue
        if package != f"{project}.egg-info":
            write_member(root, f"{SITE_PACKAGES}/{name}", member)
            continue
        write_member(root, f"{metadata}/{rest}", member)
        if rest == "entry_points.txt":
            for script, entry_point in console_scripts(member.data.decode("utf-8")).items():
                write_script(root, script, entry_point)


def lay_out_conda(sdist: Path, version: str, root: Path, modules: list[str], scripts: dict[str, str]) -> None:
    """Copy conda's modules and metadata out of its sdist and write the commands that the sdist withholds."""
    metadata = f"conda-{version}-py2.7.egg-info"
    for member in read_sdist(sdist):
        top, _, rest = member.name.partition("/")
        if top in modules:
            write_member(root, f"{SITE_PACKAGES}/{member.name}", member)
        elif top == "conda.egg-info":
            write_member(root, f"{SITE_PACKAGES}/{metadata}/{rest}", member)
        elif member.name == "LICENSE.txt":
            write_member(root, f"{SITE_PACKAGES}/{metadata}/LICENSE.txt", member)
    for name, entry_point in scripts.items():
        write_script(root, name, entry_point)


def compile_pycosat(sdist: Path, version: str, root: Path, python: Path, work: Path) -> None:
    """Compile conda's SAT solver, the one part that no registry holds ready-made for Python 2.7.

    Args:
        python: a prefix that holds Python 2.7's headers.
        work: a folder for the sources; left there.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise RecipeError("no C compiler found: install gcc (on Debian: apt-get install gcc libc6-dev), or set CC.")
    for member in read_sdist(sdist):
        if "/" not in member.name:
            write_member(work, member.name, member)
            if member.name in ("PKG-INFO", "LICENSE"):
                write_member(root, f"{SITE_PACKAGES}/pycosat-{version}-py2.7.egg-info/{member.name}", member)
    flags = ["-O2", "-DNDEBUG", "-fPIC", "-fwrapv", "-fno-strict-aliasing", "-shared"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "TMPDIR": str(work), "LC_ALL": "C"}
    result = subprocess.run(
        [*compiler.split(), *flags, f"-I{python}/include/python2.7", "pycosat.c", "-o", "pycosat.so"],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        raise RecipeError(f"pycosat does not compile with {compiler}:\n{result.stdout}")
    module = Member("pycosat.so", (work / "pycosat.so").read_bytes(), executable=True)
    write_member(root, f"{SITE_PACKAGES}/pycosat.so", module)
