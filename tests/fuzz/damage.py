"""
Ways to damage messages that know their structure.

Each of `SPOILERS` takes one framed message and dice, and returns another.  Most
results still begin with a frame header that fits, so that the damage gets past
the framing.  `damaged` damages a conversation.
"""

from struct import pack, unpack_from

from shapes import FAR, LIST, framed, signed_offset, unframed, words_in

HUGE = [0, 1, 2, 7, 255, 1 << 16, (1 << 29) - 1, 1 << 29, (1 << 30) - 1, 1 << 31, (1 << 32) - 1]


def _word(segments, dice):
    """Return a word of a message: the index of its segment, and its own."""
    full = [index for index, segment in enumerate(segments) if segment]
    if not full:
        return None
    index = dice.choice(full)
    return index, dice.randrange(len(segments[index]) // 8)


def _pointer(segments, dice):
    """Return the index of a word, like `_word`; probably of a pointer."""
    found = [
        (index, at)
        for index, segment in enumerate(segments)
        for at, word in enumerate(words_in(segment))
        if word >> 32 and (word >> 2 & 0x3FFFFFFF) < 4096
    ]
    return dice.choice(found) if found and dice.random() < 0.95 else _word(segments, dice)


def _rewritten(message, dice, pick, change):
    """Return *message* with *change* applied to one word."""
    segments = [bytearray(segment) for segment in unframed(message)]
    place = pick(segments, dice)
    if place is None:
        return message
    index, at = place
    (word,) = unpack_from("<Q", segments[index], at * 8)
    segments[index][at * 8 : at * 8 + 8] = pack("<Q", change(word, at, segments) & (1 << 64) - 1)
    return framed([bytes(segment) for segment in segments])


def flip(message, dice):
    changed = bytearray(message)
    for _ in range(dice.choice([1, 1, 2, 5])):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def overwrite(message, dice):
    changed = bytearray(message)
    at = dice.randrange(len(changed))
    length = min(dice.choice([1, 4, 8]), len(changed) - at)
    changed[at : at + length] = dice.choice([b"\0", b"\xff", dice.randbytes(1)]) * length
    return bytes(changed)


def cut(message, dice):
    return message[: dice.randrange(len(message))]


def table(message, dice):
    """Change a number in the segment table."""
    changed = bytearray(message)
    at = 4 * dice.randrange(min(len(changed) // 4, 8))
    changed[at : at + 4] = pack("<I", dice.choice([*HUGE[:6], *HUGE, 511, 512]))
    return bytes(changed)


def resegment(message, dice):
    """Move the ends of segments away from those of their content."""
    body = b"".join(unframed(message))
    cuts = sorted(8 * dice.randrange(len(body) // 8 + 1) for _ in range(dice.randrange(1, 5)))
    return framed([body[first:last] for first, last in zip([0, *cuts], [*cuts, len(body)], strict=True)])


def aim(message, dice):
    """Let a pointer lead elsewhere."""
    step = dice.choice([-1, 1, -2, 2, dice.randrange(-64, 64), -(1 << 29), (1 << 29) - 1])
    return _rewritten(
        message, dice, _pointer, lambda word, at, _: word & ~0xFFFFFFFC | (word + (step << 2)) & 0xFFFFFFFC
    )


def alias(message, dice):
    """Let two pointers lead to the same words."""

    def change(_, at, segments):
        index, source = _pointer(segments, dice)
        (word,) = unpack_from("<Q", segments[index], source * 8)
        return word & ~0xFFFFFFFC | (signed_offset(word) + source - at << 2) & 0xFFFFFFFC

    return _rewritten(message, dice, _pointer, change)


def far(message, dice):
    """Replace a pointer with a far or double-far pointer to anywhere."""

    def change(_, at, segments):
        index = dice.randrange(len(segments) + 1)
        pad = dice.randrange(len(segments[index % len(segments)]) // 8 + 1)
        return FAR | dice.choice([0, 4]) | pad << 3 | index << 32

    return _rewritten(message, dice, _pointer, change)


def kind(message, dice):
    """Change the kind of a pointer, or the elements of its list."""
    mask = dice.choice([1, 2, 3, 1 << 32, 2 << 32, 4 << 32, 7 << 32])
    return _rewritten(message, dice, _pointer, lambda word, *_: word ^ mask)


def grow(message, dice):
    """Make a struct or list larger or smaller."""

    def change(word, *_):
        if word & 3 == LIST:
            return word & (1 << 35) - 1 | dice.choice([*HUGE, word >> 35 ^ 1]) << 35
        return word & 0xFFFFFFFF | dice.choice([0, 1, 2, 0xFFFF]) << 32 | dice.choice([0, 1, 2, 0xFFFF]) << 48

    return _rewritten(message, dice, _pointer, change)


def bomb(message, dice):
    """Make a list of very many elements that take little room or none: void, bits, or empty structs."""

    def change(word, at, segments):
        size, count = dice.choice([0, 0, 1, 2, 7]), dice.choice([1_000, 1_001, 5_000, 5_000, 1 << 20, (1 << 29) - 1])
        if size == 7:
            index = next(i for i, segment in enumerate(segments) if len(segment) > at * 8)
            target = at + 1 + signed_offset(word)
            if 0 <= target < len(segments[index]) // 8:
                segments[index][target * 8 : target * 8 + 8] = pack("<Q", (count << 2) & 0xFFFFFFFF)
            return word & 0xFFFFFFFC | LIST | 7 << 32
        return word & 0xFFFFFFFC | LIST | size << 32 | count << 35

    return _rewritten(message, dice, _pointer, change)


def number(message, dice):
    """Replace a small number with another: an id that was used before, an unknown kind of message."""
    low = dice.choice([0, 1, 2, 3, dice.randrange(20), 0xFFFF, 0xFFFFFFFF])

    def change(word, *_):
        return (
            word & ~0xFFFFFFFF | low if dice.random() < 0.7 else word ^ dice.randrange(16) << dice.choice([0, 16, 32])
        )

    def pick(segments, dice):
        small = [
            (index, at)
            for index, segment in enumerate(segments)
            for at, word in enumerate(words_in(segment))
            if word & 0xFFFFFFFF < 64 and word >> 48 < 64
        ]
        return dice.choice(small) if small else _word(segments, dice)

    return _rewritten(message, dice, pick, change)


def noise(_, dice):
    """Return words that look like pointers, and nothing else."""
    count = dice.randrange(1, 24)
    return framed([bytes(dice.choice([0, 0, 0, 1, 2, 4, 8, 255]) for _ in range(8 * count))])


SPOILERS = [
    flip,
    overwrite,
    table,
    resegment,
    aim,
    aim,
    alias,
    alias,
    far,
    far,
    kind,
    grow,
    grow,
    bomb,
    bomb,
    number,
    number,
]
RARELY = [cut, noise]


def length_of(stream, at=0):
    """Return the length of the message that begins at *at*, by its table; 0 if the table makes no sense."""
    count = int.from_bytes(stream[at : at + 4], "little") + 1
    table = (4 + 4 * count + 7) // 8 * 8
    if count > 600 or at + table > len(stream):
        return 0
    return table + 8 * sum(unpack_from(f"<{count}I", stream, at + 4))


def is_whole(message):
    """Return whether the frame header fits; otherwise only bytes can be damaged."""
    return len(message) >= 16 and length_of(message) == len(message)


def spoilt(message, dice):
    """Return *message* with one to three faults."""
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        if not message:
            break
        how = dice.choice(SPOILERS if dice.random() < 0.97 else RARELY)
        message = how(message, dice) if is_whole(message) else flip(message, dice)
    return message


def damaged(frames, dice, other=()):
    """
    A conversation with some of *frames* spoilt, doubled, lost or out of order, or mixed with *other*.

    Returns:
        The messages, and those among them that were spoilt.
    """
    frames, bad = list(frames), []
    rate = dice.choice([0.1, 0.3, 1.0])
    for index, frame in enumerate(frames):
        if dice.random() < rate:
            frames[index] = spoilt(frame, dice)
            bad.append(frames[index])
    roll = dice.random()
    if roll < 0.1:
        frames.insert(dice.randrange(len(frames) + 1), dice.choice(frames))
    elif roll < 0.2:
        del frames[dice.randrange(len(frames))]
    elif roll < 0.3:
        dice.shuffle(frames)
    elif roll < 0.4 and other:
        at = dice.randrange(len(frames) + 1)
        frames[at:] = list(other)[dice.randrange(len(other)) :]
    return frames, bad
