"""The preference task: pairs of answers, the DPO loss, and the ranking accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.alignment.log_probs import token_log_probs
from course_utils.alignment.pairs import Pairs
from course_utils.alignment.preference import dpo_loss
from course_utils.base.errors import CourseError
from course_utils.training.engines.processes import Processes
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.parts.data_order import global_batch, part_of, steps_per_epoch
from course_utils.training.tasks.language import Batch, Measure

EVALUATION_BATCH = 32  # pairs


@dataclass(eq=False, kw_only=True)
class PreferenceTask:
    """DPO on pairs of answers.

    Attributes:
        train, validation: Pairs with the reference's log-probabilities; see `alignment.pairs`.
        batch_size: Pairs per optimizer step, over all processes.
        beta: DPO's beta: a larger value keeps the model closer to the reference.
        anchor: The weight of the chosen answer's negative log-likelihood per token. DPO compares
            two answers, and both may become less likely; this term prevents that for the chosen one
            (Pang et al. 2024, "Iterative Reasoning Preference
            Optimization").
        seed: Of the order of the pairs.
        measures: What else to measure at each evaluation.
    """

    train: Pairs
    validation: Pairs
    batch_size: int
    beta: float = 0.1
    anchor: float = 0.0
    seed: int = 0
    measures: Sequence[Measure] = field(default=())

    unit = "pairs"

    def __post_init__(self) -> None:
        steps_per_epoch(self.batch_size, len(self.train))  # refuses a batch larger than the data
        if not len(self.validation):
            raise CourseError("The validation set has no pair: increase --held-out.")

    def batch(self, step: int, part: int, parts: int) -> Batch:
        order = global_batch(step, self.batch_size, len(self.train), self.seed)
        return self._rows(self.train, part_of(order, part, parts))

    def _rows(self, pairs: Pairs, which: Tensor) -> Batch:
        return {**pairs.rows(which.tolist()), "reference": pairs.reference[which]}

    def count(self, batch: Batch) -> int:
        return len(batch["reference"])

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """DPO's loss (and the anchor's), summed over the pairs."""
        losses, _, _, chosen_per_token = self._preferences(model, batch)
        return losses.sum() - self.anchor * chosen_per_token.sum()

    def _preferences(self, model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        """Of each pair: loss, both rewards, and the chosen answer's mean log-probability."""
        with StoredScores():
            logits = model(batch["tokens"])
        log_probs = token_log_probs(logits, batch["targets"])
        chosen, rejected = log_probs.sum(dim=1).view(-1, 2).unbind(dim=1)
        lengths = (batch["targets"][::2] >= 0).sum(dim=1)
        reference_chosen, reference_rejected = batch["reference"].unbind(dim=1)
        found = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, self.beta)
        return *found, chosen / lengths

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """DPO's loss, how many held-out pairs are ranked rightly, the rewards, and `measures`.

        The processes share the pairs between them.
        """
        processes = Processes.start()
        device = next(model.parameters()).device
        sums = torch.zeros(4, dtype=torch.float64)
        pieces = torch.arange(len(self.validation)).split(EVALUATION_BATCH)
        for which in pieces[processes.index :: processes.count]:
            rows = {k: v.to(device) for k, v in self._rows(self.validation, which).items()}
            loss, chosen, rejected, _ = self._preferences(model, rows)
            found = (loss, chosen > rejected, chosen, rejected)
            sums += torch.stack([part.double().sum().detach().cpu() for part in found])
        names = ("val_loss", "val_ranked", "val_chosen_reward", "val_rejected_reward")
        shares = (total / len(self.validation) for total in processes.sum(sums.tolist()))
        measured = dict(zip(names, shares, strict=True))
        for measure in self.measures:
            measured |= measure(model)
        return measured
