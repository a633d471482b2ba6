"""The check ladder without a stack: its judgements, its isolation of checks, its report and its command line."""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from py27_sources import LADDER


def install(folder: Path) -> Path:
    """A published install of one file, one link and one folder."""
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "a.so").write_bytes(b"1234")
    (folder / "a.so").symlink_to("lib/a.so")
    status = (folder / "lib" / "a.so").stat()
    manifest = {
        "lib": ["dir", 0o755, 4096, 0, ""],
        "lib/a.so": ["file", 0o644, 4, status.st_mtime_ns, "0" * 64],
        "a.so": ["link", 0o777, 8, 0, "lib/a.so"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "receipt.json").write_text("{}")
    return folder


def run_ladder(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(LADDER), *arguments], check=False, capture_output=True, text=True, **options
    )


# --- judgements ---


@pytest.mark.parametrize(
    ("driver", "fault", "found"),
    [
        ("384.81", False, "passed"),
        ("580.1.2", False, "passed"),
        ("375.26", False, "failed"),
        ("", False, "not_applicable"),
        ("384.81", True, "failed"),
    ],
)
def test_driver_is_compared_as_numbers(ladder: ModuleType, driver: str, fault: bool, found: str) -> None:
    gpus = [{"index": 0, "name": "GPU", "compute_capability": "7.0", "driver": driver}]
    stack = ladder.Stack({"caffe2": "/nowhere"}, expect={"driver_min": "384.81"}, gpus=gpus, gpu_fault=fault)
    check = next(one for one in ladder.CHECKS if one.name == "driver")
    assert ladder.run_check(check, stack)["status"] == found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: None, None),
        (lambda root: (root / "lib/a.so").unlink(), "lib/a.so is missing"),
        (lambda root: (root / "lib/a.so").write_bytes(b"12"), "lib/a.so has 2 bytes, not 4"),
        (lambda root: os.utime(root / "lib/a.so", (1, 1)), "lib/a.so was modified after it was published"),
        (lambda root: ((root / "a.so").unlink(), (root / "a.so").symlink_to("b")), "a.so points to b, not to lib/a.so"),
        (lambda root: ((root / "a.so").unlink(), (root / "a.so").mkdir()), "a.so is a dir, not a link"),
    ],
)
def test_damage_is_named(ladder: ModuleType, tmp_path: Path, change: Any, sentence: str | None) -> None:
    root = install(tmp_path / "install")
    change(root)
    found = list(ladder.damage(str(root), json.loads((root / "manifest.json").read_text())))
    assert found == ([sentence] if sentence else [])


def test_much_damage_is_counted(ladder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "receipt.json").write_text("{}")
    manifest = {f"file{number}": ["file", 0o644, 1, 0, ""] for number in range(5)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ladder.Failed, match="file0 is missing; file1 is missing; file2 is missing, and 2 more"):
        ladder.install_is_whole(ladder.Stack({"caffe2": str(tmp_path)}), "caffe2")


def test_elf_dynamic_section_of_the_c_library(ladder: ModuleType) -> None:
    library = next(path for path in ladder.mapped_files() if os.path.basename(path) in ("libc.so.6", "libc-2.31.so"))
    assert ladder.elf_dynamic(library)["soname"] == "libc.so.6"
    assert "libc.so.6" in ladder.elf_dynamic(os.path.realpath(sys.executable))["needed"]


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" + b" " * 100, b"\x7fELF\x01\x01" + bytes(100)])
def test_elf_reader_refuses_what_is_not_elf64(ladder: ModuleType, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="not a 64-bit little-endian ELF file"):
        ladder.elf_dynamic(str(tmp_path / "x"))


def test_cudnn_version_of_a_header(ladder: ModuleType) -> None:
    header = "#define CUDNN_MAJOR 7\n#define CUDNN_MINOR     6\n#define CUDNN_PATCHLEVEL 5\n"
    assert ladder.cudnn_header_version(header) == 7605


