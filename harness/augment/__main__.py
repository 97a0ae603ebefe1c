"""Draw a contact sheet that shows what each magnitude of a policy does to images of a data set.

    python -m harness.augment policy="randaug_strict(n=2)" dataset=fashion_mnist out=sheet.png

Columns are magnitudes. A row shows one op of the space on one image. With rows=samples, a row shows
the whole policy on one training image. data_root=DIR is the folder of the data sets.
"""

from __future__ import annotations

from harness.arguments import Option, parse_options
from harness.errors import UserError, command
from harness.files import explained, user_path

OPTIONS = {
    "policy": Option(default="randaug_strict(n=2)"),
    "dataset": Option(default="fashion_mnist"),
    "out": Option(default="sheet.png"),
    "rows": Option(default="ops", choices=("ops", "samples")),
    "data_root": Option(),
}
_SAMPLES = 10


def main(arguments: list[str]) -> int:
    """Draw the sheet that `arguments` describe; return the exit code."""
    options = parse_options(arguments, OPTIONS)
    from harness.augment.policy import parse_policy, with_magnitude

    policy_text = options["policy"]
    # A mistake in the policy is reported before the data set is loaded, which takes a while.
    parse_policy(with_magnitude(policy_text, 0.0))
    out = user_path(options["out"], "out")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"out={out} is not an image file: end it in .png or .jpg.")
    if not out.parent.is_dir():
        raise UserError(
            f"out={out}: cannot write, because there is no folder {out.parent}; make it first."
        )

    import torch

    from harness.augment import sheet
    from harness.data.dataset_file import read_dataset
    from harness.data.datasets import first_images, load
    from harness.data.manifest import default_config

    name = options["dataset"]
    config, data_root = read_dataset(name), options["data_root"]
    dataset = load(default_config(config, data_root), data_root)
    images = torch.from_numpy(first_images(dataset, _SAMPLES))
    if options["rows"] == "ops":
        labels, tiles = sheet.by_op(images[0], policy_text)
    else:
        labels, tiles = sheet.by_sample(images, dataset.train.ids[:_SAMPLES], policy_text)
    with explained(out):
        sheet.compose(f"{policy_text} on {name}", labels, tiles).save(out, optimize=True)
    print(f"{out}: {len(labels)} rows, magnitudes {', '.join(f'{m:g}' for m in sheet.MAGNITUDES)}")
    return 0


if __name__ == "__main__":
    command(main, __doc__)
