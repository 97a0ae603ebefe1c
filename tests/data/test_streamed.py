"""Loaders that decode give the same batches for any ranks and threads, also after resumption."""

import gc
import importlib
import itertools
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import datasets
from harness.data.catalog import misfits
from harness.data.crops import centre, random_resized
from harness.data.dataset_file import read_dataset
from harness.data.datasets import load
from harness.data.loader import make_loader
from harness.data.threads import Stalled
from harness.errors import UserError
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig

PHOTOS = Path(__file__).with_name("photos.yaml")
CONFIG = read_dataset(str(PHOTOS))
CPU = torch.device("cpu")
LOADERS = ["ffcv", "imagefolder"]


@pytest.fixture
def open_loader(tree, betons):
    """A function that opens a loader; all loaders are closed at the end of the test."""
    loaders = []

    def make(loader="ffcv", rank=0, world_size=1, config=CONFIG, threads=2, epochs=1, batch=12):
        root = betons if loader == "ffcv" else tree
        dataset = load(config, str(root), loader)
        run = RunConfig(loader_threads=threads)
        loaders.append(make_loader(dataset, run, batch, rank, world_size, CPU, epochs))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


def copies(batches):
    """Return copies of the batches, because the loader reuses their memory."""
    return [(b.images.clone(), b.labels, b.ids) for b in batches]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and np.array_equal(a[2], b[2])
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("loader", LOADERS)
def test_ranks_and_threads_share_the_same_batches(open_loader, loader):
    whole = copies(open_loader(loader, threads=3).epoch(7, 2))
    halves = [copies(open_loader(loader, rank, 2, threads=1).epoch(7, 2)) for rank in range(2)]
    joined = [
        (torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]), np.concatenate([a[2], b[2]]))
        for a, b in zip(*halves, strict=True)
    ]
    assert len(whole) == 3
    assert same(whole, joined)
    assert not same(whole, copies(open_loader(loader).epoch(7, 3)))


@pytest.mark.parametrize("loader", LOADERS)
def test_an_epoch_that_begins_in_its_middle_decodes_only_the_remaining_batches(
    open_loader, loader, monkeypatch
):
    first, second = open_loader(loader), open_loader(loader)
    whole = copies(first.epoch(0, 1))
    decoded = []
    images = second._splits["train"].images
    decoder = images.decoder

    def watched(rows, ids, crop):
        decoded.extend(ids.tolist())
        return decoder(rows, ids, crop)

    monkeypatch.setattr(images, "decoder", watched)
    rest = copies(second.epoch(0, 1, start_step=1))
    assert same(whole[1:], rest)
    assert decoded == [i for batch in whole[1:] for i in batch[2].tolist()]


def test_both_loaders_crop_the_same_boxes_of_the_same_samples(open_loader, tree):
    ffcv, files = (copies(open_loader(loader).epoch(0, 0)) for loader in LOADERS)
    for (a, labels, ids), (b, other_labels, other_ids) in zip(ffcv, files, strict=True):
        assert np.array_equal(ids, other_ids)
        assert torch.equal(labels, other_labels)
        difference = (a.int() - b.int()).abs().float().mean()
        assert 0 < difference < 2, "only the filters of the resize may differ"


@pytest.mark.parametrize(
    ("split", "crop"), [("train", random_resized(4, 0, (0.08, 1))), ("test", centre)]
)
def test_a_decoded_box_has_pillows_pixels_resized_by_opencv(open_loader, tree, split, crop):
    """The `.beton` file is not compressed. Its boxes are resized by INTER_AREA."""
    import cv2

    from harness.data.imagefolder import read_image
    from harness.data.tree import scan_parts

    part = scan_parts(tree / "photos")[split == "test"]
    loader = open_loader()
    batches = loader.epoch(4, 0) if split == "train" else loader.evaluate("test", 15)
    images, labels, ids = copies(batches)[0]
    for image, label, sample in zip(images, labels, ids, strict=True):
        pixels = np.asarray(read_image(part.root / part.paths[sample]))
        sides = np.array([pixels.shape[:2]])
        ((y, x, h, w),) = crop(np.array([sample]), sides[:, 0], sides[:, 1])
        box = np.ascontiguousarray(pixels[y : y + h, x : x + w])
        expected = cv2.resize(box, (32, 32), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)
        # Two builds of OpenCV round about one in a thousand values differently.
        assert np.abs(image.numpy().astype(int) - expected).max() <= 1
        assert label == part.labels[sample]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_all_ranks_together_see_every_test_image_once(open_loader, loader, world_size):
    seen = [
        copies(open_loader(loader, rank, world_size, batch=12).evaluate("test", 3))
        for rank in range(world_size)
    ]
    ids = np.concatenate([batch[2] for rank in seen for batch in rank])
    assert ids.tolist() == list(range(15))
    alone = copies(open_loader(loader).evaluate("test", 15))[0][0]
    assert torch.equal(torch.cat([batch[0] for rank in seen for batch in rank]), alone)


