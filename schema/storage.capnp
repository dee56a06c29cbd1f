# What Queueber keeps on disk.
#
# Every value is one encoding byte, a checksum, then one of these structs as a single segment without a frame header,
# unpacked or packed as the encoding byte says.  `docs/storage.md` has the keys and the rules.
#
# Rules for editors.  Directories written by any released version must open for ever: add fields only, and raise the
# format version (see `queueber/store/rows/meta.py`) when an older server must not open what a newer one wrote.

@0xe9d2a7b1c4f05836;

struct StoredItem {
  # The value of an item's row; its key is queue, due and id, its place in line.

  contents @0 :Data;

  addedAtMs @1 :UInt64;
  # Queue time, milliseconds since the Unix epoch.

  attempts @2 :UInt32;
  # How many leases on this item have run out or been released so far.
}

struct LeaseRecord {
  # The value of a lease's row; its key is the lease's id.  Written by the poll that made it and by each extend, and
  # not when one of its items is removed: an entry whose item is gone has been removed.

  queue @0 :UInt32;
  # The queue's number.

  deadlineMs @1 :UInt64;
  # Queue time, milliseconds since the Unix epoch.

  entries @2 :Data;
  # 24 bytes for each item: its due as a big-endian UInt64, then its id.  The same bytes as in the item's key.
}

struct QueueRecord {
  # The value of a queue's row; its key is the queue's number.  Written in every commit that changes it.

  name @0 :Data;
  # UTF-8, 1 to 255 bytes.

  added @1 :UInt64;
  # How many items were ever added.

  removed @2 :UInt64;
  # How many items were ever removed; added less removed is how many there are.

  floor @3 :Data;
  # 24 bytes, a due and an id, that every unleased item of the queue lies above: where the first scan after a start begins.
}

struct TimeMark {
  # Ties queue time to the machine's clocks; written with every commit.

  bootId @0 :Data;
  # 16 bytes that differ from boot to boot.

  bootTimeMs @1 :UInt64;
  # Milliseconds since boot, suspension included.

  queueTimeMs @2 :UInt64;

  wallMs @3 :UInt64;
  # The wall clock, milliseconds since the Unix epoch; 0 where it is not known.
}

struct SyncMark {
  # The last sequence number of the storage engine that is known to be on disk.  A log that ends before it has lost
  # acknowledged writes.

  sequence @0 :UInt64;

  failed @1 :Bool;
  # The server that wrote this was ending itself because a write or a sync had failed: nothing after `sequence` was
  # acknowledged, on whatever boot.
}

struct Format {
  version @0 :UInt32;
  # The version that last wrote the directory; a server refuses one that is newer than its own.

  durability @1 :Text;
  # What the directory was created with, where that limits how it may be used later: `none` or empty.
}
