"""Reference implementations of the models and of the functions they are made of."""
