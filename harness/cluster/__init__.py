"""The side of submitit: submission, workers, stopping, states, failures."""
