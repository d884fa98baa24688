#!/usr/bin/env bash
# scripts/demo-2-cpu-throttle.sh [--apply] [--image IMAGE] [--keep]
#
# On the cluster of the current kubectl context, with Kernel Gossip installed: a pod that `kubectl top` shows
# half idle and the kernel shows stopped, both views side by side, and what is recommended.
#
#   --apply        then has the pod resized in place, by the reconciler where its remediation is on, else by the
#                  recommended command, and shows the throttling gone
#   --image IMAGE  any image with sh, cat and sleep (default the one of k8s/demo; testbed.local/busybox:1 where
#                  the test bed's node runs)
#   --keep         leaves the namespace kernel-gossip-demo-2 in place
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/demo.sh
. "$repository/scripts/demo.sh"

namespace=kernel-gossip-demo-2
pod=bursts
whisper=$pod-kw

apply='' keep='' image=''
while [ $# -gt 0 ]; do
  case $1 in
  --apply) apply=1 ;;
  --keep) keep=1 ;;
  --image)
    image=${2:?$(usage)}
    shift
    ;;
  -h | --help) usage && exit ;;
  *) die "$1? $(usage)" ;;
  esac
  shift
done

field() { k get kernelwhisper "$whisper" -o "jsonpath={.status.$1}"; }

demo_begins kernelwhispers
: "${image:=$(busybox)}"

# throttled SECONDS: "PERIODS THROTTLED" of so many seconds, by the container's own cpu.stat: nobody's word but
# the kernel's.
throttled() {
  local read='cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.stat'
  { k exec "$pod" -- sh -c "$read"; sleep "$1"; k exec "$pod" -- sh -c "$read"; } |
    awk '{n = $1; if (n in first) last[n] = $2; else first[n] = $2}
      END {print last["nr_periods"] - first["nr_periods"], last["nr_throttled"] - first["nr_throttled"]}'
}

say "A pod that works in bursts, with a CPU limit of 300m"
sed "s|image: busybox\$|image: $image|" "$repository/k8s/demo/cpu-throttle.yaml" | k create -f - >/dev/null
k wait --for=condition=Ready --timeout=120s "pod/$pod"

say "Waiting for the kernel's word"
k wait --for=create --timeout=120s "kernelwhisper/$whisper"
k wait --for=jsonpath='{.status.state}'=active --timeout=60s "kernelwhisper/$whisper"
k wait --for=jsonpath='{.status.signal}'=cpu_throttle --timeout=60s "kernelwhisper/$whisper" ||
  die "this node is too busy to show it: the pod waits behind others before its limit stops it: $(field insight)"

say "Waiting for the Metrics API's (it lags by a minute or so)"
if ! kubectl get --raw /apis/metrics.k8s.io/v1beta1 >/dev/null 2>&1; then
  echo "There is none here: no metrics-server, so the left side stays empty."
elif k wait --for=jsonpath='{.status.metricsSay.containers[0].kernelCpuCores}' --timeout=180s "kernelwhisper/$whisper"; then
  k top pod "$pod" --containers || true
else
  echo "It has not said anything in three minutes, so the left side stays empty."
fi

say "The same pod, side by side"
cores() { awk -v c="$1" 'BEGIN {if (c == "") print "not said"; else printf "%.2f cores", c}'; }
percent() { awk -v p="$1" 'BEGIN {if (p == "") print "not said"; else printf "%.0f %%", p}'; }
row "" "Metrics API (kubectl top)" "the kernel"
# The same seconds on both sides: the Metrics API's window.
window=$(field metricsSay.window) used=$(field 'metricsSay.containers[0].kernelCpuCores') limit=$(field kernelTruth.cpuLimitCores)
of_limit=$(awk -v u="$used" -v l="$limit" 'BEGIN {if (u != "" && l > 0) print 100 * u / l}')
row "CPU used${window:+ in $window s}" "$(cores "$(field metricsSay.cpuCores)")" "$(cores "$used")"
row "of its limit" "$(percent "$(field metricsSay.cpuPercent)")" "$(percent "$of_limit")"
row "stopped by its limit" "not said" "$(percent "$(field kernelTruth.throttledPercent)") of the time"
row "would have used at most" "not said" "$(cores "$(field kernelTruth.demandCpuCores)") of the $(cores "$limit") it may"

told "$pod, CPU" "uses $(cores "$(field metricsSay.cpuCores)")" "stopped by its limit $(percent "$(field kernelTruth.throttledPercent)") of the time"

say "kubectl get kernelwhispers"
k get kernelwhispers
say "What to do"
k get kernelwhisper "$whisper" -o 'jsonpath={.status.insight}{"\n"}{.status.recommendation}{"\n"}'
[ -n "$apply" ] || exit 0

read -r periods before < <(throttled 10)
say "Before: throttled in $before of the $periods periods of ten seconds (cpu.stat of the container)"
started=$(k get pod "$pod" -o 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}')
k annotate pod "$pod" kernel.gossip.io/remediate=resize >/dev/null

# by_command: the last line of the recommendation, if it is what it should be.
by_command() {
  local command patch
  command=$(field recommendation | tail -n 1)
  case $command in
  "kubectl -n $namespace patch pod $pod --subresource resize -p '"*"'") ;;
  *) die "no command to resize the pod in place: $command" ;;
  esac
  echo "$command"
  patch=${command#*\'}
  k patch pod "$pod" --subresource resize -p "${patch%\'}"
}

if kubectl -n kernel-gossip get deployment kernel-gossip-operator -o yaml 2>/dev/null | grep -q -e '--remediation=apply'; then
  say "The reconciler resizes it (kubectl get kw -o yaml: status.remediation)"
  k wait --for=jsonpath='{.status.remediation.state}' --timeout=180s "kernelwhisper/$whisper" ||
    die "nothing was done: $(field recommendation)"
else
  say "Remediation is off here, so the recommended command does it"
  by_command
fi
k wait --for=jsonpath='{.status.state}'=resolved --timeout=300s "kernelwhisper/$whisper" ||
  echo "Not resolved in five minutes: another step may be needed; see below."

say "After"
k get pod "$pod" -o 'jsonpath={.spec.containers[0].resources}{"\n"}'
read -r periods after < <(throttled 10)
echo "throttled in $after of $periods periods, $before before"
now=$(k get pod "$pod" -o 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}')
[ "$started" = "$now" ] && echo "the same container, never restarted"
remediation=$(field remediation.message)
[ -z "$remediation" ] || echo "$remediation"
k get events --field-selector "involvedObject.name=$pod" -o 'custom-columns=EVENT:.reason,NOTE:.message' |
  grep -e EVENT -e Resize || true
k get kernelwhispers
[ "$(field state)" = resolved ] && [ "$after" -lt "$before" ]
