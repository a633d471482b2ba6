"""What holds after the runs of every scenario."""

from __future__ import annotations

import hashlib
from pathlib import Path

from testinfra.host import Host

from scripts.recap import complaint, counts_by_host

PREPARED_HOME = Path(__file__).parents[1] / "files/home"
PLAY_IN_CHECK_MODE = "PLAY [Provision the servers] [CHECK MODE]"


def test_check_mode_says_that_nothing_would_change(log: str) -> None:
    assert PLAY_IN_CHECK_MODE in log, "run `molecule check` before `molecule verify`"
    assert complaint(log[log.rindex(PLAY_IN_CHECK_MODE) :]) == ""


def test_each_server_took_part(log: str, host: Host) -> None:
    assert host.check_output("hostname") in counts_by_host(log)


def test_home_holds_what_it_held_before_and_the_prefix(host: Host) -> None:
    before = {*host.check_output("ls -A /etc/skel").split(), *(path.name for path in PREPARED_HOME.iterdir())}
    assert set(host.check_output("ls -A ~").split()) == before | {"detectron"}


def test_settings_of_the_person_are_untouched(host: Host) -> None:
    prepared = {str(path.relative_to(PREPARED_HOME)): path for path in PREPARED_HOME.rglob("*") if path.is_file()}
    tops = " ".join(path.name for path in PREPARED_HOME.iterdir())
    sums = host.check_output(f"cd ~ && find {tops} -type f -exec sha256sum {{}} +").splitlines()
    assert dict(reversed(line.split("  ")) for line in sums) == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in prepared.items()
    }
