# The public interface of Queueber, a durable work queue.
#
# Producers `add` items, workers `poll` and get items under a lease, `remove` what is done and `extend` what takes
# longer.  A lease that runs out puts its items back.  Every reply leaves only after what it says is on disk.
#
# Rules for editors.  This file is a contract with clients that other people compiled: add fields, methods and
# interfaces, never renumber, retype or remove one.  `tests/test_schema.py` pins the ids and ordinals.  A peer refuses
# enumerators that it does not know, so a new one may only answer a request that asks for it.
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

  settle @4 (req :SettleRequest) -> (resp :SettleResponse);
  # Ends the leases of items in any way, many at a time, and adds items in the same commit.  Called on the Broker, it
  # settles items of all queues, and an add without a queue goes to the default queue.

  deadLetters @5 () -> (queue :Queue);
  # The queue's dead items as a queue: poll, remove, extend and settle work as on any other.  `add` is `failed`.
  # Failures and losses are not counted there, and nothing in it dies again.  Asking for it costs nothing that lasts.
}

interface Broker extends(Queue) {
  # What a connection bootstraps: the default queue, whose name is `default`, and the way to all others.

  queue @0 (name :Text) -> (queue :Queue);
  # The queue of that name: UTF-8, 1 to 255 bytes; `failed` otherwise.  The first add makes a queue durable; asking for
  # one costs nothing that lasts.  Pipeline on the result (`broker.queue("mail").add(…)`) to save the round trip.

  limits @1 () -> (limits :Limits);
  # The limits of this server that a client can keep to.  Ask before sending a message of more than 64 KiB, which every
  # server takes.  Of a server that answers `unimplemented` assume the defaults in the comments below.

  attach @2 (session :Data, graceMs :UInt64, more :Bool) -> (resp :AttachResponse);
  # Binds a worker's session, 16 random bytes of its own choice, to this connection.  If another connection has it, that
  # one is closed.  Polls that name the session give leases without a deadline: they last as long as the session is
  # attached, and end when it has been detached for its grace, at least 10 s and at most 7 days; 0 means 30 s.
  #
  # A session that is attached to this connection already gets no leases, but with *more* the next ones of an attach
  # whose response had `more`.

  ping @3 () -> (ended :List(Data));
  # Answered at once, without waiting for the disk.  Send it at least every quarter of the shorter of `silenceMs` and the
  # grace while a session is attached: a peer that is silent for `silenceMs` is taken for lost.  `ended` has the session
  # leases of this connection that have ended otherwise since the last ping.

  queues @4 (prefix :Text, label :Label, after :Text, limit :UInt32) -> (queues :List(QueueSummary), more :Bool);
  # The queues whose name begins with *prefix* and that have the label if one with a name is given, sorted by name and
  # from the first name above *after*.  At most *limit*, and at most 1,000; 0 means 1,000.

  control @5 (name :Text) -> (control :QueueControl);
  # The means to look into a queue and to change it.  Asking for it costs nothing that lasts.

  pollAny @6 (req :PollAnyRequest) -> (resp :PollAnyResponse);
  # Waits in several queues and takes items of one of them.
}

interface QueueControl {
  # One queue, for operators.  No method of it leases an item.  Ids are 16 bytes, `failed` otherwise.

  stats @0 (exact :Bool) -> (stats :QueueStats);
  # Counts.  With *exact*, ready and delayed items beyond the queue's head are counted by a scan, which takes a while:
  # the `counting` of another call shows its progress.

  settings @1 () -> (settings :Settings, defaults :List(Text));
  # The settings in force, and the names of those that were never configured for this queue.

  configure @2 (fields :List(Text), settings :Settings, reset :List(Text)) -> (settings :Settings);
  # Changes the settings with these names and returns all.  Those in *reset* go back to the server's default, as if they
  # had never been configured.  A value that cannot be had, or an unknown name, is `failed`, and nothing is changed.

  peek @3 (req :PeekRequest) -> (items :List(ItemView), more :Bool);
  # Items in the order in which they become due, without leasing them.

  get @4 (id :Data) -> (found :Bool, item :ItemView);
  # One item, wherever it is: delayed, ready, leased or dead.

  cancel @5 (id :Data) -> (outcome :ControlOutcome);
  # Removes an item that is not leased, for ever.

  kick @6 (id :Data) -> (outcome :ControlOutcome);
  # Makes a delayed item ready.

  reschedule @7 (id :Data, dueMs :UInt64) -> (outcome :ControlOutcome);
  # Moves an item that is not leased to another moment, or to now if that has passed.  `failed` for a moment at which the
  # item has expired by its `expiresAtMs`.

  purge @8 (dead :Bool) -> (items :UInt64);
  # Removes all ready and delayed items, or with *dead* the dead ones, in one step.  Leased items stay with their
  # workers.  Returns how many were removed.

