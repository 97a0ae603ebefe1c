"""Data sets, their splits, and the loader seam."""
