# shellcheck shell=bash
# What demo and benchmark begin with: a cluster with Millrace in it. To be sourced at the root of the checkout, after
# `system`, `namespace` and `flow` are set.

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

# What a person would look at who sees this fail.
explain() {
  say "The demo stopped here. What there is:"
  kubectl -n "$system" get pods -o wide || true
  kubectl -n "$system" get events --sort-by=.lastTimestamp 2> /dev/null | tail -n 8 || true
  kubectl -n "$system" logs deployment/millrace-operator --tail 10 2> /dev/null || true
  kubectl -n "$namespace" get flows,pods 2> /dev/null || true
  kubectl -n "$namespace" describe flow "$flow" 2> /dev/null | tail -n 40 || true
}

# The values that name an image: by tag, or by digest where it has one. image_values VALUE REFERENCE
image_values() {
  case $2 in
    *@*) values+=(--set "$1.repository=${2%@*},$1.digest=${2##*@}") ;;
    *) values+=(--set "$1.repository=${2%:*},$1.tag=${2##*:}") ;;
  esac
}

set_up() {
  values=()
  if [ -n "${CONTEXT:-}" ]; then
    : "${IMAGE:?with CONTEXT, give IMAGE: the image of Millrace that the cluster can pull}"
    say "Using the context '$CONTEXT' of ${KUBECONFIG:-$HOME/.kube/config}"
    kubectl() { command kubectl --context "$CONTEXT" "$@"; }
    helm() { command helm --kube-context "$CONTEXT" "$@"; }
    kubectl cluster-info | head -n 1
  else
    say "1. A node, and the images of this checkout (the first time takes some minutes)"
    unset KUBECONFIG
    "$MAKE" --no-print-directory up image
    export PATH="$PWD/.rig/bin:$PATH" KUBECONFIG="$PWD/.rig/kubeconfig"
    # shellcheck disable=SC1091
    . target/images.env
    image_values nats.image "$NATS_IMAGE"
  fi
  image_values image "$IMAGE"
  trap explain ERR
}

install() {
  say "2. Millrace, installed with helm"
  run helm upgrade --install millrace charts/millrace --namespace "$system" --create-namespace \
    --values demo/values.yaml "${values[@]}" --wait --timeout 5m --hide-notes
  kubectl -n "$system" get pods
}
