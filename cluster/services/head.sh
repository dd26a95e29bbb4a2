#!/usr/bin/env bash
# Brings up the services of a cluster's head: PostgreSQL with a cluster, role and database of ktrain's own, and on it
# the MLflow server (`ktrain serve --detach`, which takes this script's arguments).
#
# For Debian and Ubuntu, with systemd or without, as root or as an account that may sudo. To be run at every start of
# the head: what is there is left alone. Where KTRAIN_DATABASE_URL names a database, no PostgreSQL is touched.
set -euo pipefail
shopt -s nullglob
config="${XDG_CONFIG_HOME:-$HOME/.config}/ktrain"
name=ktrain

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n -- "$@"; fi; }
as_postgres() { (cd / && as_root runuser -u postgres -- "$@"); }
fail() {
    echo "head.sh: $*" >&2
    exit 2
}

install_postgresql() {
    local programs=(/usr/lib/postgresql/*/bin/postgres)
    [ ${#programs[@]} -gt 0 ] && command -v pg_lsclusters >/dev/null && return
    command -v apt-get >/dev/null || fail "PostgreSQL is not installed, and there is no apt-get to install it with"
    as_root apt-get -o DPkg::Lock::Timeout=300 update -qq
    # RUNLEVEL=1: only ours is to be started.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 \
        install -y -qq --no-install-recommends postgresql
}

# Version, port and state of our cluster; nothing where there is none.
our_cluster() { pg_lsclusters --no-header | awk -v name="$name" '$2 == name { print $1, $3, $4; exit }'; }

# Leaves the port in $port. Debian's clusters listen on loopback alone, and ask for passwords there, unless told otherwise.
start_postgresql() {
    local version state programs
    if [ -z "$(our_cluster)" ]; then
        programs=(/usr/lib/postgresql/*/bin/postgres)
        version=$(printf '%s\n' "${programs[@]}" | awk -F/ '{ print $5 }' | sort -n | tail -1)
        as_root pg_createcluster --locale C.UTF-8 "$version" "$name" >/dev/null
    fi
    read -r version port state <<<"$(our_cluster)"
    if [[ $state != online* ]]; then
        if [ -d /run/systemd/system ]; then
            as_root systemctl start "postgresql@$version-$name"
        else
            as_root pg_ctlcluster "$version" "$name" start
        fi
    fi
    for _ in $(seq 120); do
        as_postgres pg_isready -q -p "$port" && return
        sleep 0.5
    done
    fail "PostgreSQL does not answer at port $port: see /var/log/postgresql/postgresql-$version-$name.log"
}

# The password stands in PostgreSQL's own file of passwords and, on its way, in a pipe; in no list of processes.
make_database() {
    local password=""
    [ -s "$config/pgpass" ] && IFS=: read -r _ _ _ _ password <"$config/pgpass"
    [ -n "$password" ] || password=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
    printf '127.0.0.1:%s:%s:%s:%s\n' "$port" "$name" "$name" "$password" >"$config/pgpass.new"
    mv "$config/pgpass.new" "$config/pgpass"
    as_postgres psql -X -q -v ON_ERROR_STOP=1 -p "$port" -d postgres <<SQL
SELECT 'CREATE ROLE $name LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$name') \gexec
ALTER ROLE $name PASSWORD '$password';
SELECT 'CREATE DATABASE $name OWNER $name' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '$name') \gexec
SQL
    printf 'KTRAIN_DATABASE_URL=postgresql://%s@127.0.0.1:%s/%s\nPGPASSFILE=%s\n' \
        "$name" "$port" "$name" "$config/pgpass" >"$config/head.env"
}

prepare() {
    install_postgresql
    start_postgresql
    make_database
}

command -v ktrain >/dev/null || fail "ktrain is not on PATH: activate the environment that it is installed in"
umask 077
mkdir -p "$config"
if [ -z "${KTRAIN_DATABASE_URL:-}" ]; then
    # One at a time; the lock is not handed on to what is started.
    (
        flock 9
        prepare 9>&-
    ) 9>"$config/head.lock"
    set -a
    # shellcheck source=/dev/null
    . "$config/head.env"
    set +a
fi
exec ktrain serve --detach "$@"
