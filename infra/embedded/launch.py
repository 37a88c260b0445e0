"""The stub that becomes a supervised process: it ties its life to the supervisor's, then execs.

Run as `python -I -S launch.py PARENT_PID UID:GID -- PROGRAM ARGS...` (`-` for no change of user).
Isolated mode keeps this script's folder off sys.path and makes the start cost some 15 ms.

A stub, and not a function between fork and exec, because the supervisor has threads: Python code
that runs in a forked child of a threaded process may hang for ever on a lock that nobody holds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies (Linux).

    On other systems nothing is done: there an orphan outlives a supervisor that is killed hard.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the call: then the kernel will never send the signal.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Become the program that `arguments` names; returns only by raising."""
    parent_pid, user, separator, *command = arguments
    if separator != "--" or not command:
        raise SystemExit("usage: launch.py PARENT_PID UID:GID|- -- PROGRAM ARGS...")
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # Only now: the kernel forgets the death signal when a process changes its user.
    die_with(int(parent_pid))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise SystemExit(f"cannot run {command[0]}: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
