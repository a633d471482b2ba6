#!/usr/bin/python
"""Find out, in one remote call and without writing anything, what a server offers to a stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_probe
short_description: Facts of a server that decide whether a stack can be installed and used
description:
  - Reads the operating system, the filesystems of the home and the prefix, the compiler, the GPUs, and what in the
    login's environment and configuration files could reach into an install. It judges nothing; the filter
    C(preflight_findings) does.
  - Writes nothing, and needs no privilege. Every other program is asked with a time-out, all at the same time.
  - The login shell is not started. Its start-up files may print, start other shells, hang or write; they are read for
    assignments instead, so that what is found also has a file name and a line.
options:
  prefix:
    description: The stack's prefix; C(~) is the login's home. It need not exist.
    type: str
    required: true
attributes:
  check_mode: {support: full}
"""

EXAMPLES = r"""
- name: Probe the server
  preflight_probe:
    prefix: ~/detectron/stack_cuda90_wheel
  register: probe
"""

RETURN = r"""
server:
  description: What was found. Texts are empty and numbers null where the server does not say.
  returned: success
  type: dict
  contains:
    hostname: {description: The server's own name for itself., type: str}
    architecture: {description: "Machine type, such as x86_64.", type: str}
    kernel: {description: Release of the kernel., type: str}
    glibc: {description: Version of the GNU C library; empty with another C library., type: str}
    python: {description: "C(version) and C(executable) of the Python that runs Ansible's modules.", type: dict}
    user: {description: "C(name), C(uid) and C(groups) of the login.", type: dict}
    umask: {description: File mode bits that new files lack., type: int}
    display: {description: Value of DISPLAY., type: str}
    locale: {description: "Those of LANG, LC_ALL and LC_CTYPE that are set.", type: dict}
    filesystems:
      description: >-
        C(home), C(prefix) and C(tmp), each with C(path), C(nearest) (the path itself or the nearest parent that
        exists), C(writable) (whether it is a folder in which the login may create files), C(source), C(type),
        C(network), C(noexec), C(free_bytes), C(free_files), and C(quota_bytes) and C(quota_files): what the login's
        quota leaves there.
      type: dict
    tools:
      description: C(gcc), C(git) and C(make), each with C(path), C(version) and C(error) (why it does not work).
      type: dict
    gpu:
      description: >-
        C(driver) (version of the loaded NVIDIA driver), C(devices) (each C(index), C(name), C(memory_bytes),
        C(compute_capability)), C(boards) (NVIDIA display controllers on the PCI bus) and C(error) (what the driver's
        tools said when they could not list the devices).
      type: dict
    environment:
      description: >-
        Settings that can reach into an install, each with C(name), C(value) and C(where) (C(environment), or file and
        line). Credentials in addresses are masked; values that only point into the prefix are left out.
      type: list
      elements: dict
    config_files: {description: Configuration files of pip, conda and distutils that exist., type: list, elements: str}
    user_site:
      description: C(path) of Python 2.7's user site and C(shadowing), the packages of a stack that are also in there.
      type: dict
    libraries:
      description: cuDNN and NCCL outside the prefix, each with C(name), C(major), C(path) and C(where).
      type: list
      elements: dict
    detectron_operators:
      description: Operator libraries in /usr/local, where Detectron's code looks first.
      type: list
      elements: str
"""

import glob
import grp
import json
import os
import platform
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

# Seconds, each generous for a healthy server: a driver that sleeps needs some to wake up, a quota server is remote.
TOOL_TIMEOUT = 3.0
GPU_TIMEOUT = 8.0
QUOTA_TIMEOUT = 1.0

NETWORK_FILESYSTEM = re.compile(
    r"(fuse\.)?(afs|beegfs|ceph|cifs|glusterfs|gpfs|juicefs|lustre|nfs4?|orangefs|panfs|pvfs2|smb3|smbfs|sshfs|wekafs)"
)