  pause @9 (adds :Bool, polls :Bool) -> ();
  # Refuses adds as `overloaded`, or hands out nothing, until `resume`.  Durable.

  resume @10 (adds :Bool, polls :Bool) -> ();

  redrive @11 (req :RedriveRequest) -> (moved :UInt64, more :Bool);
  # Moves dead items back, at most 1,000 and 15 MiB of contents a call, in one commit: all of them, or none if the target
  # cannot take them.  Their attempts, failures and losses begin anew.

  leases @12 (after :Data, limit :UInt32) -> (leases :List(LeaseView), more :Bool);
  # The leases on items of this queue, sorted by id, from the first above *after*.  At most *limit*, and at most 1,000.

  endLease @13 (lease :Data) -> (ended :Bool);
  # Ends a lease now: its items come back as if it had run out.  The id may be that in `leases` or the worker's own.

  delete @14 (force :Bool) -> (outcome :ControlOutcome);
  # Deletes the queue with its settings and dead items.  Without *force* only one that has no items and no waiting polls.
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

  requestId @1 :Data;
  # 16 random bytes that stand for this call, `failed` for other lengths; empty: none.  A call that is sent again with
  # the same id within ten minutes, because its reply was lost, adds nothing and returns the first call's ids.

  options @2 :List(ItemOptions);
  # Those of the items in the same places; items beyond the end of this list have none.  They are not in `Item`, so that
  # an item without options costs nothing.
}

struct Item {
  contents @0 :Data;
  # Any bytes, none too; at most 8 MiB.

  visibilityTimeoutSecs @1 :UInt64;
  # Delays the item: it becomes due so many seconds after the server has decided the add.  0: due at once.

  visibilityTimeoutMs @2 :UInt64;
  # The same in milliseconds; replaces the seconds unless it is 0.  At most 10 years.
}

struct ItemOptions {
  headers @0 :List(Header);
  # At most 64, with up to 4 KiB of names and values together, `failed` above.  Delivered with the item, not interpreted.

  dedupKey @1 :Data;
  # 1 to 255 bytes; empty: none.  A second item with this key, within the queue's `dedupWindowMs` after the first, is not
  # added.  It gets the first one's id and is listed in `duplicates`.

  untilRemoved @2 :Bool;
  # The key counts until the first item is removed, expires or dies, however long that takes.

  expiresAtMs @3 :UInt64;
  # Milliseconds since the Unix epoch by the server's clock, from which the item is not delivered any more: it dies, or
  # is dropped if the queue's `dropExpired` says so.  0: never.  An add is refused if this moment has passed, or if the
  # item becomes due only then or later.

  dueMs @4 :UInt64;
  # When the item becomes due, in milliseconds since the Unix epoch by the server's clock; replaces the visibility
  # timeout unless it is 0.  A moment that has passed is now.
}

struct Header {
  name @0 :Text;
  # UTF-8, 1 to 255 bytes.

  value @1 :Data;
}

struct AddResponse {
  ids @0 :List(Data);
  # One id for each item, in the order of the items: 16 bytes in UUIDv7 layout.

  duplicates @1 :List(UInt32);
  # The places of the items that were not added, because their `dedupKey` was taken.
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

  session @6 :Data;
  # The session that is attached to this connection, 16 bytes: the lease lasts as long as it does, and the lease's spans
  # are not read.  Empty: a lease with a deadline.
}

struct PollResponse {
  items @0 :List(PolledItem);
  # In the order in which they became due.  Empty when the wait ran out.

  lease @1 :Data;
  # 16 bytes that stand for this poll's claim alone and are the right to remove and extend; empty without items.
  # They are random: keep them secret from other workers.

  leaseDeadlineMs @2 :UInt64;
  # When the lease ends, in milliseconds since the Unix epoch by the server's clock; 0 without items and for a session
  # lease.

  session @3 :Bool;
  # The lease is a session lease.  A server that does not know sessions leaves this false, and `failed`s a poll without
  # spans.

  facts @4 :List(DeliveryFacts);
  # Those of the items in the same places; empty if no item was delivered before or was added with headers.
}

struct PolledItem {
  contents @0 :Data;
  id @1 :Data;

  attempt @2 :UInt32;
  # 1 the first time the item is handed out, 2 after one lease on it has run out, and so on.

  addedAtMs @3 :UInt64;
  # When the item was added, in milliseconds since the Unix epoch by the server's clock.
}

struct DeliveryFacts {
  failures @0 :UInt32;
  # How often a worker settled the item as failed.

  losses @1 :UInt32;
  # How often a lease on the item ended by itself.

  firstLeasedAtMs @2 :UInt64;
  # When it was handed out for the first time; 0 if this is the first time.

