"""Where work runs: in this process, in local processes, or on a Ray cluster. Results come in order."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from mien.core.errors import UsageError
from mien.core.progress import say

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Maps functions over tasks; at most a few results wait, so that memory stays bounded."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Results in the tasks' order; `function` and tasks are picklable."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """Everything here, one after the other."""

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Results in order."""
        return map(function, tasks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Processes:
    """Local processes, started when they are first needed and kept until the end."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Results in order."""
        if self._pool is None:
            self._pool = self._start()
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(function, task))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _start(self) -> ProcessPoolExecutor:
        """One process per core and one thread per process: linear algebra would compete for the cores."""
        context = multiprocessing.get_context("spawn")
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))  # read when a worker imports numpy
        try:
            pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_begin, initargs=(os.getpid(),))
            wait([pool.submit(os.getpid) for _ in range(self.workers)])  # the workers are there: they have read it
            return pool
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _begin(parent: int) -> None:
    """Set a worker up: one thread each, Ctrl-C left to the parent, an end when the parent is killed."""
    import signal  # noqa: PLC0415

    import cv2  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Ray:
    """A Ray cluster: the one that RAY_ADDRESS names, else one on this machine.

    Files must lie where every node finds them under the same path.
    """

    def __init__(self) -> None:
        try:
            import ray as library  # noqa: PLC0415
        except ModuleNotFoundError:
            raise UsageError(
                "--engine ray needs Ray, which is not installed.",
                fix="Install it, in the folder of mien: pip install '.[ray]'",
            ) from None
        ray: Any = library
        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(address=os.environ.get("RAY_ADDRESS"), log_to_driver=False, configure_logging=False)
        self._limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        say(f"Ray: {len(ray.nodes())} nodes, {self._limit // 2} cores")

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Results in order."""
        remote = self._ray.remote(function)
        waiting: deque[object] = deque()
        for task in tasks:
            waiting.append(remote.remote(task))
            if len(waiting) > self._limit:
                yield self._ray.get(waiting.popleft())
        while waiting:
            yield self._ray.get(waiting.popleft())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._ray.shutdown()


def make_engine(name: str, workers: int | None, rows: int) -> Engine:
    """The engine that the settings name; few rows are not worth other processes."""
    if name == "ray":
        return Ray()
    count = workers or os.cpu_count() or 1
    return Serial() if count == 1 or (workers is None and rows < _WORTH_PROCESSES) else Processes(count)


_WORTH_PROCESSES = 4000
