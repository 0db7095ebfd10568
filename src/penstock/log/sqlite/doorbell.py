"""A doorbell between the processes of one machine that share a file.

Whoever follows binds a datagram socket in a folder beside the file; whoever has committed sends a byte
to each socket there. A ring means only "look again": it may be lost or doubled, so a follower also looks
by itself now and then. Sockets of processes that died are removed by the next ring.

Where no bell can be hung up (Windows, a folder that this user may not write) a follower polls.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import stat
import time
from pathlib import Path

from penstock import threads

POLL_S = 0.02  # how often a follower looks that has no bell
_HANG_AGAIN_S = 1.0  # how often it tries to get one
_HANG_TRIES = 10  # whoever leaves last removes the folder, perhaps just as another comes
# A folder's time of change has the granularity of a clock tick: a listing made this soon after a change
# may lack a socket that was bound within the same tick, and is not trusted for longer than one ring.
_TICK_NS = 50_000_000
_MAX_ADDRESS_BYTES = 100  # systems take 104 or 108
_SYSTEM_HAS_BELLS = hasattr(socket, "AF_UNIX") and os.name == "posix"


class Doorbell:
    """One end of the doorbell. Any thread may use it.

    Args:
        beside: the file that is shared. The bells hang in the folder ``<file>-bells``.
    """

    def __init__(self, beside: Path) -> None:
        self._file = beside
        self._folder = f"{beside}-bells"
        self._mutex = threads.Lock()  # guards all that follows
        self._own: socket.socket | None = None  # rung by others
        self._own_name = ""
        self._hang_at = 0.0  # not before this time
        self._sender: socket.socket | None = None
        self._listing: list[str] = []
        self._listing_of = -1  # the folder's time of change that the listing is true of
        self._folder_fd = -1  # for long paths
        self._folder_fd_of = (-1, -1)  # which folder it is of: it may have been made anew
        self._waiting = 0
        self._taken_down: list[socket.socket] = []  # a thread may still wait at one
        self._closed = False

    def wait(self, timeout_s: float) -> None:
        """Return when somebody has rung since the last wait, or after the time-out.

        The first time it hangs up the bell and returns at once: what was before was not heard. Where
        there is none to be had, it returns after ``POLL_S``.
        """
        with self._mutex:
            if self._closed or self._hang():
                return
            own = self._own
            self._waiting += 1
        try:
            if own is None:
                threads.sleep(min(POLL_S, timeout_s))
            elif not _heard(own, timeout_s):
                with self._mutex:
                    self._look_after(own)
        finally:
            with self._mutex:
                self._waiting -= 1
                self._clear_away()

    def ring(self, *, own: bool = False) -> None:
        """Wake all others that listen; with ``own``, this end as well. Never blocks, never raises."""
        if not _SYSTEM_HAS_BELLS:
            return
        with self._mutex, contextlib.suppress(OSError):  # no folder: nobody listens
            for name in self._names():
                if own or name != self._own_name:
                    self._ring_one(name)

    def close(self) -> None:
        """Take the own bell down. May be called twice, and while another thread waits."""
        with self._mutex:
            self._closed = True
            if self._own is not None:
                with contextlib.suppress(OSError):
                    self._ring_one(self._own_name)  # a thread in wait() sees that it is over
                self._take_down()
                with contextlib.suppress(OSError):  # not empty: others listen
                    os.rmdir(self._folder)
            self._clear_away()

    def _hang(self) -> bool:
        """Hang up the own bell if it does not hang yet; tell whether it has only just been hung up."""
        if self._own is not None or not _SYSTEM_HAS_BELLS or time.monotonic() < self._hang_at:
            return False
        for _ in range(_HANG_TRIES):
            name = f"{os.getpid()}-{secrets.token_hex(4)}"
            bell = None
            try:
                bell = threads.Socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                bell.setblocking(False)
                self._make_folder()
                bell.bind(self._address(name))
                self._share(name, self._mode())
            except OSError as error:
                if bell is not None:
                    bell.close()
                if not isinstance(error, FileNotFoundError):
                    break
            else:
                self._own, self._own_name = bell, name
                return True
        self._hang_at = time.monotonic() + _HANG_AGAIN_S
        return False

    def _look_after(self, own: socket.socket) -> None:
        """Somebody may have removed the folder; the next wait then hangs the bell up again."""
        if self._own is own and not os.path.lexists(f"{self._folder}/{self._own_name}"):
            self._take_down()

    def _take_down(self) -> None:
        assert self._own is not None
        with contextlib.suppress(OSError):
            os.unlink(f"{self._folder}/{self._own_name}")
        self._taken_down.append(self._own)
        self._own, self._own_name = None, ""

    def _clear_away(self) -> None:
        if self._waiting:
            return
        while self._taken_down:
            self._taken_down.pop().close()
        if self._closed:
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            self._leave_folder()

    def _ring_one(self, name: str) -> None:
        if self._sender is None:
            self._sender = threads.Socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._sender.setblocking(False)
        try:
            self._sender.sendto(b"!", self._address(name))
        except BlockingIOError:
            pass  # it has unheard rings already
        except ConnectionRefusedError:  # its process died without taking it down
            with contextlib.suppress(OSError):
                os.unlink(f"{self._folder}/{name}")
        except OSError:
            pass  # gone meanwhile, or not ours to ring: its owner looks by itself

    def _names(self) -> list[str]:
        changed = os.stat(self._folder).st_mtime_ns
        if changed != self._listing_of:
            self._listing = os.listdir(self._folder)
            settled = time.time_ns() - changed > _TICK_NS
            self._listing_of = changed if settled else -1
        return self._listing

    def _make_folder(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder)
            mode = self._mode()
            # r becomes rx and w becomes wx: who may write the file may hang up a bell.
            self._share("", mode | (mode & 0o444) >> 2)

    def _mode(self) -> int:
        return stat.S_IMODE(self._file.stat().st_mode)

    def _share(self, name: str, mode: int) -> None:
        """Whoever may write the file may ring, and hang up a bell: a worker of another user, a cron job."""
        path = f"{self._folder}/{name}"
        of = self._file.stat()
        with contextlib.suppress(OSError):
            os.chown(path, of.st_uid if os.geteuid() == 0 else -1, of.st_gid)
        with contextlib.suppress(OSError):
            os.chmod(path, mode)

    def _address(self, name: str) -> str:
        """A socket's address is short; Linux takes another name for a folder with a long path."""
        path = f"{self._folder}/{name}"
        if len(os.fsencode(path)) <= _MAX_ADDRESS_BYTES or not os.path.isdir("/proc/self/fd"):
            return path
        folder = os.stat(self._folder)
        if self._folder_fd_of != (folder.st_dev, folder.st_ino):
            self._leave_folder()
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            folder = os.fstat(self._folder_fd)
            self._folder_fd_of = folder.st_dev, folder.st_ino
        return f"/proc/self/fd/{self._folder_fd}/{name}"

    def _leave_folder(self) -> None:
        if self._folder_fd >= 0:
            os.close(self._folder_fd)
        self._folder_fd, self._folder_fd_of = -1, (-1, -1)


def _heard(own: socket.socket, timeout_s: float) -> bool:
    poll = threads.Poll()
    poll.register(own, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return False
    with contextlib.suppress(BlockingIOError):
        while own.recv(16):
            pass
    return True
