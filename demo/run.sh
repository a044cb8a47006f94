#!/usr/bin/env bash
# Installs Millrace as a user would, runs a flow, and shows what happens.
#
# Without CONTEXT it starts the node of this checkout, and builds the images. With CONTEXT (and IMAGE) it uses a context of
# your kubeconfig, and says which before it does anything.
set -euo pipefail
cd "$(dirname "$0")/.."

system=millrace-system namespace=shop flow=orders

. demo/install.sh

start() {
  say "3. A flow: an image and two built-ins, from kubectl apply to Active"
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply -f - > /dev/null
  local began=$EPOCHREALTIME
  case ${COMPONENT_IMAGE:-} in
    rig.local/component:1)
      run kubectl -n "$namespace" apply -f examples/webhook-flow/
      ;;
    '')
      echo "COMPONENT_IMAGE is not given (the target 'component' of the Containerfile): a flow of built-ins only"
      run kubectl -n "$namespace" apply -f demo/builtins.yaml
      ;;
    *)
      sed "s|rig.local/component:1|$COMPONENT_IMAGE|" examples/webhook-flow/flow.yaml | kubectl -n "$namespace" apply -f -
      ;;
  esac
  kubectl -n "$namespace" patch flow "$flow" --type=merge -p '{"spec":{"suspend":null}}' > /dev/null
  run kubectl -n "$namespace" wait "flow/$flow" --for=condition=Ready --timeout=3m
  awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {printf "Active %.1f s after it was applied\n", b - a}'
  kubectl -n "$namespace" get flow "$flow"
}

# The gateway's address, as it is reached from here.
gateway() {
  local node port
  node=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  port=$(kubectl -n "$system" get service millrace-gateway -o jsonpath='{.spec.ports[0].nodePort}')
  GATEWAY=$node:$port
}

status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

# eventually WHAT COMMAND: until the command succeeds, for at most 30 seconds.
eventually() {
  local what=$1 end=$((SECONDS + 30))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || { echo "never: $what" >&2; return 1; }
    sleep 0.2
  done
}

arrived() { kubectl -n "$namespace" logs deployment/millrace-runner --tail 200 | grep -F "$1" > /dev/null; }

requests() {
  say "4. Webhooks: 200 means that the message is on disk"
  gateway
  stamp=$(date +%s)
  local url=http://$GATEWAY/hook/$namespace/$flow
  run curl -si "$url" -H 'content-type: application/json' -d "{\"id\":\"$stamp-1\",\"total\":12.5}"
  printf '\n\n'
  run curl -s "$url/from/a/form" -d "id=$stamp-2&total=7"
  printf '\n'
  run curl -s "$url?id=$stamp-3&total=1"
  printf '\n'
  echo "a method that the flow does not take: $(status -X PUT "$url"); a flow that does not exist: $(status "$url-x")"
  say "5. The messages as they arrived at the last node"
  for number in 1 2 3; do
    eventually "message $stamp-$number at the last node" arrived "$stamp-$number"
    kubectl -n "$namespace" logs deployment/millrace-runner --tail 200 | grep -F "$stamp-$number" | tail -n 1
  done
}

stop() {
  say "6. Suspended: the route goes first, then the queues are worked off, then the pods go"
  run kubectl -n "$namespace" patch flow "$flow" --type=merge -p '{"spec":{"suspend":true}}'
  run kubectl -n "$namespace" wait "flow/$flow" --for=jsonpath='{.status.phase}'=Inactive --timeout=2m
  echo "a request now: $(status "http://$GATEWAY/hook/$namespace/$flow")"
  run kubectl -n "$namespace" patch flow "$flow" --type=merge -p '{"spec":{"suspend":false}}'
  run kubectl -n "$namespace" wait "flow/$flow" --for=condition=Ready --timeout=2m
  run kubectl -n "$namespace" wait "flow/$flow" --for=jsonpath='{.status.phase}'=Active --timeout=2m
  echo "a request now: $(status "http://$GATEWAY/hook/$namespace/$flow?id=$stamp-4")"
}

# apply FILE, with the image of the component that the cluster can pull.
apply() { sed "s|rig.local/component:1|$COMPONENT_IMAGE|" "$1" | kubectl -n "$namespace" apply -f -; }

# The last messages that a log node of the flow with a schedule has shown.
logged() {
  kubectl -n "$namespace" logs deployment/millrace-runner --tail 400 | grep 'new-orders' | grep -E "node=?[^ ]*\b$1\b" | tail -n "$2"
}

has_logged() { [ -n "$(logged "$1" 1)" ]; }

