#!/usr/bin/env bash
# Make an empty Python environment from the newest Python on this machine that the project runs on, or, with LANE, from
# one of that lane (lanes.sh). PYTHON=/path/to/python3 chooses one.
# Usage: scripts/venv.sh FOLDER [LANE]
# Exit status: 3 where there is no such Python.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lanes.sh
folder=$1 wanted=${2-}

# Prints "<version> <lane>" of a Python that is in a lane. Tried by running: a version manager's shim is on PATH even
# where its Python is not installed, and Debian's python3 has no ensurepip until python3-venv is installed.
lane_of() {
  "$1" - "${lanes[@]}" <<'PROGRAM' 2>/dev/null
import ensurepip, sys, venv
for lane in sys.argv[1:]:
    name, first, limit = lane.split()[:3]
    if [int(number) for number in first.split(".")] <= list(sys.version_info[:2]) < [int(n) for n in limit.split(".")]:
        print("%d.%d.%d" % sys.version_info[:3], name)
PROGRAM
}

candidates() {
  if [ -n "${PYTHON-}" ]; then
    echo "$PYTHON"
    [ -n "$wanted" ] || return 0
  fi
  printf '%s\n' python3 python3.{11..20} /usr/bin/python3
  # Of pyenv, which hides all but the chosen versions behind shims that fail.
  local folder
  tr ':' '\n' <<<"$PATH" | sed -n 's|/shims$||p' | while IFS= read -r folder; do
    printf '%s\n' "$folder"/versions/*/bin/python3
  done
}

# Prints "<version> <path>" of the newest.
find_python() {
  local candidate version lane
  candidates | while IFS= read -r candidate; do
    if command -v "$candidate" >/dev/null && read -r version lane < <(lane_of "$candidate"); then
      if [ -z "$wanted" ] || [ "$lane" = "$wanted" ]; then echo "$version $candidate"; fi
    fi
  done | sort --stable --version-sort --key=1,1 | tail -n 1
}

if ! read -r version python < <(find_python); then
  if [ -n "$wanted" ]; then
    echo "No Python of lane $wanted, with its module venv, was found." >&2
  else
    echo "No Python from 3.11 to 3.14, with its module venv, was found${PYTHON:+: $PYTHON is none}." >&2
    echo "Debian or Ubuntu: apt-get install python3-venv. Elsewhere install one and name it: make PYTHON=/path/to/python3 …" >&2
  fi
  exit 3
fi
if [ -L "$folder" ]; then
  # It would be emptied where it leads to, under others that use it.
  echo "$folder is a link. Remove it, or run what you want without make." >&2
  exit 1
fi
echo "Making $folder with Python $version ($python)"
"$python" -m venv --clear "$folder"
