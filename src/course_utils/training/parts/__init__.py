"""What learners write: optimizers, clipping, schedules, accumulation, loss scaling."""
