"""What to train: a grid, its trials, the stages that they share, and the plan of all of it.

Nothing here imports torch: status and analysis rest on it.
"""
