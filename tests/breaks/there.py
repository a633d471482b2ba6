"""Breaks an install on its server, and mends it: `there.py '["<verb>", <argument>, …]'`.

It lies there beside the project's own stack_installs. Python >= 3.9, standard library only.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.stack_installs import (
    MANIFEST,
    RECEIPT,
    install_state,
    make_read_only,
    read_json,
    remove_tree,
    scan,
    sha256_of,
    write_json,
)


def keep(root: str, patterns: list[str], kept: str) -> None:
    """Move what is to be broken aside, and what tells of it, and put copies that can be written in its place."""
    os.makedirs(kept, exist_ok=True)
    record = read_json(f"{kept}/record.json") or {"modes": {}, "moved": {}}
    wanted = [MANIFEST, RECEIPT, *patterns]
    paths = [path for pattern in wanted for path in glob.glob(f"{root}/{pattern}") or [f"{root}/{pattern}"]]
    for path in map(Path, paths):
        if str(path) in record["moved"]:
            continue
        there, opened = os.path.lexists(path), [path.parent]
        if there and is_folder(path):
            opened.append(path)  # a folder must be writable to be renamed
        for folder in opened:
            mode = folder.stat().st_mode & 0o777
            record["modes"].setdefault(str(folder), mode)
            folder.chmod(mode | 0o700)
        original = Path(kept, str(len(record["moved"])))
        record["moved"][str(path)] = str(original) if there else ""
        write_json(f"{kept}/record.json", record)  # before it is done, so that whatever happens can be mended
        if there:
            path.rename(original)
            if is_folder(original):
                shutil.copytree(original, path, symlinks=True)
            else:
                shutil.copy2(original, path, follow_symlinks=False)
            if not path.is_symlink():
                subprocess.run(["chmod", "-R", "u+w", path], check=True)


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def flip(root: str, pattern: str) -> None:
    """Change one bit of a file, and nothing that a stat shows."""
    [name] = glob.glob(f"{root}/{pattern}")
    path, before = Path(name), os.stat(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def settle(root: str) -> None:
    """Leave an install as a published one: nothing in it can be written."""
    make_read_only(root)
    for name in (MANIFEST, RECEIPT):
        os.chmod(f"{root}/{name}", 0o444)


def republish(root: str, patterns: list[str]) -> None:
    """Have manifest and receipt say of what was broken that so it should be, as if the role had built it so."""
    os.chmod(root, 0o755)

    def broken(path: str) -> bool:
        return any(fnmatch.fnmatch(path, one) or fnmatch.fnmatch(path, f"{one}/*") for one in patterns)

    before = read_json(f"{root}/{MANIFEST}")
    manifest = {path: entry for path, entry in before.items() if not broken(path)}
    manifest |= {path: entry for path, entry in scan(root).items() if broken(path)}
    write_json(f"{root}/{MANIFEST}", manifest)
    told = {"manifest_sha256": sha256_of(f"{root}/{MANIFEST}"), "paths": len(manifest)}
    write_json(f"{root}/{RECEIPT}", {**read_json(f"{root}/{RECEIPT}"), **told})
    settle(root)


def mend(kept: str) -> None:
    """Put back all that `keep` has moved aside."""
    record = read_json(f"{kept}/record.json") or {"modes": {}, "moved": {}}
    for folder, mode in record["modes"].items():
        if os.path.isdir(folder):
            os.chmod(folder, mode | 0o700)
    for name, original in record["moved"].items():
        if original and not os.path.lexists(original):
            continue  # it was never moved
        remove_tree(name)
        if original:
            Path(original).rename(name)
    for folder, mode in record["modes"].items():
        os.chmod(folder, mode)
    remove_tree(kept)


def tell(root: str) -> None:
    """What the look-up says of an install when it compares contents."""
    print(json.dumps(install_state(root, deep=True)))


if __name__ == "__main__":
    verb, folder, *arguments = json.loads(sys.argv[1])
    verbs: dict[str, Callable[..., None]] = {
        "keep": keep,
        "flip": flip,
        "settle": settle,
        "republish": republish,
        "mend": mend,
        "tell": tell,
    }
    verbs[verb](os.path.realpath(folder), *arguments)
