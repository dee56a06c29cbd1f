"""Packing: lossless, compatible with pycapnp in both directions, and cheap for long contents."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueber.capnp import layout
from queueber.capnp.framing import framed
from queueber.capnp.packing import pack, unpack
from queueber.errors import RemoteProtocolError

# Words of which many are zero, partly zero, or without zeros; and long runs of each.
words = st.lists(
    st.tuples(
        st.one_of(
            st.just(bytes(8)),
            st.binary(min_size=8, max_size=8),
            st.lists(st.sampled_from([0, 0, 1, 255]), min_size=8, max_size=8).map(bytes),
        ),
        st.integers(1, 600),
    ),
    max_size=8,
).map(lambda runs: b"".join(word * count for word, count in runs))


@given(words)
def test_packing_and_unpacking_are_inverse(content):
    assert unpack(pack(content)) == content


@given(words)
def test_packing_adds_few_bytes_at_most(content):
    assert len(pack(content)) <= len(content) * 10 / 8


@pytest.mark.parametrize(
    ("plain", "packed"),
    [
        ("", ""),
        ("0800000003000200 19000000aa010000", "51080302 3119aa01"),
        ("00" * 8, "0000"),
        ("00" * 32, "0003"),
        ("00" * 256 * 8, "00ff"),
        ("00" * 257 * 8, "00ff0000"),
        ("0102030405060708" * 2, "ff 0102030405060708 01 0102030405060708"),
        ("0102030405060708 0000000000000001", "ff 0102030405060708 00 80 01"),
        ("0102030405060708 00", None),
    ],
)
def test_the_examples_of_the_specification(plain, packed):
    plain = bytes.fromhex(plain.replace(" ", ""))
    if packed is None:
        with pytest.raises(ValueError, match="whole number of words"):
            pack(plain)
    else:
        assert pack(plain) == bytes.fromhex(packed.replace(" ", ""))


def test_pycapnp_unpacks_what_we_pack(pycapnp):
    for contents in (b"", b"text without zeros", bytes(5000), os.urandom(5000), "wide".encode("utf-16") * 1000):
        value = {"contents": contents, "addedAtMs": 1 << 40, "attempts": 3}
        message = framed(layout("StoredItem").build(**value))
        # Its reader wants no run of words to go on from the header into the segment.
        packed = pack(message[:8]) + pack(message[8:])
        assert pycapnp.unpack("StoredItem", packed) == {**value, "contents": contents.hex(), "facts": None}


@given(content=words)
def test_we_unpack_what_pycapnp_packs(pycapnp, content):
    plain, packed = pycapnp.pack("StoredItem", {"contents": content.hex(), "attempts": 1})
    assert unpack(packed) == plain


@pytest.mark.untraced
@given(words.filter(bool), st.data())
def test_truncated_packing_is_refused(content, data):
    packed = pack(content)
    cut = data.draw(st.integers(0, len(packed) - 1))
    try:
        found = unpack(packed[:cut])
    except RemoteProtocolError:
        return
    assert content.startswith(found)


@pytest.mark.parametrize("content", [os.urandom(8 << 20), b"a\0" * (4 << 20), bytes(8 << 20)])
def test_the_largest_contents_are_packed_in_little_time(content):
    begun = time.perf_counter()
    assert unpack(pack(content)) == content
    assert time.perf_counter() - begun < 1
