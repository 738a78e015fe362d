"""Choose the number of threads that compute: one for each core that other programs leave free.

PyTorch divides every matrix product among its threads, and the threads wait for each other hundreds
of times in a training step. If another program uses the core of one thread, all threads wait for
that thread: beside a single busy program, two threads on two cores are slower than one thread.
The operating system counts how busy its processors are, so it is asked about once a second.

If OMP_NUM_THREADS is set, or the program calls `torch.set_num_threads`, that number stays.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

try:
    import psutil
except Exception:  # a broken installation; then the number of threads never changes
    psutil = None  # type: ignore[assignment]

INTERVAL = 1.0  # seconds between measurements, as the system counts in hundredths of a second
CONFIRMATIONS = 2  # measurements in a row that must ask for fewer threads, or for more


class Processors:
    """A measurement of how many processors other programs keep busy.

    Args:
        own: the process that does not count as another program, with its children; by default this
            process.
    """

    def __init__(self, own: psutil.Process | None = None) -> None:
        self.own = own or psutil.Process()
        self.time, self.busy = time.perf_counter(), self._busy()

    def _allowed(self) -> set[int]:
        """Return the numbers of the processors that this process may run on."""
        affinity = getattr(self.own, "cpu_affinity", None)  # macOS has none
        return set(affinity()) if affinity else set(range(psutil.cpu_count() or 1))

    def _busy(self) -> float:
        """Return the seconds for which other programs have used the processors of this process."""
        allowed = self._allowed()
        total = 0.0
        for number, spent in enumerate(psutil.cpu_times(percpu=True)):
            if number in allowed:
                idle = spent.idle + getattr(spent, "iowait", 0.0)
                guests = getattr(spent, "guest", 0.0) + getattr(spent, "guest_nice", 0.0)
                total += sum(spent) - guests - idle  # `user` includes the time of guests
        own = self.own.cpu_times()
        return total - sum(own[:4])  # user, system, and both of children that have ended

    def n_busy(self) -> float | None:
        """Return the mean number of processors that others kept busy since the last measurement.

        None if the last measurement was less than `INTERVAL` ago.
        """
        elapsed = time.perf_counter() - self.time
        if elapsed < INTERVAL:
            return None
        busy = self._busy()
        n_busy = max(0.0, busy - self.busy) / elapsed
        self.time, self.busy = time.perf_counter(), busy
        return n_busy

    def count(self) -> int:
        """Return the number of processors that this process may run on."""
        return len(self._allowed())


def n_threads(max_threads: int, n_processors: int, n_busy: float) -> int:
    """Return the number of threads for `n_processors`, of which other programs keep `n_busy` busy.

    It is at least 1, and at most `max_threads`, which is PyTorch's own choice: one thread for each
    core. The system may count more processors: two for a core that can run two threads.

    >>> [n_threads(2, 2, n_busy) for n_busy in (0.0, 0.4, 1.0, 2.0)]
    [2, 2, 1, 1]
    >>> n_threads(4, 8, 1.0)
    4
    """
    return max(1, min(max_threads, int(n_processors - n_busy + 0.5)))


class Threads:
    """PyTorch's number of threads, which adapts as other programs come and go."""

    def __init__(self) -> None:
        self.processors: Processors | None = None
        if "OMP_NUM_THREADS" not in os.environ:
            with contextlib.suppress(Exception):  # the system does not say, as without /proc
                self.processors = Processors()  # now, to measure during the slow imports, too
        self.max_threads = self.current = 0  # 0: not known before PyTorch is imported
        self.n_busy = 0.0  # processors that others keep busy, by the latest measurement
        self.wanted: list[int] = []  # the number of threads for each of the latest measurements

    def adapt(self) -> int:
        """Change the number of threads if measurements ask for it; return the number.

        A call between two measurements costs less than a microsecond.
        """
        import torch  # imported here, so that the first measurement begins before PyTorch's import

        number = torch.get_num_threads()
        if not self.max_threads:
            self.max_threads = self.current = number
        if self.processors is None:
            return number
        if number != self.current:  # the program has chosen another number
            self.processors = None
            return number
        try:
            n_busy = self.processors.n_busy()
            n_processors = self.processors.count()
        except Exception:  # a system may answer in ways that psutil does not expect
            return number
        if n_busy is None:
            return number
        self.n_busy = n_busy
        wanted = n_threads(self.max_threads, n_processors, n_busy)
        self.wanted = [*self.wanted, wanted][-CONFIRMATIONS:]
        is_confirmed = len(self.wanted) == CONFIRMATIONS
        if is_confirmed and not min(self.wanted) <= number <= max(self.wanted):
            self.current = min(self.wanted, key=lambda wanted: abs(wanted - number))
            torch.set_num_threads(self.current)
        return self.current

    def resume(self, number: int) -> bool:
        """Begin with the number of threads that a resumed run had; return whether that is possible.

        It is impossible with fewer processors, or if the number of threads is fixed.
        """
        import torch

        if self.adapt() != number and self.processors and number <= self.max_threads:
            torch.set_num_threads(number)
            self.current, self.wanted = number, []
        return torch.get_num_threads() == number

    def fix(self, number: int) -> None:
        """Set the number of threads, which from now on does not adapt."""
        import torch

        torch.set_num_threads(number)
        self.processors = None

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Put the number of threads back at the end, and whether it adapts."""
        import torch

        number, state = torch.get_num_threads(), dict(vars(self))
        try:
            yield
        finally:
            torch.set_num_threads(number)
            vars(self).update(state)


threads = Threads()  # the only one, as PyTorch has one number of threads for the process
