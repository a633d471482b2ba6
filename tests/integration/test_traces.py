"""Nothing is left outside the prefix, and nothing that people have made is touched."""

from __future__ import annotations

from pathlib import PurePosixPath

from tests.integration.site_run import FirstRun


def test_first_install_touches_nothing_outside_the_prefix(first_run: FirstRun) -> None:
    """Paths, types, modes, sizes, times of files and targets of links in HOME, /tmp and /var/tmp."""
    assert f"{first_run.site.server.home}/.condarc" in first_run.before
    way_to_prefix = {str(folder) for folder in PurePosixPath(first_run.site.prefix).parents}
    after = {path: entry for path, entry in first_run.after.items() if path not in way_to_prefix}
    assert after == first_run.before


def test_a_workspace_is_built_verified_and_then_left_alone(first_run: FirstRun) -> None:
    """Made once, in the account in which other installs break; what a person changes in it stays, and is told."""
    site = first_run.site
    work = f"{site.prefix}/work"
    asked = ("-e", "workspace_name=alice")
    try:
        outside = site.snapshot(site.prefix)
        made = site.play("playbooks/workspace.yml", *asked)
        assert made.returncode == 0, made.stdout
        assert "passes the check ladder's checks of Detectron" in " ".join(made.stdout.split())
        assert site.snapshot(site.prefix) == outside
        program = "import detectron.utils.cython_bbox as b; print(b.__file__)"
        said = site.shell(
            f"set -u; . {work}/alice/activate.sh; python -c '{program}'; echo '# mine' >>$DETECTRON/setup.py"
        )
        assert said == f"{work}/alice/detectron/detectron/utils/cython_bbox.so\n"
        before = site.shell(f"find {work} -printf '%p %s %T@ %m\n' | sort")
        again = site.play("playbooks/workspace.yml", *asked)
        assert again.returncode == 0 and "changed=0 " in again.stdout, again.stdout
        assert "- 'modified: setup.py'" in again.stdout and "differs from that commit in 1 files" in again.stdout
        assert site.shell(f"find {work} -printf '%p %s %T@ %m\n' | sort") == before
    finally:
        site.shell(f"rm -rf {work}")
