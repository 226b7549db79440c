"""Serve with many processes: the supervisor, its workers, and their messages.

Knows neither waitress nor Flask.
"""
