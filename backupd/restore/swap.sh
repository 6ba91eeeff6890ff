# Puts a restored tree in the place of what a volume holds, by renames, so that it can be finished or undone after a kill
# at any moment. Runs with the volume's root as working directory: sh -c "$script" sh ID VERB [ARGUMENT...]
#
#   .backupd-restore-ID/state    where the swap has got to, one word, replaced atomically
#   .backupd-restore-ID/tree/    what was extracted
#   .backupd-restore-ID/new-root, old-root
#                                empty directories with the attributes that the root is to have, and had
#   .backupd-restore-ID/root-time
#                                empty, with the time that the root is to have when all of this is gone
#   .backupd-restore-ID/units    for a restore of single paths: the paths to exchange, one a line
#   .backupd-restore-ID/parents, time.N
#                                … the directories that they are in, one a line, and empty files with their times
#   .backupd-old-ID/             what was there before
#
#   extracting → ready → moving-old → moving-new → swapped → (gone)
#       (gone) ← undone ← undoing-old ← undoing-new ←┘
#
# In every state each entry is in one place, and the state says which of two meanings the entries of the root have.
# What a kill can cost is the root's time of change, in the instant between an entry of ours coming or going and `touch`.
# Needs of the image, GNU or BusyBox: sh, tar, chmod, chown, df, find, head, mkdir, mv, rm, rmdir, sleep, stat, sync,
# tail, touch. Uses flock where there is one.
set -eu
umask 077
export LC_ALL=C

id=$1
verb=$2
shift 2
stage=.backupd-restore-$id
old=.backupd-old-$id
tree=$stage/tree

fail() {
    echo "$*" >&2
    exit 1
}

# A script whose caller was killed runs on for a moment. The lock is on the volume's root and held by every process of
# the script, so the next one waits for the last of them.
if [ "$verb" != survey ] && command -v flock >/dev/null 2>&1; then
    exec 9<.
    flock 9
fi

# A link of the staging directory's name is somebody else's, and may lead out of the volume.
if [ -L "$stage" ] && [ "$verb" != survey ]; then
    if [ "$verb" = undo ] && [ ! -d "$old" ]; then exit 0; fi # `prepare` has refused it
    fail "$stage is a link, and not of this restore"
fi

# `lost` is what the disk says of something that it took and did not keep, by anybody, since it was asked last. A `sync` that
# knows no files has something to say also where there is nothing to write; it flushes everything, and tells of no loss.
flush() {
    lost=
    [ -n "${sync_says+known}" ] || sync_says=$(sync -f /proc 2>&1) || true
    if [ -n "$sync_says" ]; then sync; else said=$(sync -f . 2>&1) || lost=${said:-"it could not be flushed"}; fi
}

# Before the old data make room, and before they go, all has to be there. A loss that is heard of at another time is an
# old one, or to stop for it, between renames or on the way back, would be worse.
refuse_loss() {
    case $1 in
    ready | moving-old | swapped) [ -z "$lost" ] || fail "what was restored did not reach the disk: $lost" ;;
    esac
}

# Of a state that cannot be read, nothing is known: it is not `none`.
state() {
    word=none
    if [ -f "$stage/state" ]; then
        word=
        read -r word <"$stage/state" || true
    fi
    echo "$word"
}

# One file or directory; a `sync` that takes no file flushes everything instead.
flush_one() {
    sync "$1" 2>/dev/null || flush
}

# The word is on disk, and so is everything that was done before it, when this returns. Services wait for the swap, and
# flushing the file system also writes what others have left unwritten there: it is done once.
enter() {
    flush
    refuse_loss "$1"
    printf '%s\n' "$1" >"$stage/state.new"
    flush_one "$stage/state.new"
    refuse_loss "$1"
    mv -f "$stage/state.new" "$stage/state"
    flush_one "$stage"
}

# Give $2 the time of change of $1, which may be the descriptor of a file that is gone. Not every user may.
set_time() {
    touch -r "$1" "$2" 2>/dev/null || touch -d "@$(stat -L -c %Y "$1")" "$2" 2>/dev/null || true
}

# Move every entry of directory $1 into directory $2; what was moved before a kill is simply not found any more.
move_entries() {
    find "$1" -mindepth 1 -maxdepth 1 ! -name '.backupd-restore-*' ! -name '.backupd-old-*' \
        -exec sh -c 'to=$1; shift; exec mv -f -- "$@" "$to/"' sh "$2" {} +
    left=$(find "$1" -mindepth 1 -maxdepth 1 ! -name '.backupd-restore-*' ! -name '.backupd-old-*' | head -n 1)
    [ -z "$left" ] || fail "cannot move $left"
}

