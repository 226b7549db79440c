"""How many files and sockets this process may have open."""

from __future__ import annotations

import sys

if sys.platform == "win32":

    def allow_open_files(count: int) -> int:
        """Windows has no such limit."""
        return count

else:
    import resource

    def allow_open_files(count: int) -> int:
        """Raise the soft limit towards *count*, as far as the hard one lets it, and return what it is then, or *count* if it is more.

        Not further than asked: programs that look at every possible descriptor, as some do before they start another one, take their time
        where millions are allowed.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= count:
            return count
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if allowed > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            except (
                OSError,
                ValueError,
            ):  # macOS refuses what is above kern.maxfilesperproc, whatever the hard limit is
                return soft
        return max(allowed, soft)
