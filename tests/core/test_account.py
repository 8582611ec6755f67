"""An account against a store that loses replies: nothing is lost, nothing counts twice, spend never goes down.

The machine at the end drives an `Account` and a model of the store through adds, lost writes, lost replies, repeats,
refusals and looks in any order. What effective spend must be is stated a second time there, from a full history.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bedrock_budget.core.account import MOST_ACKNOWLEDGED, TOTAL_SLACK_SECS, ZERO, Account, Amounts, Batch, sum_of
from bedrock_budget.core.keys import UsageKey, shard_of
from bedrock_budget.core.usage import Usage

KEY = UsageKey("ORG#acme", "premium", "20260131")
WRITER, OTHER_WRITER = "wAAAAAAAAAA", "wBBBBBBBBBB"
ONE = Usage(1, 2, 3, 4, 5)

TOKENS = st.integers(0, 10**6)
USAGES = st.one_of(st.builds(Usage, TOKENS, TOKENS), st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS))
AMOUNTS = st.builds(Amounts, st.integers(0, 10**12), USAGES, st.integers(0, 10))


@given(st.lists(AMOUNTS, max_size=8))
def test_a_sum_of_amounts_is_exact_in_every_field(amounts: list[Amounts]) -> None:
    total = sum_of(amounts)
    assert total.cost_pico_usd == sum(each.cost_pico_usd for each in amounts)
    assert total.requests == sum(each.requests for each in amounts)
    for kind in range(5):
        assert total.usage[kind] == sum(each.usage[kind] for each in amounts)
    assert sum_of([]) == ZERO == Amounts(0, Usage(), 0)


def test_a_new_account_has_nothing() -> None:
    account = Account(KEY, 8)
    assert (account.spend, account.own, account.unwritten_cost) == (0, 0, 0)
    assert account.unsent == ZERO
    assert not account.dirty


def test_usage_on_its_way_to_the_store() -> None:
    account = Account(KEY, 8)
    account.add(ONE, 10)
    account.add(Usage(1, 1), 5, requests=0)
    assert account.unsent == Amounts(15, Usage(2, 3, 3, 4, 5), 1)
    batch = account.seal(WRITER, 3)
    assert batch == Batch(KEY, WRITER, 3, shard_of(WRITER, 8), 8, Amounts(15, Usage(2, 3, 3, 4, 5), 1))
    assert account.in_flight is batch
    assert account.unsent == ZERO
    account.add(ONE, 7)  # merges while the batch is away
    assert account.in_flight is batch
    assert (account.spend, account.own, account.unwritten_cost, account.dirty) == (22, 22, 22, True)
    account.acknowledge(1000.0, 1)
    assert account.in_flight is None
    assert (account.spend, account.own, account.unwritten_cost, account.dirty) == (22, 22, 7, True)
    account.seal(WRITER, 4)
    account.acknowledge(1001.0, 2)
    assert (account.spend, account.own, account.unwritten_cost, account.dirty) == (22, 22, 0, False)


def test_a_call_that_cost_nothing_is_still_to_be_written() -> None:
    account = Account(KEY, 8)
    account.add(Usage(), 0)
    assert account.dirty
    assert account.seal(WRITER, 1).amounts == Amounts(0, Usage(), 1)
    account.acknowledge(1000.0, 1)
    assert not account.dirty


def test_only_one_batch_is_in_flight() -> None:
    account = Account(KEY, 8)
    with pytest.raises(AssertionError):
        account.acknowledge(1000.0, 1)
    with pytest.raises(AssertionError):
        account.reopen(WRITER, 1)
    account.add(ONE, 10)
    account.seal(WRITER, 1)
    with pytest.raises(AssertionError):
        account.seal(WRITER, 2)


def with_batch(*, acknowledged_at: float | None = None, order: int = 1, cost: int = 10) -> Account:
    """An account with one batch, number 5, in flight or acknowledged."""
    account = Account(KEY, 8)
    account.add(ONE, cost)
    account.seal(WRITER, 5)
    if acknowledged_at is not None:
        account.acknowledge(acknowledged_at, order)
    return account


@pytest.mark.parametrize(
    ("order", "own_sequence", "begun", "own"),
    [
        (1, 5, 2, 0),
        (1, 4, 2, 0),  # acknowledged before the look began: it is in the sum, whatever the item says
        (1, 0, 2, 0),
        (3, 5, 2, 0),  # acknowledged while the look was under way, and the item had it already
        (3, 4, 2, 10),  # ... and the item did not have it yet
        (3, 0, 2, 10),
    ],
)
def test_a_look_at_the_shards_takes_the_acknowledged_batches_it_has_seen(
    order: int, own_sequence: int, begun: int, own: int
) -> None:
    account = with_batch(acknowledged_at=1000.0, order=order)
    unseen = account.saw_shards(100, own_sequence, begun)
    assert account.own == own
    assert account.spend == 100 + own
    assert unseen == (Amounts(10, ONE, 1) if own else ZERO)


@pytest.mark.parametrize(("own_sequence", "own"), [(4, 10), (5, 0), (6, 0)])
def test_a_look_at_the_shards_takes_the_batch_in_flight_if_the_item_has_it(own_sequence: int, own: int) -> None:
    account = with_batch()
    account.add(ONE, 3)
    unseen = account.saw_shards(100, own_sequence, 1)
    assert account.own == own + 3
    assert account.spend == 103 + own
    assert unseen.cost_pico_usd == own + 3
    assert unseen.requests == (2 if own else 1)
    assert account.dirty
    assert account.unwritten_cost == 13  # the answer is still missing


@pytest.mark.parametrize(("updated_at", "own"), [(0, 10), (1000, 10), (1005, 10), (1006, 0), (2000, 0)])
def test_a_look_at_the_total_takes_batches_acknowledged_well_before_its_pass(updated_at: int, own: int) -> None:
    account = with_batch(acknowledged_at=1000.0)
    account.saw_total(100, updated_at)
    assert account.own == own
    assert account.spend == 100 + own


def test_a_look_at_the_total_never_takes_what_is_in_flight_or_unsent() -> None:
    account = with_batch()
    account.add(ONE, 3)
    account.saw_total(100, 10**12)
    assert account.own == 13
    assert account.spend == 113


def test_a_batch_seen_while_its_reply_was_missing_counts_once_whatever_comes_next() -> None:
    account = with_batch()
    account.saw_shards(10, 5, 1)  # the write was applied, its reply lost
    assert account.spend == 10
    account.saw_total(0, 900)  # an old total: still seen
    assert (account.spend, account.own) == (10, 0)
    account.saw_shards(0, 0, 0)  # an older look that comes late
    assert (account.spend, account.own) == (10, 0)
    account.acknowledge(1000.0, 2)  # repeated, and answered
    account.saw_total(0, 900)
    assert (account.spend, account.own) == (10, 0)
    account.add(ONE, 1)  # the next batch is a new one
    account.seal(WRITER, 6)
    account.saw_total(0, 900)
    assert (account.spend, account.own) == (11, 1)
    account.acknowledge(1001.0, 3)
    account.saw_total(0, 900)
    assert (account.spend, account.own) == (11, 1)


def test_a_refused_batch_goes_out_again_under_another_writer_with_the_same_amounts() -> None:
    account = with_batch()
    first = account.in_flight
    assert first is not None
    second = account.reopen(OTHER_WRITER, 9)
    assert account.in_flight is second
    assert second == first._replace(writer_id=OTHER_WRITER, sequence=9, shard=shard_of(OTHER_WRITER, 8))
    assert (account.spend, account.own, account.unwritten_cost) == (10, 10, 10)
    account.saw_shards(100, 0, 1)
    assert account.own == 10
    account.acknowledge(1000.0, 2)
    assert not account.dirty
    account.saw_shards(110, 9, 3)
    assert (account.spend, account.own) == (110, 0)


def test_effective_spend_does_not_go_down_for_a_look_that_shows_less() -> None:
    account = with_batch(acknowledged_at=1000.0)
    account.saw_total(100, 1004)  # the batch is in the total or not: counted as if not
    assert account.spend == 110
    account.saw_shards(100, 5, 2)
    assert (account.spend, account.own) == (110, 0)
    account.add(ONE, 4)
    assert account.spend == 110
    account.add(ONE, 7)
    assert account.spend == 111


# -- the machine


@dataclass
class Sent:
    """One batch as the test knows it."""

    batch: Batch
    applied: bool = False
    acknowledged_at: float | None = None
    counted: bool = False  # some look has, by the rules, taken it over


@dataclass
class Look:
    """A look under way. What it reads is fixed at one moment between its beginning and its end."""

    begun: int
    writer_id: str
    cost: int | None = None
    own_sequence: int = 0
    seen: list[Sent] = field(default_factory=list)
    moment: int = 0
    overtaken: bool = False  # by a daily total, with which the account let go of what this look may not have read


@dataclass(frozen=True)
class Total:
    """A daily total that may be read at any time later: readers may be behind."""

    cost: int
    others: int
    updated_at: int


class Accounts(RuleBasedStateMachine):
    """One account of one writer, a shard store, other writers, and an aggregator whose clock is a little off."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(KEY, 8)
        self.writer_id = WRITER
        self.writers = 1
        self.sequence = self.order = self.moment = 0
        self.now = 1000.0
        # the store
        self.store = ZERO  # own usage in the shards
        self.others = 0  # spend of others in the shards
        self.item: dict[str, int] = {}  # writer -> last applied sequence number
        self.totals: list[Total] = []
        # the history
        self.added = ZERO
        self.calls = 0
        self.sent: list[Sent] = []
        self.looks: list[Look] = []
        self.shown: list[int] = [0]  # sums that looks have shown
        self.others_shown = 0
        self.highest = 0  # effective spend so far
        self.expected = 0  # ... as it must be
        self.newest_moment = 0
        self.totals_used = False

    # usage in

    @rule(usage=USAGES, cost=st.integers(0, 1000), requests=st.integers(0, 2))
    def add(self, usage: Usage, cost: int, requests: int) -> None:
        self.account.add(usage, cost, requests)
        self.added = self.added.plus(Amounts(cost, usage, requests))
        self.calls += 1

    @rule(cost=st.integers(0, 1000))
    def others_spend(self, cost: int) -> None:
        self.others += cost
        self.moment += 1

    @rule(secs=st.sampled_from([0.25, 1.0, 3.0, 6.0, 60.0]))
    def time_passes(self, secs: float) -> None:
        self.now += secs

    # usage out

    def frozen(self) -> Sent:
        """The batch to send: the one in flight, unchanged, or a new one."""
        if self.account.in_flight is None:
            self.sequence += 1
            self.sent.append(Sent(self.account.seal(self.writer_id, self.sequence)))
        assert self.account.in_flight == self.sent[-1].batch
        return self.sent[-1]

    def write(self, sent: Sent) -> None:
        """What `Store.write_batch` promises."""
        batch = sent.batch
        applied = self.item.get(batch.writer_id, 0)
        assert applied <= batch.sequence
        if applied < batch.sequence:
            self.item[batch.writer_id] = batch.sequence
            self.store = self.store.plus(batch.amounts)
            sent.applied = True
            self.moment += 1

    @precondition(lambda self: self.account.dirty)
    @rule()
    def send(self) -> None:
        sent = self.frozen()
        self.write(sent)
        self.order += 1
        self.account.acknowledge(self.now, self.order)
        sent.acknowledged_at = self.now

    @precondition(lambda self: self.account.dirty)
    @rule()
    def send_and_lose_the_reply(self) -> None:
        self.write(self.frozen())

    @precondition(lambda self: self.account.dirty)
    @rule()
    def lose_the_write(self) -> None:
        self.frozen()

    @precondition(lambda self: self.account.in_flight is not None and not self.sent[-1].applied and not self.looks)
    @rule(ahead=st.integers(1, 3))
    def refuse_the_write_because_another_program_has_this_writer_id(self, ahead: int) -> None:
        assert self.account.in_flight is not None
        self.item[self.account.in_flight.writer_id] = self.account.in_flight.sequence + ahead
        self.writers += 1
        self.writer_id = f"w{self.writers:010d}"
        self.sequence += 1
        self.sent[-1].batch = self.account.reopen(self.writer_id, self.sequence)

    # looks at the shards

    @precondition(lambda self: len(self.looks) < 3)
    @rule()
    def begin_a_look(self) -> None:
        self.order += 1
        self.looks.append(Look(self.order, self.writer_id))

    def read(self, look: Look) -> None:
        look.cost = self.store.cost_pico_usd + self.others
        look.own_sequence = self.item.get(look.writer_id, 0)
        look.seen = [sent for sent in self.sent if sent.applied]
        look.moment = self.moment

    @precondition(lambda self: self.looks)
    @rule(data=st.data())
    def read_for_a_look(self, data: st.DataObject) -> None:
        self.read(data.draw(st.sampled_from(self.looks)))

    @precondition(lambda self: any(look.cost is not None for look in self.looks))
    @rule(data=st.data())
    def end_a_look(self, data: st.DataObject) -> None:
        look = data.draw(st.sampled_from([look for look in self.looks if look.cost is not None]))
        self.looks.remove(look)
        self.finish(look)

    def finish(self, look: Look) -> Amounts:
        assert look.cost is not None
        for sent in look.seen:
            sent.counted = True
        unseen = self.account.saw_shards(look.cost, look.own_sequence, look.begun)
        self.shown.append(look.cost)
        own_in_sum = sum(sent.batch.amounts.cost_pico_usd for sent in look.seen)
        self.others_shown = max(self.others_shown, look.cost - own_in_sum)
        if look.moment >= self.newest_moment and not look.overtaken:  # no later look has been here
            self.newest_moment = look.moment
            assert sum_of([*(sent.batch.amounts for sent in look.seen), unseen]) == self.added
        return unseen

    @rule()
    def look_without_disturbance(self) -> None:
        self.order += 1
        look = Look(self.order, self.writer_id)
        self.read(look)
        unseen = self.finish(look)
        if self.account.in_flight is None:
            exact = self.added.cost_pico_usd + self.others
            assert self.account.spend == max(self.highest, exact)
            assert unseen == self.account.unsent

    # the aggregator

    @rule(skew=st.integers(-4, 4))
    def aggregate(self, skew: int) -> None:
        cost = self.store.cost_pico_usd + self.others
        if not self.totals or cost >= self.totals[-1].cost:
            self.totals.append(Total(cost, self.others, int(self.now) + skew))

    @precondition(lambda self: self.totals)
    @rule(data=st.data())
    def look_at_a_total(self, data: st.DataObject) -> None:
        total = data.draw(st.sampled_from(self.totals[-3:]))
        for sent in self.sent:
            if sent.acknowledged_at is not None and sent.acknowledged_at < total.updated_at - TOTAL_SLACK_SECS:
                sent.counted = True
        for look in self.looks:
            look.overtaken = True
        self.account.saw_total(total.cost, total.updated_at)
        self.shown.append(total.cost)
        self.others_shown = max(self.others_shown, total.others)
        self.totals_used = True

    # what always holds

    @invariant()
    def what_is_in_the_store_and_what_is_not_is_all_that_was_added(self) -> None:
        parts = [self.store, self.account.unsent]
        if self.account.in_flight is not None and not self.sent[-1].applied:
            parts.append(self.account.in_flight.amounts)
        assert sum_of(parts) == self.added
        waiting = self.account.in_flight.amounts.cost_pico_usd if self.account.in_flight else 0
        assert self.account.unwritten_cost == self.account.unsent.cost_pico_usd + waiting

    @invariant()
    def each_unit_of_own_usage_is_counted_in_exactly_one_place(self) -> None:
        uncounted = sum(sent.batch.amounts.cost_pico_usd for sent in self.sent if not sent.counted)
        own = uncounted + self.account.unsent.cost_pico_usd
        assert self.account.own == own
        self.expected = max(self.expected, max(self.shown) + own)
        assert self.account.spend == self.expected

    @invariant()
    def effective_spend_is_at_least_all_that_is_known(self) -> None:
        assert self.account.spend >= self.added.cost_pico_usd + self.others_shown

    @invariant()
    def effective_spend_by_looks_at_the_shards_is_never_above_the_truth(self) -> None:
        if not self.totals_used:
            assert self.account.spend <= self.added.cost_pico_usd + self.others

    @invariant()
    def effective_spend_never_goes_down(self) -> None:
        assert self.account.spend >= self.highest
        self.highest = self.account.spend

    @invariant()
    def an_account_is_dirty_until_all_it_was_given_is_acknowledged(self) -> None:
        outstanding = self.account.in_flight is not None or self.account.added > self.account.written
        assert self.account.dirty == outstanding
        assert self.account.added == self.calls


