#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_complete
short_description: Find what a lock lacks, and say whose word each value is
description:
  - Finds file names, sha256 sums and sizes that are C(null) or missing, the full commit id of a branch or tag, and
    submodules where C(submodules) is C(null). Downloads what it has to into the mirror.
  - Writes the completed lock beside the original as C(<lock>.new), comments and order preserved. Fails, after that,
    where something could not be found.
  - Runs on the controller alone. In check mode, says what is missing and downloads nothing.
options:
  lock: {description: The lock., type: path, required: true}
  mirror: {description: Folder of the mirror., type: path, required: true}
  write: {description: Whether to replace the lock instead of writing beside it., type: bool, default: false}
  pypi_index: {description: Package index; by default pip's own setting., type: str, default: ''}
  debian_mirror: {description: Debian mirror; by default that of APT's settings., type: str, default: ''}
"""

RETURN = r"""
report: {description: A line per file or repository that lacked something., type: list, returned: always}
lock: {description: The file that was written; empty when none was., type: str, returned: always}
"""
