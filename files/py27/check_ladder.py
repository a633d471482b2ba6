#!/usr/bin/env python2.7
"""The check ladder: is this Detectron stack whole, linked, importable, right, and fit for this server's GPUs?

The rungs, in order, each resting on the ones before it:

  files         every install is published and every file of it is as it was published
  linkage       cuDNN, NCCL and Caffe2 are the versions meant, and programs bind to them and to no other
  import        the Python modules load, from the stack and from nowhere else
  numerics      what can be computed without a GPU comes out right, Detectron's own tests included
  predicted     what the GPUs will be able to run, by the driver's number and the code in the libraries
  operator      Detectron's operators run on the GPU (the check that Detectron's INSTALL.md names)
  cudnn_cublas  a convolution (cuDNN) and a matrix product (cuBLAS) on the GPU give the CPU's numbers
  multi_gpu     NCCL adds up over all GPUs

A rung is passed, failed, or not applicable with its reason. A check that kills its process (Caffe2 aborts when an
operator fails on the device) is a failed check, not the end of the ladder.

One file, Python 2.7 and its standard library, so it can be copied or piped anywhere:

  source <prefix>/current/activate.sh && python check_ladder.py
  ssh server '<prefix>/current/bin/check-ladder --json -'
  python - --install caffe2=DIR --install detectron=DIR --only caffe2,detectron < check_ladder.py

Exit status: 0 no rung failed, 1 a rung failed, 2 wrong usage.
"""

from __future__ import absolute_import, division, print_function

import argparse
import collections
import contextlib
import ctypes
import errno
import io
import json
import mmap
import os
import re
import select
import shutil
import signal
import site
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

SCHEMA = 1
STAND_IN_MARK = 'STAND-IN: '
RUNGS = ('files', 'linkage', 'import', 'numerics', 'predicted', 'operator', 'cudnn_cublas', 'multi_gpu')
ROLES = ('nvidia_libs', 'anaconda2', 'caffe2', 'cocoapi', 'detectron')
PASSED, FAILED, NOT_APPLICABLE = 'passed', 'failed', 'not_applicable'

CPU_CHECK_SECONDS = 300
GPU_CHECK_SECONDS = 3600  # the driver first compiles PTX for newer GPUs: 12 minutes on one server, longer on another
OPERATOR_LIBRARY = 'libcaffe2_detectron_ops_gpu.so'
BASELINE = 'configs/12_2017_baselines/e2e_mask_rcnn_R-50-FPN_1x.yaml'


class Failed(Exception):
    """A check's finding: the stack is not as it should be."""

    def __init__(self, reason, remedy=''):
        super(Failed, self).__init__(reason)
        self.remedy = remedy


class NotApplicable(Exception):
    """A check's finding: there is nothing here that it could judge."""


class Stack(object):
    """What is checked: the installs by role, what is expected of them, and the GPUs of this server."""

    def __init__(self, installs, generation='', expect=None, gpus=(), no_gpu='', gpu_fault=False, scratch=''):
        self.installs = dict((role, os.path.realpath(path)) for role, path in installs.items())
        self.generation = generation
        self.expect = expect or {}
        self.gpus = list(gpus)
        self.no_gpu = no_gpu  # why there are no GPUs; '' when there are some
        self.gpu_fault = gpu_fault  # there should be some: a device is here, but its driver does not answer
        self.scratch = scratch
        self._gpu_code = {}

    def gpu_code(self, path):
        """`gpu_modules` of a library, read once: all checks, in whatever process, and the report go by it."""
        if path not in self._gpu_code:
            self._gpu_code[path] = gpu_modules(path)
        return self._gpu_code[path]

    def path(self, role, *parts):
        """Real path of something in a role's install."""
        return os.path.join(self.installs[role], *parts)

    @property
    def python_paths(self):
        """The folders that activation puts on PYTHONPATH, in its order."""
        folders = {'detectron': '', 'cocoapi': 'PythonAPI'}
        return [self.path(role, folders[role]).rstrip('/') for role in sorted(folders, reverse=True)
                if role in self.installs]

    @property
    def activation(self):
        """The remedy of everything that a wrong environment causes."""
        return 'source %s' % os.path.join(self.generation or '<prefix>/current', 'activate.sh')


Check = collections.namedtuple('Check', 'name rung component needs process gpus run')
CHECKS = []


def check(rung, component, needs=(), process='', gpus=0, name=''):
    """Register a check: a function of the stack that returns its detail in a line, or raises.

    `needs` are the other installs that it reads. Checks of one `process` share a child process, in the order of
    registration, so that the slow imports are paid once. `gpus` is the smallest number of GPUs that makes sense.
    """

    def register(run):
        title = name or run.__name__
        CHECKS.append(Check(title, rung, component, (component,) + tuple(needs), process or title, gpus, run))
        return run

    return register


# --- files ------------------------------------------------------------------------------------------------------------


def damage(root, manifest):
    """Compare a folder with its manifest, by lstat alone; yield a sentence for each entry that differs.

    An entry is `path: [type, mode, size in bytes, mtime in ns, sha256 or link target]`. Modification times are compared
    in whole seconds: some network file systems keep no more.
    """
    for path in sorted(manifest):
        kind, _, size, mtime_ns, content = manifest[path]
        full = os.path.join(root, path)
        try:
            found = os.lstat(full)
        except OSError as error:
            yield '%s is missing' % path if error.errno == errno.ENOENT else '%s: %s' % (path, error.strerror)
            continue
        found_kind = {0o120000: 'link', 0o040000: 'dir', 0o100000: 'file'}.get(found.st_mode & 0o170000, 'special file')
        if found_kind != kind:
            yield '%s is a %s, not a %s' % (path, found_kind, kind)
        elif kind == 'link' and os.readlink(full) != content:
            yield '%s points to %s, not to %s' % (path, os.readlink(full), content)
        elif kind == 'file' and found.st_size != size:
            yield '%s has %d bytes, not %d' % (path, found.st_size, size)
        elif kind == 'file' and int(found.st_mtime) != mtime_ns // 10**9:
            yield '%s was modified after it was published' % path


def install_is_whole(stack, role):
    root = stack.path(role)
    if not os.path.isfile(os.path.join(root, 'receipt.json')):
        raise Failed('%s was never published: it has no receipt.json' % root)
    with io.open(os.path.join(root, 'manifest.json'), encoding='utf-8') as stream:
        manifest = json.load(stream)
    damaged = list(damage(root, manifest))
    if damaged:
        rest = ', and %d more' % (len(damaged) - 3) if len(damaged) > 3 else ''
        raise Failed('%s%s (in %s)' % ('; '.join(damaged[:3]), rest, root))
    return '%d files, links and folders as published' % len(manifest)


for _role in ROLES:
    check('files', _role, process='files', name='%s_files' % _role)(
        lambda stack, role=_role: install_is_whole(stack, role))


# --- linkage ----------------------------------------------------------------------------------------------------------


def elf_dynamic(path):
    """Read the dynamic section of a 64-bit little-endian ELF file: {'soname': str, 'needed': [str]}.

    Layouts: System V ABI, "Program Header" and "Dynamic Section". Raises ValueError for anything else.
    """
    dt_needed, dt_strtab, dt_soname = 1, 5, 14
    with open(path, 'rb') as stream:
        header = stream.read(64)
        if header[:6] != b'\x7fELF\x02\x01':
            raise ValueError('%s is not a 64-bit little-endian ELF file' % path)
        table, = struct.unpack_from('<Q', header, 32)
        entry_size, entries = struct.unpack_from('<HH', header, 54)
        segments, dynamic = [], b''
        for index in range(entries):
            stream.seek(table + index * entry_size)
            kind, _, offset, address, _, size = struct.unpack('<IIQQQQ', stream.read(40))
            if kind == 1:  # PT_LOAD
                segments.append((address, offset, size))
            elif kind == 2:  # PT_DYNAMIC
                stream.seek(offset)
                dynamic = stream.read(size)
        tags = [struct.unpack_from('<qQ', dynamic, at) for at in range(0, len(dynamic) - 15, 16)]
        strings = dict(tags).get(dt_strtab, 0)
        base = [offset + strings - address for address, offset, size in segments if address <= strings < address + size]
        if not base:
            raise ValueError('%s has no dynamic section' % path)

        def text(at):
            stream.seek(base[0] + at)
            return stream.read(4096).split(b'\0', 1)[0].decode('utf-8')

        sonames = [text(value) for tag, value in tags if tag == dt_soname]
        return {'soname': ''.join(sonames), 'needed': [text(value) for tag, value in tags if tag == dt_needed]}


def cudnn_header_version(header):
    """The CUDNN_VERSION of a cudnn.h: major * 1000 + minor * 100 + patch level."""
    numbers = dict(re.findall(r'^#define\s+CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)', header, re.M))
    return int(numbers['MAJOR']) * 1000 + int(numbers['MINOR']) * 100 + int(numbers['PATCHLEVEL'])


def mapped_files(maps=None):
    """Real paths of the files mapped into this process (or named in the text of a /proc/PID/maps)."""
    if maps is None:
        with io.open('/proc/self/maps', encoding='utf-8', errors='replace') as stream:
            maps = stream.read()
    return sorted(set(os.path.realpath(path) for path in re.findall(r'\s(/.*)$', maps, re.M)))


def require_soname(path):
    soname = elf_dynamic(path)['soname']
    if soname != os.path.basename(path):
        raise Failed('%s says that it is %s' % (path, soname or 'nothing (no soname)'))