WATCHED = (
    r"(PYTHONPATH|PYTHONHOME|PYTHONUSERBASE|PIP_\w+|CONDA_\w+|LD_LIBRARY_PATH|LD_PRELOAD|CC|CXX|CFLAGS|CXXFLAGS"
    r"|CPPFLAGS|LDFLAGS|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|MPLBACKEND|CUDA_VISIBLE_DEVICES)"
)
ASSIGNMENTS = (
    re.compile(rf"\s*(?:(?:export|typeset -x|declare -x)\s+)?{WATCHED}=(.*)"),  # sh, bash, zsh
    re.compile(rf"\s*(?:setenv|set -\w+)\s+{WATCHED}\s+(.*)"),  # csh, fish
)
STARTUP_FILES = (
    "/etc/environment", "/etc/profile", "/etc/profile.d/*.sh", "/etc/bash.bashrc", "/etc/bashrc",
    "~/.ssh/environment", "~/.pam_environment", "~/.profile", "~/.bash_profile", "~/.bash_login", "~/.bashrc",
    "~/.zshenv", "~/.zprofile", "~/.zshrc", "~/.login", "~/.cshrc", "~/.tcshrc", "~/.config/fish/config.fish",
)  # fmt: skip
CONFIG_FILES = (
    "~/.condarc", "~/.conda/condarc", "~/.pydistutils.cfg", "~/.pip/pip.conf", "~/.config/pip/pip.conf",
    "/etc/pip.conf",
)  # fmt: skip
USER_SITE = "~/.local/lib/python2.7/site-packages"
# Import names of what the stacks install; `google` is protobuf's.
STACK_PACKAGES = {
    "Cython", "caffe2", "cv2", "cycler", "dateutil", "detectron", "enum", "funcsigs", "future", "google", "kiwisolver",
    "matplotlib", "mock", "networkx", "numpy", "past", "pip", "pkg_resources", "pycocotools", "pyparsing", "pytz",
    "scipy", "setuptools", "six", "subprocess32", "torch", "wheel", "yaml",
}  # fmt: skip
OPERATORS = "libcaffe2_detectron_ops_gpu.so"
LIBRARY = re.compile(r"lib(?:cudnn|nccl)\.so\.(\d+)")

SMI_FIELDS = ("index", "name", "memory.total", "driver_version", "compute_cap")

# Runs in a process of its own: a broken driver can crash or hang whoever loads its library. CUDA's own default order
# is fastest first, nvidia-smi's is by PCI bus. The numbers are CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}.
CUDA_PROGRAM = r"""
import ctypes, json, os
os.environ.pop("CUDA_VISIBLE_DEVICES", None)
os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
cuda = ctypes.CDLL("libcuda.so.1")
def call(function, *arguments):
    code = getattr(cuda, function)(*arguments)
    if code != 0:
        raise SystemExit("%s returned %d" % (function, code))
call("cuInit", 0)
count, device, major, minor = (ctypes.c_int() for _ in range(4))
memory, name = ctypes.c_size_t(), ctypes.create_string_buffer(256)
call("cuDeviceGetCount", ctypes.byref(count))
devices = []
for index in range(count.value):
    call("cuDeviceGet", ctypes.byref(device), index)
    call("cuDeviceGetName", name, len(name), device)
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
    call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
    devices.append({"index": index, "name": name.value.decode(), "memory_bytes": memory.value,
                    "compute_capability": "%d.%d" % (major.value, minor.value)})
print(json.dumps(devices))
"""


class Outcome(NamedTuple):
    """What came of a program: `rc` is None where it could not be started or gave no answer in time."""

    rc: int | None
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its first line of either stream."""
        return next(iter((self.err.strip() or self.out.strip()).splitlines()), f"exit status {self.rc}")


class Mount(NamedTuple):
    """One line of the mount table."""

    source: str
    point: str
    type: str
    options: frozenset[str]


def run(argv: list[str], timeout: float, stdin: str = "") -> Outcome:
    """Run a program, in English, for at most `timeout` seconds. Never raises."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(None, "", f"{argv[0]}: {error.strerror}")
    try:
        out, err = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        # Not waited for: what hangs inside a driver call cannot even be killed.
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        return Outcome(None, "", f"{argv[0]} gave no answer within {timeout:g} s")
    return Outcome(process.returncode, out, err)


