"""Choose how many threads compute: one for each core that other programs leave free.

PyTorch shares out every product among its threads, and the threads wait for each other hundreds of
times in a training step. Where another program has the core of one thread, all threads wait for
that one: beside a single busy program, two threads on two cores are slower than one thread alone.
The operating system knows how busy its processors are, so it is asked about once a second.

Where OMP_NUM_THREADS is set, or `torch.set_num_threads` was called, that number stays.
"""

from __future__ import annotations

import contextlib
import os
import time

try:
    import psutil
except Exception:  # an installation that is broken; the number of threads then stays
    psutil = None  # type: ignore[assignment]

INTERVAL = 1.0  # seconds between two looks at the processors: they count in hundredths of a second
AGREE = 2  # measurements in a row that must ask for fewer threads, or for more, before a change


class Processors:
    """Measures how many processors other programs keep busy.

    Args:
        own: the process whose use does not count, with its children; by default this one.
    """

    def __init__(self, own: psutil.Process | None = None) -> None:
        self.own = own or psutil.Process()
        self.time, self.busy = time.perf_counter(), self._busy()

    def _mine(self) -> set[int]:
        """Return the numbers of the processors that this process may run on."""
        affinity = getattr(self.own, "cpu_affinity", None)  # macOS has none
        return set(affinity()) if affinity else set(range(psutil.cpu_count() or 1))

    def _busy(self) -> float:
        """Return the processor time, in seconds, that others took of this process's processors."""
        here = self._mine()
        total = 0.0
        for number, spent in enumerate(psutil.cpu_times(percpu=True)):
            if number in here:
                idle = spent.idle + getattr(spent, "iowait", 0.0)
                guests = getattr(spent, "guest", 0.0) + getattr(spent, "guest_nice", 0.0)
                total += sum(spent) - guests - idle  # the time of guests is part of `user`, too
        own = self.own.cpu_times()
        return total - sum(own[:4])  # user, system, and those of children that have ended

    def taken(self) -> float | None:
        """Return the mean number of processors that others kept busy since the last measurement.

        None if that was less than `INTERVAL` ago.
        """
        elapsed = time.perf_counter() - self.time
        if elapsed < INTERVAL:
            return None
        busy = self._busy()
        taken = max(0.0, busy - self.busy) / elapsed
        self.time, self.busy = time.perf_counter(), busy
        return taken

    def count(self) -> int:
        """Return the number of processors that this process may run on."""
        return len(self._mine())


def fitting(most: int, count: int, taken: float) -> int:
    """Return the number of threads for `count` processors of which others keep `taken` busy.

    Never more than `most`, the number that PyTorch would use (one for each core, where a core may
    be two processors), and never less than one.

    >>> [fitting(2, 2, taken) for taken in (0.0, 0.4, 1.0, 2.0)]
    [2, 2, 1, 1]
    >>> fitting(4, 8, 1.0)
    4
    """
    return max(1, min(most, int(count - taken + 0.5)))


class Threads:
    """Sets PyTorch's number of threads, and sets it again as other programs come and go."""

    def __init__(self) -> None:
        self.processors: Processors | None = None
        if "OMP_NUM_THREADS" not in os.environ:
            with contextlib.suppress(Exception):  # nobody can tell, as without /proc
                self.processors = Processors()  # before the slow imports: they are measured, too
        self.most = self.now = 0  # not known before PyTorch is imported
        self.taken = 0.0  # processors that others keep busy, as last measured
        self.asked: list[int] = []  # the numbers of threads that the last measurements ask for

    def follow(self) -> int:
        """Adapt the number of threads if it is time to; return the number.

        Costs under a microsecond between two measurements.
        """
        import torch  # here, so that the first measurement can begin before this import

        number = torch.get_num_threads()
        if not self.most:
            self.most = self.now = number
        if self.processors is None:
            return number
        if number != self.now:  # someone else chose it
            self.processors = None
            return number
        try:
            taken = self.processors.taken()
            count = self.processors.count()
        except Exception:  # whatever a system can answer that psutil does not know
            return number
        if taken is None:
            return number
        self.taken = taken
        self.asked = [*self.asked, fitting(self.most, count, taken)][-AGREE:]
        if len(self.asked) == AGREE and not min(self.asked) <= number <= max(self.asked):
            self.now = min(self.asked, key=lambda asked: abs(asked - number))
            torch.set_num_threads(self.now)
        return self.now

    def resume(self, number: int) -> bool:
        """Begin with the number of threads of an earlier process; return whether that is possible.

        It is not where there are fewer processors, or where the number of threads is fixed.
        """
        import torch

        if self.follow() != number and self.processors and number <= self.most:
            torch.set_num_threads(number)
            self.now, self.asked = number, []
        return torch.get_num_threads() == number

    def fix(self, number: int) -> None:
        """Compute with this number of threads from now on, whatever other programs do."""
        import torch

        torch.set_num_threads(number)
        self.processors = None


threads = Threads()  # PyTorch has one number of threads, and so has the process
