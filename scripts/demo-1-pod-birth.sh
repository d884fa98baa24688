#!/usr/bin/env bash
# scripts/demo-1-pod-birth.sh [--image IMAGE] [--html FILE] [--keep]
#
# On the cluster of the current kubectl context, with Kernel Gossip installed: starts the pod simple-nginx and shows
# what its birth cost in the kernel, call by call.
#
#   --image IMAGE  what the pod runs (default nginx:alpine; where the test bed's node runs, testbed.local/nginx:1,
#                  made of Debian's nginx, which is installed on this machine for it)
#   --html FILE    writes the waterfall as a page too
#   --keep         leaves the namespace kernel-gossip-demo-1 in place
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=scripts/demo.sh
. "$repository/scripts/demo.sh"

namespace=kernel-gossip-demo-1
pod=simple-nginx
certificate=$pod-pbc

keep='' image='' html=()
while [ $# -gt 0 ]; do
  case $1 in
  --keep) keep=1 ;;
  --image)
    image=${2:?$(usage)}
    shift
    ;;
  --html)
    html=(--html "${2:?$(usage)}")
    shift
    ;;
  -h | --help) usage && exit ;;
  *) die "$1? $(usage)" ;;
  esac
  shift
done

field() { k get podbirthcertificate "$certificate" -o "jsonpath={.status.kernelStats.$1}"; }

# program: where kernel-gossip is, for the waterfall.
program() {
  local candidate
  for candidate in "${KERNEL_GOSSIP-}" "$repository"/target/{release,debug}/kernel-gossip "$(command -v kernel-gossip)"; do
    [ -x "$candidate" ] && echo "$candidate" && return
  done
  need_to_build >&2
  cargo build --locked --release --manifest-path "$repository/Cargo.toml" >&2
  echo "$repository/target/release/kernel-gossip"
}

# testbed_nginx: Debian's nginx as an image of the test bed; the runtime's directories that nginx writes to are in it.
testbed_nginx() {
  local conf
  need nginx-light
  conf=$(mktemp -d)
  printf '%s\n' 'daemon off;' 'pid /tmp/nginx.pid;' 'error_log stderr;' 'events {}' \
    'http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;' \
    'uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server { listen 80; location / { return 200 "nginx\n"; } } }' \
    >"$conf/nginx.conf"
  printf '%s\n' 'root:x:0:0::/:/bin/sh' 'nobody:x:65534:65534::/:/bin/false' >"$conf/passwd"
  printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$conf/group"
  as_root "$repository/tests/testbed/image" "$1" /usr/sbin/nginx:/usr/sbin/nginx "$conf/nginx.conf:/etc/nginx.conf" \
    "$conf/passwd:/etc/passwd" "$conf/group:/etc/group" -- /usr/sbin/nginx -e stderr -c /etc/nginx.conf >/dev/null
  rm -r "$conf"
}

demo_begins podbirthcertificates
if [ -z "$image" ]; then
  image=docker.io/library/nginx:alpine
  if on_test_bed; then
    image=testbed.local/nginx:1
    testbed_nginx "$image"
  fi
fi
kernel_gossip=$(program)

say "A pod is born: $pod ($image)"
k create -f - <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $pod
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: nginx
      image: $image
      ports: [{containerPort: 80}]
YAML
k wait --for=condition=Ready --timeout=180s "pod/$pod"

say "Waiting for its certificate"
k wait --for=create --timeout=60s "podbirthcertificate/$certificate"
k wait --for=jsonpath='{.status.outcome}' --timeout=60s "podbirthcertificate/$certificate"

say "kubectl get pbc"
k get pbc
say "kubectl describe pbc $certificate"
k describe pbc "$certificate"
say "kernel-gossip birth $pod"
"$kernel_gossip" birth "$pod" -n "$namespace" "${html[@]}"

for count in totalSyscalls namespacesCreated cgroupWrites mounts; do
  [ -n "$(field "$count")" ] || die "the kernel did not say $count: $(k get pbc "$certificate" -o 'jsonpath={.status.missing}')"
done
cost="$(field totalSyscalls) syscalls, $(field namespacesCreated) namespaces, $(field cgroupWrites) cgroup writes, $(field mounts) mounts"
say "To start one pod the kernel did: $cost"
told "starting $pod" "Running" "$cost"
[ "$(k get pbc "$certificate" -o 'jsonpath={.status.outcome}')" = complete ]
