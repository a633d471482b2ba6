"""Settings that this interpreter was built with, told relative to where it is installed."""
import sys

build_time_vars = dict(
    (key, value.replace("@PREFIX@", sys.prefix) if isinstance(value, str) else value)
    for key, value in @VARIABLES@.items()
)
