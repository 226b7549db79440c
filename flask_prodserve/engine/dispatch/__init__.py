"""Who runs a request: the event loops, the threads, and what waits for them."""
