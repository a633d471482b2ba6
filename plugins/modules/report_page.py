#!/usr/bin/python
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report_page
short_description: Write the page about all servers and their runs
description:
  - Writes one HTML file, which needs no other and no network, out of what C(report_info) has kept of each server.
  - Servers that were not asked now, or did not answer, are shown as they were known.
options:
  path: {description: 'The page, on the controller.', type: path, required: true}
  state: {description: 'Folder in which C(report_info) keeps what servers told.', type: path, required: true}
  servers: {description: Names of all servers., type: list, elements: str, required: true}
  asked: {description: Those that were asked now., type: list, elements: str, required: true}
"""

RETURN = r"""
path: {description: The page., type: str, returned: success}
bytes: {description: How large it is., type: int, returned: success}
lines: {description: 'What it says, for the terminal.', type: list, returned: success}
"""
