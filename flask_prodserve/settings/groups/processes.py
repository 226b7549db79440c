"""Settings of processes, threads and accounts."""

from __future__ import annotations

from dataclasses import dataclass

from ..declaration import setting
from ..kinds import ACCOUNT, BOOLEAN, COUNT, DURATION, PATH, SIZE, UMASK, WORKERS, at_least, at_least_or_zero


@dataclass(frozen=True)
class Workers:
    """How much runs at the same time, and when a process is replaced."""

    workers: int | str = setting(
        WORKERS,
        "1",
        "How many processes serve, each with its own THREADS. 'auto' is one for each processor that may be used, within cgroup limits.",
        why=(
            "One: an app's memory (caches, counters, sessions) is the same for every request. An app that computes uses one processor "
            "per process. WEB_CONCURRENCY is used. 0, from the command line or the environment, is a single process without a "
            "supervisor, as on Windows: nothing replaces it."
        ),
        short="-w",
    )
    threads: int = setting(
        at_least(1, COUNT, at_most=10_000),  # a system has some ten thousand threads for all its processes
        "16",
        "How many requests run at the same time in one process.",
        why=(
            "As many as SQLAlchemy's default pool serves (5 and 10 overflow), and one more. More threads help apps that wait "
            "for other services, not apps that compute."
        ),
    )
    preload: bool = setting(
        BOOLEAN,
        "false",
        "Load the app once, in the supervisor, and let the workers share its memory.",
        why=(
            "Off: connections and threads that an app opens during import do not survive a fork, and new code needs a new "
            "supervisor. Apps made for it save memory and start workers at once. Cannot be combined with USER."
        ),
        early=True,
    )
    boot_timeout: float = setting(
        at_least(1, DURATION),
        "60s",
        "How long a worker may take to load the app and become ready. After that it is killed and counts as failed.",
        why=(
            "Otherwise an import that waits for a missing database would block a start or reload for ever. Large apps and slow disks "
            "take tens of seconds."
        ),
        early=True,
    )
    worker_timeout: float = setting(
        at_least_or_zero(2, DURATION),  # a worker reports every half second
        "30s",
        "How long a worker may report nothing to the supervisor. After that it is killed and replaced. 0 is no limit.",
        why=(
            "For processes that hang as a whole (a C library that keeps the GIL). The main thread, which runs no requests, reports "
            "every half second, so a slow view does not count; REQUEST_TIMEOUT handles it."
        ),
    )
    max_requests: int = setting(
        at_least(0, COUNT),
        "0",
        "Replace a worker gracefully after this many requests. 0 is never.",
        why="Off: fix leaks instead. Until then, MAX_WORKER_MEMORY is a better measure than a count.",
    )
    max_requests_jitter: int = setting(
        at_least(0, COUNT),
        "0",
        "Add up to this many requests to MAX_REQUESTS, at random for each worker.",
        why="Off, as MAX_REQUESTS is. Workers share the load evenly, so without it they would all reach the count in the same minute.",
    )
    max_worker_memory: int = setting(
        at_least_or_zero(32 * 2**20, SIZE),  # less than Python with Flask; "300" was meant to be MiB
        "0",
        "Replace a worker gracefully when its resident memory exceeds this. 0 is no limit.",
        why="Off: only you know what your app needs. Set it a little below the container's limit, to act before the OOM killer.",
    )
    max_worker_lifetime: float = setting(
        at_least_or_zero(1, DURATION),
        "0s",
        "Replace a worker gracefully after this time. 0 is never.",
        why="Off: a healthy worker need not be replaced. Workers are replaced one after another, each by one that is ready.",
    )


@dataclass(frozen=True)
class Process:
    """The server's account and files on its system."""

    user: str | None = setting(
        ACCOUNT,
        None,
        "The account that workers run under, by name or number, if the server is started as root.",
        why=(
            "Unset: containers and systemd start a server under the right account. If started as root, the supervisor opens the "
            "listeners and keeps its rights; workers drop theirs for good before they load the app. "
            "A server of one process cannot do this, and refuses USER and GROUP."
        ),
        unset="the account that starts the server",
        early=True,
    )
    group: str | None = setting(
        ACCOUNT,
        None,
        "The group that workers run under, by name or number.",
        why="By default USER's own group and all its other groups, as after a login.",
        unset="USER's own group",
        early=True,
    )
    umask: int | None = setting(
        UMASK,
        None,
        "The permissions that files created by the app do not get, in octal.",
        why="Unset: as set by the shell, the container or systemd. 0o027 hides uploads from others, 0o007 also lets the group write them.",
        unset="unchanged",
        early=True,
    )
    pidfile: str | None = setting(
        PATH,
        None,
        "A file for the process id of the server (of the supervisor, if there is one). Removed when the server stops.",
        why="Unset: systemd and containers know the process that they started. The id does not change in reloads and upgrades.",
        early=True,
    )
