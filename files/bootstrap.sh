# What role bootstrap does on a server without a usable Python. The action plugin bootstrap_python sends it to
# `/bin/sh -s`, after a line that sets the arguments: a verb and what it needs. It answers in KEY=value lines.

# Where a prefix of the inventory is.
expanded() {
  case $1 in
    "~" | "~/"*) echo "$HOME${1#"~"}" ;;
    '$HOME' | '$HOME/'*) echo "$HOME${1#'$HOME'}" ;;
    *) echo "$1" ;;
  esac
}

# Whose the prefix is: owner=STACK, or foreign= what it is instead. Nothing where it is nobody's yet.
owner() {
  if [ -e "$1" ] && [ ! -d "$1" ]; then
    echo "foreign=file"
  elif [ -s "$1/.stack.json" ]; then
    echo "owner=$(sed -n 's/^ *"stack": "\(.*\)",*$/\1/p' "$1/.stack.json")"
  elif [ -d "$1" ]; then
    # Beside the marker's drafts, the var/tmp that Ansible makes where it cannot pipeline is ours.
    case $(ls -A "$1" | grep -v '^\.stack\.json') in
      "") ;;
      var) [ "$(ls -A "$1/var")" = tmp ] || echo "foreign=folder" ;;
      *) echo "foreign=folder" ;;
    esac
  fi
}

# Prints what the look-up says of an install, "present …" or "damaged …"; asked is the Python in it.
whole() {
  "$1/bin/python3" -I -B - "$1" "$2" <<'PROGRAM'
@STATE@
PROGRAM
}

# look PREFIX DEEP NAME…: what there is. DEEP: "deep" compares contents, too.
look() {
  prefix=$(expanded "$1")
  deep=$2
  shift 2
  echo "prefix=$prefix"
  echo "server=$(uname -n)"
  owner "$prefix"
  above=$prefix
  while [ ! -e "$above" ] && [ "$above" != / ] && [ "$above" != . ]; do
    echo "made=$above"
    above=$(dirname "$above")
  done
  echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')"
  echo "machine=$(uname -m)"
  for tool in tar gzip sha256sum; do
    command -v "$tool" >/dev/null || echo "lacks=$tool"
  done
  for name in "$@"; do
    path=$prefix/var/python3/$name
    if [ ! -e "$path/receipt.json" ]; then
      echo "absent=$name"
    elif said=$(whole "$path" "$deep" 2>&1); then
      echo "${said%% *}=$name ${said#* }"
    else
      echo "damaged=$name it does not work: $(echo "$said" | tail -n 1)"
    fi
  done
}

# begin PREFIX MARKER DRAFT: make the prefix this stack's, and a folder for what comes.
begin() {
  mkdir -p "$1" || return
  if [ ! -s "$1/.stack.json" ]; then
    printf '%s\n' "$2" >"$1/.stack.json.$$.new" && mv -f "$1/.stack.json.$$.new" "$1/.stack.json" || return
  fi
  mkdir -p "$3" "$1/var/python3"
}

# download SOURCE FILE: SOURCE is an address, or a path of this server. FILE may be - .
download() {
  case $1 in
    *://*)
      if command -v curl >/dev/null; then
        curl -fsSL --connect-timeout 30 -o "$2" "$1"
      elif command -v wget >/dev/null; then
        wget -q -T 30 -O "$2" "$1"
      else
        echo "neither curl nor wget is on this server" >&2
        return 1
      fi
      ;;
    *) if [ "$2" = - ]; then cat "$1"; else cp "$1" "$2"; fi ;;
  esac
}

# fetch DRAFT SHA256 SOURCE…: the first source that has the bytes. Says fetched=NUMBER, or why not: tried=NUMBER …
fetch() {
  draft=$1 sum=$2 number=0
  shift 2
  for source in "$@"; do
    if ! said=$(download "$source" "$draft/archive" 2>&1 </dev/null); then
      echo "tried=$number $(echo "${said:-it does not answer}" | tail -n 1)"
    elif ! verified "$draft/archive" "$sum"; then
      echo "tried=$number its bytes do not have the locked sha256 $sum"
    else
      echo "fetched=$number"
      return
    fi
    number=$((number + 1))
  done
}

verified() {
  [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ]
}

# unpack DRAFT SHA256: DRAFT/archive, once it is verified, to DRAFT/python. Says python=VERSION, or failed=WHY.
unpack() {
  if ! verified "$1/archive" "$2"; then
    echo "failed=sum"
  elif ! said=$(cd "$1" && tar -xzf archive </dev/null 2>&1 && rm archive); then
    echo "failed=$(echo "$said" | tail -n 1)"
  elif said=$("$1/python/bin/python3" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>&1 </dev/null); then
    echo "python=$said"
  else
    echo "failed=it does not start: $(echo "$said" | tail -n 1)"
  fi
}

"$@"
