"""Changes that the harness makes to the layers of a model after it is built."""

from __future__ import annotations

from torch import nn

from harness.errors import UserError


def switch_off_dropout(model: nn.Module) -> None:
    """Set all probabilities of dropout and stochastic depth in a model to 0, in place.

    Such a probability is a float attribute with `drop` in its name (`drop_prob`, `attn_drop_p`), or
    `p` or `prob` of a class with `drop` in its name. Some of timm's rotary position embeddings
    shift or scale their coordinates at random in training (`aug_active`): this is switched off too.
    """
    for module in model.modules():
        is_dropout = "drop" in type(module).__name__.lower()
        for name, value in vars(module).items():
            is_probability = "drop" in name or (is_dropout and name in ("p", "prob"))
            if is_probability and isinstance(value, float):
                setattr(module, name, 0.0)
            elif name == "aug_active":
                setattr(module, name, False)


def synchronise_batch_norm(model: nn.Module) -> nn.Module:
    """Return the model with batch-norm statistics over all ranks; its layers are replaced in place.

    Many batch norms of timm include an activation. timm's conversion keeps it, and torch's does
    not.

    Raises:
        UserError: the model has a normalisation with a forward pass of its own, which the
            conversion would replace by that of a plain batch norm.
    """
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm

    convertible = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
    inconvertible = {
        type(module).__name__
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        or getattr(module, "running_var", None) is not None
        if type(module) not in convertible
    }
    if inconvertible:
        names = ", ".join(sorted(inconvertible))
        raise UserError(
            f"recipe.sync_bn: layers of the class {names} in this model cannot share "
            "their batch statistics between processes; set recipe.sync_bn=false, or choose another "
            "family."
        )
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
