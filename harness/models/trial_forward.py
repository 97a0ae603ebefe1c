"""Try a model on images of some sizes without memory or time, on torch's meta device.

A launch does this for models whose limits are not declared, which are those of timm, and for
batches of one image. What fails here would fail in a job after its data were read.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.errors import UserError
from harness.models import registry
from harness.schema import ModelConfig

SINGLE = "Expected more than 1 value per channel"  # in the error of torch's batch norm


def single_image(side: int) -> UserError:
    """Return the error of a network that gets one image, of `side` pixels, in a training step."""
    return UserError(
        "run.micro_batch_size: a rank trains on a single image at once, which the batch norm of "
        f"this network cannot normalise at {side} pixels: make it 2 or more, and "
        "recipe.batch_size two or more for each of run.processes."
    )


def check_forward(
    config: ModelConfig,
    classes: int,
    sides: Sequence[int],
    images: int = 2,
    *,
    training: bool = True,
) -> None:
    """Check that a model takes `images` images of each of `sides`, the last of which it is for.

    Raises:
        UserError: it does not, or it does not return a logit for each class.
    """
    with torch.device("meta"):
        model = registry.build(config, classes, seed=0, resolution=sides[-1]).train(training)
        for side in sides:
            batch = torch.zeros(images, 3, side, side)
            try:
                logits = model(batch)
            except Exception as error:
                if SINGLE in str(error):
                    raise single_image(side) from error
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise UserError(
                    f"model.family: {config.family} does not take images of {side} pixels "
                    f"({reason}): set dataset.resolution and start_resolution, or choose another."
                ) from error
            if not isinstance(logits, torch.Tensor) or logits.shape != (images, classes):
                shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
                raise UserError(
                    f"model.family: {config.family} returns {shape} for {images} images instead of "
                    f"a logit for each of {classes} classes: choose another."
                )
