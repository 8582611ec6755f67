"""What is particular to the memory store."""

from stores.batches import NOW, batch, new_key, new_writer

from bedrock_budget.stores import MemoryStore
from bedrock_budget.stores.rules import MismatchLog


def test_each_store_is_private() -> None:
    key = new_key()
    one, other = MemoryStore(), MemoryStore()
    one.write_batch(batch(key, new_writer(), 1), now_epoch=NOW)
    assert other.read_shards({key: 8})[key].amounts.requests == 0
    assert repr(one) != repr(other)


def test_a_long_lived_process_does_not_collect_the_keys_it_warned_of() -> None:
    log = MismatchLog()
    for _ in range(3 * MismatchLog.MAX_KEYS):
        log.note(new_key(), 4, 8)
    assert len(log._warned) <= MismatchLog.MAX_KEYS
