"""Speed and memory, as ratios measured in one run; `nox -s bench`."""
