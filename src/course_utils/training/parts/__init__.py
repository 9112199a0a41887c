"""What learners implement: optimizers, clipping, schedules, accumulation, loss scaling."""
