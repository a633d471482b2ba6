#!/usr/bin/env bash
# Everything that must be green: lint, types, unit tests, then all Molecule scenarios. Called by `make test`.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh
. scripts/lanes.sh

system_path=$PATH
export PATH="$PWD/.venv/bin:$system_path"
core() { ansible --version | sed -n '1s/.*core \([0-9]*\.[0-9]*\).*/\1/p'; }

# The interpreter that the code for the 2.7 environment is tested with: that of the installer in the mirror.
python27() {
  rm -rf .cache/anaconda2
  local installers
  installers=$(ls -t mirror/built/*/Anaconda2-*.sh)
  sh "${installers%%$'\n'*}" -b -p "$PWD/.cache/anaconda2" | tail -n 1
}
export PYTHON27=$PWD/.cache/anaconda2/bin/python2.7

# On servers of its own, which end before and, whatever happens, after.
# Usage: scenarios --all | --scenario-name NAME
scenarios() (
  trap 'python tests/fleet/fleet.py down --state "$SCENARIO_SERVERS"' EXIT
  molecule destroy --no-command-borders && molecule test "$@" --no-command-borders
)
export SCENARIO_SERVERS=.fleet/molecule

molecule='' molecule_log=.cache/molecule.log pytest_log=.cache/pytest.log

# All scenarios, while the tests run: Molecule runs a task at a time, on the slowest of its servers, and tests wait for
# what they ask of others, so that each leaves cores idle.
begin_molecule() {
  echo "What it prints is in $molecule_log, and comes here when it has ended."
  set -m # a process group of its own, which can be ended as a whole
  scenarios --all >"$molecule_log" 2>&1 &
  molecule=$!
  set +m
  trap 'kill -- "-$molecule" || :; exit 130' INT TERM
  trap 'tell_of_both' EXIT
}

end_molecule() {
  local status=0
  wait "$molecule" || status=$?
  molecule=''
  cat "$molecule_log"
  return $status
}

# After a failure: what else failed, and, last, where one looks first, the tests that did.
tell_of_both() {
  if [ -n "$molecule" ]; then
    printf '\n== Molecule: waiting for its end, to tell of it as well\n'
    end_molecule || echo 'FAILED: Molecule' >&2
    sed -n '/^=.* FAILURES =/,$p' "$pytest_log"
  fi
}

# By file, in the order of their names: tests/integration, whose files take minutes, before the many small ones that
# fill what is left of the time.
all_pytest() {
  pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 30 "$@" 2>&1 | tee "$pytest_log"
}

# The part of the tests that another ansible-core could fail.
# Usage: other_lane NAME
other_lane() {
  local environment=.cache/lane-$1 made=0
  [ -x "$environment/bin/python" ] || scripts/venv.sh "$environment" "$1" || made=$?
  if [ $made -eq 3 ]; then
    not_run+=("lane $1: this machine has no Python that gets ansible-core $1 (scripts/lanes.sh)")
    return
  fi
  step "Lane $1: environment" make --no-print-directory VENV="$environment" LANE="$1" "$environment/test.stamp"
  # Molecule of the other lane is at work on what it keeps in ANSIBLE_HOME.
  export PATH="$PWD/$environment/bin:$system_path" ANSIBLE_HOME="$PWD/$environment/ansible" \
    SCENARIO_SERVERS=.fleet/molecule-$1
  step "Lane $1: ansible-lint" ansible-lint
  step "Lane $1: unit tests" all_pytest tests/unit
  step "Lane $1: scenario site" scenarios --scenario-name site
}

step "System" scripts/system.sh tests
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint
step "ruff" ruff check
step "ruff format" ruff format --check
step "mypy" mypy
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Python 2.7" python27
step "Molecule begins, beside the tests" begin_molecule
step "pytest" all_pytest
main_lane=$(core)
for lane in "${lanes[@]}"; do
  if [ "${lane%% *}" != "$main_lane" ]; then other_lane "${lane%% *}"; fi
done
step "Molecule ends" end_molecule
summary "make test"
