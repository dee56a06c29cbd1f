"""
Messages as trees, so that one message can be laid out in every way that the encoding allows.

`tree` reads a valid segment of our own.  `vary` makes structs longer or shorter
and lists of structs narrower, as other versions of a schema would.  `lay` spreads
the tree over segments with far and double-far pointers.
"""

from struct import pack, unpack

from attrs import define

STRUCT, LIST, FAR, OTHER = range(4)
COMPOSITE, POINTERS, BYTES, EIGHT = 7, 6, 2, 5
ELEMENT_BITS = {0: 0, 1: 1, 2: 8, 3: 16, 4: 32, 5: 64}
WORD = 8


@define
class Struct:
    data: list
    pointers: list


@define
class Structs:
    data_words: int
    pointers: int
    elements: list


@define
class Pointers:
    elements: list


@define
class Numbers:
    size: int
    count: int
    words: list


@define
class Capability:
    word: int


def words_in(segment):
    return list(unpack(f"<{len(segment) // WORD}Q", segment))


def signed_offset(word):
    offset = word >> 2 & 0x3FFFFFFF
    return offset - (1 << 30) if offset >> 29 else offset


def tree(segment):
    """Return the root of *segment*, which is valid and has no far pointers."""
    return _node(words_in(segment), 0)


def _node(words, at):
    word = words[at]
    if not word:
        return None
    if word & 3 == OTHER:
        return Capability(word)
    body = at + 1 + signed_offset(word)
    if word & 3 == STRUCT:
        return _struct(words, body, word >> 32 & 0xFFFF, word >> 48)
    size, count = word >> 32 & 7, word >> 35
    if size == COMPOSITE:
        tag = words[body]
        data, pointers = tag >> 32 & 0xFFFF, tag >> 48
        step = data + pointers
        return Structs(
            data,
            pointers,
            [_struct(words, body + 1 + index * step, data, pointers) for index in range((tag & 0xFFFFFFFF) >> 2)],
        )
    if size == POINTERS:
        return Pointers([_node(words, body + index) for index in range(count)])
    length = (count * ELEMENT_BITS[size] + 63) // 64
    return Numbers(size, count, words[body : body + length])


def _struct(words, body, data, pointers):
    slots = [_node(words, body + data + index) for index in range(pointers)]
    return Struct(words[body : body + data], slots)


def vary(node, dice, rate=0.2):
    """Return *node* as another version of its schema might have it; most of its values stay."""
    if isinstance(node, Struct):
        data, pointers = list(node.data), [vary(each, dice, rate) for each in node.pointers]
        if dice.random() < rate:
            data, pointers = _resized(data, pointers, dice)
        return Struct(data, pointers)
    if isinstance(node, Pointers):
        elements = [vary(each, dice, rate) for each in node.elements]
        if dice.random() < rate:
            return Structs(1, 1, [Struct([dice.getrandbits(8)], [each]) for each in elements])
        return Pointers(elements)
    if isinstance(node, Structs) and dice.random() < rate:
        return _narrowed(node, dice)
    if isinstance(node, Structs):
        elements = [Struct(each.data, [vary(below, dice, rate) for below in each.pointers]) for each in node.elements]
        return Structs(node.data_words, node.pointers, elements)
    return node


def _resized(data, pointers, dice):
    if dice.random() < 0.5:
        data += [dice.getrandbits(64)] * dice.randrange(3)
        return data, pointers + [None] * dice.randrange(3)
    while data and not data[-1]:
        data.pop()
    while pointers and pointers[-1] is None:
        pointers.pop()
    return data, pointers


def _narrowed(node, dice):
    """Return the list as the schema's first field alone would have had it."""
    if node.pointers and dice.random() < 0.6:
        return Pointers([each.pointers[0] for each in node.elements])
    size = dice.choice([0, 2, 3, 4, 5])
    width = ELEMENT_BITS[size] // 8
    raw = b"".join((each.data[0] if each.data else 0).to_bytes(WORD, "little")[:width] for each in node.elements)
    return Numbers(size, len(node.elements), words_in(raw + bytes(-len(raw) % WORD)))


class _Writer:
    def __init__(self, segments, dice):
        self.segments = [[] for _ in range(segments)]
        self.dice = dice

    def room(self, segment, count):
        at = len(self.segments[segment])
        self.segments[segment] += [0] * count
        return at

    def point(self, segment, at, node):
        """Write *node*, and at *at* the pointer to it."""
        words = self.segments[segment]
        if node is None or isinstance(node, Capability):
            words[at] = node.word if node else 0
            return
        home = segment if self.dice.random() < 0.5 else self.dice.randrange(len(self.segments))
        first, kind = self.place(home, node)
        if home == segment:
            words[at] = kind | (first - at - 1 & 0x3FFFFFFF) << 2
        elif self.dice.random() < 0.6:
            pad = self.room(home, 1)
            self.segments[home][pad] = kind | (first - pad - 1 & 0x3FFFFFFF) << 2
            words[at] = FAR | pad << 3 | home << 32
        else:
            third = self.dice.randrange(len(self.segments))
            pad = self.room(third, 2)
            self.segments[third][pad : pad + 2] = [FAR | first << 3 | home << 32, kind]
            words[at] = FAR | 4 | pad << 3 | third << 32

    def place(self, segment, node):
        """Return where *node* begins in *segment*, and the pointer to it without its offset."""
        words = self.segments[segment]
        if isinstance(node, Struct):
            at = self.room(segment, len(node.data) + len(node.pointers))
            self.fill(segment, at, node)
            return at, STRUCT | len(node.data) << 32 | len(node.pointers) << 48
        if isinstance(node, Numbers):
            at = self.room(segment, len(node.words))
            words[at:] = node.words
            return at, LIST | node.size << 32 | node.count << 35
        if isinstance(node, Pointers):
            at = self.room(segment, len(node.elements))
            for index, each in enumerate(node.elements):
                self.point(segment, at + index, each)
            return at, LIST | POINTERS << 32 | len(node.elements) << 35
        step = node.data_words + node.pointers
        at = self.room(segment, 1 + step * len(node.elements))
        words[at] = len(node.elements) << 2 | node.data_words << 32 | node.pointers << 48
        for index, each in enumerate(node.elements):
            self.fill(segment, at + 1 + index * step, each)
        return at, LIST | COMPOSITE << 32 | step * len(node.elements) << 35

    def fill(self, segment, at, struct):
        self.segments[segment][at : at + len(struct.data)] = struct.data
        for index, each in enumerate(struct.pointers):
            self.point(segment, at + len(struct.data) + index, each)


def lay(node, dice, segments=1):
    """Return the segments of the message whose root is *node*, at most as many as requested."""
    writer = _Writer(segments, dice)
    writer.room(0, 1)
    writer.point(0, 0, node)
    return [pack(f"<{len(words)}Q", *words) for words in writer.segments]


def framed(segments):
    """Return the message of these segments, as the standard says."""
    table = pack(f"<I{len(segments)}I", len(segments) - 1, *[len(segment) // WORD for segment in segments])
    return table + bytes(-len(table) % WORD) + b"".join(segments)


def unframed(message):
    """Return the segments of the one whole message that *message* is."""
    count = int.from_bytes(message[:4], "little") + 1
    sizes = unpack(f"<{count}I", message[4 : 4 + 4 * count])
    at, segments = (4 + 4 * count + 7) // WORD * WORD, []
    for size in sizes:
        segments.append(message[at : at + size * WORD])
        at += size * WORD
    return segments
