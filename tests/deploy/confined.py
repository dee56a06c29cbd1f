"""
Becomes a command under what a unit of systemd takes away, as far as a process can do that to itself.

    confined.py UNIT LISTENING-FD COMMAND...

The unit's umask, its bound on open files, and whether memory may be writable and executable; no new privileges;
and a socket that systemd would have made.  The system calls are left to the caller.
"""

import ctypes
import os
import re
import resource
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
FIRST_SOCKET = 3


def main(unit, listening, *command):
    settings = dict(re.findall(r"^(\w+)=(.*)$", Path(unit).read_text(), re.MULTILINE))
    os.umask(int(settings["UMask"], 8))
    files = int(settings["LimitNOFILE"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 4096), min(files, 4096)))
    libc = ctypes.CDLL(None, use_errno=True)
    if settings.get("NoNewPrivileges") == "yes":
        assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    if settings.get("MemoryDenyWriteExecute") == "yes":
        assert libc.prctl(PR_SET_MDWE, 1, 0, 0, 0) == 0
    os.dup2(int(listening), FIRST_SOCKET)
    os.set_inheritable(FIRST_SOCKET, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="queueber")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
