"""From bytes to a verdict and back, sans-I/O: nothing here knows sockets, threads, waitress or
settings.
"""
