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

# Ends servers that a killed run left, before and, whatever happens, after.
# Usage: scenarios --all | --scenario-name NAME
scenarios() {
  trap 'python tests/fleet/fleet.py down --state .fleet/molecule' EXIT
  molecule destroy --no-command-borders
  molecule test "$@" --no-command-borders
}

# By file, in the order of their names: tests/integration, whose files take minutes, before the many small ones that
# fill what is left of the time.
all_pytest() {
  pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --durations 30 "$@"
}

# Side by side, because each leaves cores idle: Molecule runs a task at a time, on the slowest of its servers, and tests
# wait for what they ask of others.
# Usage: pytest_and_molecule --all | --scenario-name NAME [-- TESTS …]
pytest_and_molecule() {
  local log=.cache/molecule.log pytest_log=.cache/pytest.log molecule failed=() chosen=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    chosen+=("$1")
    shift
  done
  echo "Molecule runs at the same time. What it prints is in $log, and comes here when all has ended."
  set -m # a process group of its own, which can be ended as a whole
  scenarios "${chosen[@]}" >"$log" 2>&1 &
  molecule=$!
  set +m
  trap 'kill -- "-$molecule"; wait "$molecule"; exit 130' INT TERM
  all_pytest "${@:2}" 2>&1 | tee "$pytest_log" || failed+=(pytest)
  wait "$molecule" || failed+=(Molecule)
  trap - INT TERM
  printf '\n-- Molecule\n'
  cat "$log"
  # What failed comes last, where one looks first.
  case " ${failed[*]} " in *" pytest "*) printf '\n-- pytest\n'; sed -n '/^=.* FAILURES =/,$p' "$pytest_log" ;; esac
  [ ${#failed[@]} -eq 0 ] || { echo "FAILED: ${failed[*]}" >&2; return 1; }
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
  export PATH="$PWD/$environment/bin:$system_path"
  step "Lane $1: ansible-lint" ansible-lint
  step "Lane $1: unit tests and scenario site" pytest_and_molecule --scenario-name site -- tests/unit
}

step "System" scripts/system.sh tests
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint
step "ruff" ruff check
step "ruff format" ruff format --check
step "mypy" mypy
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Python 2.7" python27
step "pytest and Molecule" pytest_and_molecule --all
main_lane=$(core)
for lane in "${lanes[@]}"; do
  if [ "${lane%% *}" != "$main_lane" ]; then other_lane "${lane%% *}"; fi
done
summary "make test"
