"""The journal's lines: what goes in comes out, and a torn line is recognised."""

from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedrock_budget.core.account import Amounts, Batch
from bedrock_budget.core.holds import Grant
from bedrock_budget.core.keys import UsageKey
from bedrock_budget.core.usage import Usage
from bedrock_budget.journal.records import (
    AckRecord,
    BatchRecord,
    GrantedRecord,
    GrantRecord,
    HeaderRecord,
    HoldRecord,
    Record,
    SettledRecord,
    SliceRecord,
    SumRecord,
    UsageRecord,
    decode,
    encode,
    read_segment,
)

counts = st.integers(0, 10**30)
signed = st.integers(-(10**30), 10**30)
texts = st.text(max_size=20)
keys = st.builds(UsageKey, texts, texts, texts)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
amounts = st.builds(Amounts, counts, usages, counts)
batches = st.builds(Batch, keys, texts, counts, counts, counts, amounts)
records = st.one_of(
    st.builds(HeaderRecord, counts, texts, texts, counts),
    st.builds(UsageRecord, keys, counts, counts, usages, texts | st.none()),
    st.builds(SumRecord, keys, counts, amounts),
    st.builds(BatchRecord, batches, st.none() | st.tuples(texts, counts)),
    st.builds(AckRecord, texts, counts),
    st.builds(SliceRecord, keys, texts, counts, counts, counts, signed, counts),
    st.builds(GrantRecord, st.builds(Grant, keys, texts, counts, signed, st.none() | counts, counts, counts)),
    st.builds(GrantedRecord, texts, counts, st.booleans()),
    st.builds(HoldRecord, counts, st.lists(texts).map(tuple)),
    st.builds(SettledRecord, counts, counts, st.lists(texts).map(tuple)),
)


def readable(line: bytes) -> bool:
    try:
        decode(line)
    except ValueError:
        return False
    return True


@given(records)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line) == record


@given(records, st.data())
def test_a_line_that_was_cut_off_or_changed_is_no_record(record: Record, data: st.DataObject) -> None:
    line = encode(record)
    cut = data.draw(st.integers(0, len(line) - 1))
    assert not readable(line[:cut])
    place = data.draw(st.integers(0, len(line) - 1))
    changed = bytearray(line)
    changed[place] ^= 1
    assert not readable(bytes(changed))


def test_a_torn_end_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "000001.log"
    lines = [encode(AckRecord("w", number)) for number in range(3)]
    path.write_bytes(b"".join(lines)[:-4])
    assert read_segment(path) == ([AckRecord("w", 0), AckRecord("w", 1)], 1)


def test_a_kind_that_a_later_version_writes_is_not_taken_for_another() -> None:
    line = encode(AckRecord("w", 1))
    text = line.partition(b" ")[2].rstrip(b"\n").replace(b'"A"', b'"Z"')
    with pytest.raises(ValueError, match="a record of kind 'Z': written by a later version"):
        decode(b"%08x %s\n" % (crc32(text), text))
