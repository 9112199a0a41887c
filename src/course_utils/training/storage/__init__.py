"""A run's folder: checkpoints, snapshots, metrics, random-number states."""
