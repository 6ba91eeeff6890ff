"""What no single key can decide. Works on the plain tree, so that these problems show up along with all others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backupd.settings.errors import Key, Problem
from backupd.settings.words import did_you_mean

_HIGHEST_GZIP_LEVEL = 9
KEEP_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly", "within")
"""Those of `keep` that say how much is kept; the others only add to them."""


def with_default_plan(tree: Any) -> Any:
    """`tree` with the plan `default`, all volumes to all stores, if it has no plans."""
    if not isinstance(tree, dict) or tree.get("plans", {}) != {}:
        return tree
    volumes, stores = tree.get("volumes", {}), tree.get("stores")
    if not (isinstance(volumes, dict) and isinstance(stores, dict) and stores):
        return tree
    if not (volumes or _labels_may_say(tree)):
        return tree
    return {**tree, "plans": {"default": {"volumes": list(volumes), "stores": list(stores)}}}


def broken(tree: Any) -> Iterator[Problem]:
    """Every rule between keys that `tree` breaks. What is not of the right shape is passed over: the model tells."""
    if not isinstance(tree, dict):
        return
    for name, store in _mappings(tree, "stores"):
        if store.get("type") == "s3":
            yield from _s3(("stores", name), store)
    if tree.get("volumes", {}) == {} and not _labels_may_say(tree):
        yield Problem(("volumes",), f"{'at least one' if 'volumes' in tree else 'a'} volume is missing")
    for name, volume in _mappings(tree, "volumes"):
        yield from _volume(("volumes", name), volume, tree.get("engine", "docker"))
    for name, plan in _mappings(tree, "plans"):
        yield from _plan(("plans", name), plan, tree)
    notifications = tree.get("notifications")
    for name, target in _mappings(notifications, "targets") if isinstance(notifications, dict) else ():
        if isinstance(tree.get("plans"), dict):
            yield from _references(
                ("notifications", "targets", name, "plans"), target.get("plans"), "plan", tree["plans"]
            )


def _labels_may_say(tree: dict[str, Any]) -> bool:
    """Whether labels of the Compose project's volumes can say what is backed up."""
    return bool(tree.get("project")) and tree.get("engine", "docker") == "docker"


def _mappings(tree: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    table = tree.get(key)
    if isinstance(table, dict):
        yield from ((name, entry) for name, entry in table.items() if isinstance(entry, dict))


def _s3(key: Key, store: dict[str, Any]) -> Iterator[Problem]:
    keys = "access_key_id", "secret_access_key"
    given = [name for name in keys if store.get(name)]
    if len(given) == 1:
        missing = next(name for name in keys if name not in given)
        yield Problem((*key, missing), f"is missing: {keys[0]} and {keys[1]} come together, or not at all")
    if store.get("session_token") and not given:
        yield Problem((*key, "session_token"), f"needs {keys[0]} and {keys[1]}")
    if store.get("profile") and given:
        yield Problem((*key, "profile"), f"expected either a profile or {keys[0]} and {keys[1]}, not both")
    if store.get("sse_kms_key_id") and store.get("sse") != "aws:kms":
        yield Problem((*key, "sse_kms_key_id"), "needs `sse: aws:kms`")


def _volume(key: Key, volume: dict[str, Any], engine: object) -> Iterator[Problem]:
    given = [name for name in ("volume", "path") if volume.get(name)]
    if len(given) != 1:
        found = "both" if given else "neither"
        yield Problem(key, f"expected exactly one of volume (a Docker volume) and path (a directory), not {found}")
    elif engine == "mounted" and "volume" in given:
        yield Problem(
            (*key, "volume"),
            "the mounted engine knows no Docker volumes: give the directory that it is mounted at as path"
            " (and `volume: null`, if another file sets it)",
        )


def _plan(key: Key, plan: dict[str, Any], tree: dict[str, Any]) -> Iterator[Problem]:
    if plan.get("volumes", ()) in ((), []) and not _labels_may_say(tree):
        what = "at least one volume" if "volumes" in plan else "a list of volumes"
        yield Problem((*key, "volumes"), f"{what} is missing")
    for noun, table in (("volume", "volumes"), ("store", "stores")):
        if isinstance(tree.get(table), dict):
            yield from _references((*key, table), plan.get(table), noun, tree[table])
    codec, level = plan.get("compression", "zstd"), plan.get("compression_level")
    if codec == "none" and level is not None:
        yield Problem((*key, "compression_level"), "`compression: none` has no levels")
    elif codec == "gzip" and _as_int(level) > _HIGHEST_GZIP_LEVEL:
        yield Problem((*key, "compression_level"), "expected a level from 1 to 9 for gzip")
    if isinstance(plan.get("keep"), dict):
        yield from _keep((*key, "keep"), plan["keep"], plan.get("stores"))


def _keep(key: Key, keep: dict[str, Any], stores: Any) -> Iterator[Problem]:
    missing = f"expected at least one of {', '.join(KEEP_RULES)}"
    own = dict(_mappings(keep, "stores"))
    if not own and not any(rule in keep for rule in KEEP_RULES):
        yield Problem(key, missing)
    for name, rules in own.items():
        if isinstance(stores, list | tuple) and name not in stores:
            guess = did_you_mean(name, [store for store in stores if isinstance(store, str)])
            yield Problem((*key, "stores", name), f"the plan has no store {name!r}{guess}")
        if not any(rule in rules for rule in KEEP_RULES):
            yield Problem((*key, "stores", name), missing)


def _references(key: Key, names: Any, noun: str, known: dict[str, Any]) -> Iterator[Problem]:
    if not isinstance(names, list | tuple):
        return
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            continue
        if name not in known:
            yield Problem(key, f"there is no {noun} {name!r}{did_you_mean(name, known)}")
        elif name in seen:
            yield Problem(key, f"the {noun} {name!r} is named twice")
        seen.add(name)


def _as_int(value: object) -> int:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else 0
