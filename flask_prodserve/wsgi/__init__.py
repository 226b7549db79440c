"""Plain WSGI wrappers around the app. Nothing here knows Flask, waitress or sockets."""
