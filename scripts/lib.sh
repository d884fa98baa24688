# shellcheck shell=bash
# Sourced by the project's scripts: the repository's place, packages, toolchains, and the count of checks.
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# as_root COMMAND...: as root, by sudo where the caller is not.
as_root() {
  if [ "$EUID" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    die "needs root (there is no sudo) for: $*"
  fi
}

# apt ARGUMENT...: apt-get that waits for its lock and says something only when it fails.
apt() {
  local log
  log=$(mktemp)
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq "$@" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

# need PACKAGE...: installs the Debian packages that are missing.
need() {
  local package missing=()
  if ! command -v dpkg-query >/dev/null; then
    echo "${0##*/}: not Debian, so nothing is installed; needed is what Debian calls: $*" >&2
    return
  fi
  for package; do
    installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  echo "${0##*/}: installing ${missing[*]}" >&2
  # The lists may be older than the mirror's packages, or not be there at all.
  apt install -y --no-install-recommends "${missing[@]}" 2>/dev/null ||
    { apt update && apt install -y --no-install-recommends "${missing[@]}"; } ||
    die "cannot install ${missing[*]}"
}

# at_least WANTED FOUND: whether version FOUND is WANTED or newer.
at_least() { printf '%s\n' "$@" | sort -VC; }

# rust: puts a cargo on the PATH that is new enough for Cargo.toml. Debian's package for browsers (-web) is
# kept recent in its stable releases; an older one that is already here is the owner's to replace.
rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
  PATH=$PATH:$HOME/.cargo/bin
  if ! command -v cargo >/dev/null && command -v apt-cache >/dev/null; then
    [ -n "$(apt-cache show cargo-web 2>/dev/null)" ] || apt update
    if [ -n "$(apt-cache show cargo-web 2>/dev/null)" ]; then need cargo-web; fi
  fi
  found=$(cargo --version 2>/dev/null | cut -d' ' -f2)
  at_least "$wanted" "${found:-0}" ||
    die "needs Rust $wanted or newer${found:+, this is $found}: get it from rustup (rustup update, or https://rustup.rs)"
}

# need_to_build: what building the project takes: Rust, clang for bpf/, C and its libraries for libbpf.
need_to_build() {
  rust
  need gcc libc6-dev libelf-dev make pkg-config zlib1g-dev
  [ -n "${CLANG-}" ] || need clang-19
}

# The count of checks: each is ok, FAILED or skipped, and the last line adds them up.
passed=0 failed=0 skipped=0
ok() {
  echo "ok      $*"
  passed=$((passed + 1))
}
fail() {
  echo "FAILED  $*"
  failed=$((failed + 1))
}
skip() {
  echo "skipped $*"
  skipped=$((skipped + 1))
}

# report LINE: what the outermost script prints before its last line: how long each part took, and what was repeated.
# The scripts it calls after its own first line add to its file.
report_is_ours=
report() {
  if [ -z "${KG_REPORT-}" ]; then
    KG_REPORT=$(mktemp)
    export KG_REPORT
    report_is_ours=1
  fi
  echo "$*" >>"$KG_REPORT"
}
closing_report() {
  [ -n "$report_is_ours" ] || return 0
  cat "$KG_REPORT"
  rm -f "$KG_REPORT"
  report_is_ours=
}
# took START WHAT: WHAT began when $SECONDS was START, and is done.
took() { report "$(printf '%6d s  %s' "$((SECONDS - $1))" "${*:2}")"; }

# counted COMMAND...: runs a command and adds up the counts it prints: its last "N passed, N failed", else all
# of cargo's "test result:" lines. One that fails without a failed test counts as failed itself.
counted() {
  local log status=0 p f s before=$failed
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
  read -r p f s < <(sed -nE \
    -e 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored.*/add \1 \2 \3/p' \
    -e 's/^([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?$/all \1 \2 0\4/p' "$log" |
    awk '$1 == "all" {all = 1; p = f = s = 0} $1 == "all" || !all {p += $2; f += $3; s += $4}
      END {print p + 0, f + 0, s + 0}')
  rm -f "$log"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then fail "status $status: $*"; fi
  return "$status"
}

# The closing lines; the status is that of the checks.
summary() {
  closing_report
  echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
  [ "$failed" = 0 ]
}
