#!/usr/bin/env bash
# Show every obstacle on a throwaway server: how it fails without us, and that it does not with us. Called by
# `make obstacles`. What is there already, the server included, serves again.
# Usage: scripts/obstacles.sh [ID …]
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

state=.fleet/obstacles
export PATH="$PWD/.venv/bin:$PATH"
if [ -t 1 ]; then export ANSIBLE_FORCE_COLOR=1; fi

fleet() { python tests/fleet/fleet.py "$1" --state $state "${@:2}"; }

start_server() {
  fleet up && fleet inventory --group stack_cuda90_wheel
}

provision() {
  ansible-playbook --inventory $state/inventory.yml --extra-vars @mirror/sources.yml site.yml
}

step "System" scripts/system.sh tests
step "Mirror" ansible-playbook playbooks/mirror.yml
step "Throwaway server" start_server
step "Provision it" provision
step "Obstacles" python tests/obstacles/show.py --state $state "$@"
summary "make obstacles"
printf '\nOne of them again:    make obstacles ARGS=no_display\nRemove the server:    make clean\n'
