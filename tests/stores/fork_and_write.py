"""A program that forks while its threads write to a store, given by its URL. Fails if anything is lost or hangs."""

import faulthandler
import itertools
import os
import signal
import sys
import threading
import warnings

from stores.batches import NOW, amounts, batch, new_key, new_writer, times

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import MemoryStore, Store, open_store

CHILDREN = 8
EACH = 10


def main() -> None:
    """Fork a few times; parent and children share one store object."""
    store = open_store(sys.argv[1])
    key = new_key()
    stop = threading.Event()
    written = [0, 0]

    def write(number: int) -> None:
        writer = new_writer()
        for sequence in itertools.count(1):
            store.write_batch(batch(key, writer, sequence), now_epoch=NOW)
            written[number] = sequence
            if stop.is_set():
                return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    children = [_fork_and_write(store, key) for _ in range(CHILDREN)]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    for thread in threads:
        thread.join()
    assert statuses == [0] * CHILDREN, statuses
    from_children = 0 if isinstance(store, MemoryStore) else CHILDREN * EACH
    found = store.read_shards({key: 8})[key].amounts
    assert found == times(amounts(), sum(written) + from_children), (found, written)
    store.close()


def _fork_and_write(store: Store, key: UsageKey) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads: what is tested here
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        faulthandler.dump_traceback_later(20)
        signal.alarm(30)  # a deadlock ends here
        writer = new_writer()
        for sequence in range(1, EACH + 1):
            store.write_batch(batch(key, writer, sequence), now_epoch=NOW)
        applied = store.read_shards({key: 8}, writer_id=writer)[key].writer_sequence
        status = 0 if applied == EACH else 2
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
