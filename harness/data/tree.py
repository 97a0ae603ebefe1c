"""A tree of image files, such as `train/<class>/*` and `val/<class>/*`: list it, report mistakes.

The order is that of torchvision's `ImageFolder`: by class, then by the path of the folder, then by
the name of the file. An image's id is its position in this order. Hidden files and folders, which
macOS and Jupyter create, are left out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from harness.data.catalog import TRAIN_VAL, DatasetInfo, Places, check_counts, describe_again, shown
from harness.data.imagefolder import SUFFIXES, BadImage, decoding, open_image
from harness.data.splits import stratified_order
from harness.data.types import Integers
from harness.errors import UserError

LAYOUT = "images lie in train/<class>/ and val/<class>/, as in train/n01440764/some.JPEG"
HIDDEN = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders of macOS, Synology, Windows and Linux. Names that begin with a dot are hidden, too."""
_THREADS = 8  # a network folder answers several requests at once
_MOST_SHOWN = 5  # names in one sentence
_Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True)
class ImageTree:
    """The images of one part of a tree: `paths` below `root`, labels int64 [N], class names.

    folders: all folders by device and inode. links: images that are links. left_out: hidden files
    and folders.
    """

    root: Path
    paths: tuple[str, ...]
    labels: Integers
    classes: tuple[str, ...]
    folders: dict[_Identity, Path]
    links: tuple[Path, ...]
    left_out: tuple[Path, ...]