present() {
    [ -e "$1" ] || [ -L "$1" ]
}

# Move the units that exist below $1 to the same place below $2.
move_units() {
    while IFS= read -r unit; do
        if present "$1/$unit"; then
            parent=$2/$unit
            mkdir -p "${parent%/*}"
            mv -f -- "$1/$unit" "$2/$unit"
        fi
    done <"$stage/units"
}

move() {
    if [ -f "$stage/units" ]; then move_units "$1" "$2"; else move_entries "$1" "$2"; fi
}

tar_is_gnu() {
    [ -n "${tar_says:-}" ] || tar_says=$(tar --version 2>&1) || true
    case $tar_says in *GNU*) ;; *) return 1 ;; esac
}

# Owner, mode, times and, with GNU tar, ACLs and extended attributes of one directory, without what is in it. They are
# kept on empty directories, since every move changes the times of the directories that it moves between.
copy_attributes() {
    [ -d "$1" ] || return 0
    if tar_is_gnu; then
        tar -C "$1" --format=posix --xattrs '--xattrs-include=*' --acls --numeric-owner --no-recursion -cf - . |
            tar -C "$2" --xattrs '--xattrs-include=*' --acls --numeric-owner --same-owner -xpf -
    else
        chown "$(stat -c %u:%g "$1")" "$2"
        chmod "$(stat -c %a "$1")" "$2"
        touch -r "$1" "$2"
    fi
}

# A default ACL that the directory got from the volume's root would be handed down to all that is extracted below it.
# Told --acls, GNU tar removes what its stream does not name. Where tar is BusyBox's, there is no tool to do it with.
without_acls() {
    if tar_is_gnu; then
        tar -C "$1" --format=posix --no-recursion -cf - . | tar -C "$1" --acls --numeric-owner -xpf -
    fi
}

