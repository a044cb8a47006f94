#!/usr/bin/env bash
# Installs Millrace as a user would, runs flows and an application of three tiers, and shows what happens.
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
  kubectl -n "$namespace" patch flow new-orders --type=merge -p '{"spec":{"suspend":null}}' > /dev/null
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

tiers=tiers

# The phases of the members, in one line.
phases() { kubectl -n "$tiers" get inst --no-headers -o custom-columns='N:.metadata.name,P:.status.phase' | awk '{printf "%s %s  ", $1, $2} END {print ""}'; }

# Whether all members are in a phase.
all_are() { ! kubectl -n "$tiers" get inst --no-headers -o custom-columns='P:.status.phase' | grep -qv "^$1\$"; }

# What a web member knows, as it says itself.
view() { kubectl get --raw "/api/v1/namespaces/$tiers/pods/$1:8080/proxy/view"; }

web_pod() { kubectl -n "$tiers" get pods -l millrace.dev/instance=web-0 -o jsonpath='{.items[0].metadata.name}'; }

knows() { [ "$(view "$1" | grep -o '"name":"app-' | wc -l)" = "$2" ]; }

# Requests through the web tier's Service, until the file is gone; counts go to the other.
ask() {
  local good=0 bad=0
  while [ -e "$2" ]; do
    if curl -sf -m 5 -o /dev/null "$1"; then good=$((good + 1)); else bad=$((bad + 1)); fi
    sleep 0.02
  done
  echo "$good requests answered, $bad not" > "$3"
}

three_tiers() {
  say "9. Three tiers, applied in the wrong order: all pods at once, the applications down the chain"
  if [ -z "${TIER_IMAGE:-}" ]; then
    echo "TIER_IMAGE is not given (the target 'tier' of the Containerfile): this part is left out"
    return
  fi
  kubectl create namespace "$tiers" --dry-run=client -o yaml | kubectl apply -f - > /dev/null
  local began=$EPOCHREALTIME
  run kubectl -n "$tiers" apply -f examples/three-tier/clusters.yaml
  sed "s|rig.local/tier:1|$TIER_IMAGE|" examples/three-tier/cartridges.yaml | run kubectl -n "$tiers" apply -f -
  # An earlier demo may have ended in the middle.
  kubectl -n "$tiers" patch inst db-0 --type=merge -p '{"spec":{"desired":null}}' > /dev/null 2>&1 || true
  run kubectl -n "$tiers" wait mcl/web mcl/app mcl/db --for=condition=Ready --timeout=3m
  awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN {printf "all Active %.1f s after they were applied\n", b - a}'
  kubectl -n "$tiers" get mcl,inst
  kubectl -n "$tiers" get inst db-0 app-0 web-0 -o jsonpath='{range .items[*]}{.metadata.name}{":"}{range .status.transitions.recent[*]}{"  "}{.event}{" "}{.time}{end}{"\n"}{end}'
  local node port url
  node=$(kubectl get nodes -o jsonpath='{.items[0].status.addresses[?(@.type=="InternalIP")].address}')
  port=$(kubectl -n "$tiers" get service -l millrace.dev/cluster=web -o jsonpath='{.items[0].spec.ports[0].nodePort}')
  url=http://$node:$port/
  # The node hears of its load balancers a moment after everybody else.
  eventually "an answer of the web tier" curl -sf -m 2 -o /dev/null "$url"
  for _ in 1 2 3; do run curl -s "$url"; done

  say "10. Another app joins the running web tier; members come, go and roll under requests"
  local pod before flag counts
  pod=$(web_pod)
  before=$(view "$pod" | grep -o '"pid":[0-9]*')
  flag=$(mktemp) counts=$(mktemp)
  ask "$url" "$flag" "$counts" &
  run kubectl -n "$tiers" scale mcl app --replicas=2
  eventually "web-0 knows app-1" knows "$pod" 2
  echo "web-0 knows both: $(view "$pod" | grep -o '"name":"app-[0-9]*"' | tr '\n' ' '); its process before: $before, now: $(view "$pod" | grep -o '"pid":[0-9]*')"
  run kubectl -n "$tiers" wait mcl/app --for=condition=Ready --timeout=1m
  run kubectl -n "$tiers" scale mcl web --replicas=3
  run kubectl -n "$tiers" wait mcl/web --for=jsonpath='{.status.activeReplicas}'=3 --timeout=1m
  run kubectl -n "$tiers" patch cartridge web --type=merge -p "{\"spec\":{\"env\":[{\"name\":\"VERSION\",\"value\":\"$EPOCHSECONDS\"}]}}"
  run kubectl -n "$tiers" wait mcl/web --for=jsonpath='{.status.updatedReplicas}'=3 --timeout=2m
  run kubectl -n "$tiers" scale mcl web --replicas=2
  run kubectl -n "$tiers" wait mcl/web --for=condition=Ready --timeout=1m
  rm "$flag"
  wait
  cat "$counts"
  rm "$counts"

  say "11. The database is stopped: those that cannot do without it stop first, and come back by themselves"
  run kubectl -n "$tiers" patch inst db-0 --type=merge -p '{"spec":{"desired":"Stopped"}}'
  run kubectl -n "$tiers" wait inst/db-0 --for=jsonpath='{.status.phase}'=Stopped --timeout=2m
  phases
  kubectl -n "$tiers" get inst app-0 -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{"app-0: "}{.message}{"\n"}{end}'
  run kubectl -n "$tiers" patch inst db-0 --type=merge -p '{"spec":{"desired":"Started"}}'
  eventually "all members are Active again" all_are Active
  phases
  eventually "an answer of the web tier" curl -sf -m 2 -o /dev/null "$url"
  run curl -s "$url"
  run kubectl -n "$tiers" scale mcl app --replicas=1
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
kubectl -n $tiers get inst -w
kubectl -n $tiers describe inst app-0
kubectl -n $tiers patch inst web-0 --type=merge -p '{"spec":{"desired":"Maintenance"}}'
kubectl -n $tiers delete pod -l millrace.dev/instance=web-1      # drained, and made again
EOT
  [ -n "${CONTEXT:-}" ] || echo "make down"
}

set_up
install
start
requests
stop
schedule
three_tiers
report
