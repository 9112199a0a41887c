"""To and from other programs: transformers, PEFT, GGUF, and pretrained models."""
