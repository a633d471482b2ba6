"""Build the conda channel of Caffe2 from already fetched and verified inputs (see README.md)."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from recipes.anaconda2.builder.command import run
from recipes.anaconda2.builder.conda_package import Package, add_file, tar_member, write_package
from recipes.anaconda2.builder.errors import RecipeError
from recipes.anaconda2.builder.inputs import Input, Inputs, Member
from recipes.anaconda2.builder.python_packages import lay_out_sdist, lay_out_wheel
from recipes.anaconda2.builder.tree import write_member

RECIPE = Path(__file__).resolve().parent / "recipe.yml"
CONDA_SUFFIX = ".tar.bz2"
PLATFORM = "linux-64"

# Packing Caffe2's 1.2 GB takes half a minute at this level, and minutes at the next useful one.
LEVEL = 1


@dataclass(frozen=True)
class Step:
    """One package to make, of one input, as its entry in recipe.yml says."""

    package: Package
    input: Input
    entry: dict[str, Any]

    def lay_out(self, root: Path) -> None:
        """Write the package's files below the empty folder ``root``."""
        if "source" in self.entry:
            lay_out_sdist(self.input.path, self.package.name, self.input.version, self.entry["source"], root)
        else:
            lay_out_wheel(self.input.path, root)
        for link, target in self.entry.get("links", {}).items():
            write_member(root, link, Member(link, b"", link_target=target))
            if not (root / link).is_file():
                raise RecipeError(f"{self.input.path.name} has no {Path(target).name}: take another wheel of Caffe2.")


def plan(files: dict[str, Path], recipe: dict[str, Any]) -> list[Step]:
    """The packages to make of wheels and sdists; none where all inputs are conda packages already.

    Raises:
        RecipeError: an input is missing, or in no package, or a package depends on one that nothing provides.
    """
    files = {name: path for name, path in files.items() if not name.endswith(CONDA_SUFFIX)}
    if not files:
        return []
    inputs = Inputs(files)
    steps = [step(inputs, name, entry) for name, entry in recipe["packages"].items()]
    unused = files.keys() - {step.input.path.name for step in steps}
    if unused:
        raise RecipeError(f"{', '.join(sorted(unused))} is part of no package: add it to recipe.yml or to pip's.")
    known = {*recipe["packages"], *recipe["provided"]}
    for name, entry in recipe["packages"].items():
        missing = set(entry.get("depends", [])) - known
        if missing:
            raise RecipeError(f"{name} depends on {', '.join(sorted(missing))}, which is in no package of recipe.yml.")
    return steps


def step(inputs: Inputs, name: str, entry: dict[str, Any]) -> Step:
    """One package of recipe.yml with its input."""
    found = inputs.get("sdist" if "source" in entry else "wheel", entry.get("project", name))
    package = Package(
        name,
        found.version,
        entry.get("build", "py27_pypi_0").format(version=found.version),
        ["python 2.7*", *entry.get("depends", [])],
        entry.get("summary", f"{name} from PyPI"),
    )
    return Step(package, found, entry)


def index_entry(package: Path) -> dict[str, Any]:
    """What ``repodata.json`` says of a conda package: its own ``info/index.json``, its sums and its size."""
    try:
        with tarfile.open(package) as archive:
            # Ours begin with it; reading the list of all members would unpack all of Caffe2.
            member = next(info for info in archive if info.name == "info/index.json")
            handle = archive.extractfile(member)
            assert handle is not None
            index: dict[str, Any] = json.load(handle)
    except (tarfile.TarError, EOFError, OSError, StopIteration, ValueError) as error:
        raise RecipeError(f"{package.name} cannot be read as a conda package: fetch it again.") from error
    if package.name != f"{index.get('name')}-{index.get('version')}-{index.get('build')}{CONDA_SUFFIX}":
        raise RecipeError(f"{package.name} is another package by its own description: correct its name in the lock.")
    with package.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        # conda 4.3 compares this one.
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {**index, "md5": md5, "sha256": sha256, "size": package.stat().st_size}


def repodata(platform: str, packages: list[Path]) -> bytes:
    """The text of one ``repodata.json``."""
    entries = {package.name: index_entry(package) for package in packages}
    data = {"info": {"subdir": platform}, "packages": entries}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def write_channel(target: Path, packages: list[Path]) -> None:
    """Join packages and their index into one plain tar; ``target`` appears complete or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        for platform, held in ((PLATFORM, sorted(packages)), ("noarch", [])):
            text = repodata(platform, held)
            # conda 4.3 reads the second in a folder and the first from a web server.
            for name, data in {"repodata.json": text, "repodata.json.bz2": bz2.compress(text)}.items():
                archive.addfile(tar_member(f"{platform}/{name}", len(data)), io.BytesIO(data))
            for package in held:
                add_file(archive, package, f"{platform}/{package.name}")
    partial.replace(target)


def build(files: dict[str, Path], output: Path, work: Path) -> None:
    """Make the packages of wheels, take conda packages as they are, and write the channel.

    Args:
        files: path of each input by its file name.
        output: the tar to write.
        work: an empty scratch folder.
    """
    steps = plan(files, yaml.safe_load(RECIPE.read_text(encoding="utf-8")))
    packages = [path for name, path in files.items() if name.endswith(CONDA_SUFFIX)]
    for number, item in enumerate(steps, start=1):
        print(f"packing {number} of {len(steps)}: {item.package.filename}", flush=True)
        root = work / item.package.name
        root.mkdir()
        item.lay_out(root)
        packages.append(write_package(item.package, root, work, LEVEL))
        shutil.rmtree(root)
    write_channel(output, packages)


def main(arguments: list[str] | None = None) -> int:
    """Build from the command line."""

    def build_from(inputs: Path, output: Path, work: Path) -> None:
        listed = json.loads(inputs.read_text(encoding="utf-8"))
        build({name: Path(path) for name, path in listed.items()}, output, work)

    return run("the conda channel of Caffe2", build_from, arguments)


if __name__ == "__main__":
    sys.exit(main())
