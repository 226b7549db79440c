"""Service threads: who runs the app, and how they end."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from waitress.task import ThreadedTaskDispatcher

from ..clock import Deadline


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress is not annotated
    """waitress's pool of service threads.

    Each thread starts in an empty context: free-threaded Python lets threads inherit their starter's, and an app context that was
    pushed there would be reused for every request.
    """

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.set_thread_count(threads)

    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        threading.Thread(
            target=contextvars.Context().run,
            args=(target, thread_no),
            name=f"prodserve-{thread_no}",
            daemon=True,  # a request that never ends must not keep the process alive
        ).start()

    def add_task(self, task: Any) -> None:
        """Queue *task* for the next free thread. Called under the channel's ``requests_lock``; takes only the queue's."""
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()

    def drop_queue(self) -> None:
        """Forget the requests that no thread has begun."""
        with self.lock:
            self.queue.clear()

    def stop(self, deadline: Deadline) -> bool:
        """Let the threads end as soon as they are free. Returns whether all did before *deadline*."""
        self.set_thread_count(0)
        with self.lock:
            return bool(self.thread_exit_cv.wait_for(lambda: not self.threads, deadline.remaining()))
