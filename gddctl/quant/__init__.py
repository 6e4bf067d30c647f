"""The rule of quantisation: ranges to scales, and which tensors. Numpy only."""