def read(path: str, limit: int = 1 << 20) -> str:
    """Text of a regular or kernel file; empty where there is none or it may not be read."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(limit)
    except OSError:
        return ""


def existing(patterns: Iterable[str]) -> list[str]:
    """Files that exist among `patterns`, which may begin with `~` and hold `*`."""
    return [path for pattern in patterns for path in sorted(glob.glob(os.path.expanduser(pattern)))]


def parse_mounts(text: str) -> list[Mount]:
    """The mount table from /proc/self/mounts, in which blanks are written as `\\040`."""
    mounts = []
    for line in text.splitlines():
        fields = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field) for field in line.split(" ")]
        if len(fields) >= 4:
            mounts.append(Mount(fields[0], fields[1], fields[2], frozenset(fields[3].split(","))))
    return mounts


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """The mount that holds the real path `path`: the deepest one, the last of those on the same point."""
    holding = [mount for mount in mounts if f"{path}/".startswith(mount.point.rstrip("/") + "/")]
    unknown = Mount("", "", "", frozenset())
    return max(reversed(holding), key=lambda mount: len(mount.point), default=unknown)


def parse_quota(text: str) -> dict[str, tuple[int | None, int | None]]:
    """What is left, by filesystem, as (bytes, files), from `quota --no-wrap --raw-grace`; None is no limit.

    A line is `source blocks[*] quota limit grace files[*] quota limit grace`, blocks in KiB; 0 is no limit.
    The hard limit counts, as the soft one (`quota`) may be exceeded for days; without a hard one, the soft one.
    """
    left = {}
    for line in text.splitlines():
        fields = line.replace("*", " ").split()
        if len(fields) == 9 and all(field.isdigit() for field in fields[1:]):
            used, soft, hard, _, files, files_soft, files_hard, _ = map(int, fields[1:])
            blocks_limit, files_limit = hard or soft, files_hard or files_soft
            left[fields[0]] = (
                max(0, blocks_limit - used) * 1024 if blocks_limit else None,
                max(0, files_limit - files) if files_limit else None,
            )
    return left


def filesystem(path: str, mounts: list[Mount], quotas: Mapping[str, tuple[int | None, int | None]]) -> dict[str, Any]:
    """Where `path` lies or would lie, and what there is room for."""
    nearest = path
    while not os.path.exists(nearest) and nearest != os.path.dirname(nearest):
        nearest = os.path.dirname(nearest)
    mount = mount_of(os.path.realpath(nearest), mounts)
    free_bytes = free_files = None
    with suppress(OSError):
        space = os.statvfs(nearest)
        free_bytes = space.f_bavail * space.f_frsize
        # Filesystems that make inodes as they need them report none at all.
        free_files = space.f_favail if space.f_files else None
    quota_bytes, quota_files = quotas.get(mount.source, (None, None))
    return {
        "path": path,
        "nearest": nearest,
        "writable": os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK),
        "source": mount.source,
        "type": mount.type,
        "network": NETWORK_FILESYSTEM.fullmatch(mount.type) is not None,
        "noexec": "noexec" in mount.options,
        "free_bytes": free_bytes,
        "free_files": free_files,
        "quota_bytes": quota_bytes,
        "quota_files": quota_files,
    }


def probe_filesystems(prefix: str) -> dict[str, Any]:
    """The filesystems of the home, the prefix and /tmp."""
    mounts = parse_mounts(read("/proc/self/mounts"))
    quotas = parse_quota(run(["quota", "--no-wrap", "--raw-grace"], QUOTA_TIMEOUT).out)
    paths = {"home": os.path.expanduser("~"), "prefix": prefix, "tmp": "/tmp"}
    return {name: filesystem(path, mounts, quotas) for name, path in paths.items()}


def tool(name: str) -> dict[str, str]:
    """Where a program is and which version it says to be."""
    path = shutil.which(name)
    if path is None:
        return {"path": "", "version": "", "error": f"there is no {name} on PATH"}
    outcome = run([path, "--version"], TOOL_TIMEOUT)
    # The last number of the line: gcc puts the packager's before its own.
    versions = re.findall(r"\d+\.\d+(?:\.\d+)*", (outcome.out.splitlines() or [""])[0].split(" (Red Hat")[0])
    return {
        "path": path,
        "version": versions[-1] if versions else "",
        "error": "" if outcome.rc == 0 else outcome.said,
    }


def compiler() -> dict[str, str]:
    """gcc, and whether it finds the C library's headers: it is often installed without them."""
    found = tool("gcc")
    if not found["error"]:
        source = "#include <stdlib.h>\n#include <math.h>\n"
        outcome = run([found["path"], "-fsyntax-only", "-x", "c", "-"], TOOL_TIMEOUT, source)
        found["error"] = "" if outcome.rc == 0 else outcome.said
    return found


