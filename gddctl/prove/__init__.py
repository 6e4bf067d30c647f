"""An artifact, judged: accuracy, parity, latency."""