def require_linker_name(path):
    """Raise unless a linker that is told -lNAME, and looks for libNAME.so, finds the library."""
    name = path.split('.so')[0] + '.so'
    if os.path.realpath(name) != os.path.realpath(path):
        raise Failed('%s does not lead to %s, so nothing can be linked with it' % (name, os.path.basename(path)))


@check('linkage', 'nvidia_libs')
def cudnn(stack):
    path = stack.path('nvidia_libs', 'lib64', 'libcudnn.so.7')
    require_soname(path)
    require_linker_name(path)
    get_version = ctypes.CDLL(path).cudnnGetVersion
    get_version.restype = ctypes.c_size_t
    version = get_version()
    with io.open(stack.path('nvidia_libs', 'include', 'cudnn.h'), encoding='utf-8') as stream:
        in_header = cudnn_header_version(stream.read())
    if version != in_header:
        raise Failed('libcudnn.so.7 says version %d, but include/cudnn.h is of %d' % (version, in_header))
    expected = stack.expect.get('cudnn', version)
    if version != expected:
        raise Failed('cuDNN %d, but the lock says %d' % (version, expected))
    return 'cuDNN %d, library and header' % version


@check('linkage', 'nvidia_libs')
def nccl(stack):
    path = stack.path('nvidia_libs', 'lib64', 'libnccl.so.2')
    require_soname(path)
    require_linker_name(path)
    ctypes.CDLL(path)
    # NCCL 2.1 and 2.2 have no ncclGetVersion; all of them carry the banner that they print.
    with open(path, 'rb') as stream:
        content = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
        banner = re.search(br'NCCL version ([0-9][0-9A-Za-z.+]*)', content)
        version = banner.group(1).decode('ascii') if banner else 'without a version'
        del banner
        content.close()
    expected = stack.expect.get('nccl', version)
    if version != expected:
        raise Failed('NCCL %s, but the lock says %s' % (version, expected))
    return 'NCCL %s' % version


def bind_consumer(stack, consumer, soname):
    """Load a real user of a library, in the environment as it is, and see which file the loader took."""
    expected = stack.path('nvidia_libs', 'lib64', soname)
    try:
        ctypes.CDLL(stack.path('nvidia_libs', 'consumer', consumer))
    except OSError as error:
        raise Failed('%s does not load: %s' % (consumer, error), stack.activation)
    stem = soname.split('.so')[0] + '.so'
    bound = [path for path in mapped_files() if os.path.basename(path).startswith(stem)]
    if bound != [os.path.realpath(expected)]:
        raise Failed('%s is bound to %s, not to %s' % (consumer, ' and '.join(bound) or 'nothing', expected),
                     '%s, in a shell without an LD_LIBRARY_PATH or LD_PRELOAD of its own' % stack.activation)
    return '%s binds to %s' % (consumer, bound[0])


@check('linkage', 'nvidia_libs')  # a process of its own: a libcudnn.so.7 loaded before would be taken by name
def cudnn_consumer(stack):
    return bind_consumer(stack, 'cudnn.so', 'libcudnn.so.7')


@check('linkage', 'nvidia_libs')
def nccl_consumer(stack):
    return bind_consumer(stack, 'nccl.so', 'libnccl.so.2')


