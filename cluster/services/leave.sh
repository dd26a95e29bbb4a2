#!/usr/bin/env bash
# Ends the services of a head that is one's own machine soon after Ray has ended there: `ray down` stops Ray alone. Goes
# into the background at once; what the database holds stays.
set -uo pipefail
config="${XDG_CONFIG_HOME:-$HOME/.config}/ktrain"
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -- "$@"; fi; }
runs() { pgrep -u "$(id -u)" -x gcs_server >/dev/null; }

if [ "${1:-}" != --wait ]; then
    # Another start of the head: who waited for the end of the last one is not to end the services of this one.
    [ -s "$config/leave.pid" ] && kill "$(cat "$config/leave.pid")" 2>/dev/null
    setsid nohup bash "$0" --wait >"$config/leave.log" 2>&1 </dev/null &
    echo $! >"$config/leave.pid"
    exit 0
fi
missed=0
# A restart of Ray takes some seconds, and is no end.
while [ "$missed" -lt 15 ]; do
    if runs; then missed=0; else missed=$((missed + 1)); fi
    sleep 1
done
ktrain serve --stop
if [ -s "$config/head.env" ]; then
    read -r version state <<<"$(pg_lsclusters --no-header | awk '$2 == "ktrain" { print $1, $4; exit }')"
    if [[ ${state:-} == online* ]]; then
        if [ -d /run/systemd/system ]; then
            as_root systemctl stop "postgresql@$version-ktrain"
        else
            as_root pg_ctlcluster "$version" ktrain stop -m fast
        fi
    fi
fi
rm -f "$config/leave.pid"