# How late due times were: from the metrics of the operator that leads.
skew() {
  local leader
  leader=$(kubectl -n "$system" get lease millrace-operator -o jsonpath='{.spec.holderIdentity}')
  kubectl get --raw "/api/v1/namespaces/$system/pods/$leader:8081/proxy/metrics" | awk '
    /^millrace_scheduler_skew_seconds_sum/ {sum = $2}
    /^millrace_scheduler_skew_seconds_count/ {count = $2}
    /^millrace_scheduler_skew_seconds_bucket/ {
      match($1, /le="[^"]*"/); le[++n] = substr($1, RSTART + 4, RLENGTH - 5); seen[n] = $2
    }
    END {
      if (count == 0) { print "no due time yet"; exit }
      for (i = 1; i <= n && seen[i] < count; i++);
      printf "%d due times, each stored once: %.1f ms late on average, all within %s s\n", count, sum / count * 1000, le[i]
    }'
}

letters=(kubectl -n "$system" exec deploy/millrace-operator -- /millrace dead-letters)

has_letters() { "${letters[@]}" list -n "$namespace" --flow new-orders 2> /dev/null | grep -q approve; }

schedule() {
  say "7. A schedule: every five seconds the shop is asked for new orders; edges send large and small ones different ways"
  if [ -z "${COMPONENT_IMAGE:-}" ]; then
    echo "COMPONENT_IMAGE is not given: this part needs it, as the shop that is asked"
    return
  fi
  apply examples/scheduled-flow/shop.yaml
  apply examples/scheduled-flow/flow.yaml
  kubectl -n "$namespace" rollout status deployment/shop --timeout=2m > /dev/null
  run kubectl -n "$namespace" wait flow/new-orders --for=condition=Ready --timeout=3m
  kubectl -n "$namespace" get flow new-orders -o jsonpath='{range .status.conditions[?(@.type=="TriggerArmed")]}{.type}: {.message}{"\n"}{end}'
  eventually "an order of each kind" has_logged large
  eventually "an order of each kind" has_logged small
  logged large 2
  logged small 2
  skew
  say "8. A component that fails on purpose: tried again, then a dead letter, put right and replayed"
  eventually "a dead letter" has_letters
  run "${letters[@]}" list -n "$namespace" --flow new-orders
  local id
  id=$("${letters[@]}" list -n "$namespace" --flow new-orders -o json | head -n 1 | sed 's/.*"id":\([0-9]*\).*/\1/')
  run "${letters[@]}" show "$id"
  run kubectl -n "$namespace" patch flow new-orders --type=json \
    -p '[{"op":"replace","path":"/spec/graph/nodes/4/function","value":"echo"}]'
  run kubectl -n "$namespace" wait flow/new-orders --for=condition=Ready --timeout=2m
  kubectl -n "$namespace" rollout status "$(kubectl -n "$namespace" get deployment -l millrace.dev/node=approve -o name)" --timeout=2m > /dev/null
  run "${letters[@]}" replay --all -n "$namespace" --flow new-orders
  skew
  run kubectl -n "$namespace" patch flow new-orders --type=merge -p '{"spec":{"suspend":true}}'
}

report() {
  say "What happened"
  kubectl -n "$namespace" get flow "$flow" -o jsonpath='{range .status.transitions.recent[*]}{.counter}{"\t"}{.time}{"\t"}{.event}{"\n"}{end}'
  kubectl -n "$namespace" get events --field-selector "involvedObject.kind=Flow,involvedObject.name=$flow" \
    -o custom-columns='TIME:.eventTime,EVENT:.reason,NOTE:.message' 2> /dev/null | tail -n 8 || true
  say "To play on"
  [ -n "${CONTEXT:-}" ] || echo "export PATH=\"$PWD/.rig/bin:\$PATH\" KUBECONFIG=\"$PWD/.rig/kubeconfig\""
  cat << EOT
kubectl -n $namespace get fl -w
kubectl -n $namespace describe fl $flow
curl -i http://$GATEWAY/hook/$namespace/$flow -H 'content-type: application/json' -d '{"id":7}'
kubectl -n $namespace logs deployment/millrace-runner -f
kubectl -n $namespace delete pod -l millrace.dev/flow=$flow      # requests go on: the queue buffers
kubectl -n $namespace patch fl $flow --type=merge -p '{"spec":{"suspend":true}}'
kubectl -n $namespace patch fl new-orders --type=merge -p '{"spec":{"suspend":false}}'   # the schedule again
kubectl -n $system exec deploy/millrace-operator -- /millrace dead-letters list -A
EOT
  [ -n "${CONTEXT:-}" ] || echo "make down"
}

set_up
install
start
requests
stop
schedule
report