def test_each_unit_of_own_usage_is_counted_in_exactly_one_place() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Accounts, settings=settings(max_examples=250, stateful_step_count=50, deadline=None)
    )


def test_what_nobody_looks_at_takes_bounded_memory_and_still_counts() -> None:
    account = Account(UsageKey("ORG#acme", "premium", "20260115"), 8)
    for sequence in range(1, 3 * MOST_ACKNOWLEDGED):
        account.add(Usage(1, 2), 1_000)
        account.seal("wAAAAAAAAAA", sequence)
        account.acknowledge(at_epoch=1_000.0 + sequence, order=sequence)
    added = (3 * MOST_ACKNOWLEDGED - 1) * 1_000
    assert len(account._acknowledged) <= MOST_ACKNOWLEDGED
    assert account.own == account.spend == added
    assert account.saw_shards(added, own_sequence=3 * MOST_ACKNOWLEDGED, begun=0).cost_pico_usd == 0
    assert account.own == 0


@pytest.mark.parametrize("batches", [MOST_ACKNOWLEDGED - 1, MOST_ACKNOWLEDGED + 1, 20 * MOST_ACKNOWLEDGED])
def test_a_daily_total_is_not_added_to_much_of_what_it_has_however_many_batches_were_written(batches: int) -> None:
    account = Account(UsageKey("ORG#acme", "premium", "20260115"), 8)
    secs = 300.0
    for sequence in range(1, batches + 1):
        account.add(Usage(1, 2), 1_000)
        account.seal("wAAAAAAAAAA", sequence)
        account.acknowledge(at_epoch=sequence * secs / batches, order=sequence)
    spent = 1_000 * batches
    began = 250.0  # the pass; of the 50 s after it, and the slack before, nothing is sure to be in its total
    account.saw_total(int(spent * began / secs), updated_at_epoch=began)
    too_much = spent * (TOTAL_SLACK_SECS + 3 * secs / MOST_ACKNOWLEDGED) / secs
    assert spent <= account.spend <= spent + too_much
