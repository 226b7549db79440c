"""One client connection."""