class _DlInfo(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [('file', ctypes.c_char_p), ('base', ctypes.c_void_p),
                ('symbol', ctypes.c_char_p), ('address', ctypes.c_void_p)]


def defining_file(library, symbol):
    """Real path of the file in which a loaded library finds a symbol; empty if it does not find it."""
    try:
        address = ctypes.cast(getattr(library, symbol), ctypes.c_void_p)
    except AttributeError:
        return ''
    found = _DlInfo()
    ctypes.CDLL(None).dladdr(address, ctypes.byref(found))
    return os.path.realpath(found.file.decode('utf-8'))


def caffe2_library(stack):
    """Path of the library that holds Caffe2 for GPUs: libcaffe2_gpu.so, and since torch 1.2 libtorch.so.

    It lies in the wheel beside torch, else (conda, source) in the environment's lib. Torch 1.0 and 1.1 have both, and
    there libtorch.so holds nothing of Caffe2.
    """
    folders = [stack.path('caffe2', 'lib', 'python2.7', 'site-packages', 'torch', 'lib'), stack.path('caffe2', 'lib')]
    paths = [os.path.join(folder, name) for name in ('libcaffe2_gpu.so', 'libtorch.so') for folder in folders]
    for path in paths:
        if os.path.isfile(path):
            return path
    raise Failed('neither libcaffe2_gpu.so nor libtorch.so is in %s or in %s' % tuple(folders))


def operator_library_path(stack):
    """Path of the library of Detectron's operators, which lies beside Caffe2's own."""
    return os.path.join(os.path.dirname(caffe2_library(stack)), OPERATOR_LIBRARY)


@check('linkage', 'caffe2', process='caffe2_linkage')
def caffe2_gpu_library(stack):
    path = caffe2_library(stack)
    title = os.path.basename(path)
    library = ctypes.CDLL(path)
    needed = [name for name in elf_dynamic(path)['needed'] if name.startswith(('libcudnn', 'libnccl'))]
    own = [symbol for symbol in ('cudnnCreate', 'ncclAllReduce')
           if defining_file(library, symbol) == os.path.realpath(path)]
    if len(own) == 2 and not needed:
        return 'static: cuDNN and NCCL are inside %s, which needs neither from outside' % title
    if own:
        raise Failed('%s defines %s, and needs %s' % (
            title, ' and '.join(own), ' and '.join(needed) or 'neither libcudnn nor libnccl'))
    if 'nvidia_libs' not in stack.installs:
        raise NotApplicable('%s needs %s, but no nvidia_libs were given' % (title, ' and '.join(needed)))
    bound = [name for name in mapped_files() if os.path.basename(name).startswith(('libcudnn.so', 'libnccl.so'))]
    foreign = [name for name in bound if not is_inside(name, [stack.path('nvidia_libs')])]
    if foreign or not bound:
        raise Failed('%s is bound to %s, not to the stack\'s cuDNN and NCCL' % (
            title, ' and '.join(foreign) or 'none'), stack.activation)
    return 'dynamic: bound to %s' % ' and '.join(bound)


@check('linkage', 'caffe2', process='caffe2_linkage')
def operator_library_needs(stack):
    path = operator_library_path(stack)
    ctypes.CDLL(path)
    foreign = [name for name in mapped_files() if re.match(r'libc10|libcaffe2|libtorch|libcudart', os.path.basename(name))
               and not is_inside(name, [stack.path('caffe2')])]
    if foreign:
        raise Failed('%s is bound to %s, outside the stack' % (OPERATOR_LIBRARY, ' and '.join(foreign)),
                     '%s, in a shell without an LD_LIBRARY_PATH of its own' % stack.activation)
    if os.path.realpath(stack.path('caffe2', 'lib', OPERATOR_LIBRARY)) != os.path.realpath(path):
        raise Failed('%s, where older commits of Detectron look for it, does not lead to %s' % (
            stack.path('caffe2', 'lib', OPERATOR_LIBRARY), path))
    return 'all %d libraries that it needs are found' % len(elf_dynamic(path)['needed'])


FAT_BINARY = b'\x50\xed\x55\xba'  # 0xBA55ED50
FAT_BINARY_HEADER = struct.Struct('<IHHQ')  # magic, version, size of this header, size of the entries
FAT_ENTRY_HEADER = struct.Struct('<HHIQ')  # kind, version, size of this header, size of the content
FAT_ENTRY_ARCHITECTURE = 28  # offset in the entry's header: compute capability * 10, 32 bits
PTX, MACHINE_CODE = 1, 2


def elf_section(content, name):
    """(offset, size) in bytes of a section of a 64-bit ELF file, (0, 0) if it has none of that name.

    Layout: System V ABI, "Sections". Raises struct.error where the file is cut off.
    """
    table, = struct.unpack_from('<Q', content, 40)
    entry_size, entries, names = struct.unpack_from('<HHH', content, 58)
    headers = [struct.unpack_from('<I20xQQ', content, table + index * entry_size) for index in range(entries)]
    for title, offset, size in headers:
        begin = headers[names][1] + title
        if content[begin:begin + len(name) + 1] == name + b'\0':
            return offset, size
    return 0, 0


def gpu_modules(path):
    """What a library holds for GPUs: {(capabilities with machine code, capabilities with PTX): number of modules}.

    Capabilities are tuples of '7.0', in the order of the file. A module is one "fat binary" of the section .nv_fatbin:
    one source file's kernels, once for each GPU that it was built for. (NVIDIA does not document the layout; this is
    what the libraries of CUDA 9.0 show.) Only headers are read, from one to the next. Raises ValueError for what is no
    library, or is damaged.
    """
    modules = collections.Counter()
    with open(path, 'rb') as stream:
        if stream.read(6) != b'\x7fELF\x02\x01':
            raise ValueError('%s is not a 64-bit little-endian ELF file' % path)
        content = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    try:
        begin, size = elf_section(content, b'.nv_fatbin')
        end = begin + size
        at = content.find(FAT_BINARY, begin, end)
        while at >= 0:
            _, _, header, size = FAT_BINARY_HEADER.unpack_from(content, at)
            at, entries = at + header + size, at + header
            if header < FAT_BINARY_HEADER.size or at > min(end, len(content)):
                raise ValueError('%s is damaged: a fat binary reaches past its section' % path)
            modules[_architectures(content, entries, at, path)] += 1
            at = content.find(FAT_BINARY, at, end)  # they are padded
    except (struct.error, IndexError, OverflowError):
        raise ValueError('%s is cut off or damaged' % path)
    finally:
        content.close()
    del modules[(), ()]  # placeholders
    return modules


def _architectures(content, at, end, path):
    """The key of `gpu_modules` for the entries between two offsets."""
    found = {PTX: [], MACHINE_CODE: []}
    while at < end:
        kind, _, header, size = FAT_ENTRY_HEADER.unpack_from(content, at)
        architecture, = struct.unpack_from('<I', content, at + FAT_ENTRY_ARCHITECTURE)
        found.setdefault(kind, []).append('%d.%d' % divmod(architecture, 10))
        at += header + size
        if header < FAT_ENTRY_ARCHITECTURE + 4 or at > end:
            raise ValueError('%s is damaged: an entry reaches past its fat binary' % path)
    return tuple(found[MACHINE_CODE]), tuple(found[PTX])


def all_capabilities(modules):
    """Of `gpu_modules`: all compute capabilities with machine code, and all with PTX, each in ascending order."""
    return [sorted(set(one for key in modules for one in key[kind]), key=version) for kind in (0, 1)]


def reached_by_all(*libraries):
    """`all_capabilities` of several libraries that work together: those that each of them reaches, by each kind."""
    named = [all_capabilities(modules) for modules in libraries]

    def are_reached(kind, one):
        return all(any(version(low) <= one and (kind or version(low)[0] == one[0]) for low in lists[kind])
                   for lists in named)

    return [sorted(set(one for lists in named for one in lists[kind] if are_reached(kind, version(one))), key=version)
            for kind in (0, 1)]


def gpu_code_sentence(path, modules):
    """`gpu_modules` in words."""
    code, ptx = all_capabilities(modules)
    return '%s: machine code for %s; %s' % (
        os.path.basename(path), ', '.join(code) or 'no GPU', 'PTX for %s in %d of %d modules' % (
            ', '.join(ptx), sum(modules[key] for key in modules if key[1]), sum(modules.values())) if ptx else 'no PTX')


def gpu_code_sentences(stack, paths):
    """`gpu_code_sentence` of each path, in one line."""
    return '; '.join(gpu_code_sentence(path, stack.gpu_code(path)) for path in paths)


def reach(code, ptx):
    """What decides which GPUs code serves: the lowest capability with machine code per major, the lowest with PTX."""
    lowest = {}
    for own in map(version, code):
        lowest[own[0]] = min(own, lowest.get(own[0], own))
    return sorted(lowest.values()), min(map(version, ptx)) if ptx else None


@check('linkage', 'nvidia_libs')
def nvidia_gpu_code(stack):
    paths = [stack.path('nvidia_libs', 'lib64', name) for name in ('libcudnn.so.7', 'libnccl.so.2')]
    return gpu_code_sentences(stack, paths)


@check('linkage', 'caffe2')
def caffe2_gpu_code(stack):
    """The lock's list, by which preflight warns before anything is installed, is true of all that Detectron runs."""
    paths = [caffe2_library(stack), operator_library_path(stack)]
    found, locked = gpu_code_sentences(stack, paths), stack.expect.get('compute_capabilities')
    if not locked:
        return found
    code, ptx = reached_by_all(*map(stack.gpu_code, paths))
    locked_code, locked_ptx = [[str(one) for one in locked.get(kind, [])] for kind in ('code', 'ptx')]
    invented = set(locked_code) - set(code) or set(locked_ptx) - set(ptx)
    if invented or reach(locked_code, locked_ptx) != reach(code, ptx):
        served, claimed = ['machine code for %s and PTX for %s' % (', '.join(one) or 'no GPU', ', '.join(other) or 'no GPU')
                           for one, other in ((code, ptx), (locked_code, locked_ptx))]
        raise Failed('%s; so both have %s, but the lock says %s' % (found, served, claimed),
                     'write what both have into requirements.compute_capabilities of the stack\'s lock')
    return '%s; the lock agrees' % found


# --- import -----------------------------------------------------------------------------------------------------------


def is_inside(path, roots):
    """Whether a path lies in one of the folders, after all links."""
    real = os.path.realpath(path)
    return any(real == root or real.startswith(root.rstrip('/') + '/') for root in map(os.path.realpath, roots))


def foreign_modules(modules, roots):
    """[(name, file)] of the modules that were loaded from outside the given folders."""
    found = []
    for name, module in sorted(modules.items()):
        path = getattr(module, '__file__', None)
        if path and name != '__main__' and not is_inside(path, roots):
            found.append((name, path))
    return found


def require_own_modules(stack, *names):
    """Raise unless all that is imported by now comes from the interpreter's prefix or an install."""
    foreign = foreign_modules(sys.modules, [sys.prefix] + list(stack.installs.values()))
    if not foreign:
        return
    # Name what was asked for rather than the first of its submodules.
    name, path = next((found for found in foreign if found[0] in names), foreign[0])
    if '/.local/' in path:
        remedy = 'export PYTHONNOUSERSITE=1 (activate.sh does); ~/.local is never read then'
    else:
        remedy = 'unset PYTHONPATH && %s' % stack.activation
    raise Failed('%s was imported from %s, outside the stack (%d modules in all)' % (name, path, len(foreign)), remedy)


@check('import', 'anaconda2')
def conda(stack):
    """Conda starts, on a whole Python of its own, and lists what it listed when it was installed."""
    alone = ['/usr/bin/env', '-i', 'HOME=%s' % (stack.scratch or '/nowhere'), 'PATH=/usr/bin:/bin']
    modules = 'import bz2, ctypes, hashlib, readline, sqlite3, ssl, sys, zlib; print(sys.prefix)'
    code, output = run_program(alone + [stack.path('anaconda2', 'bin', 'python'), '-c', modules], stack)
    if code or os.path.realpath(output.strip()) != stack.path('anaconda2'):
        raise Failed('its Python is not whole: %s' % (exit_cause(code, output) or 'it is that of %s' % output.strip()))
    code, output = run_program(alone + [stack.path('anaconda2', 'bin', 'conda'), 'list', '--json'], stack)
    if code:
        raise Failed('conda list: %s' % exit_cause(code, output))
    listed = json.loads(output)
    with io.open(stack.path('anaconda2', 'receipt.json'), encoding='utf-8') as stream:
        installed = json.load(stream)['checks']['packages']
    differ = [json.dumps(one) for one in installed + listed if one not in installed or one not in listed]
    if differ:
        raise Failed('conda does not list what it listed when it was installed: %s' % ', '.join(differ))
    return '%d packages, as when it was installed' % len(listed)


@check('import', 'caffe2', process='caffe2')
def python(stack):
    if os.path.realpath(sys.prefix) != stack.path('caffe2'):
        raise Failed('this is %s, not the Python of the stack' % sys.executable,
                     '%s, or run the ladder with %s' % (stack.activation, stack.path('caffe2', 'bin', 'python')))
    if sys.version_info[:2] != (2, 7) or sys.maxunicode != 0x10FFFF:
        raise Failed('Python %s with %s-byte Unicode; the wheels want 2.7 with 4-byte Unicode (cp27mu)'
                     % (sys.version.split()[0], 4 if sys.maxunicode > 0xFFFF else 2))
    if site.ENABLE_USER_SITE:
        raise Failed('what is in %s shadows the stack\'s packages' % site.getusersitepackages(),
                     'export PYTHONNOUSERSITE=1 (activate.sh does)')
    return 'Python %s, %s' % (sys.version.split()[0], sys.executable)


@check('import', 'caffe2', process='caffe2')
def packages(stack):
    import cv2  # before Caffe2, as Detectron's tools do
    import numpy
    import yaml
    require_own_modules(stack, 'cv2', 'numpy', 'yaml')
    if yaml.__version__ != '3.12':
        raise Failed('PyYAML is %s; Detectron needs 3.12 (later ones refuse its configs)' % yaml.__version__)
    of_x = [name for name in elf_dynamic(sys.modules['cv2.cv2'].__file__)['needed'] if name.startswith('libX')]
    if of_x:
        raise Failed('OpenCV needs %s, which servers without a display may lack' % ' and '.join(of_x))
    return 'numpy %s, OpenCV %s, PyYAML %s' % (numpy.__version__, cv2.__version__, yaml.__version__)


@check('import', 'caffe2', process='caffe2')
def matplotlib_backend(stack):
    os.environ.pop('DISPLAY', None)  # as in a batch job
    import matplotlib
    backend = matplotlib.get_backend()
    if backend.lower() != 'agg':
        raise Failed('matplotlib draws with %s, which wants an X display' % backend,
                     'export MPLBACKEND=Agg (activate.sh does)')
    import matplotlib.pyplot  # noqa: F401
    return 'Agg, without an X display'


@check('import', 'caffe2', process='caffe2')
def caffe2_python(stack):
    from caffe2.python import core, workspace  # noqa: F401
    require_own_modules(stack, 'caffe2', 'caffe2.python.core')
    return 'from %s' % os.path.dirname(sys.modules['caffe2.python'].__file__)


@check('import', 'caffe2')
def pins(stack):
    """Each of pip's packages has the version of the lock."""
    locked = stack.expect.get('packages')
    if not locked:
        raise NotApplicable('no packages were given with --expect')
    import pkg_resources

    def plain(project):
        return re.sub('[-_.]+', '-', project).lower()  # PEP 503

    found = dict((plain(one.project_name), one.version) for one in pkg_resources.working_set)
    wrong = ['%s is %s, not %s' % (project, found.get(plain(project), 'not there'), locked[project])
             for project in sorted(locked) if found.get(plain(project)) != locked[project]]
    if wrong:
        raise Failed('; '.join(wrong))
    return 'all %d packages that are pip\'s have the versions of the lock' % len(locked)


@check('import', 'caffe2')
def scripts(stack):
    """The programs that conda and pip put into bin start the environment's own Python."""
    paths = [stack.path('caffe2', 'bin', name) for name in sorted(os.listdir(stack.path('caffe2', 'bin')))]
    own = 0
    for path in filter(os.path.isfile, paths):
        with open(path, 'rb') as stream:
            interpreter = re.match(br'#! *(/\S*python\S*)', stream.readline(1000))
        if not interpreter:
            continue
        named = interpreter.group(1).decode('utf-8', 'replace')
        if not os.path.exists(named) or not is_inside(named, [stack.path('caffe2')]):
            raise Failed('%s is run by %s, not by the Python of the stack' % (path, named))
        own += 1
    return 'the %d that are Python start the environment\'s' % own


@check('import', 'caffe2')
def pip_check(stack):
    try:
        import pip  # noqa: F401
    except ImportError:
        raise NotApplicable('pip is not in the environment')
    pip_command = [sys.executable, '-W', 'ignore', '-m', 'pip', '--disable-pip-version-check', 'check']
    code, output = run_program(pip_command, stack)
    lines = [line for line in output.splitlines() if line and not line.startswith('DEPRECATION')]
    if code:
        raise Failed('; '.join(lines) or 'pip check exits with %d' % code)
    return ' '.join(lines)


@check('import', 'cocoapi', process='cocoapi')
def pycocotools(stack):
    os.environ.pop('DISPLAY', None)
    import pycocotools.coco
    import pycocotools.mask
    if not is_inside(pycocotools.mask.__file__, [stack.path('cocoapi')]):
        raise Failed('pycocotools was imported from %s, not from %s'
                     % (os.path.dirname(pycocotools.mask.__file__), stack.path('cocoapi')), stack.activation)
    require_own_modules(stack, 'pycocotools')
    return 'from %s' % os.path.dirname(pycocotools.coco.__file__)


def tree_is_clean(stack, role):
    """A source tree holds nothing of another build, which distutils would take for up to date, and no repository."""
    for folder, folders, files in os.walk(stack.path(role)):
        left = [name for name in sorted(folders + files)
                if name in ('build', '.git') or name.endswith(('.egg-info', '.o'))]
        if left:
            raise Failed('%s is left in the tree' % os.path.join(folder, left[0]))
    return 'no build and no repository in the tree'


for _role in ('cocoapi', 'detectron'):
    check('import', _role, name='%s_tree' % _role)(lambda stack, role=_role: tree_is_clean(stack, role))


@check('import', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def detectron(stack):
    import cv2  # noqa: F401  before Caffe2
    import detectron.core.config
    import detectron.utils.c2  # noqa: F401
    if not is_inside(detectron.__file__, [stack.path('detectron')]):
        raise Failed('detectron was imported from %s, not from %s'
                     % (os.path.dirname(detectron.__file__), stack.path('detectron')), stack.activation)
    require_own_modules(stack, 'detectron')
    stand_in = getattr(detectron, 'STAND_IN', '')
    return '%sfrom %s' % (STAND_IN_MARK + stand_in + ' It comes ' if stand_in else '', os.path.dirname(detectron.__file__))


# --- numerics, on the CPU ---------------------------------------------------------------------------------------------


def expect_number(what, found, expected):
    """Raise unless a count is the expected one; None expects nothing."""
    if expected is not None and found != expected:
        raise Failed('%s: %s, but the lock says %s' % (what, found, expected))


def largest_difference(what, found, reference, tolerance=1e-4):
    """Largest |found - reference| as a share of the largest |reference|; raises above the tolerance."""
    import numpy as np
    if found.shape != reference.shape:
        raise Failed('%s: shape %s, not %s' % (what, found.shape, reference.shape))
    difference = float(np.abs(found - reference).max() / np.abs(reference).max())
    if not difference <= tolerance:  # a NaN is not <= anything
        raise Failed('%s: off by %.1e of the largest value, more than %.0e' % (what, difference, tolerance))
    return difference


def device(gpu=None):
    """Caffe2's device option of a GPU by number, or of the CPU."""
    from caffe2.proto import caffe2_pb2
    from caffe2.python import core
    return core.DeviceOption(caffe2_pb2.CPU) if gpu is None else core.DeviceOption(caffe2_pb2.CUDA, gpu)


def run_operator(kind, inputs, option, **arguments):
    """Run one Caffe2 operator with one output on the given arrays; returns the output array."""
    from caffe2.python import core, workspace
    workspace.ResetWorkspace()
    names = ['input_%d' % index for index in range(len(inputs))]
    for name, value in zip(names, inputs):
        workspace.FeedBlob(name, value, device_option=option)
    operator = core.CreateOperator(kind, names, ['output'], device_option=option, **arguments)
    if not workspace.RunOperatorOnce(operator):
        raise Failed('Caffe2 did not run %s' % kind)
    return workspace.FetchBlob('output')


def uniform(*shape):
    """Reproducible float32 numbers in [-1, 1)."""
    import numpy as np
    return np.random.RandomState(7).uniform(-1, 1, shape).astype(np.float32)


def fully_connected_problem():
    """(X [8, 64], W [32, 64], b [32]) and X W^T + b [8, 32] by numpy."""
    x, w, b = uniform(8, 64), uniform(32, 64), uniform(32)
    return (x, w, b), x.dot(w.T) + b


def convolution_problem():
    """(X [2, 3, 9, 9], W [4, 3, 3, 3], b [4]), kernel 3, stride 2, pad 1, and the result [2, 4, 5, 5] by numpy."""
    import numpy as np
    x, w, b = uniform(2, 3, 9, 9), uniform(4, 3, 3, 3), uniform(4)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), 'constant')
    y = np.empty((2, 4, 5, 5), np.float32)
    for i in range(5):
        for j in range(5):
            window = padded[:, :, 2 * i:2 * i + 3, 2 * j:2 * j + 3]
            y[:, :, i, j] = np.tensordot(window, w, axes=([1, 2, 3], [1, 2, 3])) + b
    return (x, w, b), y


