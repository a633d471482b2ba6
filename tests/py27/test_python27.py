"""The code for the 2.7 environment, under a real Python 2.7."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from py27_sources import CODE, LADDER, PROGRAMS, ROOT, STANDIN

COMPILE = """
import sys
for path in sys.argv[1:]:
    compile(open(path).read(), path, 'exec')
"""


def test_everything_compiles(python27: str) -> None:
    sources = [path for folder in (CODE, PROGRAMS, STANDIN / "detectron") for path in sorted(folder.rglob("*.py"))]
    sources.append(ROOT / "bench" / "operators_gpu.py")
    assert len(sources) > 20
    subprocess.run([python27, "-c", COMPILE, *map(str, sources)], check=True)


def test_the_ladder_runs_piped_and_isolates_its_checks(python27: str, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("{}")
    command = [python27, "-", "--json", "-", "--install", f"nvidia_libs={tmp_path}"]
    done = subprocess.run(command, input=LADDER.read_bytes(), check=False, capture_output=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["python"].startswith("2.7.")
    files, linkage = report["rungs"][:2]
    assert files["status"] == "passed"
    assert linkage["status"] == "failed"
    failed = {check["name"]: check["reason"] for check in linkage["checks"] if check["status"] == "failed"}
    assert set(failed) == {"cudnn", "nccl", "cudnn_consumer", "nccl_consumer", "nvidia_gpu_code"}
    assert all("No such file" in reason or "cannot open" in reason for reason in failed.values())
