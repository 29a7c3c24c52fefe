"""Whether a cluster kept its promises, by a writer's history and by what its table holds once the cluster has healed.

*Values.* Every acknowledged value is there exactly once, one that failed is not, one whose fate is unknown at most
once, and none that was never invoked. With synchronous replication nothing acknowledged may be lost. Without it a
failover may lose the end of the old leader's WAL, and only that:

- A lost value whose acknowledgement came before a surviving one of the same timeline was begun is no failover's loss:
  WAL has no holes.
- "The amount of lost data on failover is worst case bounded by maximum_lag_on_failover bytes of transaction log plus
  the amount that is written in the last ttl seconds" (Patroni documentation, Replication modes, Asynchronous mode
  durability).

*Writers.* Each write that a member took was committed at some moment of its interval [begin, end] by one clock, and
carries the timeline of the member at that moment. A member begins a timeline by its promotion, and is the only one
that ever writes to it; a later leader has a higher one (PostgreSQL manual, 26.3.6, Timelines). So these prove that two
members took writes at the same time:

1. One timeline with writes of two members: both were promoted from the same point.
2. A write begun after another of a newer timeline had ended: the older leader was writable still when the newer one
   was already. For this the intervals must not overlap, so that no slow answer is mistaken for it.
3. Two members' writes that lie, both with their begin and end, within HANDOVER_SECONDS, whatever their timelines: no
   leader can step down and another one be elected and promoted in that time. This is what sampling at the same ticks
   sees of a split that ends before the next tick.

A→B→A is legal as three leaderships of rising timelines. Intervals that merely overlap prove nothing: a leader's answer
may be on its way while the next one is promoted. What no client and no sampler reached, nobody has judged: a history in
which a member was not asked for BLIND_SECONDS is refused; one that was asked and did not answer is a dead member as
far as any client knows.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

from foundry import console, files
from foundry.lab.history import History, Operation, Value, Write

HANDOVER_SECONDS = 0.05
BLIND_SECONDS = 10.0
SHOWN = 5


@dataclass(frozen=True)
class Loss:
    """Acknowledged values of one timeline that are gone.

    wal: bytes of WAL from the last acknowledged value that survived to the last that did not: the loss is that much at
    most. seconds: between the first and the last lost acknowledgement. last_ttl: bytes that the timeline grew by in
    its last ttl seconds.
    """

    timeline: int
    member: str
    values: int
    wal: int
    seconds: float
    last_ttl: int


@dataclass(frozen=True)
class Outage:
    """The longest time without an acknowledgement, from begin (seconds into the history) on."""

    seconds: float
    begin: float


@dataclass(frozen=True)
class Leadership:
    """What one member wrote on one timeline; begin, end: seconds into the history."""

    member: str
    timeline: int
    begin: float
    end: float
    writes: int


@dataclass(frozen=True)
class Asked:
    """How often a member took a probe, refused it, did not answer; unasked: the longest time between two probes."""

    member: str
    accepted: int
    refused: int
    silent: int
    unasked: float


@dataclass(frozen=True)
class Judgement:
    """What was found. violations: each promise that was broken, in a sentence; none in a good history."""

    run: str
    seconds: float
    acknowledged: int
    failed: int
    unknown: int
    rows: int
    lost: Sequence[Value]
    losses: Sequence[Loss]
    outage: Outage
    leaderships: Sequence[Leadership]
    members: Sequence[Asked]
    per_second: Sequence[int]
    violations: list[str]

    def summary(self) -> list[str]:
        """All of it for a person."""
        rate = self.acknowledged / self.seconds if self.seconds else 0.0
        counts = f"{self.acknowledged} acknowledged ({rate:.0f} a second), {self.failed} failed, {self.unknown} unknown"
        rows = [("writes", f"{counts} in {self.seconds:.1f} s; {self.rows} rows")]
        rows.append(("outage", f"{self.outage.seconds:.2f} s, from {self.outage.begin:.2f} s on"))
        for led in self.leaderships:
            span = f"{led.begin:.2f} s to {led.end:.2f} s"
            rows.append(("leader", f"{led.member} on timeline {led.timeline}, {led.writes} writes from {span}"))
        rows.append(("lost", f"{len(self.lost)} acknowledged"))
        for loss in self.losses:
            much = f"at most {files.human(loss.wal)} of WAL, acknowledged within {loss.seconds:.2f} s"
            rows.append(("", f"{loss.values} of {loss.member} on timeline {loss.timeline}: {much}"))
        for asked in self.members:
            answers = f"{asked.accepted} probes taken, {asked.refused} refused, {asked.silent} unanswered"
            rows.append((asked.member, answers))
        rows += [("VIOLATION", text) for text in self.violations]
        return console.table(rows)

    def as_json(self) -> dict[str, object]:
        """All of it as plain values."""
        return asdict(self)


def judge(
    history: History,
    rows: Iterable[Value],
    *,
    synchronous: bool,
    maximum_lag: int | None = None,
    ttl: float = 30.0,
) -> Judgement:
    """Judge a history by what the table holds of it once the cluster has healed.

    Args:
        history: of the writer, which has ended.
        rows: all rows of this run, as often as they are there.
        synchronous: whether nothing acknowledged may be lost.
        maximum_lag: the cluster's maximum_lag_on_failover in bytes; None: any loss is only reported.
        ttl: the cluster's, in seconds.

    Returns:
        All that was found.
    """
    found = Counter(rows)
    lost = [o for o in history.acknowledged() if o.value not in found]
    losses = _losses(history, lost, found, ttl)
    asked = [_asked(history, member) for member in history.members]
    violations = [
        *_nothing_proved(history, asked),
        *_wrong_values(history, found),
        *_wrong_losses(history, lost, losses, found, synchronous=synchronous, maximum_lag=maximum_lag),
        *two_writers(history.writes(), history.begin),
    ]
    counts = Counter(o.outcome for o in history.operations)
    return Judgement(
        run=history.run,
        seconds=history.end - history.begin,
        acknowledged=counts["ok"],
        failed=counts["fail"],
        unknown=counts["unknown"],
        rows=found.total(),
        lost=[o.value for o in lost],
        losses=losses,
        outage=outage(history),
        leaderships=leaderships(history),
        members=asked,
        per_second=per_second(history),
        violations=violations,
    )


def outage(history: History) -> Outage:
    """The longest time without an acknowledgement, from the first one to the end of the history."""
    moments = [*(o.end for o in history.acknowledged()), history.end]
    gaps = [(after - before, before - history.begin) for before, after in pairwise(moments)]
    return Outage(*max(gaps, key=lambda gap: gap[0], default=(history.end - history.begin, 0.0)))


def per_second(history: History, width: float = 1.0) -> list[int]:
    """How many values were acknowledged in each part of width seconds."""
    found = [0] * max(1, math.ceil((history.end - history.begin) / width))
    for operation in history.acknowledged():
        found[min(int((operation.end - history.begin) / width), len(found) - 1)] += 1
    return found


def leaderships(history: History) -> list[Leadership]:
    """Who wrote on which timeline, and when, by their begin."""
    groups: dict[tuple[int, str], list[Write]] = defaultdict(list)
    for write in history.writes():
        groups[write.timeline, write.member].append(write)
    found = [
        Leadership(
            member=member,
            timeline=timeline,
            begin=writes[0].begin - history.begin,
            end=max(w.end for w in writes) - history.begin,
            writes=len(writes),
        )
        for (timeline, member), writes in groups.items()
    ]
    return sorted(found, key=lambda led: led.begin)


def two_writers(writes: Sequence[Write], start: float = 0.0) -> list[str]:
    """The proofs that two members took writes at once (see above), each pair of leaderships once.

    writes: by their begin. start: what times in the sentences are counted from.
    """
    return [*_shared_timelines(writes), *_older_after_newer(writes, start), *_same_instant(writes, start)]


def _shared_timelines(writes: Sequence[Write]) -> list[str]:
    members: dict[int, set[str]] = defaultdict(set)
    for write in writes:
        members[write.timeline].add(write.member)
    return [
        f"two writers: {' and '.join(sorted(names))} both took writes on timeline {timeline}"
        for timeline, names in sorted(members.items())
        if len(names) > 1
    ]


def _older_after_newer(writes: Sequence[Write], start: float) -> list[str]:
    late: dict[tuple[str, int, str, int], list[Write]] = defaultdict(list)
    since: dict[int, Write] = {}
    ended = iter(sorted(writes, key=lambda w: w.end))
    following = next(ended, None)
    for write in writes:
        while following and following.end < write.begin:
            since.setdefault(following.timeline, following)
            following = next(ended, None)
        newest = max(since, default=write.timeline)
        if newest > write.timeline:
            late[write.member, write.timeline, since[newest].member, newest].append(write)
    found = []
    for (member, timeline, other, newer), older in late.items():
        after = since[newer].end
        span = f"from {older[0].begin - after:.3f} s to {older[-1].begin - after:.3f} s after {other} had begun"
        moment = f"timeline {newer} (at {after - start:.2f} s)"
        found.append(f"two writers: {member} took {len(older)} writes on timeline {timeline} {span} {moment}")
    return found


def _same_instant(writes: Sequence[Write], start: float) -> list[str]:
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    near: list[Write] = []
    for write in writes:
        near = [w for w in near if write.begin - w.begin <= HANDOVER_SECONDS]
        for other in near:
            span = max(write.end, other.end) - other.begin
            if other.member != write.member and span <= HANDOVER_SECONDS:
                found[tuple(sorted((other.member, write.member)))].append(other.begin - start)
        near.append(write)
    return [
        f"two writers: {' and '.join(names)} took writes within {HANDOVER_SECONDS * 1000:.0f} ms of each other, "
        f"{len(moments)} times, first at {moments[0]:.2f} s"
        for names, moments in found.items()
    ]


def _asked(history: History, member: str) -> Asked:
    own = [p for p in history.probes if p.member == member]
    counts = Counter(p.answer for p in own)
    moments = sorted([history.begin, *(p.begin for p in own), history.end])
    unasked = max(after - before for before, after in pairwise(moments))
    return Asked(member, counts["accepted"], counts["refused"], counts["silent"], unasked)


def _nothing_proved(history: History, asked: Sequence[Asked]) -> list[str]:
    found = [
        f"blind: {a.member} was not asked for {a.unasked:.1f} s whether it takes writes"
        for a in asked
        if a.unasked > BLIND_SECONDS
    ]
    if not any(o.outcome == "ok" for o in history.operations):
        found.append("nothing was acknowledged, so this history proves nothing")
    return found


def _wrong_values(history: History, found: Counter[Value]) -> list[str]:
    invoked = {o.value for o in history.operations}
    failed = [o.value for o in history.operations if o.outcome == "fail"]
    wrong = {
        "written more than once": [value for value, times in found.items() if times > 1],
        "there though they had failed": [value for value in failed if value in found],
        "there though nobody wrote them": [value for value in found if value not in invoked],
    }
    return [f"values: {_some(values)} {what}" for what, values in wrong.items() if values]


def _some(values: Sequence[Value]) -> str:
    shown = ", ".join(map(str, sorted(values)[:SHOWN]))
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return f"{len(values)} ({shown}{more})"


def _losses(history: History, lost: Sequence[Operation], found: Counter[Value], ttl: float) -> list[Loss]:
    groups: dict[tuple[int, str], list[Operation]] = defaultdict(list)
    for operation in lost:
        assert operation.written is not None
        groups[operation.written.timeline, operation.written.member].append(operation)
    losses = []
    for (timeline, member), gone in sorted(groups.items()):
        own = [w for w in history.writes() if (w.timeline, w.member) == (timeline, member)]
        kept = {o.written for o in history.acknowledged() if o.value in found}
        first = min(w.position for w in own)
        survived = max((w.position for w in own if w in kept), default=first)
        last = max(o.written.position for o in gone if o.written)
        before = max(w.end for w in own) - ttl
        reached = max((w.position for w in own if w.end <= before), default=first)
        losses.append(
            Loss(
                timeline=timeline,
                member=member,
                values=len(gone),
                wal=max(0, last - survived),
                seconds=gone[-1].end - gone[0].end,
                last_ttl=max(w.position for w in own) - reached,
            )
        )
    return losses


def _wrong_losses(
    history: History,
    lost: Sequence[Operation],
    losses: Sequence[Loss],
    found: Counter[Value],
    *,
    synchronous: bool,
    maximum_lag: int | None,
) -> list[str]:
    wrong = []
    if synchronous and lost:
        wrong.append(f"lost: {_some([o.value for o in lost])} acknowledged, though replication is synchronous")
    latest: dict[tuple[int, str], float] = {}
    for operation in history.acknowledged():
        if operation.written and operation.value in found:
            key = operation.written.timeline, operation.written.member
            latest[key] = max(latest.get(key, -math.inf), operation.begin)
    holes = [
        o.value for o in lost if o.written and latest.get((o.written.timeline, o.written.member), -math.inf) > o.end
    ]
    if holes:
        wrong.append(f"lost: {_some(holes)} acknowledged, though what the same leader wrote later is there")
    for loss in losses if maximum_lag is not None else ():
        allowed = (maximum_lag or 0) + loss.last_ttl
        if loss.wal > allowed:
            much = f"{loss.wal} bytes of WAL on timeline {loss.timeline} ({loss.member})"
            limit = f"maximum_lag_on_failover and the last ttl seconds allow {allowed}"
            wrong.append(f"lost: {loss.values} acknowledged, {much}; {limit}")
    return wrong
