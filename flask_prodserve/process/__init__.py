"""Many processes that serve: the supervisor, its workers, and what they say to each other. Knows neither waitress nor Flask."""
