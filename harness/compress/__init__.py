"""Pruning: masks, levels, schedules along the levels."""
