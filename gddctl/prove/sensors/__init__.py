"""Clocks, throttling, temperature and power while something else runs."""
