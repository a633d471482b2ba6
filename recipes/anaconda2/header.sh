#!/bin/sh
# NAME:  Anaconda2
# VER:   @VERSION@
# PLAT:  linux-64
# LINES: @LINES@
# MD5:   @MD5@
#
# Anaconda2-compatible, built from Debian and PyPI packages; not made by Anaconda, Inc.
# Everything it writes lies in the prefix; no shell file is edited.

set -eu

usage() {
    cat <<EOF
usage: $0 [options]

Installs Anaconda2 @VERSION@ (compatible, built from Debian and PyPI packages)

-b           run install in batch mode (without questions)
-f           no error if install prefix already exists
-h           print this help message and exit
-p PREFIX    install prefix, defaults to $prefix, must not contain spaces
-u           update an existing installation
EOF
}

fail() {
    printf 'ERROR: %s\n' "$1" >&2
    exit 1
}

# Nothing but the prefix is left behind, and of a failed install not even a prefix that was not there before.
cleanup() {
    status=$?
    trap - EXIT
    [ -z "$scratch" ] || rm -rf "$scratch"
    if [ "$status" -ne 0 ] && [ -n "$created" ]; then
        rm -rf "$prefix"
    fi
    exit "$status"
}

prefix=${HOME:-}/anaconda2
batch=
existing=
scratch=
created=
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

while getopts bfhp:u option; do
    case $option in
        b) batch=yes ;;
        f | u) existing=yes ;;
        h) usage; exit 0 ;;
        p) prefix=$OPTARG ;;
        *) fail 'did not recognize option, please try -h' ;;
    esac
done

if [ -z "$batch" ]; then
    printf 'Anaconda2 @VERSION@ (compatible, built from Debian and PyPI packages) will be installed into\n%s\n' "$prefix"
    printf 'Press ENTER to confirm, CTRL-C to abort, or specify a different location:\n>>> '
    read -r answer || fail 'no answer; use -b to install without questions'
    prefix=${answer:-$prefix}
fi

case $prefix in
    /*) ;;
    *) prefix=$(pwd)/$prefix ;;
esac
while [ "$prefix" != "${prefix%/}" ]; do prefix=${prefix%/}; done

case $prefix in
    '') fail 'The root folder cannot be the install prefix: choose another with -p.' ;;
    *' '*) fail "Cannot install into directories with spaces: '$prefix'" ;;
    *[!A-Za-z0-9/._+@=~-]*) fail "Cannot install into '$prefix': only letters, digits and / . _ + @ = ~ - work in a prefix." ;;
esac
# Linux cuts the first line of a script, '#!PREFIX/bin/python', after 127 characters.
shebang="#!$prefix/bin/python"
if [ "${#shebang}" -gt 127 ]; then
    fail "The prefix is too long: '$prefix' has ${#prefix} characters, scripts in it work up to $((127 - ${#shebang} + ${#prefix}))."
fi
if [ -z "$existing" ] && { [ -e "$prefix" ] || [ -L "$prefix" ]; }; then
    fail "File or directory already exists: '$prefix'
If you want to update an existing installation, use the -u option."
fi
[ "$(uname -sm)" = 'Linux x86_64' ] || fail "This installer is for Linux x86_64, not for $(uname -sm)."

sum=$(tail -n +@LINES@ "$0" | md5sum | cut -c 1-32)
if [ "$sum" != @MD5@ ]; then
    fail "md5sum mismatch of the payload: expected @MD5@, got $sum.
The installer is damaged or incomplete; fetch it again."
fi

[ -e "$prefix" ] || created=yes
mkdir -p "$prefix" || fail "Could not create directory: '$prefix'"
prefix=$(cd "$prefix" && pwd)
printf 'PREFIX=%s\n' "$prefix"

scratch=$prefix/.install
rm -rf "$scratch"
mkdir -p "$scratch/boot" "$scratch/home" "$scratch/tmp" "$scratch/cache" "$prefix/pkgs"
tail -n +@LINES@ "$0" | tar -xf - -C "$scratch"

# A temporary Python with conda, from the same packages (gzip inside, though conda wants them called .tar.bz2). The
# packages stay in the prefix: from them, conda makes more environments without a network.
set --
for package in "$scratch"/pkgs/*.tar.bz2; do
    tar -xzf "$package" -C "$scratch/boot"
    mv -f "$package" "$prefix/pkgs/"
    set -- "$@" "$prefix/pkgs/${package##*/}"
done

# Nothing of the user's environment reaches conda, and conda writes nothing into the user's home.
env -i PATH=/usr/bin:/bin HOME="$scratch/home" TMPDIR="$scratch/tmp" LC_ALL=C PYTHONDONTWRITEBYTECODE=1 \
    CONDA_ROOT_DIR="$prefix" CONDA_PKGS_DIRS="$scratch/cache" CONDA_OFFLINE=true \
    "$scratch/boot/bin/python" -E -s "$scratch/bootstrap.py" "$prefix" "$@" ||
    fail 'conda could not link the packages; its message stands above.'

printf 'installation finished.\n'
exit 0
