# The public interface of Queueber, a durable work queue.
#
# Producers `add` items, workers `poll` and get items under a lease, `remove` what is done and `extend` what takes
# longer.  A lease that runs out puts its items back.  Every reply leaves only after what it says is on disk.
#
# Rules for editors.  This file is a contract with clients that other people compiled: add fields, methods and
# interfaces, never renumber, retype or remove one.  `tests/test_schema.py` pins the ids and ordinals.
#
# Time.  Spans are given in seconds or, more finely, in milliseconds: a millisecond field that is not zero replaces its
# seconds field.  A client that wants to be understood by older servers fills both, the seconds rounded up.  Points in
# time are milliseconds since the Unix epoch by the server's own queue time, which wall clock steps do not move.
#
# Errors.  A call ends with one of Cap'n Proto's four exception types: `failed` (the request is wrong or can never fit;
# do not repeat it), `overloaded` (a limit that passes; try again later), `disconnected` (the server is stopping; try
# elsewhere or later) and `unimplemented`.  A reason names the field, the limit and the value.

@0xbab6e22de0402699;

interface Queue {
  # One queue.  A capability to it is all a producer or a worker needs.
  #
  # Calls of one connection are decided in the order in which they came.

  add @0 (req :AddRequest) -> (resp :AddResponse);
  # Stores all the items or none.  An empty list is answered with an empty list.

  remove @1 (req :RemoveRequest) -> (resp :RemoveResponse);
  # Removes one item held under a live lease, for ever.

  poll @2 (req :PollRequest) -> (resp :PollResponse);
  # Takes ready items under a new lease, waiting for some when there are none.

  extend @3 (req :ExtendRequest) -> (resp :ExtendResponse);
  # Moves the deadline of a live lease.
}

interface Broker extends(Queue) {
  # What a connection bootstraps: the default queue, whose name is `default`, and the way to all others.

  queue @0 (name :Text) -> (queue :Queue);
  # The queue of that name: UTF-8, 1 to 255 bytes; `failed` otherwise.  The first add makes a queue durable; asking for
  # one costs nothing that lasts.  Pipeline on the result (`broker.queue("mail").add(…)`) to save the round trip.

  limits @1 () -> (limits :Limits);
  # The limits of this server that a client can keep to.  Ask before sending a message of more than 64 KiB, which every
  # server takes.  Of a server that answers `unimplemented` assume the defaults in the comments below.
}

struct Limits {
  # Each field has the name of an option, `--limit-frame-bytes` for the first.

  frameBytes @0 :UInt64;
  # In a message, its table included; a longer one ends the connection.  By default 16 MiB.  A reply may be as long.

  itemsPerAdd @1 :UInt64;
  contentsBytes @2 :UInt64;
  # Of one item.

  addBytes @3 :UInt64;
  # Of all contents in an add.

  pollItems @4 :UInt64;
  pollBytes @5 :UInt64;
  # Of all contents in a poll's reply, after one item of any length.

  leaseMs @6 :UInt64;
  delayMs @7 :UInt64;
  # 0: no item may be delayed.

  waitMs @8 :UInt64;
}

struct AddRequest {
  items @0 :List(Item);
  # At most 1,000 items and 15 MiB of contents unless the server is configured otherwise; `failed` above.
}

struct Item {
  contents @0 :Data;
  # Any bytes, none too; at most 8 MiB.

  visibilityTimeoutSecs @1 :UInt64;
  # Delays the item: it becomes due so many seconds after the server has decided the add.  0: due at once.

  visibilityTimeoutMs @2 :UInt64;
  # The same in milliseconds; replaces the seconds unless it is 0.  At most 10 years.
}

struct AddResponse {
  ids @0 :List(Data);
  # One id for each item, in the order of the items: 16 bytes in UUIDv7 layout.
}

struct RemoveRequest {
  id @0 :Data;
  # The item's id as `add` and `poll` gave it.  Of any other length it is unknown.

  lease @1 :Data;
  # The lease under which this worker holds the item: 16 bytes, `failed` otherwise.
}

struct RemoveResponse {
  removed @0 :Bool;
  # False, and nothing has changed, when the item or the lease is unknown, the lease is another one or has ended, or
  # the lease belongs to another queue.
}

struct PollRequest {
  leaseValiditySecs @0 :UInt64;
  # How long the items are to be held; both spans 0 is `failed`.  At most 7 days.

  numItems @1 :UInt32;
  # The most items wanted; 0 means 1.  Clamped to the server's limit, by default 1,000.

  timeoutSecs @2 :UInt64;
  # How long to wait while no item is ready; both spans 0 waits until one is.

  leaseValidityMs @3 :UInt64;
  # The lease's span in milliseconds; replaces the seconds unless it is 0.

  timeoutMs @4 :UInt64;
  # The wait in milliseconds; replaces the seconds unless it is 0.

  noWait @5 :Bool;
  # Answer at once, with nothing when nothing is ready; the timeouts are not read.
}

struct PollResponse {
  items @0 :List(PolledItem);
  # In the order in which they became due.  Empty when the wait ran out.

  lease @1 :Data;
  # 16 bytes that stand for this poll's claim alone and are the right to remove and extend; empty without items.
  # They are random: keep them secret from other workers.

  leaseDeadlineMs @2 :UInt64;
  # When the lease ends, in milliseconds since the Unix epoch by the server's clock; 0 without items.
}

struct PolledItem {
  contents @0 :Data;
  id @1 :Data;

  attempt @2 :UInt32;
  # 1 the first time the item is handed out, 2 after one lease on it has run out, and so on.

  addedAtMs @3 :UInt64;
  # When the item was added, in milliseconds since the Unix epoch by the server's clock.
}

struct ExtendRequest {
  lease @0 :Data;
  # 16 bytes, `failed` otherwise.

  leaseValiditySecs @1 :UInt64;
  # The new deadline is now plus this span, be it later or earlier than the old one; both spans 0 is `failed`.

  leaseValidityMs @2 :UInt64;
  # The same in milliseconds; replaces the seconds unless it is 0.
}

struct ExtendResponse {
  extended @0 :Bool;
  # False when the lease is unknown, has ended, or belongs to another queue.
}
