"""What is made of a Redis's answers, with a client that gives any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from backupd.consistency import redis_save
from backupd.consistency.redis_access import Access
from backupd.consistency.redis_files import RedisFiles, files_of
from backupd.consistency.redis_save import save
from backupd.consistency.redis_server import RedisServer
from backupd.errors import SourceError
from backupd.model import Volume
from backupd.services import CommandResult, MountPoint, Service
from tests.support.runtime import TickingClock
from tests.support.services import FakeServices, service

IDLE = {"run_id": "1", "redis_version": "7.0.15", "rdb_bgsave_in_progress": "0", "rdb_last_bgsave_status": "ok"}
SAVING = IDLE | {"rdb_bgsave_in_progress": "1", "current_save_keys_total": "200", "current_save_keys_processed": "50"}
STARTED = "Background saving started"


@dataclass
class Answering(FakeServices):
    """`infos` come one after the other, the last for ever; `replies` to other commands likewise."""

    infos: list[Mapping[str, str]] = field(default_factory=lambda: [IDLE])
    replies: dict[str, list[str]] = field(default_factory=dict)

    def run(self, service: Service, command: Sequence[str], **rest: object) -> CommandResult:
        del service, rest
        words = " ".join(command[1:])
        self.acts.append(words)
        if words == "INFO":
            info = self.infos.pop(0) if len(self.infos) > 1 else self.infos[0]
            return CommandResult(0, "# Server\r\n" + "".join(f"{key}:{value}\r\n" for key, value in info.items()), "")
        replies = self.replies.get(words, [""])
        return CommandResult(0, (replies.pop(0) if len(replies) > 1 else replies[0]) + "\n", "")


def server_of(services: Answering) -> RedisServer:
    mounts = (MountPoint("volume", "other", "/", True), MountPoint("volume", "v", "/data", True))
    return RedisServer(services, service("redis", mounts=mounts), "redis-cli", Access(()))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_save, "_FIRST_POLL_SECONDS", 0.0)


class TestSave:
    def saved(self, services: Answering) -> list[str]:
        notes: list[str] = []
        save(server_of(services), TickingClock(), notes.append)
        return notes

    def test_waits_for_its_end(self) -> None:
        services = Answering(infos=[IDLE, SAVING, SAVING, IDLE], replies={"BGSAVE": [STARTED]})
        self.saved(services)
        assert services.acts == ["INFO", "BGSAVE", "INFO", "INFO", "INFO"]

    def test_waits_for_another_one_first(self) -> None:
        rewriting = IDLE | {"aof_rewrite_in_progress": "1"}
        services = Answering(infos=[SAVING, rewriting, IDLE], replies={"BGSAVE": [STARTED]})
        self.saved(services)
        assert services.acts.index("BGSAVE") == 3

    def test_another_one_begins_in_between(self) -> None:
        refusals = [
            "ERR Background save already in progress",
            "ERR Another child process is active (AOF?): can't BGSAVE",
        ]
        services = Answering(infos=[IDLE], replies={"BGSAVE": [*refusals, STARTED]})
        self.saved(services)
        assert services.acts.count("BGSAVE") == 3

    def test_one_that_follows_at_once_is_not_waited_for(self) -> None:
        before, after = IDLE | {"rdb_last_save_time": "5"}, SAVING | {"rdb_last_save_time": "9"}
        services = Answering(infos=[before, after], replies={"BGSAVE": [STARTED]})
        self.saved(services)
        assert services.acts[-1] == "INFO"

    def test_a_server_that_always_saves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its next save is as good as ours, if it began after the moment; and a replica's is not."""
        clock = iter(range(0, 1000, 5))
        monkeypatch.setattr(redis_save, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
        old = SAVING | {"rdb_current_bgsave_time_sec": "99", "rdb_last_save_time": "100"}
        to_replica = SAVING | {"rdb_current_bgsave_time_sec": "0", "rdb_last_save_time": "200"}
        none = IDLE | {"rdb_last_save_time": "200"}
        own = SAVING | {"rdb_current_bgsave_time_sec": "1", "rdb_last_save_time": "200"}
        next_one = SAVING | {"rdb_current_bgsave_time_sec": "0", "rdb_last_save_time": "300"}
        services = Answering(infos=[old, old, to_replica, none, own, own, next_one])
        self.saved(services)
        assert "BGSAVE" not in services.acts
        assert len(services.acts) == 7

    def test_tells_how_far_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_save, "_NEWS_SECONDS", 0.0)
        services = Answering(infos=[IDLE, SAVING, IDLE], replies={"BGSAVE": [STARTED]})
        assert self.saved(services) == ["redis: saving, 25 % of the keys"]

    @pytest.mark.parametrize(
        ("after", "message"),
        [
            (IDLE | {"rdb_last_bgsave_status": "err"}, "could not save its data"),
            (IDLE | {"run_id": "2"}, "restarted while it saved"),
        ],
    )
    def test_failures(self, after: dict[str, str], message: str) -> None:
        with pytest.raises(SourceError, match=message):
            self.saved(Answering(infos=[IDLE, after], replies={"BGSAVE": [STARTED]}))

    @pytest.mark.parametrize(
        ("reply", "message", "hint"),
        [
            ("ERR", "its fork failed", "overcommit_memory"),
            ("(error) ERR", "its fork failed", "overcommit_memory"),
            ("ERR unknown command 'BGSAVE'", "refuses BGSAVE: ERR unknown command", "consistency: stop"),
            ("NOPERM this user", "refuses BGSAVE: NOPERM", "consistency: stop"),
            ("Good morning", "answers BGSAVE with 'Good morning'", "consistency: stop"),
        ],
    )
    def test_refusals(self, reply: str, message: str, hint: str) -> None:
        with pytest.raises(SourceError, match=message) as caught:
            self.saved(Answering(replies={"BGSAVE": [reply]}))
        assert hint in str(caught.value.hint)

    def test_one_that_never_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_save, "LONGEST_SECONDS", 0)
        with pytest.raises(SourceError, match="has been saving for"):
            self.saved(Answering(infos=[SAVING]))