CONVOLUTION = {'kernel': 3, 'stride': 2, 'pad': 1}


@check('numerics', 'caffe2', process='caffe2')
def fully_connected_and_relu(stack):
    import numpy as np
    inputs, reference = fully_connected_problem()
    product = run_operator('FC', inputs, device())
    off = max(largest_difference('FC', product, reference),
              largest_difference('Relu', run_operator('Relu', [product], device()), np.maximum(reference, 0)))
    return 'FC and Relu agree with numpy to %.0e' % off


@check('numerics', 'caffe2', process='caffe2')
def convolution(stack):
    inputs, reference = convolution_problem()
    off = largest_difference('Conv', run_operator('Conv', inputs, device(), **CONVOLUTION), reference)
    return 'Conv agrees with numpy to %.0e' % off


@check('numerics', 'caffe2', process='caffe2')
def operators(stack):
    """Caffe2's operators, and those of Detectron that the same wheel or package brings."""
    from caffe2.python import dyndep, workspace
    before = len(workspace.RegisteredOperators())
    dyndep.InitOpsLibrary(str(operator_library_path(stack)))
    return count_operators(stack, before)


def count_operators(stack, before):
    from caffe2.python import workspace
    names = workspace.RegisteredOperators()
    if 'SpatialNarrowAs' not in names:
        raise Failed('SpatialNarrowAs is not registered after loading %s' % OPERATOR_LIBRARY)
    expected = stack.expect.get('operators', [None, None])
    expect_number('operators before loading Detectron\'s', before, expected[0])
    expect_number('operators with Detectron\'s', len(names), expected[1])
    return '%d -> %d operators, SpatialNarrowAs among them' % (before, len(names))


@check('numerics', 'cocoapi', process='cocoapi')
def mask_round_trip(stack):
    import numpy as np
    from pycocotools import mask
    square, wide = np.zeros((20, 30), np.uint8, 'F'), np.zeros((20, 30), np.uint8, 'F')
    square[4:12, 5:13] = 1
    wide[4:12, 9:21] = 1
    encoded = [mask.encode(square), mask.encode(wide)]
    if not np.array_equal(mask.decode(encoded[0]), square):
        raise Failed('a mask is not the same after encode and decode')
    areas = [int(area) for area in mask.area(encoded)]
    if areas != [64, 96]:
        raise Failed('areas of the masks: %s, not [64, 96]' % areas)
    overlap = float(mask.iou(encoded[:1], encoded[1:], [0])[0, 0])
    if abs(overlap - 32 / 128) > 1e-9:
        raise Failed('IoU of the masks: %r, not 0.25' % overlap)
    return 'encode and decode agree; areas 64 and 96; IoU 0.25'


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def operator_library(stack):
    """Detectron's own search, which looks into /usr/local first, must find the stack's library."""
    import detectron.utils.c2 as c2
    import detectron.utils.env as env
    from caffe2.python import workspace
    before = len(workspace.RegisteredOperators())
    with captured_stdout() as printed:
        path = env.get_detectron_ops_lib()
    if 'Found Detectron ops lib: %s' % path not in printed.getvalue():
        raise Failed('Detectron does not print "Found Detectron ops lib: %s" but %r' % (path, printed.getvalue()))
    if not is_inside(path, [sys.prefix] + list(stack.installs.values())):
        raise Failed('Detectron takes %s, outside the stack, and would load foreign operators' % path,
                     'have its owner move %s away: Detectron prefers it to the stack\'s' % path)
    c2.import_detectron_ops()
    return '%s; found at %s' % (count_operators(stack, before), path)


