"""Sweeps of training runs over model size, sparsity and augmentation magnitude."""
