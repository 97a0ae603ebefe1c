"""Check with a forward pass on torch's meta device that a model takes images of given sizes.

The meta device computes shapes only, so the check needs little memory and time. A launch checks
models of timm, which do not declare the sizes that they take, and training on batches of one image.
Otherwise such a model would fail in its job, after the job has read its data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from harness.errors import UserError
from harness.models import registry
from harness.schema import ModelConfig

SINGLE = "Expected more than 1 value per channel"
"""Text of the error that torch's batch norm raises for a single value per channel."""


def single_image(side: int) -> UserError:
    """Return the error of a rank that trains on one image at a time.

    Where this image has only one pixel left, batch norm has a single value per channel. `side` is
    the size of the image in pixels.
    """
    return UserError(
        "run.micro_batch_size: a rank trains on a single image at once, which the batch norm of "
        f"this network cannot normalise at {side} pixels: set run.micro_batch_size to 2 or more, "
        "and recipe.batch_size to at least 2 x run.processes."
    )


def check_forward(
    config: ModelConfig,
    classes: int,
    sides: Sequence[int],
    images: int = 2,
    *,
    training: bool = True,
) -> None:
    """Check that a model takes batches of `images` images, of each size in `sides` (pixels).

    The model is built for the last of `sides`, and checked in training or in eval mode.

    Raises:
        UserError: the model does not take such images, or does not return a logit for each class.
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
                    f"({reason}): set dataset.resolution and dataset.start_resolution, or choose "
                    "another family."
                ) from error
            if not isinstance(logits, torch.Tensor) or logits.shape != (images, classes):
                shape = tuple(getattr(logits, "shape", ())) or type(logits).__name__
                raise UserError(
                    f"model.family: {config.family} returns {shape} for {images} images instead of "
                    f"a logit for each of {classes} classes: choose another family."
                )
