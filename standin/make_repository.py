#!/usr/bin/env python3
"""Make a bare git repository without any git server, with a commit id that depends on the files alone.

  make_repository.py DEST.git                  the stand-in Detectron beside this file
  make_repository.py --cocoapi SDIST DEST.git  the COCO API's real code, from the source archive of pycocotools on PyPI,
                                               in the layout of its git repository (PythonAPI/, common/)

Prints the full commit id. Author, dates and modes are fixed, so the same files give the same id on every machine. An
existing repository gets the commit as its new `main`; what it held before stays readable by id.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

BRANCH = "refs/heads/main"
AUTHOR = "Stand-in <stand-in@localhost> 1527552000 +0000"  # 2018-05-29, the day of the document
BUILT = re.compile(r"(^|/)(build|__pycache__)/|\.(pyc|so)$|(^|/)[^/]+\.egg-info/|(^|/)cython_\w+\.c$")


def detectron_files(folder: Path) -> dict[str, bytes]:
    """The stand-in's sources by relative path; what a build leaves there is not one."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    sources = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in sources.items() if not BUILT.search(name)}


def cocoapi_files(sdist: Path) -> dict[str, bytes]:
    """The files of a pycocotools source archive, moved to the upstream repository's places.

    Its setup.py names the C code as `./common`, which is `../common` seen from PythonAPI/.
    Raises ValueError if the archive is not laid out as expected.
    """
    files: dict[str, bytes] = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            inside = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            if inside.parts[0] == "common":
                files[str(inside)] = stream.read()
            elif inside.parts[0] == "pycocotools" or inside.name == "setup.py":
                files[f"PythonAPI/{inside}"] = stream.read()
    setup = files.get("PythonAPI/setup.py", b"")
    files["PythonAPI/setup.py"], moved = re.subn(rb"(['\"])(?:\./)?common\b", rb"\1../common", setup)
    if moved != 2 or "common/maskApi.c" not in files or "PythonAPI/pycocotools/_mask.pyx" not in files:
        raise ValueError(f"{sdist} is not a source archive of pycocotools 2.0.2: it is laid out otherwise")
    return files


def fast_import_stream(files: dict[str, bytes], message: str) -> bytes:
    """One commit without parents, as git-fast-import(1) reads it; what starts with #! is made executable."""
    text = message.encode()
    parts = [f"commit {BRANCH}\nauthor {AUTHOR}\ncommitter {AUTHOR}\ndata {len(text)}\n".encode(), text, b"\n"]
    for name in sorted(files):
        mode = "100755" if files[name].startswith(b"#!") else "100644"
        parts += [f"M {mode} inline {name}\ndata {len(files[name])}\n".encode(), files[name], b"\n"]
    return b"".join(parts)


def git(repository: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Run git on a bare repository, free of the caller's configuration; returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(repository)}
    done = subprocess.run(["git", *arguments], input=stdin, env=environment, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def make_repository(destination: Path, files: dict[str, bytes], message: str) -> str:
    """Write the files as the commit of a bare repository's main branch; returns the full commit id."""
    destination.mkdir(parents=True, exist_ok=True)
    git(destination, "init", "--quiet", "--bare")
    git(destination, "symbolic-ref", "HEAD", BRANCH)
    git(destination, "fast-import", "--quiet", "--force", stdin=fast_import_stream(files, message))
    return git(destination, "rev-parse", BRANCH)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cocoapi", metavar="SDIST", type=Path, help="archive of the COCO API's code")
    parser.add_argument("destination", metavar="DEST.git", type=Path, help="the bare repository to make or to update")
    options = parser.parse_args(arguments)
    try:
        if options.cocoapi:
            files = cocoapi_files(options.cocoapi)
            message = "COCO API: the code of pycocotools 2.0.2, in the layout of its repository\n"
        else:
            files = detectron_files(Path(__file__).resolve().parent / "detectron")
            message = "A stand-in for Detectron (not Detectron)\n"
        print(make_repository(options.destination, files, message))
    except (OSError, ValueError, tarfile.TarError, subprocess.CalledProcessError) as error:
        print(f"make_repository.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
