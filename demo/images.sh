#!/usr/bin/env bash
# Writes the images that the demo needs and imports them into the node, each only when it has changed.
set -euo pipefail
rig=$1 shipped=$2 refs=$3

# The images that the node has, by name and content; they go with its state.
state=${RIG_DIR:-.rig}
known=$state/images.known
kubernetes=$("$rig" build)

hash() { sha256sum "$1" | cut -c1-12; }

# import NAME FILE PATH-IN-THE-IMAGE
import() {
  local line="$1 $(hash "$2")"
  if ! grep -qsxF "$line" "$known"; then
    echo "image $1"
    "$rig" image "$1" --add "$2:$3" --entrypoint "$3"
    echo "$line" >> "$known"
  fi
}

millrace=rig.local/millrace:$(hash "$shipped/millrace")
nats=rig.local/nats:$(hash "$kubernetes/nats-server")
component=rig.local/component:1
import "$millrace" "$shipped/millrace" /millrace
import "$nats" "$kubernetes/nats-server" /nats-server
import "$component" "$shipped/component" /component
printf 'IMAGE=%s\nNATS_IMAGE=%s\nCOMPONENT_IMAGE=%s\n' "$millrace" "$nats" "$component" > "$refs"
