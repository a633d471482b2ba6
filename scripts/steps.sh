# Sourced by demo.sh and test.sh: named steps with their times. The first step that fails ends the script.

step_times=()
not_run=() # what this machine could not run, each with its reason

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
  local without="all ${#step_times[@]} steps passed" reason
  if [ ${#not_run[@]} -gt 0 ]; then without="${#step_times[@]} steps passed, ${#not_run[@]} NOT RUN"; fi
  printf '%6d s  %s: %s\n' "$SECONDS" "$1" "$without"
  for reason in ${not_run[@]+"${not_run[@]}"}; do printf 'NOT RUN: %s\n' "$reason" >&2; done
  # Where everything must run, what was not run is a failure.
  [ ${#not_run[@]} -eq 0 ] || [ "${CI-}" != true ]
}
