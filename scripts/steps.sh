# Sourced by demo.sh and test.sh: named steps with their times. The first step that fails ends the script.

step_times=()

# Usage: step TITLE COMMAND …
step() {
  local title=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$title"
  if ! "$@"; then
    printf '\n== %s: FAILED after %d s. The command was:\n   %s\n' "$title" $((SECONDS - start)) "$*" >&2
    exit 1
  fi
  step_times+=("$(printf '%6d s  %s' $((SECONDS - start)) "$title")")
  printf '== %s: %d s\n' "$title" $((SECONDS - start))
}

# Usage: summary TITLE
summary() {
  echo
  printf '%s\n' "${step_times[@]}"
  printf '%6d s  %s: all %d steps passed\n' "$SECONDS" "$1" "${#step_times[@]}"
}
