"""Nothing to do costs next to nothing."""

from __future__ import annotations

from scripts.recap import complaint
from tests.integration.site_run import FirstRun


def test_second_run_changes_nothing_in_three_remote_calls(first_run: FirstRun) -> None:
    """Counted by the server's own sshd, preflight included."""
    site = first_run.site
    site.fleet.reset_calls(site.server)
    done = site.provision()
    assert done.returncode == 0, done.stdout
    assert complaint(done.stdout) == "", done.stdout
    assert site.fleet.calls(site.server)["sessions"] in (1, 2, 3)
