"""Every tag is safe to run on its own, and check mode tells what a run would do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.site_run import Site

# What a tag says on a server that has nothing yet.
REMEDIES = {
    "caffe2": "Run `ansible-playbook site.yml --tags anaconda2` first",
    "cocoapi": "Run `ansible-playbook site.yml --tags caffe2` first",
    "detectron": "Run `ansible-playbook site.yml --tags caffe2` first",
    "activation": "Run `ansible-playbook site.yml --tags nvidia_libs` first",
    "verify": "Mend it with: ansible-playbook site.yml",
}

INSTALLS = ("nvidia_libs", "anaconda2", "caffe2", "cocoapi", "detectron")


@pytest.mark.parametrize("tag", ["preflight", "nvidia_libs", "anaconda2"])
def test_tag_that_needs_no_other_works_on_a_fresh_server(fresh_site: Callable[[], Site], tag: str) -> None:
    done = fresh_site().provision("--tags", tag)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("tag", REMEDIES)
@pytest.mark.parametrize("mode", [(), ("--check", "--diff")], ids=["run", "check"])
def test_tag_that_needs_another_names_it_and_changes_nothing(
    fresh_site: Callable[[], Site], tag: str, mode: tuple[str, ...]
) -> None:
    site = fresh_site()
    before = site.snapshot()
    done = site.provision("--tags", tag, *mode)
    assert done.returncode != 0, done.stdout
    assert REMEDIES[tag] in " ".join(done.stdout.split())
    assert site.snapshot() == before


def test_check_mode_on_a_fresh_server_says_what_would_be_installed(fresh_site: Callable[[], Site]) -> None:
    site = fresh_site()
    before = site.snapshot()
    done = site.provision("--check", "--diff")
    assert done.returncode == 0, done.stdout
    for role in INSTALLS:
        assert f"+{role}: {site.prefix}/opt/{role}/" in done.stdout
    assert site.snapshot() == before
