"""The command lines of the tar jobs, for GNU and BusyBox tar.

GNU's options were measured to bring back owners, modes, nanosecond times, links, devices, sparse files, xattrs, ACLs
and capabilities without one difference. Access and change times are left out, and so is the process id in header
names, and entries are sorted: an unchanged volume gives the same stream, which deduplication needs. (The header of a
sparse file holds the process id all the same: tar has no option for it.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from backupd.engine.exclude import translate
from backupd.errors import SourceError
from backupd.model import TarFlavour, Tool

ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC0", "TAR_OPTIONS": ""}

EXCLUDES_WORD = "excludes"
PROBE = f"""
tar --version 2>&1 || busybox 2>&1
tar -c -f /dev/null --exclude=x -C / dev/null >/dev/null 2>&1 && echo {EXCLUDES_WORD}
"""

_VERSIONS: dict[TarFlavour, str] = {"gnu": r"\(GNU tar\) (\S+)", "busybox": r"(?i)busybox\)? v?(\S+)"}

# Names what is to be archived instead, behind the header of the root, which takes one block.
_WITHOUT_EXCLUDES = """
cd "$1" || exit
set --
for name in * .[!.]* ..?*; do
    case $name in .backupd-restore-* | .backupd-old-* | .backupd-clone-*) continue ;; esac
    if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
done
[ $# -gt 0 ] || exec tar -c -f - --no-recursion .
tar -c -f - --no-recursion . | head -c 512
exec tar -c -f - "$@"
"""

# ACLs are attributes, too (acl(5)), and in that form they have numbers where --acls would write down names.
_ATTRIBUTES = ("--xattrs", "--xattrs-include=*")


class LocalTar(Struct, frozen=True):
    """A tar as it was found. `excludes` is False for a BusyBox that was built without `--exclude`, as Debian's is."""

    tool: Tool
    excludes: bool = True


def tar_from_words(text: str) -> LocalTar:
    """Read what `PROBE` printed; SourceError if the tar is neither GNU's nor BusyBox's."""
    for flavour, pattern in _VERSIONS.items():
        if found := re.search(pattern, text):
            return LocalTar(Tool(flavour, found[1]), excludes=EXCLUDES_WORD in text.splitlines())
    said = text.strip().splitlines()[0] if text.strip() else "nothing"
    raise SourceError(f"tar is neither GNU's nor BusyBox's: `tar --version` said {said!r}")


def create_command(tar: LocalTar, directory: str, exclude: Sequence[str] = ()) -> list[str]:
    """Write `directory` as a tar to stdout, its first member `./`."""
    excludes = translate(exclude)
    if tar.tool.flavour == "gnu":
        return [
            *(
                "tar",
                "--create",
                "--file=-",
                "--blocking-factor=128",
                "--format=posix",
                "--sort=name",
                "--sparse",
                "--numeric-owner",
            ),
            "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
            *_ATTRIBUTES,
            "--no-wildcards-match-slash",
            *("--no-anchored", *(f"--exclude={pattern}" for pattern in excludes.names)),
            *("--anchored", *(f"--exclude={pattern}" for pattern in excludes.paths)),
            *(f"--directory={directory}", "."),
        ]
    if tar.excludes:
        patterns = [f"--exclude={pattern}" for pattern in (*excludes.names, *excludes.paths)]
        return ["tar", "-c", "-f", "-", *patterns, "-C", directory, "."]
    if exclude:
        raise SourceError(
            f"{tar.tool} was built without --exclude and cannot leave {exclude[0]!r} out",
            hint="set `helper_image` to an image with GNU tar, or to alpine",
        )
    return ["sh", "-c", _WITHOUT_EXCLUDES, "sh", directory]


def extract_command(flavour: TarFlavour, directory: str, *, as_root: bool = True, acls: bool = False) -> list[str]:
    """Extract a tar from stdin into `directory`. Only root can give files to their owners.

    `acls`: it has ACLs in tar's own form. Where it has not, the option would remove those that are attributes.
    """
    if flavour == "busybox":
        return ["tar", "-x", "-p", "-f", "-", "--numeric-owner", "-C", directory]
    return [
        *("tar", "--extract", "--file=-", "--preserve-permissions", "--numeric-owner", "--delay-directory-restore"),
        "--warning=no-timestamp",  # a file from before 1970 is restored as it was, and nothing to talk about
        *(["--same-owner"] if as_root else ["--no-same-owner"]),
        *_ATTRIBUTES,
        *(["--acls"] if acls else []),
        f"--directory={directory}",
    ]


def refuse_outside(subdirectory: str) -> None:
    """SourceError unless it is a relative path that stays below where it starts."""
    path = PurePosixPath(subdirectory)
    if path.is_absolute() or ".." in path.parts:
        raise SourceError(f"{subdirectory!r} is not a path within a volume")
