"""What every room stands on: errors, paths, durable files, progress bars, machine facts."""
