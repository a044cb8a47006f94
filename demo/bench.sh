#!/usr/bin/env bash
# Measures what a start costs, on the node of this checkout with the chart installed as in the demo.
set -euo pipefail
cd "$(dirname "$0")/.."

# Read by what is sourced.
# shellcheck disable=SC2034
system=millrace-system namespace=bench flow='' CONTEXT=''

. demo/install.sh

set_up
install
say "3. Five starts of each kind, one after the other"
COMPONENT_IMAGE=$COMPONENT_IMAGE MILLRACE_BENCH_KUBECONFIG=$KUBECONFIG "$CARGO" bench --locked --profile dev --bench start
kubectl wait --for=delete namespace/bench --timeout=2m
