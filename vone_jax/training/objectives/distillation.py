"""Learning from the logits of a teacher, a trained network."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vone_jax import functions
from vone_jax.arguments import Positive, Share
from vone_jax.data.sources import are_numbers, class_identifier
from vone_jax.training.objective import Batch, Context, Objective, Setup, divergence


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """Learning from the logits of a teacher, a trained network.

    The loss is (1 - weight) times that of the objectives before it, such as the cross-entropy of
    the labels, plus weight times the divergence KL(teacher || network) of the softmax of logits /
    temperature. The teacher gets the images as the objectives before it in the tuple have changed
    them. The defaults are those of Baidya et al. (2021), who distil an ensemble of V1 variants into
    one VOneNet without noise. But their ensemble is the sum of the logits of K members, and ours
    the mean. So the same temperature gives a flatter softmax here: that of their teacher at K times
    the temperature.
    """

    by_part = True
    stream = "teacher"

    # Anything that vone_jax.open_network accepts, also an ensemble: "runs/a+runs/b". A run needs
    # its teacher again when it resumes.
    teacher: str
    # Divides the logits of both networks, > 0.
    temperature: Positive = 5.0
    # Weight of the teacher in the loss, in [0, 1].
    weight: Share = 0.5

    def resources(self, run: Setup) -> Any:
        """Return the teacher, as a function that may be an argument of a program."""
        teacher = run.open_network(self.teacher)
        self.check(run, teacher)
        return functions.as_pytree(teacher.logits_fn, *teacher.inputs())

    def check(self, run: Setup, teacher: Any) -> None:
        """Raise a ``ValueError`` unless the teacher fits the network and the data."""
        if teacher.image_shape != run.image_shape:
            raise ValueError(
                f"Distillation.teacher must take images of shape {run.image_shape}, "
                f"{teacher.name} takes {teacher.image_shape}"
            )
        names = run.class_names, teacher.class_names
        ours, theirs = (list(map(class_identifier, x)) for x in names)
        unnamed = are_numbers(ours) or are_numbers(theirs)
        different = ours != theirs and (not unnamed or sorted(ours) == sorted(theirs))
        if teacher.num_classes != len(ours) or different:
            raise ValueError(
                f"Distillation.teacher must have the classes of the data in their order; "
                f"{teacher.name} has {teacher.num_classes}, {', '.join(theirs[:3])}, ..., the "
                f"images {len(ours)}, {', '.join(ours[:3])}, ..."
            )

    def batch(self, context: Context, batch: Batch) -> Batch:
        return batch | {context.name: context.resources(context.keys, batch["image"])}

    def losses(
        self, context: Context, batch: Batch, logits: jax.Array, losses: jax.Array
    ) -> jax.Array:
        away = divergence(batch[context.name], logits, self.temperature)
        context.log("divergence", jnp.mean(away))
        return losses + self.weight * (away - losses)
