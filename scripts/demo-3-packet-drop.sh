#!/usr/bin/env bash
# scripts/demo-3-packet-drop.sh [--image IMAGE] [--iptables-image IMAGE] [--keep]
#
# On the cluster of the current kubectl context, with Kernel Gossip installed: a pod one in ten of whose answers is dropped by
# a forgotten rule, so that it loses some 5 % of its packets. Its interface counters say 0; the kernel says how many, which
# way and why.
#
#   --image IMAGE           any image with sh, cat, nc and httpd (default docker.io/library/busybox:1.36; where the test bed's node runs,
#                           testbed.local/busybox:1)
#   --iptables-image IMAGE  what sets the rule in the pod's own network, by iptables, with CAP_NET_ADMIN (default
#                           docker.io/nicolaka/netshoot:v0.13; on the test bed, this machine's iptables)
#   --keep                  leaves the namespace kernel-gossip-demo-3 in place
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/demo.sh
. "$repository/scripts/demo.sh"

namespace=kernel-gossip-demo-3
pod=shop
whisper=$pod-kw

keep='' image='' iptables_image=''
while [ $# -gt 0 ]; do
  case $1 in
  --keep) keep=1 ;;
  --image)
    image=${2:?$(usage)}
    shift
    ;;
  --iptables-image)
    iptables_image=${2:?$(usage)}
    shift
    ;;
  -h | --help) usage && exit ;;
  *) die "$1? $(usage)" ;;
  esac
  shift
done

# network NUMBER: of the whisper's packet_drop.
drops='.status.signals[?(@.type=="packet_drop")].evidence.network'
network() { k get kernelwhisper "$whisper" -o "jsonpath={$drops.$1}"; }

# testbed_iptables NAME: this machine's iptables as an image of the test bed.
testbed_iptables() {
  local plugins file files=()
  need iptables
  plugins=$(dirname "$(dpkg-query -L iptables | grep -m 1 '/libxt_statistic\.so$')")
  for file in "$plugins"/libxt_{statistic,tcp,standard}.so; do files+=("$file:$file"); done
  as_root "$repository/tests/testbed/image" "$1" "$(realpath "$(command -v iptables)"):/bin/iptables" "${files[@]}" -- /bin/iptables >/dev/null
}

demo_begins kernelwhispers
: "${image:=$(busybox)}"
if [ -z "$iptables_image" ] && on_test_bed; then
  iptables_image=testbed.local/iptables:1
  testbed_iptables "$iptables_image"
fi
: "${iptables_image:=docker.io/nicolaka/netshoot:v0.13}"

say "A shop that asks its API all the time, and a rule in its network that somebody forgot: one answer in ten is dropped"
k create -f - <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: api
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: app
      image: $image
      command: [sh, -c, "echo yes > /tmp/index.html && exec httpd -f -p 8080 -h /tmp"]
YAML
k wait --for=condition=Ready --timeout=180s pod/api
api=$(k get pod api -o 'jsonpath={.status.podIP}')
k create -f - <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $pod
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
    - name: somebody
      image: $iptables_image
      command: [iptables, -A, INPUT, -p, tcp, --sport, "8080", -m, statistic, --mode, nth, --every, "10", --packet, "0", -j, DROP]
      securityContext:
        runAsUser: 0
        capabilities:
          add: [NET_ADMIN]
  containers:
    - name: app
      image: $image
      command:
        - sh
        - -c
        - |
          for i in 1 2 3 4 5 6 7 8; do
            while :; do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $api 8080 > /dev/null; done &
          done
          wait
YAML
k wait --for=condition=Ready --timeout=180s "pod/$pod"

say "What Kubernetes says"
k get pods

say "Waiting for the kernel's word"
k wait --for=create --timeout=120s "kernelwhisper/$whisper"
# Another signal may have been the first.
k wait --for=jsonpath="{$drops.dropPercent}" --timeout=120s "kernelwhisper/$whisper" ||
  die "nothing was dropped: $(k get kernelwhisper "$whisper" -o 'jsonpath={.status.insight}')"

say "The same pod, side by side"
# Bytes, packets, errors, drops received; then the same sent.
interface() { k exec "$pod" -c app -- cat /proc/net/dev | awk -v field="$1" '/eth0:/ {sub(/.*:/, ""); split(field, f, " "); print $f[1] + $f[2]}'; }
percent=$(printf '%.1f %%' "$(network dropPercent)")
dropped=$(network droppedPackets)
by_interface=$(interface "4 12")
row "" "interface counters" "the kernel"
row "packets" "$(interface "2 10") since it began" "$(network packets) in the window"
row "dropped" "$by_interface" "$dropped ($percent)"
row "why" "not said" "$(network reason)"

say "kubectl get kernelwhispers"
k get kernelwhispers
say "What to do"
k get kernelwhisper "$whisper" -o 'jsonpath={.status.insight}{"\n"}{.status.recommendation}{"\n"}'
told "$pod, network" "$by_interface packets dropped" "$dropped packets dropped ($percent): $(network reason)"
[ "$by_interface" = 0 ] && [ "$dropped" -gt 0 ]
