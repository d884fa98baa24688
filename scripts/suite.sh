# shellcheck shell=bash disable=SC2034
# Sourced by scripts/test after lib.sh: a test program run, counted, and what it measured repeated.

# Also those tests that need a part which this script gives, but no measurements without a verdict: those are named cost….
all_tests=(--include-ignored --skip ::cost_)

# suite NAME [ARGUMENT...] -- COMMAND...: runs the test program that COMMAND ends with; ARGUMENTs choose its tests.
# Whether all passed is in $green.
green=
suite() {
  local name=$1 arguments=() log status=0 test tests=() p=0 f=0 s=0 red=$failed start=$SECONDS
  shift
  while [ "$1" != -- ]; do
    arguments+=("$1")
    shift
  done
  shift
  echo "     Running $name"
  log=$(mktemp)
  "$@" "${all_tests[@]}" "${arguments[@]}" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
  # Its own closing line is the last of this form; what a test printed may look like one.
  read -r p f s < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/\1 \2 \3/p' "$log" | tail -n 1) || true
  p=${p:-0} f=${f:-0} s=${s:-0} # none said: read leaves them empty
  # The names are in the last of its two lists of failures.
  [ "$status" != 101 ] || mapfile -t tests < <(
    awk '/^failures:$/ {n = 0; on = 1} on && /^    [^ ]+$/ {of[n++] = $1} END {for (i = 0; i < n; i++) print of[i]}' "$log"
  )
  rm -f "$log"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  case $status in
    # 101: some test failed, which it has counted. Anything else is its own end.
    0) [ $((p + f)) != 0 ] || fail "$name: no test ran" ;;
    101) [ "$f" != 0 ] || fail "$name: no result" ;;
    *) fail "$name: status $status" ;;
  esac
  for test in ${tests[@]+"${tests[@]}"}; do
    if [[ $test == *::measured::* ]] && again "$name" "$test" "$@"; then
      passed=$((passed + 1)) failed=$((failed - 1))
    fi
  done
  [ "$failed" = "$red" ] && green=1 || green=
  took "$start" "$name"
}

# again SUITE TEST COMMAND...: repeats a measurement that failed.
again() {
  local try
  for try in 2 3; do
    echo "     Repeating $2 ($try of 3)"
    if "${@:3}" --include-ignored --exact "$2"; then
      report "  repeated  $1: $2 passed at try $try of 3"
      return 0
    fi
  done
  report "  repeated  $1: $2 failed 3 times"
  return 1
}
