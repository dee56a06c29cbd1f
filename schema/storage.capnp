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

  facts @3 :ItemFacts;
  # Null for an item without any: its row is then that of format 1, byte for byte.
}

struct ItemFacts {
  failures @0 :UInt32;
  # How many of the attempts ended with a failure; the others were lost.

  firstLeasedAtMs @1 :UInt64;
  lastError @2 :Data;
  # UTF-8.

  headers @3 :List(StoredHeader);
  expiresAtMs @4 :UInt64;

  reserved5 @5 :Data;
  # Not used.

  deathReason @6 :UInt16;
  # As `DeathReason` of the public schema; 0 for an item that never died.

  diedAtMs @7 :UInt64;
  diedIn @8 :Data;
  # The name of the queue in which it died, UTF-8.
}

struct StoredHeader {
  name @0 :Data;
  value @1 :Data;
}

struct Place {
  # The value of a row that finds an item by its id.  There is one for each item whose due is not the time in its id.

  queue @0 :UInt32;
  dueMs @1 :UInt64;
}

struct StoredSettings {
  # The value of a queue's settings row; its key is the queue's id.

  settings @0 :Data;
  # A segment with the struct `Settings` of the public schema.

  configured @1 :List(Data);
  # The names of the fields that were configured.  The others have the server's defaults.
}

struct Retired {
  # The value of the row of a retired number, whose items are deleted; its key is that number.

  queue @0 :UInt32;
  # The id of the queue to which leased items return; 0 if it was deleted, and they are gone then.
}

struct Numbers {
  # The value of the row with the lowest number that no queue ever had.  Written when a number is retired.

  next @0 :UInt32;
}

struct DedupRecord {
  # The value of the row of a deduplication key or a request id; its key is the queue's id and a digest, or the request id.

  endsMs @0 :UInt64;
  # Queue time; 0: until the item is removed.

  ids @1 :Data;
  # 16 bytes for each item: one for a deduplication key, those of the whole call for a request id.

  duplicates @2 :Data;
  # For a request id: four bytes, little-endian, for each place of an item that was not added.

  checkMs @3 :UInt64;
  # For a record without an end: when to check next whether its item is gone.  Queue time.
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

  leasedAtMs @3 :UInt64;
  # When it was made; 0 in records of format 1.

  sizes @4 :Data;
  # Four bytes, little-endian, for each entry: the length of the item's contents.  Absent in records of format 1.

  session @5 :Data;
  # 16 bytes for a session lease; absent for others.

  graceMs @6 :UInt64;
  # For a session lease: the grace of its session.  For others: by how much a start has let it end later.
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

  bytes @4 :UInt64;
  # The length of the contents of all its items.

  id @5 :UInt32;
  # The first number that the queue had, to which its settings, deduplication keys and dead items belong; 0: `number`.

  deadOf @6 :UInt32;
  # The id of the queue whose dead items these are; 0 for other queues.

  offTime @7 :UInt64;
  # How many items have a due that is not the time in their id.
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
