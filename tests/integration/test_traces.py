"""An install leaves nothing outside its prefix."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.integration.site_run import FirstRun


def test_first_install_touches_nothing_outside_the_prefix(first_run: FirstRun) -> None:
    """Paths, types, modes, sizes, times of files and targets of links in HOME, /tmp and /var/tmp."""
    assert f"{first_run.site.server.home}/.condarc" in first_run.before
    way_to_prefix = {str(folder) for folder in PurePosixPath(first_run.site.prefix).parents}
    after = {path: entry for path, entry in first_run.after.items() if path not in way_to_prefix}
    assert after == first_run.before
