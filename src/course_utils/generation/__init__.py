"""From logits to text: sampling, the generation loop with its cache, speculative decoding."""