  lastError @3 :Text;
  # The error of the last failure, at most 4 KiB.

  headers @4 :List(Header);
  # The headers with which it was added.

  death @5 :Death;
  # How it died, for a dead item and for one that was moved back from the dead items.
}

struct Death {
  reason @0 :DeathReason;
  diedAtMs @1 :UInt64;

  queue @2 :Text;
  # The queue in which it died.
}

enum DeathReason {
  none @0;

  attempts @1;
  # Its last attempt failed.

  lost @2;
  # The lease of its last attempt ended by itself.

  rejected @3;
  # A worker rejected it.

  expired @4;
  # It was not delivered in time.
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

struct SettleRequest {
  entries @0 :List(Settlement);
  # Decided in order.  At most 1,000, `failed` above.

  adds @1 :List(AddTo);
  # Items to add in the same commit.  With any, the whole call is all or nothing.

  allOrNothing @2 :Bool;
  # One entry whose outcome is not `done` refuses the whole call, and nothing is changed.
}

struct Settlement {
  lease @0 :Data;
  # 16 bytes, `failed` otherwise.

  id @1 :Data;
  # One item of the lease; empty: all that it holds.

  action @2 :Action;

  hasDelay @3 :Bool;
  delayMs @4 :UInt64;
  # For `fail` and `defer` the time until the item becomes due again, for `extend` the new span of the lease.  Without
  # `hasDelay`, `fail` takes the queue's backoff and `defer` the item's own place; `extend` is `failed`.

  error @5 :Text;
  # Why it failed: UTF-8, at most 4 KiB.  Delivered with the item from then on.
}

enum Action {
  remove @0;
  # The item is done, and gone.

  fail @1;
  # The item comes back; a failure is counted.  If that was its last attempt it dies.

  defer @2;
  # The item comes back, and nothing is counted.

  reject @3;
  # The item dies now; a failure is counted.

  extend @4;
  # The whole lease ends a span from now; an entry with an id is `failed`.  A session lease becomes one with a deadline.
}

struct AddTo {
  queue @0 :Text;
  # The queue's name; empty: the queue on which `settle` was called.

  items @1 :List(Item);
  # In all of `adds` together as many as in one `AddRequest`.

  options @2 :List(ItemOptions);
  # Those of the items in the same places, as in `AddRequest`.  A `dedupKey` is `failed` here.
}

struct SettleResponse {
  settled @0 :List(Settled);
  # For each entry, in order.

  added @1 :List(AddResponse);
  # For each of `adds`, in order; empty if the call was refused.

  changed @2 :Bool;
  # False if the call was all or nothing and was refused, or had nothing to change.
}

struct Settled {
  outcome @0 :Outcome;

  died @1 :Bool;
  # The item, or one of them, is among the dead items now.

  dueMs @2 :UInt64;
  # When the item becomes due again, or the extended lease ends; 0 for other outcomes.
}

enum Outcome {
  done @0;

  leaseLost @1;
  # The lease is unknown or over.

  notFound @2;
  # The lease lives and does not hold that item.
}

struct AttachResponse {
  leases @0 :List(SessionLease);
  # The leases that the session still has, up to 256 KiB of them; none if it is attached to this connection already.

  graceMs @1 :UInt64;
  silenceMs @2 :UInt64;

  more @3 :Bool;
  # The session has further leases.  Call `attach` again with `more` to get the next ones.
}

struct SessionLease {
  lease @0 :Data;
  queue @1 :Text;
  ids @2 :List(Data);
}

struct PollAnyRequest {
  queues @0 :List(QueueWeight);
  # 1 to 64 queues, `failed` otherwise.

  strict @1 :Bool;
  # Takes from the first queue in the list that has an item.  Otherwise the queues take turns by weight.

  poll @2 :PollRequest;
}

struct QueueWeight {
  queue @0 :Text;
  weight @1 :UInt32 = 1;
  # 1 to 1,000.
}

struct PollAnyResponse {
  queue @0 :Text;
  # The queue of the items; empty without items.

  poll @1 :PollResponse;
}

struct Settings {
  # Of one queue.  The defaults are those of a queue that was never configured, unless the server has others.

  leaseMs @0 :UInt64;
  # The lease of a poll that gives none; 0: such a poll is `failed`.

  maxLeaseMs @1 :UInt64;
  # The longest time for which one lease may be held, extensions and sessions included; 0: no bound but the server's.

  maxAttempts @2 :UInt32;
  # An item dies with the failure or loss of this attempt; 0: never.

  backoffBaseMs @3 :UInt64 = 1000;
  backoffCapMs @4 :UInt64 = 3600000;
  # A failed item comes back after a random time up to base * 2^(failures - 1), and up to the cap.

