"""Gradients: training and distillation."""