@contextlib.contextmanager
def captured_stdout():
    """What Python code prints, as a string buffer (Python 2's, which takes bytes and text)."""
    import StringIO
    buffer = StringIO.StringIO()
    saved, sys.stdout = sys.stdout, buffer
    try:
        yield buffer
    finally:
        sys.stdout = saved


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def boxes(stack):
    """Detectron's two Cython extensions on three boxes (x1, y1, x2, y2 in pixels, ends included)."""
    import numpy as np
    from detectron.utils import cython_bbox, cython_nms
    three = np.array([[0, 0, 9, 9], [0, 0, 4, 9], [20, 20, 29, 29]], np.float32)
    overlaps = cython_bbox.bbox_overlaps(three, three)
    expected = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    if not np.allclose(overlaps, expected):
        raise Failed('IoU of three boxes: %s, not %s' % (overlaps.tolist(), expected.tolist()))
    scored = np.hstack([three, np.array([[0.8], [0.9], [0.7]], np.float32)])
    kept = sorted(int(index) for index in cython_nms.nms(scored, np.float32(0.4)))
    if kept != [1, 2]:
        raise Failed('non-maximum suppression keeps boxes %s, not [1, 2]' % kept)
    return 'IoU and non-maximum suppression of three boxes'


def configure(stack):
    """Merge the baseline config once per process, without fetching its pretrained weights; returns Detectron's cfg."""
    from detectron.core import config
    if config.cfg.MODEL.TYPE != 'generalized_rcnn':
        config.merge_cfg_from_file(str(stack.path('detectron', BASELINE)))
        config.cfg.NUM_GPUS = 1
        config.cfg.TRAIN.WEIGHTS = config.cfg.TEST.WEIGHTS = ''
        config.assert_and_infer_cfg(make_immutable=False)
    return config.cfg


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def config(stack):
    cfg = configure(stack)
    found = {'BASE_LR': cfg.SOLVER.BASE_LR, 'MAX_ITER': cfg.SOLVER.MAX_ITER, 'STEPS': list(cfg.SOLVER.STEPS),
             'NUM_CLASSES': cfg.MODEL.NUM_CLASSES, 'MASK_ON': cfg.MODEL.MASK_ON}
    published = {'BASE_LR': 0.02, 'MAX_ITER': 90000, 'STEPS': [0, 60000, 80000], 'NUM_CLASSES': 81, 'MASK_ON': True}
    wrong = sorted(key for key in published if found[key] != published[key])
    if wrong:
        raise Failed('%s: %s' % (BASELINE, ', '.join(
            '%s is %s, not %s' % (key, found[key], published[key]) for key in wrong)))
    return '%s: %s' % (os.path.basename(BASELINE), ', '.join('%s %s' % item for item in sorted(found.items())))


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def dataset(stack):
    """Detectron's reader on a dataset of one image and one box in COCO's format."""
    configure(stack)
    from detectron.datasets import dataset_catalog
    from detectron.datasets.json_dataset import JsonDataset
    folder = tempfile.mkdtemp(dir=stack.scratch or None)
    annotations = os.path.join(folder, 'annotations.json')
    with io.open(annotations, 'wb') as stream:
        stream.write(json.dumps({
            'images': [{'id': 1, 'width': 120, 'height': 100, 'file_name': 'one.jpg'}],
            'categories': [{'id': 7, 'name': 'thing', 'supercategory': 'thing'}],
            'annotations': [{'id': 1, 'image_id': 1, 'category_id': 7, 'bbox': [10, 10, 40, 30], 'area': 1200,
                             'iscrowd': 0, 'segmentation': [[10, 10, 50, 10, 50, 40, 10, 40]]}],
        }).encode('ascii'))
    io.open(os.path.join(folder, 'one.jpg'), 'wb').close()  # its presence is asserted, its pixels are not read
    catalog = dataset_catalog._DATASETS if hasattr(dataset_catalog, '_DATASETS') else dataset_catalog.DATASETS
    catalog['ladder_one'] = {'image_directory': str(folder), 'annotation_file': str(annotations)}
    try:
        entries = JsonDataset('ladder_one').get_roidb(gt=True)
    finally:
        del catalog['ladder_one']
        shutil.rmtree(folder)
    found = [(entry['boxes'].tolist(), entry['gt_classes'].tolist()) for entry in entries]
    if found != [([[10, 10, 49, 39]], [1])]:
        raise Failed('one box at [10, 10, 40, 30] (x, y, width, height) is read as %s' % found)
    return 'one image, one box, one class'


def count_model_operators(stack, train):
    """Build the baseline's network (its protocol buffers; nothing is run) and count its operators."""
    cfg = configure(stack)
    import detectron.modeling.model_builder as model_builder
    model = model_builder.create(cfg.MODEL.TYPE, train=train, gpu_id=0)
    found = len(model.net.Proto().op)
    key = 'train_ops' if train else 'test_ops'
    expect_number('operators of the %s network' % key[:-4], found, stack.expect.get('detectron', {}).get(key))
    return '%d operators, %d parameter blobs' % (found, len(model.params))


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def model_for_test(stack):
    return count_model_operators(stack, train=False)


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'], process='detectron')
def model_for_training(stack):
    return count_model_operators(stack, train=True)


# Not test_restore_checkpoint: without GPUs it passes because it loops over none.
@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'])
def test_cfg(stack):
    return run_detectron_test(stack, 'test_cfg')


@check('numerics', 'detectron', needs=['caffe2', 'cocoapi'])
def test_bbox_transform(stack):
    return run_detectron_test(stack, 'test_bbox_transform')


def run_detectron_test(stack, name):
    """Run one of Detectron's own test files as its documentation does, and count what ran."""
    path = stack.path('detectron', 'detectron', 'tests', '%s.py' % name)
    if not os.path.isfile(path):
        raise NotApplicable('this Detectron has no %s.py' % name)
    code, output = run_program([sys.executable, path], stack)
    print(output, file=sys.stderr)
    ran, verdict = test_summary(output)
    if code or verdict != 'OK':
        raise Failed('%s.py: %s' % (name, exit_cause(code, output) if code else verdict or 'no tests were reported'))
    if not ran:
        raise Failed('%s.py ran no tests' % name)
    expect_number('tests run by %s.py' % name, ran, stack.expect.get('detectron', {}).get('tests', {}).get(name))
    return 'ran %d tests, OK' % ran


def test_summary(output):
    """(number of tests, verdict) of what unittest printed: (3, 'OK'), (3, 'OK (skipped=1)'), (0, '')."""
    ran = re.findall(r'^Ran (\d+) tests? in', output, re.M)
    verdict = re.findall(r'^((?:OK|FAILED).*)$', output, re.M)
    return int(ran[-1]) if ran else 0, verdict[-1].strip() if verdict else ''


def run_program(command, stack):
    """Run a program on the stack, in the scratch folder; returns (exit status, stdout and stderr as one text)."""
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE='1')
    paths = stack.python_paths + [path for path in os.environ.get('PYTHONPATH', '').split(':') if path]
    environment['PYTHONPATH'] = ':'.join(str(path) for path in collections.OrderedDict.fromkeys(paths))
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
                               cwd=stack.scratch or None)
    output = program.communicate()[0].decode('utf-8', 'replace')
    return program.returncode, output


# --- predicted --------------------------------------------------------------------------------------------------------


def version(text):
    """'384.81' as (384, 81), for comparing."""
    return tuple(int(number) for number in re.findall(r'\d+', text))


def served(capability, modules):
    """How the modules of a library reach a GPU: 'code', 'ptx', 'partly' or '' for not at all.

    Machine code runs on the same major version with the same or a higher minor one; where a library has some for a
    GPU, that it has other modules for other GPUs means nothing. PTX is compiled by the driver for everything at least
    as high, and then it matters whether all modules have it ('ptx') or only some ('partly').
    Source: CUDA C Programming Guide, "Compute Capability Compatibility"; measured on an NVIDIA H200 (9.0).
    """
    own = version(capability)
    if any(version(one)[0] == own[0] and version(one) <= own for code, _ in modules for one in code):
        return 'code'
    compiled = [any(version(one) <= own for one in ptx) for _, ptx in modules]
    return 'ptx' if compiled and all(compiled) else 'partly' if any(compiled) else ''


Prediction = collections.namedtuple('Prediction', 'operators libraries nccl')


def predict(capability, operators, caffe2, libraries=(), nccl=()):
    """What a GPU of this compute capability will run, by the `gpu_modules` of Detectron's operators, of Caffe2, and of
    each cuDNN and cuBLAS, and each NCCL, outside of Caffe2.

    Returns Prediction(operators: 'code', 'ptx' for after a compilation, '' for not; libraries: whether cuDNN and cuBLAS
    run; nccl: whether NCCL does). Caffe2 that can be compiled only partly runs operators: the rest of it is the cuDNN,
    cuBLAS and NCCL inside it.
    """
    ways = [served(capability, modules) for modules in [caffe2] + list(libraries)]
    own = served(capability, operators)
    runs = own in ('code', 'ptx') and ways[0]
    return Prediction('' if not runs else 'code' if own == ways[0] == 'code' else 'ptx',
                      all(way in ('code', 'ptx') for way in ways),
                      all(served(capability, modules) in ('code', 'ptx') for modules in nccl or [caffe2]))