def test_fixed_batches_are_the_same_on_every_rank(open_loader):
    one, other = open_loader(), open_loader(rank=1, world_size=2)
    assert same(copies(one.fixed(20, 10)), copies(other.fixed(20, 10)))
    assert [len(batch[2]) for batch in copies(one.fixed(20, 10))] == [10, 10]


def test_progressive_resizing_changes_only_training_images(open_loader):
    config = CONFIG.model_copy(update={"resolution": 96, "start_resolution": 32})
    loader = open_loader(config=config, epochs=5)
    sides = [next(loader.epoch(0, epoch)).images.shape[-1] for epoch in range(5)]
    assert sides == [32, 32, 32, 64, 96]
    assert next(loader.evaluate("validation", 5)).images.shape == (5, 3, 96, 96)


def test_images_of_one_size_are_not_changed(tmp_path):
    """A set in memory keeps its pixels when it is written uncompressed and read by FFCV."""
    from harness.data.write import main

    config = DatasetConfig(name="digits", validation_size=200, train_size=300, test_size=77)
    main(["dataset=digits", f"out={tmp_path / 'digits'}", "validation_size=200"])
    batches = []
    for name in ("resident", "ffcv"):
        dataset = load(config, str(tmp_path), name)
        loader = make_loader(dataset, RunConfig(), 64, 0, 1, CPU)
        assert loader.name == name
        batches.append([*copies(loader.epoch(1, 1)), *copies(loader.evaluate("test", 50))])
        loader.close()
    assert same(*batches)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_an_error_that_names_it(open_loader):
    loader = open_loader()
    batches = loader.epoch(0, 0)
    next(batches)
    for _ in range(len(loader._pipeline.threads)):
        loader._pipeline.threads.submit(sys.exit)  # ends the thread that runs it
    with pytest.raises(Stalled, match=r"the decoding thread decode-\d has died"):
        list(itertools.chain.from_iterable(loader.epoch(0, epoch) for epoch in range(1, 50)))


def test_an_error_in_a_thread_keeps_its_message(open_loader, tmp_path):
    loader = open_loader("imagefolder")
    loader._splits["train"].images._root = tmp_path
    with pytest.raises(
        UserError, match=r"the image .*(JPEG|png) was there .* is gone: put it back"
    ):
        list(loader.epoch(0, 0))
    with pytest.raises(UserError):  # the loader still works
        list(loader.epoch(0, 1))