def probe_tools() -> dict[str, Any]:
    """The programs that a build on the server uses. Python 2.7's distutils calls `gcc` by that name."""
    return {"gcc": compiler(), "git": tool("git"), "make": tool("make")}


def parse_smi(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of nvidia-smi's CSV output; lines of another form, such as warnings, are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [dict(zip(fields, row)) for row in rows if len(row) == len(fields) and row[0].isdigit()]


def smi_device(row: Mapping[str, str]) -> dict[str, Any]:
    """A device as this module returns it, from a row of nvidia-smi, which counts memory in MiB."""
    memory, capability = row["memory.total"], row.get("compute_cap", "")
    return {
        "index": int(row["index"]),
        "name": row["name"],
        "memory_bytes": int(memory) << 20 if memory.isdigit() else None,
        "compute_capability": capability if re.fullmatch(r"\d+\.\d+", capability) else "",
    }


def ask_smi() -> tuple[list[dict[str, str]], str]:
    """nvidia-smi's rows, and what it said instead of rows."""
    for fields in (SMI_FIELDS, SMI_FIELDS[:-1]):
        outcome = run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], GPU_TIMEOUT)
        rows = parse_smi(outcome.out, fields)
        # Drivers before 510 do not know compute_cap, and say so instead of answering the rest.
        if rows or "compute_cap" not in outcome.out + outcome.err:
            break
    return rows, "" if rows else outcome.said


def ask_cuda() -> tuple[list[dict[str, Any]], str]:
    """The devices that CUDA itself sees, and what it said instead."""
    outcome = run([sys.executable, "-c", CUDA_PROGRAM], GPU_TIMEOUT)
    if outcome.rc == 0:
        with suppress(ValueError):
            return json.loads(outcome.out), ""
    return [], (outcome.err.strip().splitlines() or [outcome.said])[-1]


def nvidia_boards() -> list[str]:
    """PCI addresses of NVIDIA's display (0x0300) and 3D (0x0302) controllers, driver or not."""
    return [
        os.path.basename(folder)
        for folder in sorted(glob.glob("/sys/bus/pci/devices/*"))
        if read(f"{folder}/vendor").strip() == "0x10de" and read(f"{folder}/class").startswith(("0x0300", "0x0302"))
    ]