def predictions(stack):
    """[Prediction] for the stack's GPUs."""
    caffe2 = caffe2_library(stack)
    folders = [os.path.dirname(caffe2), stack.path('caffe2', 'lib')]
    folders += [stack.path('nvidia_libs', 'lib64')] if 'nvidia_libs' in stack.installs else []
    needed = elf_dynamic(caffe2)['needed']

    def code_outside(*stems):
        paths = [os.path.join(place, name) for name in needed if name.startswith(stems) for place in folders]
        return [stack.gpu_code(path) for path in paths if os.path.isfile(path)]

    code = (stack.gpu_code(operator_library_path(stack)), stack.gpu_code(caffe2),
            code_outside('libcudnn', 'libcublas'), code_outside('libnccl'))
    return [predict(gpu['compute_capability'], *code) for gpu in stack.gpus]


def gpu_title(gpu):
    return 'GPU %d (%s, compute capability %s)' % (gpu['index'], gpu['name'], gpu['compute_capability'])


def gpus_title(gpus):
    """Some GPUs in words, those of one kind together: 'GPUs 0, 1 (Tesla V100, compute capability 7.0)'."""
    kinds = collections.OrderedDict()
    for gpu in gpus:
        kinds.setdefault((gpu['name'], gpu['compute_capability']), []).append(gpu)
    return ' and '.join(gpu_title(kind[0]) if len(kind) == 1 else gpu_title(kind[0]).replace(
        'GPU %d' % kind[0]['index'], 'GPUs %s' % ', '.join(str(gpu['index']) for gpu in kind), 1)
        for kind in kinds.values())


def unserved(prediction):
    """What does not run where cuDNN and cuBLAS do not, in words."""
    return 'cuDNN and cuBLAS' if prediction.nccl else 'cuDNN, cuBLAS and NCCL'


def predicted_sentence(gpus, prediction, code):
    """A prediction in plain words; `gpus` are those that it is for, `code` all capabilities with machine code."""
    if prediction == ('code', True, True):
        return '%s: there is machine code for it' % gpus_title(gpus)
    who, span = gpus_title(gpus), 'machine code for %s to %s only' % (code[0], code[-1]) if code else 'no machine code'
    once = ', after a one-time compilation of minutes' if prediction.operators == 'ptx' else ''
    if prediction.operators and prediction.libraries:
        return '%s: all will run%s%s' % (who, once, '' if prediction.nccl else
                                         ', but for NCCL: train on one GPU, as sums over several will fail')
    if prediction.operators:
        return ('%s: Caffe2\'s own operators will run%s, but %s hold %s: convolutions and matrix products will fail, '
                'so nothing can be trained' % (who, once, unserved(prediction), span))
    return '%s: nothing will run; this Caffe2 holds %s and no PTX that suits it' % (who, span)


@check('predicted', 'caffe2', process='predicted')
def driver(stack):
    if stack.gpu_fault:
        raise Failed(stack.no_gpu, 'ask the administrator to repair the NVIDIA driver; nvidia-smi should list the GPUs')
    if not stack.gpus:
        raise NotApplicable(stack.no_gpu)
    needed, found = stack.expect.get('driver_min'), stack.gpus[0]['driver']
    if not needed:
        raise NotApplicable('no driver_min was given with --expect')
    if not found:
        raise NotApplicable('the version of the NVIDIA driver can be read neither from NVML nor from /proc')
    if version(found) < version(needed):
        raise Failed('the NVIDIA driver is %s; with less than %s this CUDA sees no GPU' % (found, needed),
                     'ask the administrator for a driver of %s or later, or use a stack for an older CUDA' % needed)
    return 'driver %s, at least %s needed' % (found, needed)


@check('predicted', 'caffe2', process='predicted', gpus=1)
def compute_capability(stack):
    found = predictions(stack)
    code, _ = reached_by_all(stack.gpu_code(caffe2_library(stack)), stack.gpu_code(operator_library_path(stack)))
    alike = collections.OrderedDict()
    for gpu, one in zip(stack.gpus, found):
        alike.setdefault(one, []).append(gpu)
    sentences = '; '.join(predicted_sentence(gpus, one, code) for one, gpus in alike.items())
    if not all(one.operators and one.libraries and (one.nccl or len(found) == 1) for one in found):
        fit = 'a GPU of compute capability %s to %d.x, or ' % (code[0], version(code[-1])[0]) if code else ''
        raise Failed(sentences, 'use %sa stack for a newer CUDA' % fit)
    return sentences


def known_predictions(stack):
    """[(gpu, Prediction)]; empty where the libraries cannot be read, which checks of the rung linkage report."""
    try:
        return list(zip(stack.gpus, predictions(stack))) if stack.gpus else []
    except (Failed, KeyError, ValueError, EnvironmentError, struct.error):
        return []


def outlook(stack, rungs):
    """Prediction beside measurement, for each GPU: {index, name, compute_capability, predicted, measured, agree}.

    `predicted` and `measured` are {operators, libraries, nccl}, libraries being cuDNN and cuBLAS: whether they work,
    None where nothing is known; predicted['compilation'] is whether the driver compiles first. The checks use the first
    GPU, but for nccl: that is a sum over all of them, which fails with the least of them, and None where there is one.
    `agree` is None until a GPU's operators and libraries have been measured. Where the driver is too old, nothing is
    predicted to work.
    """
    refused = any(one['name'] == 'driver' and one['status'] == FAILED for rung in rungs for one in rung['checks'])
    status = dict((rung['rung'], {PASSED: True, FAILED: False}.get(rung['status'])) for rung in rungs)
    known, rows = known_predictions(stack), []
    nccl = all(one.nccl for _, one in known) and not refused if len(known) > 1 else None
    for gpu, prediction in known:
        prediction = Prediction('', False, False) if refused else prediction
        predicted = {'operators': bool(prediction.operators), 'libraries': prediction.libraries, 'nccl': nccl}
        measured = {'operators': status['operator'], 'libraries': status['cudnn_cublas']}
        if rows:
            measured = dict.fromkeys(measured)
        measured['nccl'] = status['multi_gpu']
        unmeasured = None in (measured['operators'], measured['libraries'])
        rows.append({'index': gpu['index'], 'name': gpu['name'], 'compute_capability': gpu['compute_capability'],
                     'predicted': dict(predicted, compilation=prediction.operators == 'ptx'), 'measured': measured,
                     'agree': None if unmeasured else all(
                         measured[what] in (None, predicted[what]) for what in measured)})
    return rows


def outlook_words(answers):
    """What works, in words; `answers` is `predicted` or `measured` of a row of the outlook."""
    words = {True: 'work', False: 'fail', None: 'not measured'}
    return 'operators %s%s, cuDNN and cuBLAS %s%s' % (
        words[answers['operators']], ' once compiled' if answers.get('compilation') else '',
        words[answers['libraries']], '' if answers['nccl'] is None else ', NCCL %ss' % words[answers['nccl']])


def verdict(row):
    """Whether measurement agrees with prediction, in words; '' while not both are known."""
    return {True: 'they agree', False: 'they DISAGREE', None: ''}[row['agree']]


def compilation_notice(stack):
    """What to expect of the first check on a GPU for which the driver compiles; '' where it does not."""
    compiled = [(gpu, one) for gpu, one in known_predictions(stack) if one.operators == 'ptx']
    if not compiled:
        return ''
    notice = '%s: no machine code for this kind, so the driver compiles PTX, once, for 10 to 30 minutes, into %s' % (
        gpus_title(gpu for gpu, _ in compiled), os.environ.get('CUDA_CACHE_PATH', '~/.nv/ComputeCache'))
    if not all(one.libraries for _, one in compiled):
        notice += '; %s, of which not all has PTX, are expected to fail, and measured all the same' % unserved(
            compiled[0][1])
    return notice


def probe_gpus():
    """Ask the CUDA driver for its GPUs.

    Returns ([{index, name, compute_capability, driver}], why there are none or '', whether that is a fault: an NVIDIA
    device is here, but its driver does not answer).
    """
    has_device = os.path.exists('/dev/nvidiactl')
    try:
        cuda = ctypes.CDLL('libcuda.so.1')
    except OSError as error:
        if has_device:
            return [], 'there is /dev/nvidiactl, but the driver\'s library does not load: %s' % error, True
        return [], 'no GPU: no /dev/nvidiactl and no libcuda.so.1', False
    no_device = 100  # CUDA_ERROR_NO_DEVICE
    status, count = cuda.cuInit(0), ctypes.c_int()
    if status == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    if status not in (0, no_device) and has_device:
        return [], 'there is /dev/nvidiactl, but the CUDA driver does not start: error %d' % status, True
    if not count.value:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        hint = '' if visible is None else ' with CUDA_VISIBLE_DEVICES=%s' % visible
        return [], 'no GPU: the CUDA driver finds none%s' % hint, False
    gpus, version_of_driver = [], driver_version()
    for index in range(count.value):
        handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(100)
        cuda.cuDeviceGet(ctypes.byref(handle), index)
        cuda.cuDeviceGetName(name, len(name), handle)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)  # ..._MINOR
        gpus.append({'index': index, 'name': name.value.decode('utf-8', 'replace'), 'driver': version_of_driver,
                     'compute_capability': '%d.%d' % (major.value, minor.value)})
    return gpus, '', False


def driver_version():
    """Version of the NVIDIA driver, '384.81', from NVML or else from /proc; empty if neither tells."""
    try:
        nvml = ctypes.CDLL('libnvidia-ml.so.1')
        text = ctypes.create_string_buffer(80)
        if nvml.nvmlInit() == 0 and nvml.nvmlSystemGetDriverVersion(text, len(text)) == 0:
            return text.value.decode('ascii')
    except (OSError, AttributeError):
        pass
    try:
        with io.open('/proc/driver/nvidia/version', encoding='ascii', errors='replace') as stream:
            found = re.search(r'Kernel Module\D*?\s(\d+(?:\.\d+)+)', stream.read())
            return found.group(1) if found else ''
    except IOError:
        return ''


