#!/usr/bin/env bash
# Writes the images that the demo needs and imports them into the node, each only when it has changed.
set -euo pipefail
rig=$1 shipped=$2 refs=$3

# The images that the node has, by name and content; they go with its state.
state=${RIG_DIR:-.rig}
known=$state/images.known
kubernetes=$("$rig" build)

hash() { sha256sum "$1" | cut -c1-12; }

# import NAME PATH=FILE…: the first path is the image's entry point.
import() {
  local name=$1 line add=() entry=
  shift
  line=$name
  for part in "$@"; do
    line="$line $(hash "${part#*=}")"
    add+=(--add "${part#*=}:${part%%=*}")
    entry=${entry:-${part%%=*}}
  done
  if ! grep -qsxF "$line" "$known"; then
    echo "image $name"
    "$rig" image "$name" "${add[@]}" --entrypoint "$entry"
    echo "$line" >> "$known"
  fi
}

millrace=rig.local/millrace:$(cat "$shipped/millrace" "$shipped/launch" | sha256sum | cut -c1-12)
nats=rig.local/nats:$(hash "$kubernetes/nats-server")
component=rig.local/component:1
tier=rig.local/tier:1
import "$millrace" "/millrace=$shipped/millrace" "/launch=$shipped/launch"
import "$nats" "/nats-server=$kubernetes/nats-server"
import "$component" "/component=$shipped/component"
import "$tier" "/tier=$shipped/tier"
printf 'IMAGE=%s\nNATS_IMAGE=%s\nCOMPONENT_IMAGE=%s\nTIER_IMAGE=%s\n' "$millrace" "$nats" "$component" "$tier" > "$refs"
