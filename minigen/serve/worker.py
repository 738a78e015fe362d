"""The one thread that computes with the models, so that requests take turns and share batches."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from minigen.inference.engine import Engine
from minigen.serve.batch import Batch
from minigen.serve.job import Job, Part

T = TypeVar("T")
MAX_WAITING = 8  # requests that the thread has not begun to work on; the server refuses the next


class Busy(Exception):
    """Too many requests wait for the models; the request may be sent again later."""


class Worker:
    """A thread that computes functions and generates text.

    In each turn the thread computes one function, if one waits, and then one step of the batch of
    each model: so a function waits for a token of each model at most, and models take turns.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()  # guards the attributes below
        self.functions = deque[tuple[Callable[[], Any], Future[Any]]]()
        self.jobs = deque[Job]()  # that no batch has yet
        self.batches: dict[Engine, Batch] = {}
        self.closing = False
        self.thread = threading.Thread(target=self._work, name="models", daemon=True)
        self.thread.start()

    def compute(self, function: Callable[[], T]) -> Future[T]:
        """Return the future result of `function`, which the thread computes between two tokens.

        Raises `Busy` if too many requests wait already.
        """
        future = Future[T]()
        with self.changed:
            self._check_room()
            self.functions.append((function, future))
            self.changed.notify()
        return future

    async def run(self, function: Callable[[], T]) -> T:
        """Return the result of `function`, which the thread computes between two tokens.

        Raises `Busy` if too many requests wait already, and any exception of `function`.
        """
        return await asyncio.wrap_future(self.compute(function))

    def submit(self, job: Job) -> AsyncIterator[list[Part]]:
        """Let a job join the batch of its model; return an iterator of the parts of its answer.

        The iterator raises the error that ended the job. To end the job earlier, set
        `job.cancelled`. Raises `Busy` if too many requests wait already.
        """
        loop = asyncio.get_running_loop()
        arrived = asyncio.Queue[tuple[list[Part], bool, Exception | None]]()

        def deliver(parts: list[Part], is_last: bool, error: Exception | None) -> None:
            """Hand parts over to the thread of the server, unless it has ended."""
            if not loop.is_closed():
                loop.call_soon_threadsafe(arrived.put_nowait, (parts, is_last, error))

        async def read() -> AsyncIterator[list[Part]]:
            """Yield the parts as they arrive."""
            is_last = False
            while not is_last:
                parts, is_last, error = await arrived.get()
                if parts:
                    yield parts
                if error:
                    raise error

        job.deliver = deliver
        with self.changed:
            self._check_room()
            self.jobs.append(job)
            self.changed.notify()
        return read()

    def _check_room(self) -> None:
        """Raise `Busy` if the queue is full, or if the thread ends."""
        jobs = {*self.jobs, *(job for batch in self.batches.values() for job in batch.jobs)}
        n_waiting = sum(not (job.started or job.cancelled) for job in jobs) + sum(
            not future.done() for _, future in self.functions
        )
        if self.closing or n_waiting >= MAX_WAITING:
            raise Busy

    def close(self) -> None:
        """End the thread after its present token; jobs and functions that are open end with it."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    def _work(self) -> None:
        """Compute until `close`."""
        while not self.closing:
            if not self.batches:
                with self.changed:
                    self.changed.wait_for(lambda: self.closing or self.functions or self.jobs)
            if self.functions:
                with self.changed:
                    call = self.functions.popleft()
                fulfil(*call)
            while self.jobs:
                self._start(self.jobs[0])
            for engine, batch in [*self.batches.items()]:
                try:
                    batch.step()
                except Exception as error:  # of this model alone; the thread continues
                    batch.fail(error)
                if not batch.jobs:
                    with self.changed:
                        del self.batches[engine]
        for _, future in self.functions:
            future.set_exception(Busy())
        for job in [*self.jobs, *(job for batch in self.batches.values() for job in batch.jobs)]:
            job.end(Busy())

    def _start(self, job: Job) -> None:
        """Add a job to the batch of its model."""
        try:
            batch = self.batches.get(job.engine) or Batch(job.engine)
            batch.add(job)
        except Exception as error:
            job.end(error)
        with self.changed:
            self.jobs.popleft()
            if not job.ended:
                self.batches[job.engine] = batch


def fulfil(function: Callable[[], T], future: Future[T]) -> None:
    """Compute a function, unless nobody waits for its result any more."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
