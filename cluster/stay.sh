#!/usr/bin/env bash
# Runs the `ray start` that it is given so that nothing of it outlives the cluster. On machines that one has, `ray down`
# stops the head alone: a worker that has lost its head for so many seconds ends, and with --block all that belongs to it.
set -uo pipefail
export RAY_gcs_rpc_server_reconnect_timeout_s=20
log="$HOME/.cache/ktrain-ray.log"
mkdir -p "$HOME/.cache"
# A machine that is busy may not start Ray within the seconds that Ray waits for its parts.
for _ in $(seq 10); do
    setsid nohup "$@" --block >"$log" 2>&1 </dev/null &
    while kill -0 $! 2>/dev/null; do
        grep -q "Ray runtime started" "$log" && exit 0
        sleep 0.1
    done
done
cat "$log" >&2
exit 1
