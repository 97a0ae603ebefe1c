"""What to run: grids, trials, the tree of stages they share, the plan."""
