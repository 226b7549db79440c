"""One process that serves: waitress, through its own extension points. Nothing else in the package
imports waitress.
"""
