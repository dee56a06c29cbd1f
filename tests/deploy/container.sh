#!/bin/sh
# What a container is to a server, without an engine: a file system that cannot be written to but for DATA, processes of
# its own among which it is the first, a user who may do nothing, and no way to more.
#
#     unshare --mount --pid --fork --kill-child container.sh INTERPRETER HIDDEN DATA COMMAND...
#
# INTERPRETER is the directory of the Python to use.  HIDDEN is the directory above it that other users may not enter, if
# there is one, and is replaced by one that has nothing else in it.
set -eu
interpreter=$1
hidden=$2
data=$3
shift 3

mount --make-rprivate /
mount --bind "$data" "$data"
if [ -n "$hidden" ]; then
    mount --bind "$interpreter" /mnt
    mount -t tmpfs -o mode=0755 tmpfs "$hidden"
    mkdir -p "$interpreter"
    mount --move /mnt "$interpreter"
    mount -o remount,ro "$hidden"
fi
mount -t proc proc /proc
mount -o remount,bind,ro /
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
