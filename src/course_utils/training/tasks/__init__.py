"""A task for each kind of training: images, language, preferences, rewards, distillation."""
