#!/usr/bin/env bash
# scripts/demo-final.sh [--apply] [--html FILE]
#
# "Your infrastructure is talking behind your back": on the cluster of the current kubectl context, with Kernel Gossip installed, all
# that the other demonstrations show, one after the other, and a kill that Kubernetes does not tell. In the end what the usual
# metrics said stands beside what the kernel says. Some two minutes, four with --apply; nothing is left.
#
#   --apply      has the throttled pod resized in place, as demo-2-cpu-throttle.sh --apply does
#   --html FILE  writes the birth's waterfall as a page, as demo-1-pod-birth.sh --html does
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/demo.sh
. "$repository/scripts/demo.sh"

namespace="kernel-gossip-demo-final"
pod=worker
whisper=$pod-kw
keep=''
apply=() html=()
while [ $# -gt 0 ]; do
  case $1 in
  --apply) apply=(--apply) ;;
  --html)
    html=(--html "${2:?$(usage)}")
    shift
    ;;
  -h | --help) usage && exit ;;
  *) die "$1? $(usage)" ;;
  esac
  shift
done

KG_STORY=$(mktemp)
export KG_STORY
chapter() { printf '\n\033[1m── %s\033[0m\n' "$*"; }

demo_begins kernelwhispers
trap 'demo_ends; rm -f "$KG_STORY"' EXIT
image=$(busybox)

chapter "1. The cascade: what it takes to start one pod"
"$repository/scripts/demo-1-pod-birth.sh" ${html[@]+"${html[@]}"}

chapter "2. The lie: half idle, and stopped"
"$repository/scripts/demo-2-cpu-throttle.sh" ${apply[@]+"${apply[@]}"}

chapter "3. The kill that nobody tells"
k create -f - <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $pod
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: app
      image: $image
      # What it starts takes all the memory there is, and it goes on without.
      command: [sh, -c, "while :; do tail /dev/zero; sleep 20; done"]
      resources:
        requests: {memory: 16Mi}
        limits: {memory: 32Mi}
YAML
k wait --for=create --timeout=120s "kernelwhisper/$whisper"
k wait --for=jsonpath='{.status.signal}'=oom_kill --timeout=60s "kernelwhisper/$whisper"
say "kubectl get pods"
k get pods
say "kubectl get kernelwhispers"
k get kernelwhispers
k get kernelwhisper "$whisper" -o 'jsonpath={.status.insight}{"\n"}{.status.recommendation}{"\n"}'
# Where a kill takes the whole container (cgroup v2), the kubelet restarts it.
said=$(k get pod "$pod" -o 'jsonpath={.status.phase}, {.status.containerStatuses[0].restartCount} restarts')
told "$pod, memory" "$said" "$(k get kernelwhisper "$whisper" -o 'jsonpath={.status.kernelTruth.summary}')"

chapter "4. The packets that vanish"
"$repository/scripts/demo-3-packet-drop.sh"

chapter "What the metrics said, and what the kernel says"
while IFS=$'\t' read -r what metrics kernel; do row "$what" "$metrics" "$kernel"; done <"$KG_STORY"
[ "$(wc -l <"$KG_STORY")" = 4 ]
