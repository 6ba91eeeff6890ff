"""What becomes of a request: a table of all that backupd calls, and what has to hold. Everything else is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from backupd.engine.docker.helper import OWNER_LABEL
from backupd.model import PROJECT_LABEL
from backupd.socketproxy import creation, shapes
from backupd.socketproxy.model import OWNED_LABEL, Allowed, Decision, Facts, Found, Refusal, Refused, Rules, missing
from backupd.socketproxy.request import BadRequest, Request
from backupd.socketproxy.shapes import equals, is_true, matches, take, texts
from backupd.socketproxy.things import Things

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}"
_FLAG = matches(r"0|1|true|false|True|False")
_NUMBER = matches(r"-?[0-9]{1,10}")
_FILTERS = {"label", "status", "volume", "name"}


class _Call(Struct, frozen=True):
    """A request that matched a line of the table."""

    things: Things
    request: Request
    name: str
    query: Mapping[str, str]

    def allowed(self, path: str | None = None, body: object = None, *, stream: bool = False) -> Allowed:
        """Pass it on, to `path` instead of its own if given."""
        target = f"{self.request.version}{path or self.request.path}"
        if self.query:
            target += "?" + urlencode(self.query)
        text = None if body is None else json.dumps(body).encode()
        return Allowed(self.request.method, target, text, stream)


_Rule = Callable[[_Call], Decision]


def _plain(call: _Call) -> Decision:
    return call.allowed()


def _listing(call: _Call) -> Decision:
    """A list without a filter, or with one that takes out what is not ours.

    Of containers all are shown, because any could use a volume that is backed up. What backupd looks for as its own
    leftovers is what was made through this proxy.
    """
    filters = _filters(call.query.get("filters", ""))
    labels = filters.get("label", [])
    project = call.things.rules.project
    if any(label.partition("=")[0] in {OWNER_LABEL, creation.DRILL_LABEL} for label in labels):
        labels = [*labels, f"{OWNED_LABEL}={project}"]
    elif not call.request.path.startswith("/containers"):
        labels = [*labels, f"{PROJECT_LABEL}={project}"]
    if labels:
        filters["label"] = labels
    query = {**call.query, "filters": json.dumps(filters)} if filters else dict(call.query)
    return _Call(call.things, call.request, call.name, query).allowed()


def _filters(text: str) -> dict[str, list[str]]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        raise Refusal("the filters are no JSON") from None
    if not isinstance(found, dict) or set(found) - _FILTERS:
        raise Refusal("a filter that is not allowed")
    return {key: _words(value) for key, value in found.items()}


def _words(value: Any) -> list[str]:
    if isinstance(value, dict) and all(chosen is True for chosen in value.values()):
        return list(value)
    if not texts(value):
        raise Refusal("a filter is a list of text")
    return list(value)


def _of(
    look: Callable[[Things, str], Found],
    is_ours: Callable[[Things, Found], bool],
    otherwise: str,
    *,
    stream: bool = False,
) -> _Rule:
    """A request about one thing, passed on if that is there and ours. `otherwise` is the refusal."""

    def rule(call: _Call) -> Decision:
        found = look(call.things, call.name)
        if not is_ours(call.things, found):
            return Refused(otherwise.format(name=call.name, project=call.things.rules.project))
        return call.allowed(_exactly(call.request.path, found), stream=stream)

    return rule


def _exactly(path: str, found: Found) -> str:
    """A container by its full id, which no other container can come to have."""
    _, kind, _, *act = path.split("/")
    return "/".join(["", kind, found["Id"], *act]) if kind == "containers" else path


def _create_container(call: _Call) -> Decision:
    body = creation.new_container(call.things, call.request.document())
    if "name" not in call.query:
        return Refused("what is created has a name of backupd's")
    return call.allowed(body=body)


def _create_exec(call: _Call) -> Decision:
    found = call.things.container(call.name)
    if reason := _why_not_in(call.things, found):
        return Refused(f"nothing may be run in container {call.name}: {reason}")
    shape = {
        "Container": shapes.anything,  # the path says it; the Engine does not look
        "User": matches(r"[A-Za-z0-9_.:-]{1,128}"),
        "AttachStdout": is_true,
        "AttachStderr": is_true,
        "Cmd": texts,
        "Env": texts,
    }
    body = take("the command", call.request.document(), shape, ("Cmd",))
    body.pop("Container", None)
    return call.allowed(f"/containers/{found['Id']}/exec", body)


def _start_exec(call: _Call) -> Decision:
    if reason := _why_not_exec(call):
        return Refused(reason)
    take("the start", call.request.document(), {})
    return call.allowed(body={"Detach": False, "Tty": False}, stream=True)


def _inspect_exec(call: _Call) -> Decision:
    reason = _why_not_exec(call)
    return Refused(reason) if reason else call.allowed()


def _why_not_exec(call: _Call) -> str | None:
    execution = call.things.facts.execution(call.name)
    if execution is None:
        raise missing("exec instance", call.name)
    found = call.things.container(execution["ContainerID"])
    if (execution.get("ProcessConfig") or {}).get("privileged"):
        return "the command is privileged"
    return _why_not_in(call.things, found)


def _why_not_in(things: Things, container: Found) -> str | None:
    """Services are run commands in, and their copies in drills."""
    is_copy = things.was_created_here(container) and creation.DRILL_LABEL in container["Config"]["Labels"]
    if not things.is_of_project(container) and not is_copy:
        return f"it is not of project {things.rules.project}"
    return things.why_not_within(container)


def _create_volume(call: _Call) -> Decision:
    return call.allowed(body=creation.new_volume(call.things, call.request.document()))


def _create_network(call: _Call) -> Decision:
    return call.allowed(body=creation.new_network(call.things, call.request.document()))


_SERVICE = _of(Things.container, Things.is_of_project, "container {name} is not of project {project}")
_OWN = Things.container, Things.was_created_here, "container {name} was not created by this backupd"
_SERVICE_OR_OWN = _of(
    Things.container,
    lambda things, found: things.is_of_project(found) or things.was_created_here(found),
    "container {name} is not of project {project}, and was not created by this backupd",
)
_INSPECT_CONTAINER = _of(
    Things.container,
    lambda things, found: (
        things.was_created_here(found) or things.is_of_project(found) or things.uses_allowed_volume(found)
    ),
    "container {name} is not of project {project}",
)
_INSPECT_IMAGE = _of(
    Things.image,
    lambda things, found: found["Id"] in creation.helper_images(things) | creation.project_images(things),
    "image {name} is neither the helper image nor one of the project's services",
)
_INSPECT_VOLUME = _of(Things.volume, Things.volume_is_allowed, "volume {name} is not of project {project}")
_REMOVE_VOLUME = _of(Things.volume, Things.was_created_here, "volume {name} was not created by this backupd")
_NETWORK = _of(Things.network, Things.was_created_here, "network {name} was not created by this backupd")

_LIST = {"all": _FLAG, "limit": _NUMBER, "size": _FLAG, "trunc_cmd": _FLAG, "filters": shapes.anything}
_LOGS = {"stdout": _FLAG, "stderr": _FLAG, "timestamps": _FLAG, "follow": equals("0"), "tail": _NUMBER}
_STREAMS = dict.fromkeys(("stream", "stdout", "stderr", "stdin", "logs"), _FLAG)
_CREATED = matches(r"backupd-(drill-)?[A-Za-z0-9_.-]{1,120}")

_TABLE: tuple[tuple[str, str, Mapping[str, shapes.Test], _Rule], ...] = (
    ("GET", r"/_ping", {}, _plain),
    ("GET", r"/version", {}, _plain),
    ("GET", r"/info", {}, _plain),
    ("GET", r"/containers/json", _LIST, _listing),
    ("POST", r"/containers/create", {"name": _CREATED}, _create_container),
    ("GET", rf"/containers/({_NAME})/json", {}, _INSPECT_CONTAINER),
    ("GET", rf"/containers/({_NAME})/logs", _LOGS, _SERVICE_OR_OWN),
    ("POST", rf"/containers/({_NAME})/start", {}, _SERVICE_OR_OWN),
    ("POST", rf"/containers/({_NAME})/stop", {"t": _NUMBER}, _SERVICE),
    ("POST", rf"/containers/({_NAME})/(?:pause|unpause)", {}, _SERVICE),
    ("POST", rf"/containers/({_NAME})/wait", {"condition": matches(r"[a-z-]+")}, _of(*_OWN)),
    ("POST", rf"/containers/({_NAME})/attach", _STREAMS, _of(*_OWN, stream=True)),
    ("DELETE", rf"/containers/({_NAME})", {"v": _FLAG, "link": equals("False"), "force": _FLAG}, _of(*_OWN)),
    ("POST", rf"/containers/({_NAME})/exec", {}, _create_exec),
    ("POST", r"/exec/([0-9a-f]{64})/start", {}, _start_exec),
    ("GET", r"/exec/([0-9a-f]{64})/json", {}, _inspect_exec),
    ("GET", r"/images/([A-Za-z0-9][A-Za-z0-9_./:@-]{0,254})/json", {}, _INSPECT_IMAGE),
    ("GET", r"/volumes", {"filters": shapes.anything}, _listing),
    ("POST", r"/volumes/create", {}, _create_volume),
    ("GET", rf"/volumes/({_NAME})", {}, _INSPECT_VOLUME),
    ("DELETE", rf"/volumes/({_NAME})", {"force": _FLAG}, _REMOVE_VOLUME),
    ("GET", r"/networks", {"filters": shapes.anything}, _listing),
    ("POST", r"/networks/create", {}, _create_network),
    ("GET", rf"/networks/({_NAME})", {}, _NETWORK),
    ("DELETE", rf"/networks/({_NAME})", {}, _NETWORK),
)
_COMPILED = tuple((method, re.compile(pattern), query, rule) for method, pattern, query, rule in _TABLE)
_WITH_BODY = frozenset({_create_container, _create_exec, _start_exec, _create_volume, _create_network})


def decide(rules: Rules, facts: Facts, request: Request) -> Decision:
    """What becomes of a request. Pure, but for what `facts` looks up."""
    for method, pattern, query, rule in _COMPILED:
        matched = pattern.fullmatch(request.path)
        if matched is None or method != request.method:
            continue
        name = matched[1] if pattern.groups else ""
        try:
            if request.body and rule not in _WITH_BODY:
                return Refused("this request has no body")
            return rule(_Call(Things(rules, facts), request, name, _checked(request.query, query)))
        except Refusal as exc:
            return Refused(str(exc), exc.status)
        except BadRequest as exc:
            return Refused(str(exc), 400)
    return Refused("backupd has no use for that")


def _checked(given: Mapping[str, str], allowed: Mapping[str, shapes.Test]) -> dict[str, str]:
    for key, value in given.items():
        test = allowed.get(key)
        if test is None or not test(value):
            raise Refusal(f"the parameter {key}={value[:80]} is not allowed")
    return dict(given)
