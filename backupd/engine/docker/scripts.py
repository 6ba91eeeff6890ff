"""The shell scripts that helpers run. They need `sh`, `tar`, `timeout`, `cat` and `mkdir`, GNU's or BusyBox's; `sleep`
and `sync` are used if they can do what is wanted.

Everything that varies comes as arguments, never as text in the script. A pipe is first opened under `timeout`: where
nobody is at the other end because backupd was killed, the helper must not wait for ever.
"""

from __future__ import annotations

from backupd.engine.docker.helper import PIPES
from backupd.engine.docker.trailer import END_WORD, READY_WORD, TRAILER_BYTES
from backupd.engine.tarcommand import PROBE as TAR_PROBE
from backupd.engine.workspace import PIPE_NAME
from backupd.engine.writeback import LOST, NOT_ON_DISK, WRITE_BACK

PIPE = f"{PIPES}/{PIPE_NAME}"
PIPE_PATIENCE_SECONDS = 30
KEPT = "kept"
HELD_PATIENCE_SECONDS = 3600
"""While services are being stopped, which may take each of them as long as it likes."""

OUT_BY_ATTACH = f"""
nonce=$1; shift
"$@"
code=$?
printf '%-{TRAILER_BYTES}s' "{END_WORD} $nonce $code"
exit "$code"
"""

OUT_BY_PIPE = f"""
nonce=$1 pipe=$2 patience=$3; shift 3
timeout "$patience" sh -c ': >"$1"' sh "$pipe" || {{ echo 'nobody reads the pipe' >&2; exit 124; }}
exec 3>"$pipe"
"$@" >&3
code=$?
printf '%-{TRAILER_BYTES}s' "{END_WORD} $nonce $code" >&3
exit "$code"
"""

_EXTRACT = f"""
[ "$target" = /data ] || (umask 077 && mkdir -p -- "$target") || exit
if [ -n "$kept" ]; then
{WRITE_BACK.strip()}
fi
"$@" <&3
code=$?
if [ -n "$kept" ]; then
    kill "$!" 2>/dev/null
    wait "$!" 2>/dev/null
    [ "$?" -ne {LOST} ] || {{ echo '{NOT_ON_DISK}' >&2; code=2; }}
fi
[ "$code" -ne 0 ] || cat <&3 >/dev/null || code=$?
echo "{END_WORD} $nonce $code"
exit "$code"
"""

IN_BY_ATTACH = f"""
nonce=$1 target=$2 kept=$3; shift 3
exec 3<&0
{_EXTRACT}
"""

IN_BY_PIPE = f"""
nonce=$1 target=$2 kept=$3 pipe=$4; shift 4
timeout {PIPE_PATIENCE_SECONDS} sh -c ': <"$1"' sh "$pipe" || {{ echo 'nobody writes the pipe' >&2; exit 124; }}
exec 3<"$pipe"
echo "{READY_WORD} $nonce"
{_EXTRACT}
"""

PROBE = f"""
nonce=$1 pipe=$2
for tool in tar timeout cat mkdir; do
    command -v "$tool" >/dev/null || {{ echo "the image has no $tool" >&2; exit 1; }}
done
{TAR_PROBE}
[ -z "$pipe" ] || timeout 3 sh -c 'printf %s "$1" >"$2"' sh "$nonce" "$pipe" || true
"""