# --- on the GPU -------------------------------------------------------------------------------------------------------


@check('operator', 'caffe2', gpus=1)
def cuda_devices(stack):
    from caffe2.python import workspace
    found = workspace.NumCudaDevices()
    if found != len(stack.gpus):
        raise Failed('Caffe2 sees %d GPUs, the driver %d' % (found, len(stack.gpus)))
    return 'Caffe2 sees %d' % found


@check('operator', 'detectron', needs=['caffe2', 'cocoapi'], gpus=1)
def test_spatial_narrow_as_op(stack):
    return run_detectron_test(stack, 'test_spatial_narrow_as_op')


@check('operator', 'detectron', needs=['caffe2', 'cocoapi'], gpus=1)
def test_batch_permutation_op(stack):
    return run_detectron_test(stack, 'test_batch_permutation_op')


@check('cudnn_cublas', 'caffe2', gpus=1)
def gpu_fully_connected(stack):
    inputs, _ = fully_connected_problem()
    off = largest_difference('FC on the GPU', run_operator('FC', inputs, device(0)),
                             run_operator('FC', inputs, device()))
    return 'FC (cuBLAS) on the GPU agrees with the CPU to %.0e' % off


@check('cudnn_cublas', 'caffe2', gpus=1)
def gpu_convolution(stack):
    inputs, _ = convolution_problem()
    on_gpu = run_operator('Conv', inputs, device(0), engine='CUDNN', **CONVOLUTION)
    off = largest_difference('Conv on the GPU', on_gpu, run_operator('Conv', inputs, device(), **CONVOLUTION))
    return 'Conv (cuDNN) on the GPU agrees with the CPU to %.0e' % off


@check('cudnn_cublas', 'caffe2', gpus=1)
def gpu_relu(stack):
    values = [uniform(4, 3, 5, 5)]
    off = largest_difference('Relu on the GPU', run_operator('Relu', values, device(0), engine='CUDNN'),
                             run_operator('Relu', values, device()))
    return 'Relu (cuDNN) on the GPU agrees with the CPU to %.0e' % off


@check('multi_gpu', 'caffe2', gpus=2)
def nccl_allreduce(stack):
    import numpy as np
    from caffe2.python import core, workspace
    os.environ.setdefault('NCCL_DEBUG', 'WARN')  # else it fails without a word
    count = len(stack.gpus)
    names = ['gpu_%d/x' % index for index in range(count)]
    for index, name in enumerate(names):
        workspace.FeedBlob(name, np.full(1000, index + 1, np.float32), device_option=device(index))
    workspace.RunOperatorOnce(core.CreateOperator('NCCLAllreduce', names, names, device_option=device(0)))
    expected = count * (count + 1) // 2
    wrong = [name for name in names if not np.all(workspace.FetchBlob(name) == expected)]
    if wrong:
        raise Failed('the sum over %d GPUs is wrong on %s' % (count, ', '.join(wrong)))
    return 'sum over %d GPUs' % count


# --- running checks ---------------------------------------------------------------------------------------------------


def in_child(produce, seconds, on_value=lambda value: None):
    """Run a generator function in a forked child and collect what it yields (JSON values), as long as it lives.

    The child's standard output and error go to a file, also those of C++ code. Returns ([(value, its output)], cause,
    rest): `cause` is '' or why the child ended early, `rest` what it wrote after its last value. `seconds` is the
    longest silence between two values. Forking rather than starting Python again is faster, and works when this program
    came through a pipe.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            _child_main(produce, reading, writing, output.fileno())
        os.close(writing)
        try:
            values, cause = _collect(reading, child, seconds, on_value)
        finally:
            os.close(reading)
        output.seek(0)
        text = output.read()
    ends = [0] + [end for _, end in values]
    slices = [text[start:end].decode('utf-8', 'replace') for start, end in zip(ends, ends[1:])]
    return list(zip((value for value, _ in values), slices)), cause, text[ends[-1]:].decode('utf-8', 'replace')


def _child_main(produce, reading, writing, output):
    """The child's side: never returns."""
    status = 1
    try:
        os.setsid()  # so that its own children end with it
        os.close(reading)
        _close_on_exec(writing)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for value in produce():
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(writing, (json.dumps([value, os.fstat(output).st_size]) + '\n').encode('ascii'))
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)  # no destructors: some abort, after all has been said


def _close_on_exec(descriptor):
    """Keep a descriptor out of programs that we start: the reader would wait for them, too."""
    import fcntl
    fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.fcntl(descriptor, fcntl.F_GETFD) | fcntl.FD_CLOEXEC)


def _collect(reading, child, seconds, on_value):
    """The parent's side: ([[value, size of the output by then]], why the child ended early or '')."""
    values, buffered, silent = [], b'', False
    try:
        while True:
            silent = not select.select([reading], [], [], seconds)[0]
            chunk = b'' if silent else os.read(reading, 65536)
            if not chunk:
                break
            lines = (buffered + chunk).split(b'\n')
            buffered = lines.pop()
            for line in lines:
                values.append(json.loads(line.decode('ascii')))
                on_value(values[-1][0])
    except BaseException:
        silent = True  # interrupted: the child is in a session of its own and would live on
        raise
    finally:
        if silent:
            os.killpg(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if silent:
        return values, 'no answer within %d seconds' % seconds
    return values, exit_cause(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def exit_cause(code, output=''):
    """Why a program ended, in words: '' for 0, its signal by name, else its status; with the line that tells most."""
    if not code:
        return ''
    names = dict((getattr(signal, name), name) for name in sorted(dir(signal), reverse=True)
                 if re.match(r'SIG[A-Z0-9]+$', name))  # of synonyms the first: SIGABRT, not SIGIOT
    cause = 'died of signal %d (%s)' % (-code, names.get(-code, 'unknown')) if code < 0 else 'exit status %d' % code
    line = telling_line(output)
    return '%s: %s' % (cause, line) if line else cause


def telling_line(output):
    """The line of a program's output that says most about its failure; '' if there is none."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for pattern in (r'enforce fail|CUDNN_STATUS|CUBLAS_STATUS|no kernel image|[Uu]nhandled (CUDA|system) error|'
                    r'NCCL WARN Cuda failure',
                    r'^\w*(Error|Exception)\b', r'^Aborted|^FAILED|^Segmentation'):
        found = [line for line in lines if re.search(pattern, line)]
        if found:
            return found[-1][:500]
    if lines and 'terminate called without an active exception' in lines[-1]:
        return lines[-1] + ' (Caffe2 ends so when an operator on the GPU fails while threads of it still run)'
    return lines[-1][:500] if lines else ''


def run_check(one, stack):
    """Run one check here; returns its entry of the report."""
    started = time.time()
    status, detail, reason, remedy = PASSED, '', '', ''
    try:
        detail = one.run(stack) or ''
    except NotApplicable as finding:
        status, reason = NOT_APPLICABLE, str(finding)
    except Failed as finding:
        status, reason, remedy = FAILED, str(finding), finding.remedy
    except (Exception, SystemExit) as error:  # Detectron's own code leaves by sys.exit
        traceback.print_exc()
        status, reason = FAILED, '%s: %s' % (type(error).__name__, telling_line(str(error)) or 'without a message')
    return entry(one, status, detail, reason, remedy, time.time() - started)


def entry(one, status, detail='', reason='', remedy='', seconds=0.0, output=''):
    """A check's entry of the report. A failed one always has a remedy: if not its own, install its component again."""
    if status == FAILED and not remedy and one.gpus:
        remedy = 'see the rung "predicted" and nvidia-smi: most often the GPU or its driver does not suit this CUDA'
    elif status == FAILED and not remedy:
        remedy = 'ansible-playbook site.yml --tags %s' % one.component
    return {'name': one.name, 'component': one.component, 'status': status, 'detail': detail, 'reason': reason,
            'remedy': remedy, 'seconds': round(seconds, 2), 'output': output}


def run_process(checks, stack, announce):
    """Run checks that share a process; one that kills it is failed, and the ones after it get a fresh process."""
    results = []
    while len(results) < len(checks):
        results += run_until_death(checks[len(results):], stack, announce)
    return results


def run_until_death(checks, stack, announce):
    """Run checks in one child. Returns the entries of those that ran; the last one failed if the child died of it."""
    started, following = time.time(), iter(checks)

    def announce_next(_):
        announce(next(following, None))

    announce_next(None)
    limit = GPU_CHECK_SECONDS if any(one.gpus for one in checks) else CPU_CHECK_SECONDS
    done, cause, rest = in_child(lambda: (run_check(one, stack) for one in checks), limit, announce_next)
    results = [dict(result, output=output[-4000:]) for result, output in done]
    if len(results) < len(checks):
        line = telling_line(rest)
        results.append(entry(checks[len(results)], FAILED, reason='its process %s%s' % (cause, line and ': ' + line),
                             seconds=time.time() - started, output=rest[-4000:]))
    return results


def why_not(one, stack):
    """Why a check cannot be run at all here; '' if it can."""
    missing = [role for role in one.needs if role not in stack.installs]
    if missing:
        return 'needs the install of %s, which was not given' % ' and '.join(missing)
    if len(stack.gpus) < one.gpus:
        return stack.no_gpu or 'one GPU'
    return ''


def climb(stack, checks, rungs=RUNGS, announce=lambda one: None):
    """Run the checks of the given rungs; returns the report's list, which always has all rungs."""
    checks = [one for one in checks if one.rung in rungs]
    results, processes = {}, collections.OrderedDict()
    for one in sorted(checks, key=lambda one: RUNGS.index(one.rung)):
        reason = why_not(one, stack)
        if reason:
            results[one.name] = entry(one, NOT_APPLICABLE, reason=reason)
        else:
            processes.setdefault(one.process, []).append(one)
    for group in processes.values():
        results.update((result['name'], result) for result in run_process(group, stack, announce))
    return [rung_entry(rung, [results[one.name] for one in checks if one.rung == rung], rung in rungs)
            for rung in RUNGS]


def rung_entry(rung, results, chosen):
    """A rung's entry: failed if a check failed, passed if one passed, else not applicable with the checks' reason."""
    failed = [result for result in results if result['status'] == FAILED]
    if failed:
        more = ' (and %d more)' % (len(failed) - 1) if len(failed) > 1 else ''
        status, reason = FAILED, '%s: %s%s' % (failed[0]['name'], failed[0]['reason'], more)
    elif any(result['status'] == PASSED for result in results):
        status, reason = PASSED, ''
    else:
        reasons = collections.OrderedDict.fromkeys(result['reason'] for result in results)
        no_checks = 'none of its checks is about the chosen components' if chosen else 'not asked for with --rungs'
        status, reason = NOT_APPLICABLE, '; '.join(reasons) or no_checks
    return {'rung': rung, 'status': status, 'reason': reason,
            'seconds': round(sum(result['seconds'] for result in results), 2), 'checks': results}


# --- report and command line ------------------------------------------------------------------------------------------


def table(report):
    """The report for a person: a line per rung, then what failed, why, and what to do."""
    gpus = ', '.join('%s (%s)' % (gpu['name'], gpu['compute_capability']) for gpu in report['gpus']) or 'no GPU'
    lines = ['Check ladder on %s: %s, %s' % (report['host'], report['generation'] or 'single installs', gpus), '',
             '%-13s %-15s %7s %8s  %s' % ('rung', 'status', 'checks', 'seconds', 'why')]
    for rung in report['rungs']:
        passed = sum(one['status'] == PASSED for one in rung['checks'])
        lines.append(('%-13s %-15s %7s %8.1f  %s' % (rung['rung'], rung['status'].replace('_', ' '), '%d/%d' % (
            passed, len(rung['checks'])), rung['seconds'], rung['reason'])).rstrip())
    for row in report['outlook']:
        lines += ['', gpu_title(row)]
        lines += ['  %-10s %s' % (what, outlook_words(row[what])) for what in ('predicted', 'measured')]
        lines += ['  %s' % verdict(row)] if verdict(row) else []
    for rung in report['rungs']:
        for one in rung['checks']:
            if one['status'] == FAILED:
                lines += ['', 'FAILED  %s / %s (%s)' % (rung['rung'], one['name'], one['component']),
                          '  why:    %s' % one['reason'], '  remedy: %s' % one['remedy']]
    return '\n'.join(lines) + '\n'


def write_report(report, target):
    """Write the report as JSON: to standard output for '-', else to a file, which is replaced whole or not at all."""
    text = (json.dumps(report, indent=1, sort_keys=True) + '\n').encode('ascii')
    if target == '-':
        getattr(sys.stdout, 'buffer', sys.stdout).write(text)
        return
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.abspath(target)), delete=False) as stream:
        stream.write(text)
    os.chmod(stream.name, 0o644)
    os.rename(stream.name, target)