class TestFiles:
    VOLUME = Volume(name="v", kind="volume", source="v")

    def files(self, **settings: str) -> RedisFiles:
        version = settings.pop("version", "7.0.15")
        given = {"dir": "/data", "dbfilename": "dump.rdb", "appendonly": "no", **settings}
        replies = {f"CONFIG GET {name}": [f"{name}\n{value}"] for name, value in given.items()}
        return files_of(server_of(Answering(infos=[{"redis_version": version}], replies=replies)), self.VOLUME)

    def test_without_append_only_file(self) -> None:
        files = self.files(dir="/data/sub", dbfilename="[x].rdb")
        assert files == RedisFiles("sub", "sub/[x].rdb")
        assert files.left_out == ("/sub/temp-*.rdb", "/sub/temp-rewriteaof-*.aof")
        assert files.place("sub/[x].rdb") == "sub/[x].rdb"

    def test_several_parts(self) -> None:
        files = self.files(appendonly="yes", appendfilename="a.aof", appenddirname="aofs")
        assert files == RedisFiles("", "dump.rdb", "aofs", "a.aof")
        assert files.left_out == ("/temp-*.rdb", "/temp-rewriteaof-*.aof", "/aofs/*")

    def test_one_file(self) -> None:
        files = self.files(appendonly="yes", appendfilename="a*.aof", version="6.2.14")
        assert files == RedisFiles("", "dump.rdb", None, "a*.aof")
        assert files.left_out[-1] == "/a\\*.aof"
        assert (files.place("dump.rdb"), files.place("x")) == ("a*.aof", "x")

    def test_too_old(self) -> None:
        with pytest.raises(SourceError, match="too old"):
            self.files(appendonly="yes", version="3.2.0")

    def test_nowhere(self) -> None:
        with pytest.raises(SourceError, match="does not say where"):
            self.files(dir="")

    @pytest.mark.parametrize("place", ["/database", "/", "/tmp", "/dat"])
    def test_elsewhere(self, place: str) -> None:
        with pytest.raises(SourceError, match="which is not in v"):
            self.files(dir=place)
