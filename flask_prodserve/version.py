"""The version.

In a module of its own, so that every layer can import it without importing the package's face.
"""

__version__ = "0.1.0"
