"""An ext4 file system in a file, whose power can be cut."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004_587D
"""_IOR('X', 125, __u32)."""

TIMEOUT_SECONDS = 30

FLUSHED, JOURNAL_FLUSHED, NOTHING_FLUSHED = 0, 1, 2
"""Ways in which the file system stops, by what the kernel still writes; the last is a power cut."""


def lacking():
    """Return the reason why there can be none here; None if there can."""
    if os.geteuid():
        return "not root"
    for tool in ("mkfs.ext4", "losetup", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    found = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return f"no loop device: {found.stderr.strip()}" if found.returncode else None


class LoopDisk:
    """A file system in a file in *folder*; use it in a `with`, in which it is mounted."""

    def __init__(self, folder, *, megabytes=192, options=""):
        self._image = folder / "disk.img"
        self._megabytes = megabytes
        self.options = options
        self._device = None
        self.path = folder / "mounted"

    def __enter__(self):
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        self.mount()
        return self

    def __exit__(self, *exc_info):
        subprocess.run(["umount", str(self.path)], capture_output=True, check=False)
        _run("losetup", "--detach", self._device)

    def mount(self):
        """Mount it again as a starting machine does, which replays the journal."""
        options = ["-o", self.options] if self.options else []
        deadline = time.monotonic() + TIMEOUT_SECONDS
        _run("mount", *options, self._device, str(self.path))
        while self._is_cut():
            # A process in another mount namespace still holds the file system whose power was cut, so the kernel has
            # mounted that one again.
            if time.monotonic() > deadline:
                raise OSError(f"{self._device} is in use in another mount namespace")
            self.unmount()
            time.sleep(0.05)
            _run("mount", *options, self._device, str(self.path))

    def _is_cut(self):
        root = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(root)
        except OSError as why:
            if why.errno != errno.EIO:
                raise
            return True
        else:
            return False
        finally:
            os.close(root)

    def unmount(self):
        """Unmount it; no process may have a file open there."""
        _run("umount", str(self.path))

    def cut(self, how=NOTHING_FLUSHED):
        """Cut the power: each later access is an error, and unwritten data is lost."""
        root = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(root)


def unmount(path):
    """Unmount *path*, once no process, loop device or other mount namespace uses it any more."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise OSError(f"{path} cannot be unmounted")
        time.sleep(0.05)


def _run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def place_for_images():
    """Return a folder in memory, if there is one: what a cut keeps is decided above it."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else None
