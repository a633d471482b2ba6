#!/usr/bin/env bash
# Provision a throwaway server over SSH, twice; the second run must change nothing. Called by `make demo`.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
. scripts/steps.sh

state=.fleet/demo
stack=stack_cuda90_wheel
export PATH="$PWD/.venv/bin:$PATH"
if [ -t 1 ]; then export ANSIBLE_FORCE_COLOR=1; fi # its output goes through tee

fleet() { python tests/fleet/fleet.py "$1" --state $state "${@:2}"; }

start_server() {
  fleet up && fleet inventory --group $stack
}

# Where no throwaway server can be started: this machine itself, with a HOME of its own.
use_this_machine() {
  export HOME=$PWD/$state/home
  mkdir -p "$HOME"
  cat >$state/inventory.yml <<INVENTORY
$stack:
  hosts:
    server1:
      ansible_connection: local
      ansible_python_interpreter: /usr/bin/python3
INVENTORY
}

# Usage: provision LOG_FILE
provision() {
  ansible-playbook --inventory $state/inventory.yml --extra-vars @mirror/sources.yml site.yml 2>&1 | tee "$1"
}

provision_again() {
  provision $state/second.log && scripts/recap.py $state/second.log
}

step "System" scripts/system.sh demo
step "Mirror" ansible-playbook playbooks/mirror.yml
if scripts/system.sh servers && fleet probe; then
  step "Throwaway server" start_server
  look="tests/fleet/fleet.py shell --state $state server1"
else
  state=.fleet/demo-local
  echo "So the demo uses this machine itself, over a local connection, as $(id -un), in a throwaway HOME: $state/home"
  step "Throwaway HOME" use_this_machine
  look="HOME=$PWD/$state/home bash --login"
fi
step "First run" provision $state/first.log
step "Second run" provision_again
summary "make demo"
printf '\nLog in and look:      %s\nRun it again:         make demo\nRemove the server:    make clean\n' "$look"
