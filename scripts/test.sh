#!/usr/bin/env bash
# Everything that must be green: lint, types, unit tests, then all Molecule scenarios. Called by `make test`.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

export PATH="$PWD/.venv/bin:$PATH"

# The interpreter that the code for the 2.7 environment is tested with: that of the installer in the mirror.
python27() {
  rm -rf .cache/anaconda2
  local installers
  installers=$(ls -t mirror/built/*/Anaconda2-*.sh)
  sh "${installers%%$'\n'*}" -b -p "$PWD/.cache/anaconda2" | tail -n 1
}
export PYTHON27=$PWD/.cache/anaconda2/bin/python2.7

# Ends servers that a killed run left, before and, whatever happens, after.
scenarios() {
  trap 'python tests/fleet/fleet.py down --state .fleet/molecule' EXIT
  molecule destroy --no-command-borders
  molecule test --all --no-command-borders
}

step "System" scripts/system.sh tests
step "yamllint" yamllint --strict .
step "ansible-lint" ansible-lint
step "ruff" ruff check
step "ruff format" ruff format --check
step "mypy" mypy
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Python 2.7" python27
step "pytest" pytest
step "Molecule" scenarios
summary "make test"
