"""The apps that are served: what they say of their server, those mounted beside the main one, and which of them a request is for."""
