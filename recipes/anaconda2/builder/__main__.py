"""Build the Anaconda2-compatible installer from already fetched and verified inputs (see README.md)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .command import run
from .conda_package import Package, write_package
from .elf import add_libraries, read_libraries
from .errors import RecipeError
from .inputs import Inputs
from .installer import write_installer
from .python_packages import compile_pycosat, lay_out_conda, lay_out_wheel
from .python_prefix import build_prefix
from .tree import add_licences, set_times

RECIPE = Path(__file__).resolve().parent.parent
PY27 = RECIPE / "py27"
OUTPUT_NAME = re.compile(r"^Anaconda2-(?P<version>[\w.]+)-Linux-x86_64\.sh$")

# Build strings, shown by `conda list`: they say that these are not Anaconda's own packages.
FROM_DEBIAN = "debian_0"
FROM_PYPI = "py27_pypi_0"


@dataclass(frozen=True)
class Step:
    """One package, and what lays its files out in an empty folder."""

    package: Package
    lay_out: Callable[[Path], None]


def plan(inputs: Inputs, recipe: dict[str, Any], stage: Path, work: Path) -> list[Step]:
    """Name every package of the installer; an input that is missing ends the build here, before any work."""
    return [
        python_step(inputs, recipe["python"]),
        glib_step(inputs, recipe["glib"]),
        pycosat_step(inputs, stage / "python", work / "pycosat"),
        conda_step(inputs, recipe["conda"]),
        *(wheel_step(inputs, name, wheel) for name, wheel in recipe["wheels"].items()),
    ]


def python_step(inputs: Inputs, recipe: dict[str, Any]) -> Step:
    """CPython with its standard library and all shared libraries that it needs."""
    source = inputs.get("orig", recipe["source"])
    debs = [inputs.get("deb", name).path for name in [*recipe["debs"], *recipe["library_debs"]]]
    template = (RECIPE / "_sysconfigdata.py.in").read_text(encoding="utf-8")

    def lay_out(root: Path) -> None:
        build_prefix(root, debs, source.path, recipe, template)
        add_licences(root, debs)

    return Step(Package("python", source.version, FROM_DEBIAN, [], "CPython 2.7 from Debian, relocatable"), lay_out)


def glib_step(inputs: Inputs, recipe: dict[str, Any]) -> Step:
    """The two glib libraries that OpenCV's wheels take from the system."""
    debs = [inputs.get("deb", name) for name in recipe["library_debs"]]
    paths = [deb.path for deb in debs]

    def lay_out(root: Path) -> None:
        add_libraries(root, recipe["libraries"], read_libraries(paths))
        add_licences(root, paths)

    version = debs[0].version.partition("-")[0]
    return Step(Package("glib", version, FROM_DEBIAN, [], "glib's core libraries from Debian, for OpenCV"), lay_out)


def pycosat_step(inputs: Inputs, python: Path, work: Path) -> Step:
    """conda's SAT solver, compiled here."""
    sdist = inputs.get("sdist", "pycosat")
    package = pypi_package("pycosat", sdist.version, [])
    return Step(package, lambda root: compile_pycosat(sdist.path, sdist.version, root, python, work))


def conda_step(inputs: Inputs, recipe: dict[str, Any]) -> Step:
    """conda itself, with the commands that its sdist withholds."""
    sdist = inputs.get("sdist", "conda")
    package = pypi_package("conda", sdist.version, recipe["depends"])
    return Step(
        package, lambda root: lay_out_conda(sdist.path, sdist.version, root, recipe["modules"], recipe["scripts"])
    )


def wheel_step(inputs: Inputs, name: str, recipe: dict[str, Any]) -> Step:
    """A wheel as a conda package."""
    wheel = inputs.get("wheel", recipe.get("project", name))
    package = pypi_package(name, wheel.version, recipe.get("depends", []))
    return Step(package, lambda root: lay_out_wheel(wheel.path, root))


def pypi_package(name: str, version: str, depends: list[str]) -> Package:
    """A package of something from PyPI for Python 2.7."""
    return Package(name, version, FROM_PYPI, ["python 2.7*", *depends], f"{name} from PyPI")


def compile_bytecode(python: Path, roots: list[Path], work: Path) -> None:
    """Compile all modules with the Python just laid out, in an environment of its own."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(work), "TMPDIR": str(work), "LC_ALL": "C"}
    script = PY27 / "compile_bytecode.py"
    try:
        subprocess.run([python, "-B", "-E", "-s", "-S", script, *roots], env=environment, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RecipeError(
            f"the Python 2.7 just unpacked does not run here ({error}): build on x86_64 Linux with glibc 2.29 or newer."
        ) from error


def build(inputs: Inputs, output: Path, work: Path) -> None:
    """Lay out every package in a folder of its own, compile, pack, and join everything into the installer."""
    named = OUTPUT_NAME.match(output.name)
    if not named:
        raise RecipeError(f"{output.name} is not called Anaconda2-VERSION-Linux-x86_64.sh: name the output so.")
    recipe = yaml.safe_load((RECIPE / "recipe.yml").read_text(encoding="utf-8"))
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:5.1f} s  {text}", flush=True)

    stage, packed = work / "stage", work / "pkgs"
    steps = plan(inputs, recipe, stage, work)
    for number, step in enumerate(steps, start=1):
        say(f"laying out {number} of {len(steps)}: {step.package.name} {step.package.version}")
        root = stage / step.package.name
        root.mkdir(parents=True)
        step.lay_out(root)
        set_times(root)
    say("compiling byte code")
    roots = [stage / step.package.name for step in steps]
    compile_bytecode(stage / "python/bin/python2.7", roots, work)
    packed.mkdir()
    packages = []
    for number, step in enumerate(steps, start=1):
        say(f"packing {number} of {len(steps)}: {step.package.filename}")
        packages.append(write_package(step.package, stage / step.package.name, packed))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_installer(output, named["version"], RECIPE / "header.sh", PY27 / "bootstrap.py", packages)
    say(f"built {output.name}, {output.stat().st_size:,} bytes")


def main(arguments: list[str] | None = None) -> int:
    """Build from the command line."""
    return run(
        "the Anaconda2-compatible installer",
        lambda inputs, output, work: build(Inputs.read(inputs), output, work),
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
