#!/bin/sh
# Behaves like the official image's entrypoint where backupd can tell the difference.
set -e
case "$1" in -*) set -- postgres "$@" ;; esac
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown -R postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    chmod 3777 /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    user=${POSTGRES_USER:-postgres}
    if [ -z "$POSTGRES_PASSWORD" ] && [ "$POSTGRES_HOST_AUTH_METHOD" != trust ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    printf '%s\n' "${POSTGRES_PASSWORD:-unused}" >/tmp/.pwfile
    # shellcheck disable=SC2086
    initdb --no-sync --username="$user" --pwfile=/tmp/.pwfile --locale=C.UTF-8 --encoding=UTF8 -D "$PGDATA" $POSTGRES_INITDB_ARGS >/dev/null
    rm /tmp/.pwfile
    printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    pg_ctl -D "$PGDATA" -w -s -o "-c listen_addresses='' -c fsync=off -p 5432" start >/dev/null
    database=${POSTGRES_DB:-$user}
    if [ "$database" != postgres ]; then
        psql -q -U "$user" -d postgres -v ON_ERROR_STOP=1 -c "create database \"$database\""
    fi
    for file in /docker-entrypoint-initdb.d/*.sql; do
        if [ -e "$file" ]; then psql -q -U "$user" -d "$database" -v ON_ERROR_STOP=1 -f "$file"; fi
    done
    pg_ctl -D "$PGDATA" -w -s -m fast stop
    echo "PostgreSQL init process complete; ready for start up."
fi
exec "$@"
