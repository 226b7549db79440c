"""What time brings: deadlines of clients and requests, the queues, memory pressure, health."""