def loaded_driver() -> str:
    """Version of the NVIDIA driver that the kernel has loaded."""
    found = re.search(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", read("/proc/driver/nvidia/version"))
    return found[1] if found else read("/sys/module/nvidia/version").strip()


def probe_gpu() -> dict[str, Any]:
    """The GPUs: from nvidia-smi; what it leaves open from CUDA; at least their number and names from the driver."""
    driver = loaded_driver()
    rows, error = ask_smi()
    devices = [smi_device(row) for row in rows]
    if driver and not (devices and all(device["compute_capability"] for device in devices)):
        seen, cuda_error = ask_cuda()
        if not devices:
            devices, error = seen, cuda_error if "No such file" in error else error
        elif len(seen) == len(devices):
            for device, same in zip(devices, seen):
                device["compute_capability"] = same["compute_capability"]
    return {
        "driver": driver or (rows[0]["driver_version"] if rows else ""),
        "devices": devices,
        "boards": nvidia_boards() or sorted(map(os.path.basename, glob.glob("/proc/driver/nvidia/gpus/*"))),
        "error": "" if devices else error,
    }


def masked(value: str) -> str:
    """`value` without the passwords and tokens of the addresses in it."""
    without_login = re.sub(r"://[^/@\s]+@", "://***@", value)
    return re.sub(r"/t/[^/\s]+/", "/t/***/", without_login)


def within(value: str, prefix: str) -> bool:
    """Whether a path or list of paths points into the prefix only, as an activated stack's do."""
    parts = [part for part in value.split(":") if part]
    return bool(parts) and all(f"{part}/".startswith(f"{prefix}/") for part in parts)


def assignments(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, name, value) of the watched variables that a shell's start-up file sets."""
    for number, line in enumerate(text.splitlines(), start=1):
        for form in ASSIGNMENTS:
            if found := form.match(line):
                yield number, found[1], found[2].strip().strip("\"'")


def probe_environment(environ: Mapping[str, str], prefix: str) -> list[dict[str, str]]:
    """Watched variables that are set in `environ` or that a start-up file would set."""
    settings = [(name, value, "environment") for name, value in sorted(environ.items()) if re.fullmatch(WATCHED, name)]
    for path in existing(STARTUP_FILES):
        settings += [(name, value, f"{path}:{line}") for line, name, value in assignments(read(path))]
    return [
        {"name": name, "value": masked(value), "where": where}
        for name, value, where in settings
        if not within(value, prefix)
    ]


def probe_user_site() -> dict[str, Any]:
    """Python 2.7's user site, where `pip install --user` put what every Python 2.7 imports before its own."""
    path = os.path.expanduser(USER_SITE)
    try:
        names = {name.split(".")[0] for name in os.listdir(path) if not name.endswith((".dist-info", ".egg-info"))}
    except OSError:
        names = set()
    return {"path": path, "shadowing": sorted(names & STACK_PACKAGES)}


def parse_ldconfig(text: str) -> Iterator[str]:
    """Paths from `ldconfig -p`."""
    for line in text.splitlines():
        _, arrow, path = line.partition(" => ")
        if arrow:
            yield path.strip()


def probe_libraries(environ: Mapping[str, str], prefix: str) -> list[dict[str, Any]]:
    """cuDNN and NCCL that the loader finds outside the prefix, with the major version of their file name."""
    program = shutil.which("ldconfig", path=f"{environ.get('PATH', '')}:/sbin:/usr/sbin") or "ldconfig"
    paths = [(path, "ldconfig") for path in parse_ldconfig(run([program, "-p"], TOOL_TIMEOUT).out)]
    for folder in filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")):
        found = existing([f"{glob.escape(folder)}/libcudnn.so.*", f"{glob.escape(folder)}/libnccl.so.*"])
        paths += [(path, "LD_LIBRARY_PATH") for path in found]
    libraries = []
    for path, where in paths:
        name = LIBRARY.fullmatch(os.path.basename(path))
        if name and not within(path, prefix):
            libraries.append({"name": name[0], "major": int(name[1]), "path": path, "where": where})
    return libraries


def glibc_version() -> str:
    """Version of the running GNU C library; empty with another one."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def probe_user() -> dict[str, Any]:
    """The login. A container's user need not be in any list of users."""

    def named(number: int) -> str:
        try:
            return grp.getgrgid(number).gr_name
        except KeyError:
            return str(number)

    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return {"name": name, "uid": uid, "groups": sorted(map(named, {os.getegid(), *os.getgroups()}))}


def current_umask() -> int:
    """The umask. It can be read only by setting it, so it is set back at once, before any thread starts."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def probe(prefix: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """All facts, as RETURN describes them. `environ` is the login's environment."""
    umask = current_umask()
    with ThreadPoolExecutor() as pool:
        gpu = pool.submit(probe_gpu)
        filesystems = pool.submit(probe_filesystems, prefix)
        tools = pool.submit(probe_tools)
        libraries = pool.submit(probe_libraries, environ, prefix)
    return {
        "hostname": socket.gethostname(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "glibc": glibc_version(),
        "python": {"version": platform.python_version(), "executable": sys.executable or ""},
        "user": probe_user(),
        "umask": umask,
        "display": environ.get("DISPLAY", ""),
        "locale": {name: environ[name] for name in ("LANG", "LC_ALL", "LC_CTYPE") if environ.get(name)},
        "filesystems": filesystems.result(),
        "tools": tools.result(),
        "gpu": gpu.result(),
        "environment": probe_environment(environ, prefix),
        "config_files": existing(CONFIG_FILES),
        "user_site": probe_user_site(),
        "libraries": libraries.result(),
        "detectron_operators": existing([f"/usr/local/{folder}/{OPERATORS}" for folder in ("lib", "torch/lib")]),
    }


def main() -> None:
    environ = dict(os.environ)  # Before AnsibleModule, which sets the locale's variables where it dislikes them.
    module = AnsibleModule(
        argument_spec={"prefix": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    prefix = os.path.abspath(os.path.expanduser(module.params["prefix"]))
    module.exit_json(changed=False, server=probe(prefix, environ))


if __name__ == "__main__":
    main()
