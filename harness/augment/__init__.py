"""Augmentation per sample on any device: spaces, policies, plans, ops."""
