"""Probes against servers whose answers are written down."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from backupd.drill.options import Check, DrillOptions
from backupd.drill.probes import OutOfTime, Results, check_database, probe_for, run_checks, without_secrets
from backupd.drill.probes.postgres import PostgresProbe
from backupd.drill.probes.redis import RedisProbe
from backupd.errors import SourceError
from backupd.model import VolumeSpec
from backupd.services import CommandResult
from tests.unit.drill.fakes import FakeServices, bad, ok, service, subject


@pytest.mark.parametrize(
    ("image", "probe"),
    [
        ("postgres:16", "postgres"),
        ("docker.io/library/postgres@sha256:0", "postgres"),
        ("localhost:5000/postgis", "postgres"),
        ("timescale/timescaledb-ha:pg16", "postgres"),
        ("redis:7-alpine", "redis"),
        ("valkey/valkey:8", "redis"),
        ("prometheuscommunity/postgres-exporter", None),
        ("oliver006/redis_exporter", None),
        ("dpage/pgadmin4", None),
        ("nginx", None),
    ],
)
def test_probes_are_chosen_by_image(image: str, probe: str | None) -> None:
    found = probe_for(service(image=image))
    assert (found.name if found else None) == probe


def test_probes_are_chosen_by_environment() -> None:
    assert probe_for(service(image="own/db", environment={"PG_MAJOR": "16", "PGDATA": "/d"})) is not None
    assert probe_for(service(image="own/db", environment={"PGDATA": "/d"})) is None


class TestPostgres:
    def answers(self, **special: CommandResult) -> FakeServices:
        def answer(command: Sequence[str], environment: Mapping[str, str]) -> CommandResult:
            text = " ".join(command)
            for part, result in special.items():
                if part in text:
                    return result
            if "pg_amcheck" in text:
                return ok()
            if "from pg_database" in text:
                return ok("postgres\nshop\n")
            if "show server_version" in text:
                return ok("16.1\n")
            if "pg_table_size" in text:
                return ok('public.orders\npublic."Odd Name"\n') if "'shop'" in text else ok("")
            if "count(*) from only" in text:
                return ok("42\n")
            return ok("1\n")

        return FakeServices(answer)

    def run(self, services: FakeServices, **rest: object) -> Results:
        results = Results("postgres", "db-1")
        PostgresProbe().run(subject(services, **rest), results)
        return results

    def test_all_is_well(self) -> None:
        services = self.answers()
        results = self.run(services)
        assert [finding.verdict for finding in results.findings] == ["proven"] * 4
        assert results.counts == {"postgres: tables": 0, "shop: tables": 2, "shop: public.orders": 42,
                                  'shop: public."Odd Name"': 42}  # fmt: skip

    def test_login(self) -> None:
        seen: list[tuple[str, str | None]] = []

        def answer(command: Sequence[str], environment: Mapping[str, str]) -> CommandResult:
            user = command[command.index("-U") + 1] if "-U" in command else ""
            seen.append((user, environment.get("PGPASSWORD")))
            return self.answers().answer(command, environment)

        db = service(environment={"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": "pw-of-env"})
        self.run(FakeServices(answer), service=db)
        assert seen[0] == ("shop", "pw-of-env")
        seen.clear()
        self.run(FakeServices(answer), service=db, spec=VolumeSpec("v", volume="v", user="me", password="mine"))
        assert seen[0] == ("me", "mine")

    def test_damage(self) -> None:
        error = bad("ERROR:  invalid page in block 3 of relation base/5/16384")
        results = self.run(self.answers(**{"from only public.orders": error}))
        (failed,) = [finding for finding in results.findings if finding.verdict == "failed"]
        assert failed.damage
        assert "public.orders cannot be read: ERROR: invalid page in block 3" in failed.text
        found = CommandResult(2, 'heap table "shop.public.orders":\n  ERROR:  xmin is in the future\n', "")
        results = self.run(self.answers(pg_amcheck=found))
        (failed,) = [finding for finding in results.findings if finding.verdict == "failed"]
        assert failed.damage
        assert "xmin is in the future" in failed.text

    def test_without_pg_amcheck(self) -> None:
        results = self.run(self.answers(pg_amcheck=bad("", 127)))
        assert any(f.verdict == "skipped" and "no pg_amcheck" in f.text for f in results.findings)
        results = self.run(self.answers(pg_amcheck=bad("error: permission denied")))
        assert any(f.verdict == "warning" and "permission denied" in f.text for f in results.findings)

    def test_a_database_that_does_not_answer(self) -> None:
        results = self.run(self.answers(**{"dbname='shop'": bad('FATAL:  could not open file "base/5/PG_VERSION"')}))
        (failed,) = [finding for finding in results.findings if finding.verdict == "failed"]
        assert failed.damage
        assert failed.text.startswith("database shop does not answer")

    def test_a_server_that_refuses(self) -> None:
        with pytest.raises(SourceError, match="password authentication failed"):
            self.run(self.answers(from_=ok(), **{"from pg_database": bad("FATAL: password authentication failed")}))

    def test_tables_of_the_drill_before_are_counted_again(self) -> None:
        names = [f"public.t{number}" for number in range(9)]
        services = self.answers(pg_table_size=ok("\n".join(names)))
        results = self.run(services, known={"shop: public.t8": 3, "shop: public.gone": 3})
        assert {key for key in results.counts if key.startswith("shop: public")} == {
            *(f"shop: public.t{number}" for number in (0, 1, 2, 3, 4, 8))
        }

    def test_time(self) -> None:
        with pytest.raises(OutOfTime):
            self.run(self.answers(), deadline=time.monotonic() - 1)


class TestRedis:
    INFO = "# Server\r\nredis_version:7.2.4\r\nloading:0\r\naof_enabled:0\r\ndb0:keys=5,expires=0\r\ndb3:keys=2,x=1\r\n"

    def run(self, answer: object, **rest: object) -> Results:
        results = Results("redis", "cache")
        redis = service("cache", "redis:7", environment={"REDIS_PASSWORD": "from-env"})
        RedisProbe().run(subject(FakeServices(answer), **({"service": redis, "command": ()} | rest)), results)  # type: ignore[arg-type]
        return results

    def test_keys_are_counted(self) -> None:
        results = self.run(lambda _c, _e: ok(self.INFO))
        assert results.counts == {"keys": 7}
        assert results.findings[0].text == "loaded 7 keys (7.2.4; db0 5, db3 2)"

    def test_waits_while_it_loads(self) -> None:
        infos = iter([self.INFO.replace("loading:0", "loading:1"), self.INFO])
        assert self.run(lambda _c, _e: ok(next(infos))).counts == {"keys": 7}

    def test_a_dump_that_was_not_loaded(self) -> None:
        empty = "redis_version:7.2.4\nloading:0\naof_enabled:1\n"
        results = self.run(lambda _c, _e: ok(empty), files={"dump.rdb": 4000, "appendonlydir/a.aof": 88})
        (finding,) = results.findings
        assert (finding.verdict, finding.damage) == ("failed", True)
        assert "dump.rdb has 4,000 bytes: it runs with appendonly yes" in finding.text
        assert self.run(lambda _c, _e: ok(empty), files={"dump.rdb": 88}).findings[0].verdict == "proven"

    @pytest.mark.parametrize(
        ("rest", "password"),
        [
            ({"spec": VolumeSpec("v", volume="v", password="of-spec")}, "of-spec"),
            ({"command": ("redis-server", "--requirepass", "of-command")}, "of-command"),
            ({"command": ("sh", "-c", "redis-server --requirepass in-shell")}, "in-shell"),
            ({}, "from-env"),
            ({"command": ("redis-server", "/etc/r.conf")}, "of-file"),
        ],
    )
    def test_passwords(self, rest: dict[str, object], password: str) -> None:
        def answer(command: Sequence[str], environment: Mapping[str, str]) -> CommandResult:
            if command[0] == "cat":
                return ok('port 6379\nrequirepass "of-file"\n')
            if environment.get("REDISCLI_AUTH") != password:
                return ok("NOAUTH Authentication required.\n")
            return ok(self.INFO + "errorstat_NOAUTH:count=1\n")

        assert self.run(answer, **rest).counts == {"keys": 7}

    def test_no_password_fits(self) -> None:
        with pytest.raises(SourceError, match="wants a password that is not known"):
            self.run(lambda _c, _e: ok("NOAUTH Authentication required.\n"))

    def test_no_client(self) -> None:
        with pytest.raises(SourceError, match="no redis-cli"):
            self.run(lambda _c, _e: bad("", 127))


class TestChecks:
    def run(
        self, check: Check, result: CommandResult | None = None, names: tuple[str, ...] = ("db", "db-1")
    ) -> Results:
        def answer(command: Sequence[str], environment: Mapping[str, str]) -> CommandResult:
            if result is None:
                raise SourceError("it takes longer")
            return result

        results = Results("check", "db")
        db = service(environment={"DB_PASSWORD": "hunter2"})
        options = DrillOptions(checks=(check,))
        run_checks(subject(FakeServices(answer), service=db, options=options), frozenset(names), results)
        return results

    @pytest.mark.parametrize(
        ("check", "result", "verdict", "text"),
        [
            (Check(("true",)), ok(), "proven", "`true` is as expected"),
            (Check(("false",), exit_code=1), bad("x"), "proven", "as expected"),
            (Check(("a", "b"), expect="^4[0-9]$"), ok("rows:\n42\n"), "proven", "`a b` is"),
            (Check(("a",), expect="^4$"), ok("42\n"), "failed", "printed '42', which does not match '^4$'"),
            (Check(("a",)), bad("no hunter2 here\nmore"), "failed", "ended with 1 instead of 0: no ******** here"),
            (Check(("a",)), None, "failed", "did not end within 60 s"),
        ],
    )
    def test_verdicts(self, check: Check, result: CommandResult | None, verdict: str, text: str) -> None:
        (finding,) = self.run(check, result).findings
        assert finding.verdict == verdict
        assert text in finding.text

    def test_a_check_for_another_service(self) -> None:
        assert self.run(Check(("a",), service="web"), ok()).findings == []
        assert len(self.run(Check(("a",), service="db"), ok()).findings) == 1


class TestSqlite:
    def database(self, path: Path, journal: str = "wal") -> Path:
        connection = sqlite3.connect(path)
        connection.execute(f"pragma journal_mode = {journal}")
        connection.execute("create table t (id integer primary key, x)")
        connection.execute("create index i on t (x)")
        connection.executemany("insert into t (x) values (?)", ((f"{i}" * 50,) for i in range(500)))
        connection.commit()
        connection.close()
        return path

    def check(self, path: Path, seconds: float = 60) -> Results:
        results = Results("sqlite", "v")
        check_database(path, "name.db", time.monotonic() + seconds, results)
        return results

    def test_good(self, tmp_path: Path) -> None:
        results = self.check(self.database(tmp_path / "odd name?#.db"))
        assert results.findings[0].text == "name.db: integrity_check ok, 500 rows in 1 tables"
        assert results.counts == {"name.db: tables": 1, "name.db: rows": 500}

    def test_damaged(self, tmp_path: Path) -> None:
        path = self.database(tmp_path / "d", "delete")
        data = bytearray(path.read_bytes())
        data[4096 * 2 : 4096 * 2 + 300] = bytes(300)
        path.write_bytes(data)
        (finding,) = self.check(path).findings
        assert (finding.verdict, finding.damage) == ("failed", True)
        path.write_bytes(path.read_bytes()[:5000])
        assert self.check(path).findings[0].damage

    def test_time(self, tmp_path: Path) -> None:
        path = tmp_path / "d"
        connection = sqlite3.connect(path)
        connection.execute("create table t (id integer primary key, x)")
        connection.executemany("insert into t (x) values (?)", ((f"{i}" * 20,) for i in range(40_000)))
        connection.commit()
        connection.close()
        with pytest.raises(OutOfTime):
            self.check(path, seconds=-1)


def test_secrets_are_masked() -> None:
    db = service(environment={"API_KEY": "abcdef", "MODE": "production", "X_TOKEN": "ab"})
    assert without_secrets("abcdef in production, ab\n", db) == "******** in production, ab"
    assert len(without_secrets("x" * 1000, db)) == 301
