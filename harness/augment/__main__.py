"""Draw what a magnitude means: a contact sheet of a policy on a data set.

    python -m harness.augment policy="randaug_strict(n=2)" dataset=fashion_mnist out=sheet.png

Columns are magnitudes. Rows are the ops of the space, each alone; or, with rows=samples, training
images under the policy itself. data_root=DIR says where data sets lie.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError, command, nearest

_DEFAULTS = {
    "policy": "randaug_strict(n=2)",
    "dataset": "fashion_mnist",
    "out": "sheet.png",
    "rows": "ops",
    "data_root": "",
}
_ROWS = ("ops", "samples")
_SAMPLES = 10


def main(arguments: list[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    chosen = dict(_DEFAULTS)
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in _DEFAULTS or not value:
            raise UserError(f"'{argument}' is no argument key=value{nearest(key, _DEFAULTS)}.")
        chosen[key] = value
    if chosen["rows"] not in _ROWS:
        raise UserError(f"rows is '{chosen['rows']}'{nearest(chosen['rows'], _ROWS)}.")
    from harness.augment.policy import parse_policy, with_magnitude

    text = chosen["policy"]
    parse_policy(with_magnitude(text, 0.0))  # before the data, which take a while to load
    out = Path(chosen["out"])
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"out={out} is no picture: end it in .png or .jpg.")

    import torch

    from harness.augment import sheet
    from harness.data.catalog import CATALOG
    from harness.data.datasets import first_images, load
    from harness.schema import DatasetConfig

    name = chosen["dataset"]
    if name not in CATALOG:
        raise UserError(f"no data set '{name}'{nearest(name, CATALOG)}.")
    config = DatasetConfig(name=name, validation_size=CATALOG[name].train_size // 10)
    dataset = load(config, chosen["data_root"] or None)
    images = torch.from_numpy(first_images(dataset, _SAMPLES))
    if chosen["rows"] == "ops":
        labels, tiles = sheet.by_op(images[0], text)
    else:
        labels, tiles = sheet.by_sample(images, dataset.train.ids[:_SAMPLES], text)
    try:
        sheet.compose(f"{text} on {name}", labels, tiles).save(out, optimize=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}.") from error
    print(f"{out}: {len(labels)} rows, magnitudes {', '.join(f'{m:g}' for m in sheet.MAGNITUDES)}")
    return 0


if __name__ == "__main__":
    command(main)
