"""playbooks/doctor.yml on a server with a whole install that something has altered."""

from __future__ import annotations

import re

from tests.integration.site_run import FirstRun

# Keeps copies of what it alters. Of the folders of an install nothing changes.
ALTER = """
cd {prefix}
file=$(echo opt/detectron/*/detectron/__init__.py)
record=$(echo checks/*/ladder.json)
cp -p "$file" "$record" /tmp
chmod u+w "$file"
echo "# altered" >>"$file"
python3 - "$record" <<'PYTHON'
import json, sys
record = json.load(open(sys.argv[1]))
[check] = [check for rung in record["rungs"] for check in rung["checks"] if check["name"] == "boxes"]
check.update(status="failed", reason="IoU is 2", remedy="ansible-playbook site.yml --tags detectron")
json.dump(record, open(sys.argv[1], "w"))
PYTHON
"""
RESTORE = """
cd {prefix}
for path in opt/detectron/*/detectron/__init__.py checks/*/ladder.json; do
    kept=/tmp/${{path##*/}}
    cat "$kept" >"$path"
    touch -r "$kept" "$path"
    chmod --reference="$kept" "$path"
    rm -f "$kept"
done
"""


def test_the_doctor_finds_damage_and_a_failed_rung_and_nothing_when_they_are_mended(first_run: FirstRun) -> None:
    site = first_run.site
    site.shell(ALTER.format(prefix=site.prefix))
    try:
        before = site.snapshot(f"{site.prefix}/var")
        done = site.play("playbooks/doctor.yml")
        assert site.snapshot(f"{site.prefix}/var") == before
    finally:
        site.shell(RESTORE.format(prefix=site.prefix))
    said = re.sub(r"\s+", " ", done.stdout)
    assert done.returncode == 2, done.stdout
    assert re.findall(r"STOP (\w+):", said) == ["install_damaged", "ladder_numerics"], done.stdout
    assert "detectron/__init__.py has another mode" in said
    assert "boxes: IoU is 2. Cause So it was when the ladder was last climbed, on 20" in said
    site_yml = f"ansible-playbook -i {site.fleet.state}/inventory.yml site.yml --limit {site.server.name}"
    assert f"Remedy {site_yml} --extra-vars stack_deep=true" in said
    assert f"Remedy {site_yml} --tags detectron; then: {site_yml} --tags verify" in said
    assert "because of install_damaged, ladder_numerics." in said

    done = site.play("playbooks/doctor.yml")
    assert done.returncode == 0 and "Nothing is wrong that keeps cuda90_wheel from working" in done.stdout, done.stdout