@dataclass
class _Listing:
    """The content of a class folder at any depth; `paths` are relative to the root of the part."""

    paths: list[str] = field(default_factory=list)
    folders: dict[_Identity, Path] = field(default_factory=dict)
    links: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not _is_hidden(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one. Raises `UserError` for a dead link."""
    if entry.is_symlink() and not Path(entry.path).exists():
        raise UserError(
            f"{shown(entry.path)} is a link to nothing: restore its target or remove it."
        )
    return entry.is_dir()


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _list(root: Path, top: str) -> _Listing:
    """List the class folder `top` of `root`."""
    listing = _Listing()
    names: dict[str, list[str]] = {}  # of images, by folder
    pending = [top]
    while pending:
        folder = pending.pop()
        _add(listing.folders, {_identity(root / folder): root / folder})
        names[folder] = []
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    listing.left_out.append(Path(entry.path))
                elif _is_folder(entry):
                    pending.append(f"{folder}/{entry.name}")
                elif _is_image(entry.name):
                    if not entry.is_file():  # such as a FIFO, on which reading would hang
                        raise UserError(f"{shown(entry.path)} is not a file: remove it.")
                    names[folder].append(entry.name)
                    if entry.is_symlink():
                        listing.links.append(Path(entry.path))
    # Folders are sorted as texts, as in torchvision, so `a b/` and `a-b/` come before `a/c/`.
    listing.paths = [
        f"{folder}/{name}" for folder in sorted(names) for name in sorted(names[folder])
    ]
    return listing


def _add(folders: dict[_Identity, Path], new: dict[_Identity, Path]) -> None:
    """Add `new` to `folders`. Raises `UserError` for a folder that a link adds a second time."""
    for key in folders.keys() & new.keys():
        raise UserError(
            f"{shown(new[key])} and {shown(folders[key])} are the same folder, so its images would "
            "count twice: remove the link."
        )
    folders.update(new)


def _scan(root: Path) -> ImageTree:
    """List the images of `root`, which has one folder for each class.

    Raises:
        UserError: a folder cannot be read, there are no class folders, a class has no images, or
            two paths lead to the same folder.
    """
    classes, left_out = _class_folders(root)
    with _readable(root), ThreadPoolExecutor(_THREADS) as pool:
        listings = list(pool.map(lambda name: _list(root, name), classes))
    empty = [name for name, listing in zip(classes, listings, strict=True) if not listing.paths]
    if empty:
        raise UserError(
            f"{len(empty)} of the {len(classes)} class folders of {shown(root)} hold no image "
            f"({_first(empty)}): fill them or remove them. The names of images end in "
            f"{', '.join(SUFFIXES)}."
        )
    folders: dict[_Identity, Path] = {}
    for listing in listings:
        _add(folders, listing.folders)
    return ImageTree(
        root,
        tuple(path for listing in listings for path in listing.paths),
        np.repeat(np.arange(len(classes)), [len(listing.paths) for listing in listings]),
        tuple(classes),
        folders,
        tuple(path for listing in listings for path in listing.links),
        (*left_out, *(path for listing in listings for path in listing.left_out)),
    )


def _class_folders(root: Path) -> tuple[list[str], list[Path]]:
    """Return the sorted names of the class folders, and the hidden folders, which are left out."""
    classes: list[str] = []
    hidden: list[Path] = []
    with _readable(root), os.scandir(root) as entries:
        for entry in entries:
            if _is_hidden(entry.name):
                if entry.is_dir():
                    hidden.append(Path(entry.path))
            elif _is_folder(entry):
                classes.append(entry.name)
    if not classes:
        raise UserError(f"{shown(root)} has no class folders: {LAYOUT}.")
    return sorted(classes), sorted(hidden)


@contextlib.contextmanager
def _readable(root: Path) -> Iterator[None]:
    """Turn an `OSError` at or below `root` into a `UserError` that names the file or folder."""
    try:
        yield
    except OSError as error:
        place = shown(error.filename or root)
        raise UserError(f"{place} cannot be read ({error.strerror}).") from error


def _refuse_links(links: Sequence[Path], folders: dict[_Identity, Path]) -> None:
    """Raise `UserError` if two links lead to the same image, or a link to an image in `folders`."""
    first_links: dict[Path, Path] = {}  # by image
    for link in links:
        image = link.resolve()
        other = first_links.setdefault(image, link)
        if _is_image(image.name) and (folder := folders.get(_identity(image.parent))) is not None:
            other = folder / image.name
        if other != link:
            raise UserError(
                f"{shown(link)} and {shown(other)} are the same file, so the image would count "
                "twice: remove the link."
            )


def class_names(folder: Path, places: Places = TRAIN_VAL) -> list[str]:
    """Return the names of the classes of a tree. Both parts must have the same classes.

    Raises:
        UserError: a part is missing or cannot be read, or the two parts have different classes.
    """
    parts = places.folders(folder)
    names = [places.train, *([] if places.test is None else [places.test])]
    if absent := [shown(n) for n, part in zip(names, parts, strict=True) if not part.is_dir()]:
        raise UserError(
            f"{shown(folder)} has no folder {' and no folder '.join(absent)}: {LAYOUT}."
        )
    train, *tests = (_class_folders(part)[0] for part in parts)
    for test in tests:
        if differing := sorted(set(train) ^ set(test)):
            raise UserError(
                f"{shown(parts[0])} and {shown(parts[1])} have different classes: "
                f"{_first(differing)} {'is' if len(differing) == 1 else 'are'} in only one of "
                "them. Both need a folder for each class."
            )
    return train


def scan_parts(folder: Path, places: Places = TRAIN_VAL) -> tuple[ImageTree, ImageTree]:
    """List the official training set and the official test set of a tree.

    Raises:
        UserError: see `class_names`; or a class has no images, a folder cannot be read, or a link
            makes images count twice, in one part or in both.
    """
    class_names(folder, places)
    parts = [_scan(part) for part in places.folders(folder)]
    folders: dict[_Identity, Path] = {}
    for part in parts:
        _add(folders, part.folders)
    _refuse_links([link for part in parts for link in part.links], folders)
    if places.test is None:
        return _cut_test_set(parts[0], places.test_share)
    return parts[0], parts[1]


def _cut_test_set(tree: ImageTree, share: float) -> tuple[ImageTree, ImageTree]:
    """Return the official sets of a tree without a test set: a stratified share is the test set.

    The cut depends on nothing but the labels, so that it is the same in all trainings.
    """
    order = stratified_order(tree.labels, 0, "split.official")
    size = round(share * len(order))
    if not 0 < size < len(order):
        raise UserError(
            f"{shown(tree.root)} has {len(order):,} images, of which dataset.test_share={share:g} "
            f"leaves {len(order) - size:,} to train on and {size:,} to test on: both need images."
        )
    return _subset(tree, np.sort(order[size:])), _subset(tree, np.sort(order[:size]))


def _subset(tree: ImageTree, rows: Integers) -> ImageTree:
    paths = tuple(tree.paths[row] for row in rows)
    return dataclasses.replace(tree, paths=paths, labels=tree.labels[rows])


def files_digest(train: ImageTree, test: ImageTree) -> str:
    """Return 16 hex digits of the SHA-256 of the paths in both parts and the sizes of the files.

    The names of the folders of the parts are not included, so a renamed copy has the same digest.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for name, tree in (("train", train), ("test", test)):
            digest.update(f"{name}\0".encode())
            with _readable(tree.root):
                starts = range(0, len(tree.paths), 1000)
                sizes = pool.map(partial(_sizes, tree), starts)
                for path, size in zip(
                    tree.paths, itertools.chain.from_iterable(sizes), strict=True
                ):
                    digest.update(os.fsencode(path) + f"\0{size}\0".encode())
    return digest.hexdigest()[:16]


def _sizes(tree: ImageTree, start: int) -> list[int]:
    """Return the sizes in bytes of 1,000 images from `start`."""
    return [(tree.root / path).stat().st_size for path in tree.paths[start : start + 1000]]


def classes_digest(classes: Sequence[str]) -> str:
    """Return 16 hex digits of the SHA-256 of the names of the classes, in their order."""
    return hashlib.sha256(b"\0".join(map(os.fsencode, classes))).hexdigest()[:16]


def check_files(info: DatasetInfo, train: ImageTree, test: ImageTree) -> None:
    """Raise `UserError` unless a user's own set has the files that its description states."""
    check_counts(info, len(train.labels), len(test.labels), len(train.classes), train.root)
    if info.content is None:
        return
    if info.content.class_names not in (None, classes_digest(train.classes)):
        kind = "names of the classes"
    elif info.content.files not in (None, files_digest(train, test)):
        kind = "names or sizes of the files"
    else:
        return
    raise UserError(
        f"the {kind} in {shown(train.root)} and {shown(test.root)} are not those that the file of "
        f"the data set {info.name} states: restore the images{describe_again(info)}."
    )


def left_out_note(trees: Sequence[ImageTree]) -> str | None:
    """Return a sentence about the hidden files and folders that were left out; None for none."""
    paths = [str(path) for tree in trees for path in tree.left_out]
    if not paths:
        return None
    return f"{len(paths)} hidden files or folders are left out: {_first(paths)}."


def tree_problems(folder: Path, places: Places = TRAIN_VAL) -> list[str]:
    """Return sentences about all mistakes of the tree in `folder`; none for a good tree."""
    return inspect_tree(folder, headers=1000, places=places)[0]


def inspect_tree(
    folder: Path,
    headers: int | None,
    info: DatasetInfo | None = None,
    places: Places = TRAIN_VAL,
) -> tuple[list[str], list[str]]:
    """Return sentences about mistakes of a tree, and others that describe the tree.

    headers: about how many images of each part are opened, at equal distances, to read their format
    and size; None for all. Their pixels are not decoded. info: the data set whose numbers of images
    and classes the tree should have, if any.
    """
    problems: list[str] = []
    notes: list[str] = []
    try:
        train, test = scan_parts(folder, info.places if info is not None else places)
    except UserError as error:
        return [str(error)], notes
    if info is not None:
        try:
            check_files(info, train, test)
        except UserError as error:
            problems.append(str(error))
    for part, tree in (("train", train), ("test", test)):
        counts = np.bincount(tree.labels)
        notes.append(
            f"{part}: {len(tree.paths):,} images in {len(tree.classes):,} classes of "
            f"{counts.min():,} to {counts.max():,}."
        )
        step = 1 if headers is None else -(-len(tree.paths) // headers)
        sample = tree.paths[::step]
        with ThreadPoolExecutor(_THREADS) as pool:
            results = list(pool.map(lambda path, root=tree.root: _header(root / path), sample))
        bad = [
            f"{path}: {reason}"
            for path, reason in zip(sample, results, strict=True)
            if isinstance(reason, str)
        ]
        if bad:
            problems.append(
                f"{len(bad):,} of {len(sample):,} images looked at in {shown(tree.root)} cannot be "
                f"used ({_first(bad, '; ')}): replace or remove them."
            )
        headers_read = [result for result in results if not isinstance(result, str)]
        if headers_read:
            sides = np.array([size for size, _ in headers_read])
            modes = Counter(mode for _, mode in headers_read).most_common()
            notes.append(
                f"{part}: {len(headers_read):,} headers read; sides from {sides.min():,} to "
                f"{sides.max():,} pixels; modes "
                + ", ".join(f"{mode} ({count:,})" for mode, count in modes)
                + "."
            )
    if (note := left_out_note((train, test))) is not None:
        notes.append(note)
    return problems, notes


def _header(path: Path) -> tuple[tuple[int, int], str] | str:
    """Return the size and Pillow's mode of an image, or why it cannot be used."""
    try:
        with path.open("rb") as file, decoding(), open_image(file) as image:
            return image.size, image.mode
    except BadImage as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def _first(names: Sequence[str], separator: str = ", ") -> str:
    """Return the first of some names as printable text."""
    rest = len(names) - _MOST_SHOWN
    text = separator.join(shown(name) for name in names[:_MOST_SHOWN])
    return f"{text}{separator}and {rest:,} more" if rest > 0 else text
