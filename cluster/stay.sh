#!/usr/bin/env bash
# Runs the `ray start` that it is given so that nothing of it outlives the cluster. On machines that one has, `ray down`
# stops the head alone: a worker that has lost its head for so many seconds ends, and with --block all that belongs to it.
set -euo pipefail
export RAY_gcs_rpc_server_reconnect_timeout_s=20
log="$HOME/.cache/ktrain-ray.log"
mkdir -p "$HOME/.cache"
setsid nohup "$@" --block >"$log" 2>&1 </dev/null &
starter=$!
for _ in $(seq 1200); do
    grep -q "Ray runtime started" "$log" && exit 0
    kill -0 "$starter" 2>/dev/null || break
    sleep 0.1
done
cat "$log" >&2
exit 1
