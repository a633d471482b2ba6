#!/usr/bin/env bash
# Check that the system's commands are there that a purpose needs. As root on Debian or Ubuntu, install what is missing;
# elsewhere print the one command that does, and fail.
# Usage: scripts/system.sh site | demo | servers | tests
#   site: to provision servers · demo: also to build the mirror, and on this machine · servers: also throwaway servers
#   tests: also every shell that activation is tested with, and the browser that the report is opened in
set -euo pipefail

declare -A package_of=(
  [git]=git [ssh]=openssh-client [gcc]=gcc [g++]=g++
  [/usr/bin/python3]=python3 [ssh-keygen]=openssh-client [sshd]=openssh-server [bwrap]=bubblewrap
  [setpriv]=util-linux [unshare]=util-linux
  [dash]=dash [zsh]=zsh [csh]=csh [tclsh]=tcl
  [chromium]=chromium [chromedriver]=chromium-driver
)
site=(git ssh)
demo=("${site[@]}" gcc g++)
# Throwaway servers see this machine's programs, so what runs on them must be here.
servers=("${demo[@]}" /usr/bin/python3 ssh-keygen sshd bwrap setpriv unshare)
tests=("${servers[@]}" dash zsh csh tclsh chromium chromedriver)

case ${1-} in
  site) needed=("${site[@]}") ;;
  demo) needed=("${demo[@]}") ;;
  servers) needed=("${servers[@]}") ;;
  tests) needed=("${tests[@]}") ;;
  *) echo "Usage: $0 site | demo | servers | tests" >&2 && exit 2 ;;
esac

missing=()
packages=()
check() {
  missing=()
  packages=()
  local command
  for command in "${needed[@]}"; do
    # An ordinary user's PATH often lacks sbin, where sshd is.
    if ! PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null; then
      missing+=("$command")
      packages+=("${package_of[$command]}")
    fi
  done
  [ ${#missing[@]} -eq 0 ]
}

install() {
  echo "Installing with apt-get: ${packages[*]}"
  # Only the programs are wanted: without this, a fresh openssh-server would at once listen on every address.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    # shellcheck disable=SC2064 # expanded now: it is local
    trap "rm -f $policy" EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet=2
  apt-get install --quiet=2 --yes --no-install-recommends "${packages[@]}"
}

check && exit
if command -v apt-get >/dev/null; then
  if [ "$(id -u)" -eq 0 ]; then
    install
    check && exit
  else
    echo "Not installed: ${missing[*]}. Run: sudo apt-get install --yes ${packages[*]}" >&2
    exit 1
  fi
fi
echo "Not installed: ${missing[*]}. Install them with your system's package manager (Debian's packages: ${packages[*]})." >&2
exit 1