def parse_arguments(arguments):
    """Parse and complete the command line; ends the program with status 2 and one sentence if it makes no sense."""
    summary, _, rest = __doc__.partition('\n\n')
    parser = argparse.ArgumentParser(prog='check-ladder', description=summary, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--generation', metavar='DIR', help='check the installs that this generation links to '
                        '(default: $DETECTRON_GENERATION, else the generation that this file lies in)')
    parser.add_argument('--install', metavar='ROLE=DIR', action='append', default=[],
                        help='check this install instead; repeatable; roles: %s' % ', '.join(ROLES))
    parser.add_argument('--only', metavar='ROLE[,ROLE]', default=','.join(ROLES),
                        help='only the checks of these components')
    parser.add_argument('--rungs', metavar='RUNG[,RUNG]', default=','.join(RUNGS),
                        help='only these rungs, as before publishing: %s' % ','.join(RUNGS[1:4]))
    parser.add_argument('--expect', metavar='JSON|FILE', help='what the lock expects: cudnn, nccl, operators, '
                        'compute_capabilities, driver_min, detectron; all of it optional (default: expect.json of the '
                        'generation)')
    parser.add_argument('--json', metavar='FILE|-', help='write the report as JSON instead of the table')
    parser.add_argument('--progress', metavar='FILE', help='keep in this file, as JSON, which check is running')
    options = parser.parse_args(arguments)

    installs = dict(item.partition('=')[::2] for item in options.install)
    options.only = options.only.split(',')
    options.rungs = options.rungs.split(',')
    for what, given, known in (('role', options.only + sorted(installs), ROLES), ('rung', options.rungs, RUNGS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error('no such %s: %s; there are %s' % (what, ', '.join(unknown), ', '.join(known)))
    if installs and options.generation:
        parser.error('give either --generation or --install')
    if installs:
        options.generation = ''
    else:
        generation = options.generation or own_generation()
        if not generation:
            parser.error('nothing to check: give --generation or --install, or activate a stack first')
        if not os.path.isdir(generation):
            parser.error('there is no generation %s' % generation)
        options.generation = os.path.realpath(generation)
        installs = dict((role, os.path.join(options.generation, role)) for role in ROLES)
    options.installs = installs
    if options.expect is None:
        recorded = os.path.join(options.generation, 'expect.json')
        options.expect = recorded if options.generation and os.path.exists(recorded) else '{}'
    try:
        if not options.expect.lstrip().startswith('{'):
            with io.open(options.expect, encoding='utf-8') as stream:
                options.expect = stream.read()
        options.expect = json.loads(options.expect)
    except (IOError, ValueError) as error:
        parser.error('--expect is neither JSON nor a file of JSON: %s' % error)
    return options


def own_generation():
    """The activated generation, else the one whose bin holds this file; '' if there is neither."""
    activated = os.environ.get('DETECTRON_GENERATION', '')
    if activated or '__file__' not in globals():  # no __file__: the program came through standard input
        return activated
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return folder if os.path.lexists(os.path.join(folder, 'caffe2')) else ''


def prepare_environment(stack):
    """What all checks need: the installs importable as after activation, and a place for what libraries write."""
    sys.dont_write_bytecode = True  # installs are read-only
    for path in reversed(stack.python_paths):
        if path not in map(os.path.realpath, sys.path):
            sys.path.insert(0, str(path))
    os.environ.setdefault('MPLCONFIGDIR', str(stack.scratch))
    os.environ.setdefault('CUDA_CACHE_MAXSIZE', '4294967295')  # the default of 256 MB does not hold the wheel's
    generations, _ = os.path.split(os.path.realpath(stack.generation))
    if os.path.basename(generations) == 'generations':  # else the driver's own default, ~/.nv
        cache = os.path.join(os.path.dirname(generations), 'var', 'cache', 'cuda')
        os.environ.setdefault('CUDA_CACHE_PATH', str(cache))


def announcer(stream, target, generation, notice):
    """A function that says which check is running: on a terminal, and in the file `target` if there is one."""
    def announce(one):
        if one and target:
            write_report({'generation': generation, 'rung': one.rung, 'check': one.name, 'since': time.time(),
                          'notice': notice if one.gpus else ''}, target)
        if stream.isatty():
            text = '%s: %s' % (one.rung, one.name) if one else ''
            stream.write('\r\033[K' + text + (' (%s)' % notice if one and one.gpus and notice else ''))
            stream.flush()
    return announce


def main(arguments=None):
    options = parse_arguments(arguments)
    scratch = os.path.realpath(tempfile.mkdtemp(prefix='check-ladder-'))
    try:
        probed, cause, _ = in_child(lambda: iter([probe_gpus()]), CPU_CHECK_SECONDS)
        gpus, no_gpu, fault = probed[0][0] if probed else ([], 'a process that asks for GPUs %s' % cause, True)
        stack = Stack(options.installs, options.generation, options.expect, gpus, no_gpu, fault, scratch)
        prepare_environment(stack)
        checks = [one for one in CHECKS if one.component in options.only]
        announce = announcer(sys.stderr, options.progress, options.generation, compilation_notice(stack))
        report = {'schema': SCHEMA, 'host': socket.gethostname(), 'generation': options.generation,
                  'python': '%s (%s)' % (sys.version.split()[0], sys.executable), 'gpus': gpus,
                  'rungs': climb(stack, checks, options.rungs, announce)}
        report['outlook'] = outlook(stack, report['rungs'])
        report['notes'] = [one['detail'] for rung in report['rungs'] for one in rung['checks']
                           if one['detail'].startswith(STAND_IN_MARK)]
        report['notes'] += ['%s: predicted: %s; measured: %s: %s' % (
            gpu_title(row), outlook_words(row['predicted']), outlook_words(row['measured']), verdict(row))
            for row in report['outlook'] if verdict(row)]
    finally:
        shutil.rmtree(scratch)
    if options.json:
        write_report(report, options.json)
    else:
        getattr(sys.stdout, 'buffer', sys.stdout).write(table(report).encode('utf-8'))
    return 1 if any(rung['status'] == FAILED for rung in report['rungs']) else 0


if __name__ == '__main__':
    sys.exit(main())
