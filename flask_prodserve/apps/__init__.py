"""Everything that reads Flask: loading apps, mounts, URL rules, endpoint limits, static folders,
hooks.
"""
