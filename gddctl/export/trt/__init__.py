"""The parts of a TensorRT build: network, census, progress, cache, and what the machine must have."""
