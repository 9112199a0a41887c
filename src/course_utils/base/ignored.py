"""The target that no loss counts."""

IGNORED = -100  # the default `ignore_index` of torch.nn.functional.cross_entropy
