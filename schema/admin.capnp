# What the local administrator may ask of a running server, through the socket `control.sock` in its data directory.
#
# It is not part of the public interface: who may open the socket may read and change the data anyway.  The rules for
# editors are the same all the same, because the command `queueber` of one version meets servers of another.

@0xe14bf91b4910bdd8;

using Public = import "queueber.capnp";

interface Admin extends(Public.Broker) {
  # What a connection to the control socket bootstraps.

  stats @0 () -> (stats :ServerStats);
  # How much there is of everything, now.

  check @1 (force :Bool) -> (findings :List(Finding), tookMs :UInt64);
  # Compares what the server holds in memory with itself.  No call is served meanwhile; with a million leased items that
  # is seconds, so with more than 50,000 things it is refused as `failed` unless it is forced.

  backup @2 (path :Data, device :UInt64, inode :UInt64) -> (device :UInt64, inode :UInt64, elsewhere :Bool);
  # Puts all that was committed before the call into the directory at this absolute path, which must not be there or be
  # empty.  The server makes it, as its own user.  One at a time, `overloaded` otherwise.
  #
  # Device and inode of the request are those of the path for the client, or of the last directory on the way to it that
  # exists; both 0 for not known.  If the server finds others, because it has another view of the file system, nothing is
  # done and the result is `elsewhere`.  Device and inode of the result are those of the finished backup.

  backupProgress @3 () -> (doneBytes :UInt64, totalBytes :UInt64);
  # How far the backup under way has got with copying; both 0 without one, or when nothing has to be copied.
}

struct ServerStats {
  version @0 :Text;

  uptimeMs @1 :UInt64;

  queues @2 :UInt64;
  items @3 :UInt64;
  leases @4 :UInt64;
  leasedItems @5 :UInt64;
  waitingPolls @6 :UInt64;
  connections @7 :UInt64;

  windowBytes @8 :UInt64;
  # What the heads of all queues take in memory.

  pendingBytes @9 :UInt64;
  # What waits for the disk.

  commits @10 :UInt64;
  # Since the server was started.

  freeBytes @11 :UInt64;
  # On the file system of the data directory, as far as the server may use it.

  reserveBytes @12 :UInt64;
  # Below so much free space adds are refused; 0 never.

  refusingAdds @13 :Bool;
  # Space is short, or the storage engine has to catch up.

  limitHits @14 :List(LimitHits);
}

struct LimitHits {
  limit @0 :Text;
  count @1 :UInt64;
}

struct Finding {
  text @0 :Text;
}
