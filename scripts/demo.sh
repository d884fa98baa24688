# shellcheck shell=bash disable=SC2154
# Sourced by the demonstrations after lib.sh: a namespace of their own on the cluster of the current context, gone at the end.

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
k() { kubectl -n "$namespace" "$@"; }
usage() { sed -n 's/^# \(scripts.*\)/usage: \1/p' "$0"; }
# row LABEL LEFT RIGHT: of two views side by side.
row() { printf '  %-28s %-26s %s\n' "$@"; }

# demo_begins KIND: in an empty $namespace, where Kernel Gossip with objects of that kind is installed. It is deleted at the
# end, unless $keep.
demo_begins() {
  command -v kubectl >/dev/null || die "needs kubectl"
  kubectl version >/dev/null 2>&1 || die "no cluster answers: set KUBECONFIG or the current context"
  kubectl get crd "$1.kernel.gossip.io" >/dev/null 2>&1 || die "Kernel Gossip is not installed here: kubectl apply -k k8s/"
  trap demo_ends EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  kubectl delete namespace "$namespace" --ignore-not-found >/dev/null
  kubectl create namespace "$namespace" >/dev/null
  timeout 60 bash -c "until kubectl -n $namespace get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done"
}

demo_ends() { [ -n "$keep" ] || kubectl delete namespace "$namespace" --ignore-not-found --wait=false >/dev/null; }

# on_test_bed: whether the cluster is that of tests/testbed, which pulls no image.
on_test_bed() { [ -n "$(kubectl get node kg-node --ignore-not-found -o name)" ]; }

# busybox: the image with a shell that the demonstrations run.
busybox() { if on_test_bed; then echo testbed.local/busybox:1; else echo docker.io/library/busybox:1.36; fi; }

# told WHAT METRICS KERNEL: a line of the story, where demo-final.sh tells one.
told() { [ -z "${KG_STORY-}" ] || printf '%s\t%s\t%s\n' "$@" >>"$KG_STORY"; }
