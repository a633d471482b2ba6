# What a server tells without Python, as KEY=value lines: playbooks/doctor.yml sends this to /bin/sh. It writes nothing.
# $1: the prefix (`~` is the home), $2: the Python that Ansible is told to use; "bootstrap" is the one in the prefix.

prefix=$1
python=$2
case $prefix in
  "~" | "~/"*) prefix=$HOME${prefix#"~"} ;;
esac
case $python in
  auto*) python=python3 ;; # Ansible looks for one by itself
  bootstrap)
    python=$prefix/var/python3
    for file in "$python"/*/bin/python3; do
      [ -x "$file" ] && python=$file
    done
    ;;
esac

version_of() {
  "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null </dev/null
}

# Every python3 and python3.N on PATH and where people and sites put more, in that order.
all_pythons() {
  IFS=:
  for folder in $PATH /usr/local/bin /usr/bin "$HOME/bin" "$HOME/.local/bin" "$prefix"/var/python3/*/bin; do
    for file in "$folder"/python3 "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
      [ -x "$file" ] && found=$(version_of "$file") && echo "found=$found $file"
    done
  done
}

free_bytes() {
  set -- $(df -P -k "$1" 2>/dev/null | tail -n 1)
  [ -n "$4" ] && echo "$(($4 * 1024))"
}

# Why C cannot be compiled here; nothing where it can. The sources go no further than the compiler's parser.
compiler_error() {
  if ! command -v gcc >/dev/null; then
    echo "there is no gcc on PATH"
  elif ! said=$(echo '#include <stdlib.h>' | LC_ALL=C gcc -fsyntax-only -x c - 2>&1); then
    echo "${said:-it fails and says nothing}" | head -n 1
  fi
}

nearest=$prefix
while [ ! -e "$nearest" ] && [ "$nearest" != / ]; do
  nearest=$(dirname "$nearest")
done

echo "architecture=$(uname -m)"
echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')"
echo "user=$(id -un 2>/dev/null || id -u)"
echo "executable=$python"
echo "python=$(version_of "$python")"
(all_pythons)
echo "prefix=$prefix"
echo "nearest=$nearest"
[ -d "$nearest" ] && [ -w "$nearest" ] && [ -x "$nearest" ] && echo "writable=yes"
echo "free_bytes=$(free_bytes "$nearest")"
[ -e "$prefix/current" ] && echo "installed=yes"
echo "compiler_error=$(compiler_error)"
echo "driver=$(sed -n 's/^NVRM version:.*[[:space:]]\([0-9][0-9]*\.[0-9.]*\)[[:space:]].*/\1/p' /proc/driver/nvidia/version 2>/dev/null)"
exit 0
