"""Every obstacle of the catalogue is real, and does not stop the stack."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.site_run import FirstRun, Site
from tests.obstacles.catalogue import Obstacle, catalogue
from tests.obstacles.stage import Stage


@pytest.fixture(scope="module")
def stage(first_run: FirstRun) -> Stage:
    return Stage(first_run.site)


@pytest.mark.parametrize("obstacle", catalogue(), ids=lambda obstacle: obstacle.id)
def test_obstacle_stops_a_person_and_not_the_stack(stage: Stage, obstacle: Obstacle) -> None:
    assert stage.play(obstacle).complaint == ""


def test_the_doctor_shows_what_can_be_seen_of_the_account(first_run: FirstRun) -> None:
    """All findings that an obstacle names, but those that no account can have by itself."""
    findings = {obstacle.finding for obstacle in catalogue()} - {"", "operators_elsewhere", "tmp", "umask"}
    done = first_run.site.play("playbooks/doctor.yml")
    assert [finding for finding in findings if f"INFO  {finding}: " not in done.stdout] == [], done.stdout


@pytest.mark.parametrize("line", ["exec /bin/sh", "exec csh", "sleep 1000"])
def test_a_login_that_runs_no_commands_is_named(fresh_site: Callable[[], Site], line: str) -> None:
    """A command over SSH would wait for ever, as here: what .bashrc starts reads from standard input, or nothing."""
    site = fresh_site()
    site.shell(f"echo '{line}' >~/.bashrc")
    before = site.snapshot()
    for playbook in ["site.yml", "playbooks/doctor.yml"] if line == "exec /bin/sh" else ["site.yml"]:
        done = site.play(playbook)
        assert done.returncode == 2, done.stdout
        said = " ".join(done.stdout.split())
        assert f"{site.server.name} can be logged in to, and did not answer a command" in said
        assert "A start-up file of the login shell (.bashrc, .cshrc, .zshenv) replaces it by another shell" in said
    assert site.snapshot() == before
