#!/usr/bin/env python3
"""Damage random files of a real install, and see that runs find and mend them.

    .venv/bin/python bench/repair.py [--files 50] [--seed 1]

Wants a filled mirror (`make demo` fills it), 4 GB of disk, and some minutes. Installs stack_cuda90_wheel on a throwaway
server. Then deletes, cuts, flips or chmods that many random files of its installs; a flip keeps size and time, so that
no stat can see it. A normal run must mend all but the flips, `--tags verify` must name every install that has one, and
a run with stack_deep must mend those; no install without damage may be built anew. Exit status 1 when it is otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/fleet")]

from fleet import Fleet  # noqa: E402
from sandbox import Server  # noqa: E402

from tests.integration.site_run import Site, write_inventory  # noqa: E402

STATE = ROOT / ".fleet/repair"
SERVER = Server("server1")
KINDS = ("delete", "cut", "flip", "chmod")


def run(site: Site, *arguments: str) -> tuple[int, str, float]:
    """site.yml on the server: (exit status, output, seconds)."""
    started = time.monotonic()
    done = site.provision(*arguments)
    return done.returncode, done.stdout, time.monotonic() - started


def damage(path: Path, kind: str, dice: random.Random) -> None:
    """Do something to a file that no file of an install should have done to it."""
    before = path.stat()
    folder = path.parent.stat().st_mode
    path.parent.chmod(0o755)
    if kind == "delete":
        path.unlink()
    elif kind == "chmod":
        path.chmod(before.st_mode ^ 0o200)
    else:
        path.chmod(0o644)
        content = bytearray(path.read_bytes())
        if kind == "cut":
            del content[len(content) // 2 :]
        else:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        path.chmod(before.st_mode)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.parent.chmod(folder)


def receipts(prefix: Path) -> dict[str, int]:
    """The time of each install's receipt: another one is another build."""
    return {path.parent.parent.name: path.stat().st_mtime_ns for path in prefix.glob("opt/*/*/receipt.json")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=50, help="how many to damage")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    dice = random.Random(options.seed)
    print(f"--seed {options.seed}", flush=True)
    STATE.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(STATE)
    fleet.up([SERVER])
    site = Site(fleet, SERVER)
    wrong = []

    def expect(what: str, held: bool) -> None:
        print(f"{'ok ' if held else 'BAD'} {what}", flush=True)
        if not held:
            wrong.append(what)

    try:
        write_inventory(fleet)
        prefix = fleet.state / "homes" / SERVER.home_folder / "detectron/cuda90_wheel"
        status, said, seconds = run(site)
        expect(f"first install: {seconds:.0f} s", status == 0)
        files = [path for path in sorted(prefix.glob("opt/*/*/**/*")) if path.is_file() and not path.is_symlink()]
        files = [
            path for path in files if path.name not in ("receipt.json", "manifest.json") and path.stat().st_size > 1
        ]
        found: dict[str, set[str]] = defaultdict(set)
        for number, path in enumerate(dice.sample(files, options.files)):
            kind = KINDS[number % len(KINDS)]
            damage(path, kind, dice)
            found[kind].add(path.relative_to(prefix).parts[1])
        print(", ".join(f"{kind}: {' '.join(sorted(roles))}" for kind, roles in found.items()), flush=True)
        seen = set().union(*(roles for kind, roles in found.items() if kind != "flip"))
        status, said, seconds = run(site, "--tags", "verify")
        named = {role for role in receipts(prefix) if f"{role} is damaged" in said}
        expect(
            f"--tags verify fails and names {' '.join(sorted(named))}",
            status != 0 and named == set().union(*found.values()),
        )
        before = receipts(prefix)
        status, said, seconds = run(site)
        rebuilt = {role for role, when in receipts(prefix).items() if before.get(role) != when}
        expect(f"a normal run built {' '.join(sorted(rebuilt))} anew: {seconds:.0f} s", status == 0 and rebuilt == seen)
        hidden = found["flip"] - seen
        status, said, seconds = run(site, "--tags", "verify")
        expect(
            f"--tags verify then says {status}, with flips left in: {' '.join(sorted(hidden)) or 'none'}",
            bool(status) == bool(hidden),
        )
        before = receipts(prefix)
        status, said, seconds = run(site, "-e", "stack_deep=true")
        rebuilt = {role for role, when in receipts(prefix).items() if before.get(role) != when}
        expect(
            f"stack_deep built {' '.join(sorted(rebuilt)) or 'nothing'} anew: {seconds:.0f} s",
            status == 0 and rebuilt == hidden,
        )
        status, said, seconds = run(site, "--tags", "verify")
        expect(f"--tags verify passes: {seconds:.0f} s", status == 0)
        if wrong:
            print(said)
    finally:
        with contextlib.suppress(OSError):
            fleet.down()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
