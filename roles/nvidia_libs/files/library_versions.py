"""Prints the versions that cuDNN and NCCL in the folder argv[1] report, as JSON. Needs no GPU."""

from __future__ import annotations

import ctypes
import json
import mmap
import re
import sys
from pathlib import Path

folder = Path(sys.argv[1])
cudnn = ctypes.CDLL(str(folder / "libcudnn.so.7"))
cudnn.cudnnGetVersion.restype = ctypes.c_size_t
ctypes.CDLL(str(folder / "libnccl.so.2"))
# NCCL 2.1 and 2.2 have no ncclGetVersion: the text is what all of them have.
with (folder / "libnccl.so.2").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
    nccl = re.search(rb"NCCL version ([0-9.]+\+cuda[0-9.]+)", text)
    print(json.dumps({"cudnn": cudnn.cudnnGetVersion(), "nccl": nccl[1].decode() if nccl else "unknown"}))