def test_mapped_files_of_a_process(ladder: ModuleType) -> None:
    maps = "7f0-7f1 r-xp 0 08:01 12   /opt/a b/libcudnn.so.7\n7f1-7f2 rw-p 0 00:00 0 \n7f3-7f4 rw-p 0 00:00 0 [stack]\n"
    assert ladder.mapped_files(maps) == ["/opt/a b/libcudnn.so.7"]


def test_inside_means_below_after_all_links(ladder: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    (tmp_path / "prefix-of-another").mkdir()
    (tmp_path / "prefix" / "link").symlink_to(tmp_path / "prefix-of-another")
    roots = [str(tmp_path / "prefix")]
    assert ladder.is_inside(str(tmp_path / "prefix" / "lib"), roots)
    assert not ladder.is_inside(str(tmp_path / "prefix-of-another" / "lib"), roots)
    assert not ladder.is_inside(str(tmp_path / "prefix" / "link" / "lib"), roots)


def test_modules_from_elsewhere_are_named(ladder: ModuleType) -> None:
    modules = {
        "own": SimpleNamespace(__file__="/prefix/own.py"),
        "leak": SimpleNamespace(__file__="/home/a/.local/lib/leak.py"),
        "builtin": SimpleNamespace(),
    }
    assert ladder.foreign_modules(modules, ["/prefix"]) == [("leak", "/home/a/.local/lib/leak.py")]


def judged(ladder: ModuleType, name: str, stack: Any) -> str:
    """What a check says: its detail, or why it failed."""
    check = next(one for one in ladder.CHECKS if one.name == name)
    result = ladder.run_check(check, stack)
    return str(result["detail"] or result["reason"])


def test_a_linker_needs_the_name_without_a_number(ladder: ModuleType, tmp_path: Path) -> None:
    library, name = tmp_path / "libcudnn.so.7", tmp_path / "libcudnn.so"
    library.write_bytes(b"")
    for lead in (lambda: None, lambda: name.symlink_to("libcudnn.so.6")):
        lead()
        with pytest.raises(ladder.Failed, match=r"libcudnn.so does not lead to libcudnn.so.7, so nothing can be linked"):
            ladder.require_linker_name(str(library))
    name.unlink()
    name.symlink_to(library.name)
    ladder.require_linker_name(str(library))


CONDA = """\
#!/bin/sh
case "$*" in
  *json*) echo '["conda-4.3.16", "python-2.7.18"]' ;;
  *) dirname "$(dirname "$0")" ;;
esac
"""


def test_conda_lists_what_it_listed_when_it_was_installed(ladder: ModuleType, tmp_path: Path) -> None:
    bin_folder, receipt = tmp_path / "bin", tmp_path / "receipt.json"
    bin_folder.mkdir()
    for name in ("conda", "python"):
        (bin_folder / name).write_text(CONDA)
        (bin_folder / name).chmod(0o755)
    stack = ladder.Stack({"anaconda2": str(tmp_path)})
    receipt.write_text(json.dumps({"checks": {"packages": ["conda-4.3.16", "python-2.7.18"]}}))
    assert judged(ladder, "conda", stack) == "2 packages, as when it was installed"
    receipt.write_text(json.dumps({"checks": {"packages": ["conda-4.3.16", "zlib-1"]}}))
    assert judged(ladder, "conda", stack).endswith('was installed: "zlib-1", "python-2.7.18"')
    (bin_folder / "python").write_text("#!/bin/sh\necho 'ImportError: No module named ssl'\nexit 1\n")
    assert judged(ladder, "conda", stack) == "its Python is not whole: exit status 1: ImportError: No module named ssl"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"backports.functools-lru-cache": "1.5", "PyYAML": "3.12", "pip": "20"}, "all 2 packages that are pip's have"),
        ({"backports.functools-lru-cache": "1.5", "PyYAML": "5.4.1"}, "pyyaml is 5.4.1, not 3.12"),
        ({"PyYAML": "3.12"}, "backports-functools-lru-cache is not there, not 1.5"),
    ],
)
def test_packages_have_the_locks_versions(
    ladder: ModuleType, monkeypatch: pytest.MonkeyPatch, found: dict[str, str], said: str
) -> None:
    installed = [SimpleNamespace(project_name=name, version=version) for name, version in found.items()]
    monkeypatch.setitem(sys.modules, "pkg_resources", SimpleNamespace(working_set=installed))
    locked = {"backports-functools-lru-cache": "1.5", "pyyaml": "3.12"}
    assert judged(ladder, "pins", ladder.Stack({"caffe2": "/nowhere"}, expect={"packages": locked})).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("#!{0}/bin/python", "the 1 that are Python start"),
        ("#!/usr/bin/env python", "the 0 that are Python start"),
        ("#!/bin/sh", "the 0 that are Python start"),
        ("#!{1}", "{0}/bin/f2py is run by {1}, not by"),
        ("#!{0}/bin/python2.6", "{0}/bin/f2py is run by {0}/bin/python2.6, not by"),
    ],
)
def test_scripts_start_the_python_beside_them(ladder: ModuleType, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_bytes(b"\x7fELF")
    (tmp_path / "bin/f2py").write_text(line.format(tmp_path, sys.executable) + "\n")
    found = judged(ladder, "scripts", ladder.Stack({"caffe2": str(tmp_path)}))
    assert found.startswith(said.format(tmp_path, sys.executable))


@pytest.mark.parametrize("left", ["PythonAPI/build/", ".git/", "detectron/a.o", "Detectron.egg-info/"])
def test_a_tree_with_remains_of_a_build_is_named(ladder: ModuleType, tmp_path: Path, left: str) -> None:
    (tmp_path / "builder").mkdir()
    stack = ladder.Stack({"cocoapi": str(tmp_path)})
    assert judged(ladder, "cocoapi_tree", stack) == "no build and no repository in the tree"
    path = tmp_path / left
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if left.endswith("/") else path.write_text("")
    assert judged(ladder, "cocoapi_tree", stack) == f"{path} is left in the tree"


@pytest.mark.parametrize(
    ("output", "summary"),
    [
        ("....\n-----\nRan 4 tests in 0.1s\n\nOK\n", (4, "OK")),
        ("Ran 1 test in 0.1s\n\nOK (skipped=1)\n", (1, "OK (skipped=1)")),
        ("Ran 9 tests in 0.1s\n\nFAILED (errors=2)\n", (9, "FAILED (errors=2)")),
        ("ImportError: No module named caffe2\n", (0, "")),
    ],
)
def test_what_unittest_printed(ladder: ModuleType, output: str, summary: tuple[int, str]) -> None:
    assert ladder.test_summary(output) == summary


@pytest.mark.parametrize(
    ("code", "output", "words"),
    [
        (0, "all is well", ""),
        (1, "Traceback:\n  x\nImportError: no cv2\n", "exit status 1: ImportError: no cv2"),
        (-6, "[enforce fail at a.cc:98] 35 vs 0\nframe #0\n", "died of signal 6 (SIGABRT): [enforce fail at a.cc"),
        (-11, "", "died of signal 11 (SIGSEGV)"),
        (-6, "terminate called without an active exception\n", "(Caffe2 ends so when an operator on the GPU fails"),
        (
            -6,  # as on two NVIDIA H100
            "gpu1:9:9 [1] include/nvlink.h:28 NCCL WARN Call to open failed : Bad address\n"
            "gpu1:9:9 [0] misc/enqueue.cu:65 NCCL WARN Cuda failure 'invalid device function'\n"
            "terminate called without an active exception\n",
            "SIGABRT): gpu1:9:9 [0] misc/enqueue.cu:65 NCCL WARN Cuda failure 'invalid device function'",
        ),
        (1, "RuntimeError: x\nstatus: CUDNN_STATUS_EXECUTION_FAILED\nframe\n", "CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_why_a_program_ended(ladder: ModuleType, code: int, output: str, words: str) -> None:
    cause = ladder.exit_cause(code, output)
    assert words in cause if words else cause == ""


# --- isolation ---


def make_check(ladder: ModuleType, name: str, run: Any, **fields: Any) -> Any:
    defaults = {"rung": "numerics", "component": "caffe2", "needs": (), "process": "together", "gpus": 0}
    return ladder.Check(name=name, run=run, **(defaults | fields))


def prints(stack: Any) -> str:
    os.write(1, b"to stdout\n")
    os.write(2, b"to stderr\n")
    return "detail"


def raises(stack: Any) -> None:
    raise RuntimeError("[enforce fail at conv_op_cudnn.cc:1] status == CUDNN_STATUS_SUCCESS. 8 vs 0\nframe #0")


def aborts(stack: Any) -> None:
    faulthandler.disable()  # pytest's own, which would report this on the terminal
    os.write(2, b"terminate called\n[enforce fail at common_gpu.cc:98] error == cudaSuccess. 35 vs 0\nframe #0\n")
    os.abort()


def exits(stack: Any) -> None:
    sys.exit(3)


def test_a_check_that_kills_its_process_is_a_failed_check(ladder: ModuleType) -> None:
    runs = [prints, raises, aborts, exits, prints]
    checks = [make_check(ladder, f"{number}", run) for number, run in enumerate(runs)]
    rungs = ladder.climb(ladder.Stack({}), checks)
    results = next(rung for rung in rungs if rung["rung"] == "numerics")["checks"]
    assert [result["status"] for result in results] == ["passed", "failed", "failed", "failed", "passed"]
    assert results[1]["reason"].startswith("RuntimeError: [enforce fail at conv_op_cudnn.cc:1]")
    assert "signal 6 (SIGABRT): [enforce fail at common_gpu.cc:98]" in results[2]["reason"]
    assert results[3]["reason"].startswith("SystemExit: 3")
    assert all(result["remedy"] == "ansible-playbook site.yml --tags caffe2" for result in results[1:4])
    assert results[0]["output"] == results[4]["output"] == "to stdout\nto stderr\n"


def test_checks_of_one_process_share_it_until_it_dies(ladder: ModuleType) -> None:
    def process(stack: Any) -> str:
        return str(os.getpid())

    checks = [make_check(ladder, name, process) for name in "ab"]
    checks += [make_check(ladder, "dies", aborts), make_check(ladder, "c", process)]
    found = ladder.run_process(checks, ladder.Stack({}), lambda one: None)
    assert found[0]["detail"] == found[1]["detail"] != found[3]["detail"]
    assert str(os.getpid()) not in (found[0]["detail"], found[3]["detail"])


def test_a_check_that_hangs_is_ended_with_all_that_it_started(
    ladder: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hangs(stack: Any) -> None:
        sleeper = subprocess.Popen(["sleep", "60"])
        (tmp_path / "pid").write_text(str(sleeper.pid))
        sleeper.wait()

    monkeypatch.setattr(ladder, "CPU_CHECK_SECONDS", 1)
    found = ladder.run_process([make_check(ladder, "hangs", hangs)], ladder.Stack({}), lambda one: None)
    assert found[0]["status"] == "failed"
    assert "no answer within 1 seconds" in found[0]["reason"]
    for _ in range(50):
        if not is_running(int((tmp_path / "pid").read_text())):
            return
        time.sleep(0.1)
    pytest.fail("the program that the check had started is still running")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- rungs ---


def test_what_is_not_checked_says_why(ladder: ModuleType) -> None:
    checks = [
        make_check(ladder, "install", prints, rung="import", needs=("caffe2", "detectron")),
        make_check(ladder, "gpu", prints, rung="operator", gpus=1),
        make_check(ladder, "gpus", prints, rung="multi_gpu", gpus=2),
        make_check(ladder, "linkage", prints, rung="linkage"),
    ]
    chosen = [rung for rung in ladder.RUNGS if rung != "linkage"]
    without = ladder.Stack({"caffe2": "/c"}, no_gpu="no GPU: none here")
    reasons = {rung["rung"]: rung["reason"] for rung in ladder.climb(without, checks, chosen)}
    assert reasons["import"] == "needs the install of detectron, which was not given"
    assert reasons["operator"] == reasons["multi_gpu"] == "no GPU: none here"
    assert reasons["linkage"] == "not asked for with --rungs"
    assert reasons["files"] == "none of its checks is about the chosen components"
    with_one = ladder.Stack({"caffe2": "/c"}, gpus=[{"index": 0}])
    rungs = {rung["rung"]: rung for rung in ladder.climb(with_one, checks)}
    assert (rungs["operator"]["status"], rungs["multi_gpu"]["status"]) == ("passed", "not_applicable")
    assert rungs["multi_gpu"]["reason"] == "one GPU"


def test_every_check_belongs_to_a_rung_and_a_role(ladder: ModuleType) -> None:
    assert {one.rung for one in ladder.CHECKS} == set(ladder.RUNGS)
    assert {one.component for one in ladder.CHECKS} == set(ladder.ROLES)
    assert len({one.name for one in ladder.CHECKS}) == len(ladder.CHECKS)


def test_table_names_reason_and_remedy(ladder: ModuleType) -> None:
    def fails(stack: Any) -> None:
        raise ladder.Failed("it is broken", "mend it")

    rungs = ladder.climb(ladder.Stack({}), [make_check(ladder, "broken", fails), make_check(ladder, "fine", prints)])
    report = {"host": "gpu3", "generation": "/p/generations/4", "gpus": [], "outlook": [], "rungs": rungs}
    text = ladder.table(report)
    assert "Check ladder on gpu3: /p/generations/4, no GPU" in text
    assert "numerics      failed              1/2" in text
    assert "FAILED  numerics / broken (caffe2)\n  why:    it is broken\n  remedy: mend it\n" in text


# --- command line ---


def test_report_has_its_documented_shape(tmp_path: Path) -> None:
    done = run_ladder("--install", f"nvidia_libs={install(tmp_path / 'i')}", "--json", str(tmp_path / "report.json"))
    assert (done.returncode, done.stdout) == (1, ""), done.stderr  # there is no library in that install
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report) == {"schema", "host", "generation", "python", "gpus", "rungs", "outlook", "notes"}
    assert report["schema"] == 1
    assert [rung["rung"] for rung in report["rungs"]] == [
        "files", "linkage", "import", "numerics", "predicted", "operator", "cudnn_cublas", "multi_gpu",
    ]  # fmt: skip
    for rung in report["rungs"]:
        assert set(rung) == {"rung", "status", "reason", "seconds", "checks"}
        assert rung["status"] in ("passed", "failed", "not_applicable")
        assert bool(rung["reason"]) == (rung["status"] != "passed")
        for check in rung["checks"]:
            assert set(check) == {"name", "component", "status", "detail", "reason", "remedy", "seconds", "output"}
            assert bool(check["remedy"]) == (check["status"] == "failed")
    assert [rung["status"] for rung in report["rungs"][:3]] == ["passed", "failed", "not_applicable"]


def test_it_runs_from_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-", "--json", "-", "--rungs", "files", "--install", f"caffe2={install(tmp_path / 'i')}"]
    done = subprocess.run(command, input=LADDER.read_bytes(), check=True, capture_output=True)
    assert json.loads(done.stdout)["rungs"][0]["status"] == "passed"


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    done = run_ladder(
        "--install", f"caffe2={install(tmp_path / 'i')}", "--rungs", "files", env={"TMPDIR": str(tmp_path / "tmp")}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to check"),
        (["--generation", "/no/such"], "there is no generation /no/such"),
        (["--install", "cafe=/x"], "no such role: cafe; there are nvidia_libs, anaconda2"),
        (["--install", "caffe2=/x", "--only", "gpu"], "no such role: gpu"),
        (["--install", "caffe2=/x", "--rungs", "second"], "no such rung: second"),
        (["--install", "caffe2=/x", "--expect", "{"], "--expect is neither JSON nor a file of JSON"),
        (["--install", "caffe2=/x", "--generation", "/x"], "give either --generation or --install"),
    ],
)
def test_wrong_usage_is_one_message_and_status_2(arguments: list[str], message: str) -> None:
    done = run_ladder(*arguments, env={})
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_explains_the_rungs() -> None:
    done = run_ladder("--help")
    assert done.returncode == 0
    for word in ("linkage", "cudnn_cublas", "--expect", "Exit status"):
        assert word in done.stdout
