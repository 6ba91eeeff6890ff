#!/usr/bin/env python3
# backupd-recover 1
"""Gets data out of a backupd repository without backupd. It lies in every repository; RECOVERY.md says how to use it.

    python3 recover.py list
    python3 recover.py [--identity FILE] tar ID VOLUME > volume.tar

Needs Python 3.8 or later with nothing but its standard library, the program `zstd`, and for encrypted snapshots `age`.
If the program `b3sum` or the Python module `blake3` is there, it is used to check more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

try:
    from blake3 import blake3
except ImportError:
    blake3 = None

FORMAT = 2
PIECE = 1 << 20
LARGEST_CHUNK = 16 << 20
SEAL = re.compile(rb',\n "blake3": "([0-9a-f]{64})"\n\}\n\Z')
MISSING_KEY, DAMAGED = 12, 13


class Trouble(Exception):
    """Ends the program: a line for people and an exit code."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


def damaged(what):
    return Trouble(f"damaged: {what}", DAMAGED)


def program(*names):
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise Trouble(
            f"the program {names[0]} is not installed (Debian, Alpine and Homebrew have a package `{names[0]}`)"
        )
    return found


# Objects and their hashes.


def hashed(pieces):
    """The BLAKE3 of some bytes in hex; None where nothing here can compute it."""
    if blake3 is not None:
        state = blake3()
        for piece in pieces:
            state.update(piece)
        return state.hexdigest()
    if not shutil.which("b3sum"):
        return None
    process = subprocess.Popen(["b3sum", "--no-names"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for piece in pieces:
        process.stdin.write(piece)
    return process.communicate()[0].decode().strip()


def path_of(root, key):
    parts = key.split("/")
    if not all(parts) or {".", ".."} & set(parts) or "\\" in key or "\0" in key:
        raise damaged(f"{key!r} is not the name of an object")
    return os.path.join(root, *parts)


def pieces_of(path):
    with open(path, "rb") as file:
        while True:
            piece = file.read(PIECE)
            if not piece:
                return
            yield piece


def checked(root, ref):
    """The path of an object that is there, of its size and, where that can be told, of its hash."""
    path = path_of(root, ref["key"])
    try:
        size = os.path.getsize(path)
    except OSError:
        raise damaged(f"{ref['key']} is missing") from None
    if size != ref["size"]:
        raise damaged(f"{ref['key']} has {size} bytes instead of {ref['size']}")
    if hashed(pieces_of(path)) not in (None, ref["blake3"]):
        raise damaged(f"{ref['key']} is not what was written")
    return path


# Manifests.


def manifest_of(root, name):
    with open(os.path.join(root, "snapshots", name), "rb") as file:
        data = file.read()
    seal = SEAL.search(data)
    if seal is None or hashed([data[: seal.start()]]) not in (None, seal.group(1).decode()):
        raise damaged(f"snapshots/{name} is not what was written")
    manifest = json.loads(data)
    if manifest["format"] > FORMAT:
        raise Trouble(f"snapshots/{name} is of format {manifest['format']}: take a newer recover.py")
    if manifest["id"] + ".json" != name:
        raise damaged(f"snapshots/{name} is the manifest of {manifest['id']}")
    return manifest


def manifests(root):
    """All that can be read, newest first; says what cannot."""
    try:
        names = sorted(os.listdir(os.path.join(root, "snapshots")))
    except OSError as exc:
        raise Trouble(f"{root} is no repository: {exc.strerror} (is there a snapshots directory?)") from None
    found = []
    for name in names:
        if re.fullmatch(r"[0-9a-f]{8,64}\.json", name):
            try:
                found.append(manifest_of(root, name))
            except Trouble as exc:
                print(f"recover.py: {exc}", file=sys.stderr)
            except (ValueError, KeyError, TypeError) as exc:
                print(f"recover.py: damaged: snapshots/{name}: {exc}", file=sys.stderr)
    return sorted(found, key=lambda manifest: manifest["time"], reverse=True)


def chosen(root, wanted, volume):
    everything = manifests(root)
    if wanted == "latest":
        holding = (
            m for m in everything if m["reason"] == "backup" and any(a["volume"] == volume for a in m["archives"])
        )
        matches = [next(holding, None)]
    else:
        matches = [m for m in everything if wanted and m["id"].startswith(wanted.lower())]
    if len(matches) != 1 or matches[0] is None:
        raise Trouble(f"{len([m for m in matches if m])} snapshots are called {wanted}; `recover.py list` shows them")
    for archive in matches[0]["archives"]:
        if archive["volume"] == volume:
            return archive
    held = ", ".join(archive["volume"] for archive in matches[0]["archives"])
    raise Trouble(f"snapshot {wanted} holds no volume {volume}; it holds {held}")


# Decryption.


class Age:
    """Decrypts with the age program. The secret key is opened once, also when a passphrase protects it."""

    def __init__(self, identity):
        if identity is None:
            raise Trouble("this snapshot is encrypted: name the secret key with --identity FILE", MISSING_KEY)
        self.program = program("age", "rage")
        self.identity = identity
        self.secret = None
        self.fits = False
        try:
            with open(identity, "rb") as file:
                content = file.read(PIECE)
        except OSError as exc:
            raise Trouble(f"cannot read {identity}: {exc.strerror}", MISSING_KEY) from None
        if content.startswith((b"age-encryption.org/", b"-----BEGIN AGE ")):
            opened = subprocess.run([self.program, "-d", identity], stdout=subprocess.PIPE, check=False)
            if opened.returncode:
                raise Trouble(f"{identity} was not opened", MISSING_KEY)
            self.secret = opened.stdout

    def decrypt(self, data, what):
        # The opened key goes through a pipe, which holds 64 KiB at least: it never touches a disk.
        key, fds = self.identity, ()
        if self.secret is not None:
            reading, writing = os.pipe()
            os.write(writing, self.secret)
            os.close(writing)
            key, fds = f"/dev/fd/{reading}", (reading,)
        try:
            done = subprocess.run(
                [self.program, "-d", "-i", key],
                input=data,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=fds,
                check=False,
            )
        finally:
            for fd in fds:
                os.close(fd)
        if done.returncode:
            said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[0]
            wrong_key = "identity" in said or "No matching keys" in said
            raise Trouble(f"{what} was not decrypted: {said}", MISSING_KEY if wrong_key and not self.fits else DAMAGED)
        self.fits = True  # for the index, so for all else: from now on it is not the key's fault
        return done.stdout


# Frames into plain bytes.


def frame_size(frame):
    """The content size that a zstd frame's header states (RFC 8878, section 3.1.1.1); None if it does not."""
    if frame[:4] != b"\x28\xb5\x2f\xfd" or len(frame) < 6:
        return None
    flags, at = frame[4], 5
    single = flags >> 5 & 1
    at += (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    width = (single, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(frame[at : at + width], "little")
    return None if not width else size + 256 if width == 2 else size


def gunzipped(frame, size):
    plain = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = plain.decompress(frame, size + 1)
    except zlib.error as exc:
        raise damaged(f"a gzip member: {exc}") from None
    if not plain.eof or plain.unused_data:
        raise damaged("a gzip member is not whole")
    return data


def unzstd(frames):
    """The plain bytes of frames, all of them through one zstd process, in pieces that heed no boundaries."""
    process = subprocess.Popen(
        [program("zstd"), "-dc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    failures = []

    def feed():
        try:
            for frame in frames:
                process.stdin.write(frame)
        except BrokenPipeError:
            pass  # it has died, and says why
        except BaseException as exc:
            failures.append(exc)
            process.kill()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        while True:
            piece = process.stdout.read(PIECE)
            if not piece:
                break
            yield piece
    finally:
        process.stdout.close()
        feeder.join()
        said = process.stderr.read().decode(errors="replace").strip()
        process.stderr.close()
        code = process.wait()
    if failures:
        raise failures[0]
    if code:
        raise damaged(f"zstd: {said.splitlines()[-1] if said else code}")


# An archive.


class Archive:
    def __init__(self, root, archive, age):
        self.root = root
        self.archive = archive
        self.age = age
        self.paths = {ref["key"]: checked(root, ref) for ref in archive["needs"]}
        with open(checked(root, archive["index"]), "rb") as file:
            data = file.read()
        if age is not None:
            data = age.decrypt(data, archive["index"]["key"])
        try:
            head, *lines = b"".join(unzstd([data])).splitlines()
            self.keys = json.loads(head)["archives"]
            self.chunks = [self.understood(json.loads(line)) for line in lines]
        except (ValueError, KeyError, TypeError) as exc:
            raise damaged(f"{archive['index']['key']}: {exc}") from None
        if len(self.chunks) != archive["chunks"] or sum(chunk[1] for chunk in self.chunks) != archive["plain_size"]:
            raise damaged(f"{archive['index']['key']} does not describe all of the stream")

    def understood(self, line):
        digest, plain, number, offset, stored = line
        key = self.keys[number]
        if key not in self.paths or not 0 < plain <= LARGEST_CHUNK or offset < 0 or stored <= 0 or number < 0:
            raise ValueError(f"an impossible line: {line}")
        return digest, plain, key, offset, stored

    def stored(self, chunk):
        _, _, key, offset, stored = chunk
        with open(self.paths[key], "rb") as file:
            file.seek(offset)
            frame = file.read(stored)
        if len(frame) != stored:
            raise damaged(f"{key} ends before offset {offset + stored}")
        return self.age.decrypt(frame, f"{key}, offset {offset},") if key.endswith(".age") else frame

    def frames(self, chunks):
        """The frames in order, read and decrypted ahead: an age process each, as many at a time as there are CPUs."""
        workers = os.cpu_count() or 1
        waiting = deque()
        with ThreadPoolExecutor(workers) as pool:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(self.stored, chunk)))
                if len(waiting) > workers + 2:
                    first, frame = waiting.popleft()
                    yield first, frame.result()
            for first, frame in waiting:
                yield first, frame.result()

    def zstd_frames(self, chunks):
        for chunk, frame in self.frames(chunks):
            if frame_size(frame) != chunk[1]:
                raise damaged(f"{chunk[2]}, offset {chunk[3]}: not a chunk of {chunk[1]} bytes")
            yield frame

    def plain(self):
        """The tar stream, in pieces."""
        for suffix, run in groupby(self.chunks, lambda chunk: chunk[2].replace(".age", "").rpartition(".")[2]):
            if suffix == "zst":
                yield from unzstd(self.zstd_frames(run))
            else:
                for chunk, frame in self.frames(run):
                    data = gunzipped(frame, chunk[1]) if suffix == "gz" else frame
                    if len(data) != chunk[1]:
                        raise damaged(f"{chunk[2]}, offset {chunk[3]}: not a chunk of {chunk[1]} bytes")
                    yield data

    def verified(self):
        """The same; chunk by chunk, and hashed, where the module blake3 is there."""
        if blake3 is None:
            yield from self.plain()
            return
        digests = iter(self.chunks)
        held = bytearray()
        digest, size = next(digests, (None, None, None, None, None))[:2]
        for piece in self.plain():
            held += piece
            while size is not None and len(held) >= size:
                chunk = bytes(held[:size])
                del held[:size]
                if blake3(chunk).hexdigest() != digest:
                    raise damaged(f"a chunk of {self.archive['volume']} is not what was stored")
                yield chunk
                digest, size = next(digests, (None, None, None, None, None))[:2]
        if held:
            raise damaged("more came out than went in")

    def write(self, out):
        size = 0
        for piece in self.verified():
            out.write(piece)
            size += len(piece)
        out.flush()
        if size != self.archive["plain_size"]:
            raise damaged(f"the stream has {size} bytes instead of {self.archive['plain_size']}")
        return size


# The command line.


def list_snapshots(root):
    for manifest in manifests(root):
        for archive in manifest["archives"]:
            kind = "full" if archive["full"] else "incremental"
            readers = (manifest.get("encryption") or {}).get("recipients", ["everybody"])
            print(
                f"{manifest['id'][:12]}  {manifest['time'][:19]}Z  {manifest['plan']}  {archive['volume']}"
                f"  {archive['plain_size']} bytes  {kind}  readable by: {', '.join(readers)}"
            )


def write_tar(root, arguments):
    found = chosen(root, arguments.id, arguments.volume)
    sealed = any(ref["key"].endswith(".age") for ref in [*found["needs"], found["index"]])
    archive = Archive(root, found, Age(arguments.identity) if sealed else None)
    checks = "BLAKE3 of chunks" if blake3 else "BLAKE3 of objects" if shutil.which("b3sum") else "no BLAKE3"
    if arguments.output is None:
        if sys.stdout.isatty():
            raise Trouble("a tar is not for reading: redirect it, or give a file with -o", 2)
        size = archive.write(sys.stdout.buffer)
    else:
        partial = f"{arguments.output}.partial"
        with open(partial, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
            try:
                size = archive.write(out)
                os.replace(partial, arguments.output)
            except BaseException:
                os.unlink(partial)
                raise
    print(f"recover.py: {size} bytes of tar, whole; checked: lengths, checksums of frames, {checks}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", metavar="DIR", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--identity", metavar="FILE", help="the secret key of encrypted snapshots")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the snapshots, newest first")
    tar = commands.add_parser("tar", help="write a volume of a snapshot as a plain tar")
    tar.add_argument("id", metavar="ID", help="a snapshot: its id, the beginning of it, or latest")
    tar.add_argument("volume", metavar="VOLUME")
    tar.add_argument("-o", "--output", metavar="FILE", help="to this file, not standard output")
    arguments = parser.parse_args()
    try:
        if arguments.command == "list":
            list_snapshots(arguments.repository)
        else:
            write_tar(arguments.repository, arguments)
    except Trouble as exc:
        print(f"recover.py: {exc}", file=sys.stderr)
        return exc.code
    except OSError as exc:
        print(f"recover.py: {exc.strerror}: {exc.filename}" if exc.filename else f"recover.py: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