def megabytes():
    """Return the memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("loader", LOADERS)
def test_hundreds_of_epochs_and_abandoned_iterators_leak_no_memory_or_thread(open_loader, loader):
    config = CONFIG.model_copy(update={"resolution": 128})
    loader = open_loader(loader, config=config, epochs=1000)
    one_batch = 12 * 128 * 128 * 3 / 1e6

    def run_epochs(count):
        for epoch in range(count):
            next(loader.epoch(0, epoch))  # the iterator is abandoned after one batch
            if epoch % 2 == 0:
                assert len(list(loader.epoch(0, epoch))) == 3
        gc.collect()

    run_epochs(20)
    memory, threads = megabytes(), threading.active_count()
    run_epochs(100 if loader.name == "imagefolder" else 400)
    assert threading.active_count() == threads
    assert megabytes() - memory < 20 * one_batch
    loader.close()
    assert threading.active_count() == threads - 2


def test_auto_chooses_ffcv_if_it_can_and_else_gives_the_reason(tree, betons, monkeypatch):
    assert load(CONFIG, str(betons)).loader_choice.startswith("ffcv: ")
    assert load(CONFIG, str(betons), cache="process").train.images.loader == "ffcv"
    assert "does not hold .beton files" in load(CONFIG, str(tree)).loader_choice
    monkeypatch.setattr(datasets, "ffcv_trouble", lambda: "FFCV cannot be imported (no libopencv)")
    load.cache_clear()
    with pytest.raises(
        UserError, match=r"run\.loader=ffcv: FFCV cannot .* run\.loader=imagefolder"
    ):
        load(CONFIG, str(betons), "ffcv")
    with pytest.raises(
        UserError, match=r"FFCV cannot be imported .* put the folders train/ and val/"
    ):
        load(CONFIG, str(betons))
    (betons / "photos" / "train").symlink_to(tree / "photos" / "train")
    (betons / "photos" / "val").symlink_to(tree / "photos" / "val")
    try:
        dataset = load(CONFIG, str(betons))
    finally:
        for part in ("train", "val"):
            (betons / "photos" / part).unlink()
    assert dataset.loader_choice == "imagefolder: FFCV cannot be imported (no libopencv)"


def test_an_ffcv_that_cannot_be_imported_gets_a_sentence_with_the_remedy(monkeypatch):
    datasets.ffcv_trouble.cache_clear()
    monkeypatch.delitem(sys.modules, "harness.data.ffcv", raising=False)
    monkeypatch.setitem(sys.modules, "ffcv.libffcv", None)
    output = datasets.ffcv_trouble()
    datasets.ffcv_trouble.cache_clear()
    assert "libopencv-dev" in output
    assert "pip install" in output
    monkeypatch.undo()
    importlib.import_module("harness.data.ffcv")


@pytest.mark.parametrize(
    ("name", "loader", "words"),
    [
        ("photos", "resident", "run.loader=resident holds a whole data set in memory"),
        ("photos", "ffcv", "run.loader=ffcv needs .beton files of photos"),
        ("photos", "auto", "neither manifest.json nor train/ and val/ are in"),
        ("photos", "imagefolder", "needs the folders train/ and val/ of photos"),
        ("digits", "imagefolder", "reads a tree of image files, and digits is not one"),
    ],
)
def test_a_loader_that_cannot_read_the_set_is_refused_with_the_remedy(
    tmp_path, name, loader, words
):
    config = CONFIG if name == "photos" else DatasetConfig(name=name, validation_size=9)
    with pytest.raises(UserError) as caught:
        load(config, str(tmp_path), loader)
    assert words in str(caught.value)


def test_keys_of_image_files_are_checked_and_refused_for_other_sets():
    wrong = DatasetConfig(name="digits", validation_size=9, resolution=32, crop_scale=(0.1, 1))
    assert [text.split(":")[0] for text in misfits(wrong)] == [
        "dataset.resolution",
        "dataset.crop_scale",
    ]
    (problem,) = misfits(CONFIG.model_copy(update={"start_resolution": 64}))
    assert "64 is more than the 32 pixels" in problem


@pytest.mark.slow
def test_importing_ffcv_does_not_change_the_threads_of_torch(in_child):
    output = in_child(
        "import torch; torch.set_num_threads(2); import harness.data.ffcv; "
        "print(torch.get_num_threads())"
    )
    assert output.strip() == "2"


@pytest.mark.slow
def test_the_compiled_decoder_is_cached_for_the_next_process(in_child, betons):
    code = (
        "from pathlib import Path\nimport numpy as np\n"
        "from harness.data.crops import centre\n"
        "from harness.data.ffcv import BetonImages, _decode\n"
        f"images = BetonImages(Path({str(betons / 'photos' / 'train.beton')!r}))\n"
        "out = np.zeros((1, 16, 16, 3), dtype=np.uint8)\n"
        "images.decoder(np.arange(1), images.ids[:1], centre)(slice(0, 1), out)\n"
        "print(out.sum(), _decode.compiled.stats.cache_misses.total())"
    )
    first, again = (in_child(code).split() for _ in range(2))
    assert int(first[0]) > 0
    assert again == [first[0], "0"]
