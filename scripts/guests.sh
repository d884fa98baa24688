# shellcheck shell=bash disable=SC2154
# Sourced by scripts/test after suite.sh: the part vm, tests/kernel under other kernels.

# What meets the kernel in tests/kernel, its packages too.
sources=(bpf src/kernel src/birth tests/bed tests/kernel tests/kernel.rs tests/testbed/vm tests/testbed/vm.d build.rs Cargo.toml Cargo.lock)

# guest KERNEL [ARGUMENT...]: tests/kernel under that kernel.
options=(--host --timeout 1500 --modprobe "veth bridge nft_compat nf_tables xt_statistic nf_conntrack xt_conntrack" --env KG_SEED --env KG_SCENARIOS)
guest() { "$testbed/vm" "$1" "${options[@]}" -- "${program[kernel]}" "${@:2}"; }

# Guests in the background: what each says, and its process.
declare -A guest_log guest_pid

# guest_begins KERNEL: all of tests/kernel but for measurements, in the background, with what else leaves of the CPUs: of a session
# of its own, as the kernel shares the CPUs among these first (autogroup).
guest_begins() {
  guest_log[$1]=$(mktemp)
  {
    status=0
    # shellcheck disable=SC2016 # the other shell's
    setsid bash -c '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec chrt --idle 0 "$@"' _ \
      "$testbed/vm" "$1" "${options[@]}" -- "${program[kernel]}" "${all_tests[@]}" --test-threads=1 --skip ::measured:: &
    trap 'kill $!' TERM
    wait $! || status=$?
    echo "$status" >"${guest_log[$1]}.status"
  } >"${guest_log[$1]}" 2>&1 &
  guest_pid[$1]=$!
}

# guest_ended KERNEL: what it says, as it says it, and its status.
guest_ended() {
  tail -n +1 -f --pid="${guest_pid[$1]}" "${guest_log[$1]}"
  return "$(cat "${guest_log[$1]}.status")"
}

guests_end() {
  local kernel
  for kernel in "${!guest_pid[@]}"; do
    kill "${guest_pid[$kernel]}" 2>/dev/null || true
    rm -f "${guest_log[$kernel]}" "${guest_log[$kernel]}.status"
  done
}

# guests_due: those under which tests/kernel is to run, in $due, by the hash of what it tests, in $sources_now.
due=() sources_now=''
guests_due() {
  local kernel
  [ -z "$sources_now" ] || return 0
  need "${births[@]}"
  sources_now=$(fingerprint "${sources[@]}")
  for kernel in "${kernels[@]}"; do
    "$testbed/kernels" "$kernel" || { fail "no kernel $kernel"; continue; }
    if [ -z "$all" ] && [[ $kernel != "${kernels[0]}" && $kernel != "${kernels[-1]}" ]] &&
      [ "$(cat "$(passed_under "$kernel")" 2>/dev/null)" = "$sources_now" ]; then
      skip "kernel $kernel: passed with what is tested there as it is (--all runs it)"
      continue
    fi
    rm -f "$(passed_under "$kernel")"
    due+=("$kernel")
  done
}

# Two at a time: one guest's tests, one after the other, are little more than one CPU's work.
guests_begin() {
  local kernel
  for kernel in "${due[@]:0:2}"; do
    [ -n "${guest_pid[$kernel]-}" ] || guest_begins "$kernel"
  done
}

# guests_early: the first two, beside parts that wait more than they compute.
guests_early() {
  [[ " ${parts[*]} " == *" vm "* ]] || return 0
  guests_due
  guests_begin
}

vm() {
  local kernel pair
  local -A passes
  guests_due
  while [ ${#due[@]} != 0 ]; do
    guests_begin
    pair=("${due[@]:0:2}")
    due=("${due[@]:2}")
    # A measurement has the machine to itself.
    for kernel in "${pair[@]}"; do
      suite "kernel $kernel" -- guest_ended "$kernel"
      passes[$kernel]=$green
    done
    for kernel in "${pair[@]}"; do
      suite "kernel $kernel, measured" --test-threads=1 ::measured:: -- guest "$kernel"
      [ -z "$green" ] || [ -z "${passes[$kernel]}" ] || echo "$sources_now" >"$(passed_under "$kernel")"
    done
  done
}

# Where it says with what all of tests/kernel passed there. A kernel that is fetched again has none.
passed_under() { echo "$TESTBED_DIR/kernels/$1/passed"; }
