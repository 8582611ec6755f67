"""A program that writes batches to a store, as one of several processes: URL, key (three parts), writer id, count."""

import sys

from stores.batches import NOW, batch

from bedrock_budget.core.keys import UsageKey
from bedrock_budget.stores import open_store


def main() -> None:
    """Write them one after another."""
    url, scope, label, day, writer_id, count = sys.argv[1:]
    store = open_store(url)
    for sequence in range(1, int(count) + 1):
        store.write_batch(batch(UsageKey(scope, label, day), writer_id, sequence), now_epoch=NOW)
    store.close()


if __name__ == "__main__":
    main()
