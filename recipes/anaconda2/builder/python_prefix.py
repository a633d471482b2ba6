"""Debian's CPython 2.7, turned into a prefix that can be moved."""

from __future__ import annotations

import ast
import pprint
import re
from pathlib import Path
from typing import Any

from .elf import add_libraries, needed_by, read_libraries, set_search_path
from .errors import RecipeError
from .inputs import Member, read_deb, read_tar
from .tree import PLACEHOLDER, write_member, write_text

TRIPLE = "x86_64-linux-gnu"
LIBRARY = "lib/python2.7"
PLATFORM = f"plat-{TRIPLE}"
CONFIG = f"config-{TRIPLE}"
PREFIX_TOKEN = "@PREFIX@"

# Debian's places -> places in the prefix, the longest first.
_MOVED = (
    (f"/usr/lib/python2.7/{CONFIG}", "/lib/python2.7/config"),
    (f"/usr/include/{TRIPLE}", "/include"),
    (f"/usr/lib/{TRIPLE}", "/lib"),
)
_USR = re.compile(r"(?:(?<![\w./-])|(?<=-[IL]))/usr(?=[/\s'\"]|$)")
_PREFIX_MAP = re.compile(r"\s*-f(?:file|debug|macro)-prefix-map=\S+")
_CROSS_TOOL = re.compile(rf"\b{TRIPLE}-(?=gcc|g\+\+|ar\b|ranlib\b|nm\b)")


def relocate(text: str, prefix: str) -> str:
    """Tell build settings in terms of ``prefix``, for whatever compiler the server has.

    Debian froze its own places, the names of its cross tools, and its build folder into them.
    """
    for old, new in _MOVED:
        text = text.replace(old, prefix + new)
    text = _USR.sub(lambda _: prefix, text)
    text = _PREFIX_MAP.sub("", text)
    return _CROSS_TOOL.sub("", text)


def relocate_variables(variables: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Relocate the dictionary behind ``sysconfig.get_config_vars()``."""
    moved = {key: relocate(value, prefix) if isinstance(value, str) else value for key, value in variables.items()}
    # Debian's interpreter is static: an extension linked to libpython2.7.so would load a second one.
    moved["Py_ENABLE_SHARED"] = 0
    return moved


def render_sysconfigdata(template: str, frozen: str) -> str:
    """Fill the template of ``_sysconfigdata.py`` from Debian's generated module."""
    assignment = next(node for node in ast.parse(frozen).body if isinstance(node, ast.Assign))
    variables = relocate_variables(ast.literal_eval(assignment.value), PREFIX_TOKEN)
    return template.replace("@VARIABLES@", pprint.pformat(variables))


def place(name: str) -> str | None:
    """Where a file of Debian's Python packages goes in the prefix; None when it does not belong there."""
    if name == "usr/bin/python2.7":
        return "bin/python2.7"
    if name == f"usr/include/{TRIPLE}/python2.7/pyconfig.h":
        return "include/python2.7/pyconfig.h"  # the real one; the other includes it by Debian's folder name
    if name.startswith("usr/include/python2.7/") and not name.endswith("/pyconfig.h"):
        return name.removeprefix("usr/")
    relative = name.removeprefix("usr/lib/python2.7/")
    if relative == name or relative == "sitecustomize.py" or relative.startswith("dist-packages/"):
        return None
    if relative.startswith(f"{CONFIG}/"):
        return f"{LIBRARY}/config/Makefile" if relative == f"{CONFIG}/Makefile" else None
    return f"{LIBRARY}/{relative}"


def build_prefix(root: Path, debs: list[Path], source: Path, recipe: dict[str, Any], template: str) -> None:
    """Fill ``root`` with CPython, its standard library and every shared library it needs beyond the C library.

    Args:
        debs: Debian's Python packages and those that hold the shared libraries.
        source: the upstream tarball these were built from.
        recipe: the table ``python`` of recipe.yml.
        template: the text of _sysconfigdata.py.in.
    """
    pristine = tuple(recipe["pristine"])
    without = tuple(f"{LIBRARY}/lib-dynload/{module}." for module in recipe["without_modules"])

    for deb in debs:
        for member in read_deb(deb):
            target = place(member.name)
            if target is None or member.link_target is not None or target.startswith(without):
                continue
            if target.removeprefix(f"{LIBRARY}/").split("/")[0] not in pristine:
                write_member(root, target, member)

    for member in read_tar(source):
        _, _, name = member.name.partition("/Lib/")
        if name.split("/")[0] in pristine and "/tests/" not in name:
            write_member(root, f"{LIBRARY}/{name}", member)

    _relocate_settings(root, template)
    connect_libraries(root, "python2.7", debs, recipe["extra_libraries"])
    for link, target in {
        "bin/python": "python2.7",
        "bin/python2": "python2.7",
        "lib/libpython2.7.so": "libpython2.7.so.1.0",
    }.items():
        write_member(root, link, Member(link, b"", link_target=target))
    write_text(root, f"{LIBRARY}/site-packages/README", "Third-party modules are installed here.\n")


def _relocate_settings(root: Path, template: str) -> None:
    frozen = root / LIBRARY / PLATFORM / "_sysconfigdata_nd.py"
    if not frozen.is_file():
        raise RecipeError(
            "the Python packages hold no build settings (_sysconfigdata_nd.py): is libpython2.7-minimal an input?"
        )
    write_text(root, f"{LIBRARY}/_sysconfigdata.py", render_sysconfigdata(template, frozen.read_text(encoding="utf-8")))
    frozen.unlink()
    makefile = root / LIBRARY / "config" / "Makefile"
    makefile.write_text(relocate(makefile.read_text(encoding="utf-8"), PLACEHOLDER), encoding="utf-8")


def connect_libraries(root: Path, python: str, debs: list[Path], extra_libraries: list[str]) -> None:
    """Bring what the interpreter ``bin/<python>`` and its extension modules need into ``root/lib``, where they find it
    wherever ``root`` is."""
    interpreter = root / "bin" / python
    interpreter.chmod(0o755)
    set_search_path(interpreter, "$ORIGIN/../lib")
    wanted = set(extra_libraries) | set(needed_by(interpreter))
    for module in sorted((root / "lib" / python / "lib-dynload").glob("*.so")):
        set_search_path(module, "$ORIGIN/../..")
        wanted |= set(needed_by(module))
    add_libraries(root, sorted(wanted), read_libraries(debs))
