"""Build a standalone Python 3 from already fetched and verified inputs (see README.md)."""

from __future__ import annotations

import gzip
import sys
import tarfile
from pathlib import Path
from typing import Any

import yaml

from recipes.anaconda2.builder.command import run
from recipes.anaconda2.builder.conda_package import add_file
from recipes.anaconda2.builder.inputs import Inputs, Member, read_deb
from recipes.anaconda2.builder.python_prefix import connect_libraries
from recipes.anaconda2.builder.tree import add_licences, files_of, write_member

RECIPE = Path(__file__).resolve().parent / "recipe.yml"

# The archive's one folder, as in the archives of python-build-standalone: role bootstrap unpacks both in one way.
TOP = "python"


def place(name: str, recipe: dict[str, Any]) -> str | None:
    """Where a file of Debian's Python packages goes in the prefix; None when it does not belong there."""
    python = recipe["python"]
    if name == f"usr/bin/{python}":
        return f"bin/{python}"
    library = f"usr/lib/{python}/"
    first, _, rest = name.removeprefix(library).partition("/")
    if not name.startswith(library) or first in (*recipe["without_packages"], "sitecustomize.py"):
        return None
    if first == "lib-dynload" and rest.partition(".")[0] in recipe["without_modules"]:
        return None
    return name.removeprefix("usr/")


def lay_out(root: Path, inputs: Inputs, recipe: dict[str, Any]) -> None:
    """Fill ``root`` with the interpreter, its standard library and every shared library beyond the C library."""
    debs = [inputs.get("deb", name).path for name in [*recipe["debs"], *recipe["library_debs"]]]
    for deb in debs[: len(recipe["debs"])]:
        for member in read_deb(deb):
            target = place(member.name, recipe)
            if target is not None:
                write_member(root, target, member)
    connect_libraries(root, recipe["python"], debs, [])
    for link, target in recipe["links"].items():
        write_member(root, link, Member(link, b"", link_target=target))
    add_licences(root, debs)


def write_archive(root: Path, target: Path) -> None:
    """Pack ``root``, each file with one fixed time; ``target`` appears complete or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive,
    ):
        for name in files_of(root):
            add_file(archive, root / name, f"{TOP}/{name}")
    partial.replace(target)


def build(inputs: Path, output: Path, work: Path) -> None:
    """Write the archive `output` from the files that `inputs` lists."""
    root = work / TOP
    lay_out(root, Inputs.read(inputs), yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
    write_archive(root, output)


def main(arguments: list[str] | None = None) -> int:
    """Build from the command line."""
    return run("a standalone Python 3", build, arguments)


if __name__ == "__main__":
    sys.exit(main())
