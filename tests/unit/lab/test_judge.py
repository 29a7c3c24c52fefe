"""What is right is found right, and each thing that can be wrong is found by its own name."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from foundry.lab import judge
from foundry.lab.history import History, Operation, Probe, Value, Write
from tests.unit.lab.histories import failover, history, op, present, probe, steady

MAXIMUM_LAG = 1048576


def found(
    operations: Sequence[Operation],
    rows: Sequence[Value] | None = None,
    probes: Sequence[Probe] = (),
    *,
    synchronous: bool = False,
    maximum_lag: int | None = MAXIMUM_LAG,
    ttl: float = 30.0,
) -> judge.Judgement:
    """The judgement of a history. rows: None for what a cluster that lost nothing holds."""
    held = present(operations) if rows is None else rows
    return judge.judge(history(operations, probes), held, synchronous=synchronous, maximum_lag=maximum_lag, ttl=ttl)


def without(operations: Sequence[Operation], *lost: Value) -> list[Value]:
    return [value for value in present(operations) if value not in lost]


UNKNOWN = op(2, 1, 3.5, "unknown")

RIGHT: dict[str, tuple[Sequence[Operation], Sequence[Value] | None, Sequence[Probe]]] = {
    "steady": (steady(), None, ()),
    "failover": (failover(), None, ()),
    "unknown, and absent": ([*steady(), UNKNOWN], None, ()),
    "unknown, and there": ([*steady(), UNKNOWN], [*present(steady()), UNKNOWN.value], ()),
    "back and forth as three leaderships": (
        [op(1, 1, 1.0), op(1, 2, 3.0, by="b", timeline=2), op(1, 3, 5.0, timeline=3)],
        None,
        (),
    ),
    "two timelines of one member": ([op(1, 1, 1.0), op(1, 2, 3.0, timeline=2)], None, ()),
    "a slow answer of the old leader": (
        # Committed before b was promoted, answered after.
        [op(1, 1, 2.0, lasts=4.0), op(1, 2, 5.0, by="b", timeline=2)],
        None,
        (),
    ),
    "probes of two leaders, one after the other": (
        steady(1),
        None,
        [probe("a", 1.5, "accepted"), probe("b", 2.5, "accepted", timeline=2)],
    ),
    "several clients at once on one leader": ([op(c, 1, 1.0 + c / 1000) for c in range(5)], None, ()),
    "an old timeline's write that overlaps the newer one's": (
        [op(1, 1, 1.0), op(1, 2, 2.0, lasts=0.5), op(2, 1, 2.3, by="b", timeline=2)],
        None,
        (),
    ),
}


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_not_blamed(name: str, synchronous: bool) -> None:
    operations, rows, probes = RIGHT[name]
    assert found(operations, rows, probes, synchronous=synchronous).violations == []


def test_a_failover_may_lose_the_end_of_the_old_timeline() -> None:
    operations = failover()
    judgement = found(operations, without(operations, Value(1, 3), Value(1, 4)))
    assert judgement.violations == []
    assert judgement.lost == [Value(1, 3), Value(1, 4)]
    assert judgement.losses == [judge.Loss(1, "a", values=2, wal=2000, seconds=1.0, last_ttl=3000)]


def test_nothing_of_a_timeline_may_have_survived() -> None:
    operations = failover()
    judgement = found(operations, without(operations, *(Value(1, n) for n in range(1, 5))))
    assert judgement.violations == []
    assert judgement.losses[0].values == 4 and judgement.losses[0].wal == 3000


WRONG: dict[str, tuple[str, Sequence[Operation], Sequence[Value] | None, Sequence[Probe]]] = {
    "written twice": ("more than once", steady(), [*present(steady()), Value(1, 2)], ()),
    "unknown written twice": ("more than once", [*steady(), UNKNOWN], [*present(steady()), *[UNKNOWN.value] * 2], ()),
    "written three times": ("1 (1/9)", steady(), [*present(steady()), *[Value(1, 9)] * 2], ()),
    "a value of no operation": ("nobody wrote", steady(), [*present(steady()), Value(1, 99)], ()),
    "a value of no client": ("nobody wrote", steady(), [*present(steady()), Value(7, 1)], ()),
    "failed and there": ("had failed", failover(), [*present(failover()), Value(1, 5)], ()),
    "a hole": ("later is there", steady(), without(steady(), Value(1, 4)), ()),
    "a hole at the beginning": ("later is there", steady(), without(steady(), Value(1, 1)), ()),
    "a hole before a failover": ("later is there", failover(), without(failover(), Value(1, 2)), ()),
    "a hole after a failover": ("later is there", failover(), without(failover(), Value(1, 8)), ()),
    "only the newest survived": (
        "8 (1/1, 1/2, 1/3, 1/4, 1/5 and 3 more) acknowledged",
        steady(),
        [Value(1, 9)],
        (),
    ),
    "nothing acknowledged": ("proves nothing", [op(1, 1, 1.0, "fail")], None, ()),
    "nothing tried": ("proves nothing", [], None, ()),
    "one timeline, two members": (
        "a and b both took writes on timeline 1",
        [op(1, 1, 1.0), op(1, 2, 3.0, by="b")],
        None,
        (),
    ),
    "one timeline, two members' probes": (
        "a and b both",
        steady(1),
        None,
        [probe("a", 2.5, "accepted", timeline=2), probe("b", 4.5, "accepted", timeline=2)],
    ),
    "an older timeline after a newer one": (
        "a took 1 writes on timeline 1 from 0.990 s to 0.990 s after b had begun timeline 2 (at 3.01 s)",
        [op(1, 1, 1.0), op(1, 2, 3.0, by="b", timeline=2), op(2, 1, 4.0)],
        None,
        (),
    ),
    "an older timeline's probe after a newer one's": (
        "a took 1 writes on timeline 1",
        steady(1),
        None,
        [probe("b", 2.5, "accepted", timeline=2), probe("a", 2.7, "accepted")],
    ),
    "a client on the old leader while a probe finds the new one": (
        "a took 1 writes on timeline 1",
        [op(1, 1, 1.0), op(1, 2, 3.0)],
        None,
        [probe("b", 2.5, "accepted", timeline=2)],
    ),
    "an older timeline of the same member": (
        "a took 1 writes on timeline 1",
        [op(1, 1, 1.0, timeline=2), op(1, 2, 3.0)],
        None,
        (),
    ),
    "two leaders behind the times": (
        "c took 1 writes on timeline 1",
        [op(1, 1, 1.0, by="c"), op(1, 2, 3.0, by="b", timeline=3), op(2, 1, 4.0, by="c"), op(3, 1, 5.0, timeline=2)],
        None,
        (),
    ),
    "both at the same tick": (
        "a and b took writes within 50 ms",
        steady(1),
        None,
        [probe("a", 2.5, "accepted"), probe("b", 2.5, "accepted", timeline=2)],
    ),
    "both at the same tick, the older one's answer later": (
        "a and b took writes within 50 ms",
        steady(1),
        None,
        [probe("b", 2.5, "accepted", timeline=2), probe("a", 2.504, "accepted", lasts=0.03)],
    ),
    "a leader that follows too soon": (
        "within 50 ms of each other, 1 times, first at 2.50 s",
        steady(1),
        None,
        [probe("a", 2.5, "accepted"), probe("b", 2.53, "accepted", timeline=2)],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(name: str) -> None:
    words, operations, rows, probes = WRONG[name]
    violations = found(operations, rows, probes).violations
    assert len(violations) == (2 if name == "two leaders behind the times" else 1), violations
    assert words in violations[0]


def test_with_synchronous_replication_nothing_may_be_lost() -> None:
    operations = failover()
    lost = without(operations, Value(1, 4))
    assert found(operations, lost).violations == []
    violations = found(operations, lost, synchronous=True).violations
    assert violations == ["lost: 1 (1/4) acknowledged, though replication is synchronous"]


def test_more_may_not_be_lost_than_the_cluster_allows() -> None:
    # 1000 bytes a second; the last survivor is the first value, 3000 bytes before the last that is lost.
    operations = failover()
    lost = without(operations, *(Value(1, n) for n in (2, 3, 4)))
    assert found(operations, lost, maximum_lag=1000, ttl=2.0).violations == []
    assert found(operations, lost, maximum_lag=None, ttl=1.0).violations == []
    (violation,) = found(operations, lost, maximum_lag=999, ttl=2.0).violations
    assert violation.startswith("lost: 3 acknowledged, 3000 bytes of WAL on timeline 1 (a); ")
    assert violation.endswith(" allow 2999")


def test_a_member_that_was_not_asked_is_not_judged() -> None:
    operations = steady()
    probes = [probe(member, n / 2) for member in ("a", "b") for n in range(60)]
    blind = History("r1", 0.0, 30.0, ("a", "b", "c"), operations, [*probes, probe("c", 3.0), probe("c", 29.0)])
    violations = judge.judge(blind, present(operations), synchronous=False).violations
    assert violations == ["blind: c was not asked for 26.0 s whether it takes writes"]


def test_a_member_that_is_dead_was_asked_all_the_same() -> None:
    probes = [probe("c", n / 2, "silent") for n in range(20)]
    judgement = found(steady(), None, probes)
    assert judgement.violations == []
    assert [a.silent for a in judgement.members] == [0, 0, 20]


def test_every_pair_of_leaderships_is_blamed_once() -> None:
    writes = [Write("b", 1.0, 1.01, 2, 0), *(Write("a", 1.5 + n / 10, 1.51 + n / 10, 1, n) for n in range(30))]
    assert len(judge.two_writers(writes)) == 1


def test_outage_is_the_longest_time_between_acknowledgements() -> None:
    outage = judge.outage(history(failover()))
    assert (round(outage.seconds, 3), round(outage.begin, 3)) == (2.0, 4.01)


def test_outage_that_lasts_until_the_end_counts() -> None:
    outage = judge.outage(history(steady(3), seconds=60.0))
    assert (round(outage.seconds, 3), round(outage.begin, 3)) == (56.99, 3.01)


def test_outage_without_any_acknowledgement_is_the_whole_history() -> None:
    assert judge.outage(history([], seconds=7.0)) == judge.Outage(7.0, 0.0)


def test_throughput_counts_each_second() -> None:
    operations = [op(1, n, 1.2 + n / 100) for n in range(10)] + [op(2, 1, 2.98, lasts=0.1), op(3, 1, 3.999)]
    assert judge.per_second(history(operations, seconds=4.005)) == [0, 10, 0, 1, 1]


def test_leaderships_are_in_the_order_of_their_begin() -> None:
    leaderships = judge.leaderships(history(failover()))
    assert [(led.member, led.timeline, led.writes) for led in leaderships] == [("a", 1, 4), ("b", 2, 4)]


def test_summary_says_all_that_counts() -> None:
    operations = failover()
    summary = "\n".join(found(operations, without(operations, Value(1, 4), Value(1, 2))).summary())
    for words in (
        "8 acknowledged (1 a second), 2 failed, 0 unknown in 10.0 s; 6 rows",
        "2.00 s, from 4.01 s on",
        "b on timeline 2, 4 writes from 6.00 s to 9.01 s",
        "2 acknowledged",
        "at most 1.0 kB of WAL",
        "VIOLATION",
    ):
        assert words in summary


def test_json_has_all_of_it() -> None:
    operations = failover()
    plain = json.loads(json.dumps(found(operations, without(operations, Value(1, 4))).as_json()))
    assert plain["lost"] == [{"client": 1, "sequence": 4}]
    assert plain["losses"][0]["wal"] == 1000
    assert plain["violations"] == []