  backoffOnLoss @5 :Bool;
  # An item whose lease ended by itself waits, too.

  maxItems @6 :UInt64;
  maxBytes @7 :UInt64;
  # Items, leased ones included, and bytes of contents; an add that would exceed them is `overloaded`.  0: no bound.

  maxItemBytes @8 :UInt64;
  # Of one item; 0: no bound but the server's.

  ttlMs @9 :UInt64;
  # Time from the add until an item expires, unless the item has its own; 0: never.

  dropExpired @10 :Bool;
  # Expired items are removed instead of dying.

  deadTtlMs @11 :UInt64;
  # Time from the death of an item until it is removed; 0: never.

  dedupWindowMs @12 :UInt64 = 300000;

  idleTtlMs @13 :UInt64;
  # A queue without items, waiting polls and calls for this time is deleted, but not while it is paused, nor within the
  # window of a deduplication key; 0: never.

  labels @14 :List(Label);
  # At most 16, with distinct names.

  addsPaused @15 :Bool;
  pollsPaused @16 :Bool;
  # Read only: `pause` and `resume` change them.
}

struct Label {
  name @0 :Text;
  value @1 :Text;
  # UTF-8, at most 63 bytes each; the name at least 1.
}

struct QueueSummary {
  name @0 :Text;
  stats @1 :QueueStats;
  labels @2 :List(Label);
}

struct QueueStats {
  items @0 :UInt64;
  # Exact: ready, delayed and leased items.

  bytes @1 :UInt64;
  # Of their contents; exact.

  ready @2 :UInt64;
  readyMax @3 :UInt64;
  # Lower and upper bound for items that are due and not leased.  Equal if the number is exact.

  delayed @4 :UInt64;
  delayedMax @5 :UInt64;
  leased @6 :UInt64;
  dead @7 :UInt64;
  deadBytes @8 :UInt64;

  waitingPolls @9 :UInt64;

  oldestDueMs @10 :UInt64;
  # When the first item that is not leased becomes or became due; 0 if there is none, or it is not known.

  added @11 :UInt64;
  removed @12 :UInt64;
  # Since the queue was made.

  addsPaused @13 :Bool;
  pollsPaused @14 :Bool;

  counting @15 :UInt64;
  # Items that an exact count in progress has read so far, of those that are not leased; 0: there is none.
}

enum ItemState {
  ready @0;
  delayed @1;
  leased @2;
  dead @3;
}

struct PeekRequest {
  states @0 :List(ItemState);
  # `ready`, `delayed` or `dead`, one at a time; empty: ready and delayed items.

  after @1 :Data;
  # The `place` of the last item that was seen; empty: from the first.

  limit @2 :UInt32;
  # At most 1,000; 0 means 10.

  contentsBytes @3 :UInt64;
  # Limit of the bytes of each item's contents; 0: all.
}

struct ItemView {
  id @0 :Data;
  state @1 :ItemState;
  contents @2 :Data;
  contentsBytes @3 :UInt64;
  # The length of the whole contents.

  addedAtMs @4 :UInt64;
  dueMs @5 :UInt64;
  attempts @6 :UInt32;
  facts @7 :DeliveryFacts;
  expiresAtMs @8 :UInt64;
  reserved9 @9 :Bool;
  # Not used.

  place @10 :Data;
  # Its position in its queue, for `after`.

  waits @11 :Waits;
  # Why it is not being worked on, or who works on it; only of `get`.
}

struct Waits {
  lease @0 :LeaseView;
  # Null unless it is leased.

  ahead @1 :UInt64;
  # Upper bound for the items before it.

  queuePaused @2 :Bool;
  leasesFull @3 :Bool;
  # The server's limit of leased items is reached.

  waitingPolls @4 :UInt64;
}

struct LeaseView {
  handle @0 :Data;
  # Stands for the lease in `endLease` only: it gives no right to its items.

  items @1 :UInt32;
  sinceMs @2 :UInt64;
  # 0 if that was before the server's last start.

  deadlineMs @3 :UInt64;
  # 0 for a session lease that is attached.

  peer @4 :Text;
  # The address of the worker's connection; empty if it is not known any more.

  session @5 :Bool;
  ids @6 :List(Data);
  # At most 100 of its items.
}

enum ControlOutcome {
  done @0;
  notFound @1;
  leased @2;
  # The item is leased: its worker decides.

  notEmpty @3;
  # The queue has items or waiting polls.
}

struct RedriveRequest {
  ids @0 :List(Data);
  # Only these items; empty: all.

  reason @1 :DeathReason;
  # Only items that died of this; `none`: of any.

  limit @2 :UInt32;
  # At most 1,000; 0 means 1,000.

  to @3 :Text;
  # The queue to which they go; empty: back to their own.
}
