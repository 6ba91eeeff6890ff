#!/bin/sh
# Behaves like the official image's entrypoint where backupd can tell the difference.
set -e
case "$1" in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
    set -- "$@" --protected-mode no
    if [ "$(id -u)" = 0 ]; then
        find . ! -user redis -exec chown redis:redis {} +
        exec setpriv --reuid=redis --regid=redis --clear-groups -- "$@"
    fi
fi
exec "$@"