# The highest directory above $1 that the volume lacks goes with it. Links on the way would lead somewhere else.
add_unit() {
    unit=$1
    parent=
    rest=$1/
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        rest=${rest#*/}
        here=${parent:+$parent/}$part
        if [ -n "$rest" ] && [ -L "$here" ]; then fail "$here is a symbolic link in the volume, and $1 lies behind it"; fi
        if [ -n "$rest" ] && [ -e "$here" ] && ! [ -d "$here" ]; then fail "$here is no directory in the volume"; fi
        if ! present "$here"; then
            unit=$here
            break
        fi
        parent=$here
    done
    present "$tree/$unit" || fail "$1 was not extracted"
    printf '%s\n' "$unit" >>"$stage/units.new"
    number=$((number + 1))
    parent=./$unit
    parent=${parent%/*}
    printf '%s\n' "$parent" >>"$stage/parents"
    touch -r "$parent" "$stage/time.$number"
}

# Undone, the directories that units were moved out of and back into get their times back.
reset_parents() {
    [ -f "$stage/parents" ] || return 0
    number=0
    while IFS= read -r parent; do
        number=$((number + 1))
        set_time "$stage/time.$number" "$parent"
    done <"$stage/parents"
}

swap() {
    case $(state) in
    ready)
        mkdir -p "$stage/old-root"
        copy_attributes . "$stage/old-root"
        # Whoever may not set them should fail here, and not halfway.
        copy_attributes "$stage/old-root" .
        enter moving-old
        ;;
    esac
    if [ "$(state)" = moving-old ]; then
        move . "$old"
        enter moving-new
    fi
    if [ "$(state)" = moving-new ]; then
        move "$tree" .
        if ! [ -f "$stage/units" ]; then copy_attributes "$stage/new-root" .; fi
        enter swapped
    fi
    [ "$(state)" = swapped ] || fail "cannot swap in state $(state)"
}

undo() {
    case $(state) in
    none)
        # Nothing was begun, or all was over but the last `rm`: then what it kept is to stay.
        [ -d "$stage" ] || return 0
        keep_time
        rmdir "$old" 2>/dev/null || true
        forget "$stage"
        return 0
        ;;
    swapped | moving-new) enter undoing-new ;;
    moving-old) enter undoing-old ;;
    esac
    if [ "$(state)" = undoing-new ]; then
        move . "$tree"
        enter undoing-old
    fi
    if [ "$(state)" = undoing-old ]; then
        move "$old" .
        reset_parents
        copy_attributes "$stage/old-root" .
        enter undone
    fi
    case $(state) in
    extracting | ready | undone) forget "$old" "$stage" ;;
    *) fail "cannot tell from $stage/state how far it has got: what was there before is in $old, or back already" ;;
    esac
}

finish() {
    if [ "${1:-}" = keep ]; then forget "$stage"; else forget "$old" "$stage"; fi
}

# Remove directories of our own without touching the root's time of change. The state goes last: until then the removal
# is simply repeated, which it is at once where a dying tar still writes.
forget() {
    [ -d "$stage" ] || return 0
    keep_time
    exec 8<"$stage/root-time"
    for directory in "$@"; do
        if [ -d "$directory" ]; then
            clear_out "$directory" 2>/dev/null || { sleep 1 && clear_out "$directory"; }
            rm -rf -- "$directory"
            set_time /proc/self/fd/8 .
        fi
    done
    exec 8<&-
    flush
}

keep_time() {
    [ -f "$stage/root-time" ] || touch -r . "$stage/root-time"
}

clear_out() { find "$1" -mindepth 1 -maxdepth 1 ! -name state ! -name root-time -exec rm -rf -- {} +; }

case $verb in
survey)
    # entries: any or none; free: KiB that can be written; then the ids of interrupted restores
    if [ -n "$(find . -mindepth 1 -maxdepth 1 ! -name '.backupd-*' ! -name lost+found | head -n 1)" ]; then
        echo "entries any"
    else
        echo "entries none"
    fi
    echo "device $(stat -c %d .)"
    df -Pk . | while read -r _ _ _ free _; do echo "free $free"; done | tail -n 1
    find . -mindepth 1 -maxdepth 1 -type d -name '.backupd-restore-*' | while IFS= read -r left; do
        echo "left ${left#./.backupd-restore-}"
    done
    ;;
state) state ;;
prepare)
    [ "$(state)" = none ] || fail "a restore of this snapshot was interrupted here: run \`backupd recover\`"
    time=$(stat -c %y .)
    seconds=$(stat -c %Y .)
    # Not -p: what has such a name already is not ours, and could be a link that leads out of the volume.
    mkdir "$stage" && without_acls "$stage" && mkdir "$tree" "$old" ||
        fail "$stage or $old is there, and not of this restore"
    touch -d "$time" . 2>/dev/null || touch -d "@$seconds" . 2>/dev/null || true
    # What the root is to be where the tar does not say. The mode is one that no tar has, to see in `ready` whether it said;
    # the root's own might be setgid, which would be handed down to every directory that is extracted.
    chown "$(stat -c %u:%g .)" "$tree" 2>/dev/null || true
    chmod ug-s "$stage" "$tree"
    chmod 1701 "$tree"
    enter extracting
    ;;
ready)
    [ "$(state)" = extracting ] || fail "nothing is being extracted (state $(state))"
    if [ "$(stat -c %a "$tree")" = 1701 ]; then chmod "$(stat -c %a .)" "$tree"; fi
    rm -f "$stage/units.new" "$stage/parents"
    number=0
    for path in "$@"; do add_unit "$path"; done
    if [ $# -gt 0 ]; then mv -f "$stage/units.new" "$stage/units"; fi
    mkdir -p "$stage/new-root"
    copy_attributes "$tree" "$stage/new-root"
    enter ready
    ;;
swap) swap ;;
undo) undo ;;
finish)
    [ "$(state)" = swapped ] || fail "nothing was swapped (state $(state))"
    finish "$@"
    ;;
complete)
    # After a kill, once the swap was decided. $1: keep, if the old data are to stay. Prints what the volume holds now.
    case $(state) in
    none)
        forget "$stage"
        echo new
        ;;
    ready | moving-old | moving-new | swapped)
        swap
        finish "$@"
        echo new
        ;;
    *)
        undo
        echo old
        ;;
    esac
    ;;
recover)
    # After a kill, when nobody knows what was decided: the shortest way to a whole volume. Arguments and output as above.
    case $(state) in
    moving-old | moving-new | swapped)
        swap
        finish "$@"
        echo new
        ;;
    *)
        undo
        echo old
        ;;
    esac
    ;;
*) fail "unknown verb $verb" ;;
esac
