"""The limit of files and sockets that this process may have open."""

from __future__ import annotations

import sys

if sys.platform == "win32":

    def allow_open_files(count: int) -> int:
        """Return *count*: Windows has no such limit."""
        return count

else:
    import resource

    def allow_open_files(count: int) -> int:
        """Raise the soft limit to *count* if the hard limit allows it. Return the new limit, at
        most *count*.

        Never higher than *count*: some programs close every possible descriptor before they start
        another program, which takes long if millions are allowed.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or soft >= count:
            return count
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if allowed > soft:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            except (OSError, ValueError):  # macOS allows at most kern.maxfilesperproc, whatever the hard limit
                return soft
        return max(allowed, soft)
