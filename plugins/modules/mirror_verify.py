#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mirror_verify
short_description: Check that a mirror still holds what it was filled with
description:
  - Re-hashes every file; compares built artifacts with their own records and those with C(manifest.json), so that a
    file and its record that were edited together are noticed too; checks the objects of the git repositories.
  - Runs on the controller alone, and changes nothing. Fails naming all that is missing or altered.
options:
  path: {description: The mirror., type: path, required: true}
"""

RETURN = r"""
msg: {description: What was checked., type: str, returned: success}
"""
