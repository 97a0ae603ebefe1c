"""The data set of a trial: its cuts, where its files are, and what they contain.

The *content* of a data set is part of a stage's identity. Where its files are (`PLACES`) is not:
the same files give the same stages from any folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, Strict, field_validator, model_validator

from harness.fields import (
    Frozen,
    Interval,
    NonNegativeInt,
    OpenShare,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
)

FORMS = ("folder",)
"""The values of `images` for data sets of a user's own; others name a reader of a shipped set."""
PLACES = {"images", "train", "test", "test_share"}
"""Keys of `DatasetConfig` that say where the files are; they are not part of an identity."""
Colour = Annotated[tuple[PositiveShare, PositiveShare, PositiveShare], Strict(False)]
Deviation = Annotated[tuple[PositiveFloat, PositiveFloat, PositiveFloat], Strict(False)]


def _is_none(value: object) -> bool:
    return value is None


class DatasetContent(Frozen):
    """What is in the files of a data set, as `python -m harness.data.describe` has found it.

    `class_names` and `files` are digests: of the names of the classes, and of the lists of files
    with their sizes in bytes. Both are null for the shipped sets.
    """

    train_images: PositiveInt  # images of the official training set, validation included
    test_images: PositiveInt  # images of the official test set
    classes: PositiveInt  # number of classes
    resolution: PositiveInt = 224  # side in pixels where dataset.resolution is null
    mean: Colour  # of each channel of the training images, scaled to [0, 1]
    std: Deviation  # of each channel of the training images, scaled to [0, 1]
    class_names: str | None = None  # digest of the names of the classes
    files: str | None = None  # digest of the lists of files and their sizes


class DatasetConfig(Frozen):
    """The data set, and how its official sets are cut (`harness/data/datasets.py`).

    Sizes are numbers of images; null means all that remain. `resolution` to `ramp` apply only
    to sets of image files of any size, which are cropped and resized to squares. Other sets are not
    resized. With `start_resolution` the training images grow (`harness/data/crops.py`). The keys
    after `ramp` are those of a data set of your own; JSON leaves out the ones that are null,
    because ids of stages of the shipped sets were made without.
    """

    name: str  # the data set, as in docs/datasets.md
    train_size: PositiveInt | None = None  # stratified subset, validation excluded; null: all
    validation_size: PositiveInt  # images cut out of the official training set
    test_size: PositiveInt | None = None  # stratified subset of the official test set; null: all
    split_seed: NonNegativeInt = 0  # seed of the cut and of the subsets
    resolution: PositiveInt | None = None  # side of an image in pixels; null: the data set's own
    crop_scale: Interval | None = None  # share of the area in a training crop; null: the set's
    start_resolution: PositiveInt | None = None  # side in pixels at first; null: images do not grow
    ramp: Interval = (0.4, 0.8)  # shares of training between which they grow
    # form of the files of a data set of your own; null: a shipped one
    images: Literal["folder"] | None = Field(default=None, exclude_if=_is_none)
    # folder of the training images, below data_root/NAME or absolute; null: train
    train: str | None = Field(default=None, exclude_if=_is_none)
    # folder of the test images; null: cut from the training images
    test: str | None = Field(default=None, exclude_if=_is_none)
    # share of the training images that is the test set where there is no folder of test images
    test_share: OpenShare | None = Field(default=None, exclude_if=_is_none)
    # what is in the files, written by harness.data.describe; null: a shipped data set
    content: DatasetContent | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="before")
    @classmethod
    def _shipped(cls, value: object) -> object:
        """Leave out what the file of a shipped data set says about its content.

        The name of a shipped set stands for its content.
        """
        if isinstance(value, Mapping) and value.get("images") in READERS:
            return {key: value[key] for key in value if key not in {*PLACES, "content"}}
        return value

    @field_validator("train", "test")
    @classmethod
    def _check_place(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or ".." in value.split("/")):
            raise ValueError(f"{value!r} is not a folder below data_root/NAME or an absolute path")
        return value

    @model_validator(mode="after")
    def _check_intervals(self) -> DatasetConfig:
        for name, pair in (("crop_scale", self.crop_scale), ("ramp", self.ramp)):
            if pair is not None and pair[0] > pair[1]:
                raise ValueError(f"{name}: {list(pair)} must not begin above its end")
        if self.test is not None and self.test_share is not None:
            raise ValueError("test and test_share are two test sets: keep one of them")
        return self


READERS = frozenset({"imagenet", "fashion_mnist", "cifar10", "cifar100", "digits"})
"""The values of `images` in the files of the shipped data sets."""
