"""What a job would refuse is refused by a launch and by its dry run, with the same sentences."""

import os
import re

import pytest
import torch

from harness.commands import doctor, launch
from harness.config import load
from harness.data.catalog import training_sides
from harness.data.crops import side_at
from harness.errors import UserError
from harness.models import registry, trial_forward
from harness.models.family import FAMILIES
from harness.run_schema import RunConfig
from harness.schema import DatasetConfig, ModelConfig, TeacherConfig
from harness.sweep.plan import make_plan
from harness.sweep.teachers import misfit, stage_config
from harness.train.judge import CANDIDATE_EPOCHS

TIMM = ["model.depth=null", "model.width=1"]


@pytest.mark.parametrize(
    ("words", "sentences"),
    [
        (["recipe.batch_size=6", "run.processes=2", "augment.cutmix=1"], ["a multiple of 4"]),
        (["recipe.batch_size=9", "run.processes=2", "augment.cutmix=1"], ["9 is odd", "equally"]),
        (["recipe.sync_bn=true", "run.processes=2"], ["not for 2 processes on CPU"]),
        (["recipe.sync_bn=true", "run.processes=2", "run.device=cpu", "cluster.gpus_per_node=2",
          "cluster=generic"], ["not for 2 processes on CPU"]),
        (["run.processes=2", "cluster.gpus_per_node=1"], ["2 ranks need a GPU each"]),
        (["cluster=generic", "run.processes=2"], ["set run.processes=1 or cluster.gpus_per_node=2",
                                                  "on 1 node(s)"]),
        (["cluster=generic", "cluster.slurm.nodes=3", "run.processes=2"], ["cannot be shared"]),
        (["cluster=generic", "cluster.slurm.extra={gres: 'gpu:1'}"], ["for GPUs once"]),
        (["cluster=generic", "cluster.gpus_per_node=0", "cluster.slurm.extra={gres: 'gpu:1'}",
          "cluster.resources=[{where: 'width < 1', gpus_per_node: 1}]"], ["for GPUs once"]),
        (["cluster=generic", "cluster.gpus_per_node=0", "cluster.slurm.gpu_type=a100"],
         ["a100 has no effect", "set gpus_per_node, or gpu_type=null"]),
        (["cluster=generic", "cluster.resources=[{where: 'width < 1', gpus_per_node: 0, "
          "gpu_type: a100}]"], ["a100 has no effect"]),
        (["cluster=generic", "cluster.slurm.extra={tasks-per-node: 2}"], ["by the harness itself"]),
        (["recipe.sync_bn=true", "run.processes=2", "cluster=generic", "cluster.gpus_per_node=0",
          "cluster.slurm.extra={gres: 'scratch:100'}"], ["not for 2 processes on CPU"]),
        (["cluster=generic", "cluster.timeout_min=4:00:00", "cluster.slurm.requeue=no"],
         ["'4:00:00': write 240", "'no': write false"]),
        (["cluster=generic", "cluster.slurm.extra={comment: 'a b'}"],
         ["1 mistake", "cluster.slurm.extra.comment: must be a word without blanks and quotes"]),
        (["cluster=generic", "cluster.slurm.extra={comment: 'a\n'}"], ["without blanks"]),
        (["cluster.workers=1000000000"], ["less than or equal to 100000"]),
        (["run.loader=imagefolder"], ["run.loader: imagefolder reads a tree of image files"]),
        (["cluster=generic", "cluster.timeout_min=2"], ["jobs would only ever save"]),
        (["cluster=generic", "cluster.timeout_min=5", "cluster.resources=[{where: 'width < 1', "
          "timeout_min: 1}]"], ["the time limit of 1 minutes"]),
        (["recipe.batch_size=9", "cluster=generic",
          "cluster.resources=[{where: 'width < 1', processes: 2, gpus_per_node: 2}]"],
         ["run.processes=2: make it a multiple of 2"]),
        (["teacher.candidates=300"], ["teacher.candidates: should be less than or equal to 256"]),
        (["recipe.epochs=20000000"], ["recipe.epochs: should be less than 16777216"]),
        (["run.threads=100000"], ["run.threads: should be less than or equal to 1024"]),
        (["model.family=cifar_mobilenetv2", "model.depth=null", "recipe.batch_size=2",
          "run.micro_batch_size=1"], ["a single image at once", "at 8 pixels"]),
        (["model.family=cifar_mobilenetv2", "model.depth=null", "recipe.batch_size=2",
          "run.processes=2"], ["a single image at once"]),
    ],
)  # fmt: skip
def test_a_launch_and_its_dry_run_refuse_it_in_the_same_words(refusal, words, sentences):
    message = refusal(words)
    for sentence in sentences:
        assert sentence in message
    assert "nothing was run" in message


@pytest.mark.parametrize(("name", "character"), [(b"a:b", "':'"), (b"a\xe9", r"'\\udce9'")])
def test_a_store_whose_path_slurm_would_change_is_refused(
    written, tmp_path, monkeypatch, name, character
):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    grid, _ = written()
    for dry_run in ("true", "false"):
        with pytest.raises(UserError, match=f"has {character} in its path, which SLURM changes"):
            launch.main([grid, "store=x", "cluster=generic", f"dry_run={dry_run}"])
    assert list(folder.iterdir()) == []


def test_mistakes_of_every_part_are_listed_at_once(refusal):
    words = ["cluster=generic", "cluster.timeout_min=2", "run.processes=2", "run.zero_stage=1",
             "recipe.sync_bn=true", "run.device=cpu"]  # fmt: skip
    assert "4 mistakes" in refusal(words)


def test_a_word_of_the_command_line_is_stronger_than_a_rule_of_the_profile(tmp_path):
    """A rule on the command line is as strong as a word, and more specific."""
    profile = tmp_path / "site.yaml"
    rule = "{where: 'width > 0', timeout_min: 90, mem_gb: 9, nodes: 3, micro_batch_size: 4}"
    profile.write_text(f"name: site\nexecutor: slurm\ntimeout_min: 60\nresources: [{rule}]\n")
    words = ["grid=quickstart", f"cluster={profile}"]

    def settings(*more):
        launch = load([*words, *more])
        cluster, run = launch.job_settings(launch.grid.trials[0].config)
        profile = cluster.slurm
        return cluster.timeout_min, profile.mem_gb, profile.nodes, run.micro_batch_size

    assert settings() == (90, 9, 3, 4)
    assert settings("cluster.timeout_min=30", "cluster.slurm={nodes: 1}") == (30, 9, 1, 4)
    assert settings("run.micro_batch_size=8", "cluster.slurm.mem_gb=null") == (90, None, 3, 8)
    own_rule = "cluster.resources=[{where: 'width > 0', timeout_min: 20}]"
    assert settings("cluster.timeout_min=30", own_rule)[0] == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model.family=vit", "model.depth=12", "model.width=0.5", "dataset.resolution=100"],
         "100 is not a multiple"),
        (["model.family=vit", "model.depth=12", "dataset.start_resolution=128"],
         "set dataset.start_resolution=null"),
        (["model.family=resnet", "model.depth=18", "dataset.start_resolution=16"],
         "dataset.start_resolution: resnet takes images from 17 pixels up"),
        ([*TIMM, "model.family='timm:inception_v3'", "dataset.resolution=32"],
         "does not take images of 32 pixels"),
        ([*TIMM, "model.family='timm:gcvit_xxtiny'", "dataset.resolution=28"],
         "does not take images of 28 pixels (division by zero)"),
        ([*TIMM, "model.family='timm:resnet10t'", "dataset.start_resolution=1",
          "recipe.batch_size=2", "run.micro_batch_size=1"], "a single image at once"),
        ([*TIMM, "model.family='timm:qwen3_vit_88m_enc'"],
         "instead of a logit for each of 1000 classes"),
    ],
)  # fmt: skip
def test_images_that_a_model_does_not_take_are_refused(refusal, words, sentence):
    assert sentence in refusal(words, "imagenet")


@pytest.mark.parametrize(
    ("words", "dataset"),
    [
        (["model.family=cifar_mobilenetv2"], "digits"),
        (["dataset.resolution=8"], "digits"),
        (["dataset.crop_scale=[0.1, 1]"], "digits"),
        (["model.family=cifar_vit", "model.depth=7", "model.width=1", "dataset.resolution=64",
          "dataset.start_resolution=32"], "imagenet"),
        (["compress.sparsity=0.5", "compress.options.a=1"], "digits"),
        (["compress.sparsity=0.5", "compress.pruning=one_shot", "compress.levels=[0.3]"], "digits"),
        (["compress.sparsity=0.5", "compress.dense_magnitude=0.5", "surplus.form=prune_away"],
         "digits"),
        (["surplus.options.a=1"], "digits"),
    ],
)  # fmt: skip
def test_a_remedy_can_follow_on_the_same_command_line(refusal, written, words, dataset):
    remedy = re.search(r"set (\S+=null)", refusal(words, dataset))[1]
    key = remedy.partition("=")[0]
    load([*written(dataset), *[word for word in words if not word.startswith(key)], remedy])


HINDERED = [
    (["cluster.gpus_per_node=1"], "", "CUDA_VISIBLE_DEVICES= lists 0 GPUs"),
    (["cluster.gpus_per_node=1"], "GPU-1f", "name GPUs by number"),
    (["cluster.gpus_per_node=1000"], None, "torch finds"),
    (["cluster=generic"], None, "needs SLURM and sbatch, srun, squeue is not installed here"),
]


@pytest.mark.parametrize(("words", "visible", "sentence"), HINDERED)
def test_what_keeps_this_machine_from_it_is_a_note_of_the_dry_run(
    hindrance, monkeypatch, words, visible, sentence
):
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert sentence in hindrance(words)


@pytest.mark.parametrize("first", [None, 1, 31, 32, 33, 96, 128, 224])
def test_training_sides_are_those_of_all_epochs(first):
    config = DatasetConfig(name="imagenet", validation_size=1, start_resolution=first)
    sides = {side_at(epoch, 1000, 224, first, config.ramp) for epoch in range(1000)}
    assert training_sides(config) == tuple(sorted(sides))


def test_the_pieces_of_a_batch_differ_by_one_image_at_most():
    for share in range(1, 40):
        images = torch.arange(share)
        for size in (None, *range(1, share + 2)):
            pieces = images.tensor_split(RunConfig(micro_batch_size=size).micro_batches(share))
            lengths = {len(piece) for piece in pieces}
            assert torch.equal(torch.cat(pieces), images)
            assert max(lengths) <= (size or share)
            assert max(lengths) - min(lengths) <= 1
            if share % (size or share) == 0:  # as before
                assert lengths == {size or share}


def test_all_candidates_of_all_epochs_have_draws_of_their_own():
    most = 2**32 // CANDIDATE_EPOCHS  # a counter has 32 bits for candidate and epoch
    assert TeacherConfig(candidates=most).candidates == most
    with pytest.raises(ValueError, match="256"):
        TeacherConfig(candidates=most + 1)


@pytest.mark.parametrize("name", FAMILIES.names())
def test_every_family_takes_the_smallest_images_that_it_declares(name):
    family = FAMILIES.get(name)
    depth = family.depths[0] if family.depths else None
    config = ModelConfig(family=name, depth=depth)
    side = max(family.min_resolution, family.patch or 1)
    trial_forward.check_forward(config, 10, [side])
    if side > (family.patch or 1):
        assert registry.check(config, side - 1)


def test_the_doctor_lists_what_a_launch_refuses(tmp_path):
    config = load(["grid=quickstart", "cluster=generic", f"store={tmp_path / 'a:b'}"])
    level, subject, detail = next(doctor.cluster(config))
    assert (level, subject) == ("bad", "store")
    assert "has ':' in its path" in detail


def test_the_doctor_tries_the_models_and_looks_for_the_tracker(monkeypatch, capsys, written):
    monkeypatch.setattr("harness.train.trackers.PACKAGES", {"mlflow": "no_such_package"})
    words = [*TIMM, "model.family='timm:gcvit_xxtiny'", "dataset.resolution=28"]
    assert doctor.main([*written("imagenet"), *words, "run.tracker=mlflow"]) == 1
    shown = capsys.readouterr().out
    assert "bad   model.family: timm's gcvit_xxtiny does not take images of 28 pixels" in shown
    assert "needs the package no_such_package" in shown


def test_a_pipe_in_place_of_a_teachers_config_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(UserError, match="does not have a readable config"):
        stage_config(tmp_path)


def test_a_teacher_from_another_checkout_may_know_other_data_sets(tmp_path):
    (stage, *_) = make_plan(load(["grid=quickstart"]).grid).stages.values()
    weights = tmp_path / "checkpoint/final.pt"
    weights.parent.mkdir()
    weights.touch()
    text = stage.model_dump_json()
    (tmp_path / "config.json").write_text(text)
    assert misfit(str(weights), tmp_path, stage.dataset) is None
    (tmp_path / "config.json").write_text(text.replace(stage.dataset.name, "theirs"))
    assert "trained on theirs, which is not" in misfit(str(weights), tmp_path, stage.dataset)
    newer = text.replace('"schema_number":1', '"schema_number":2')
    (tmp_path / "config.json").write_text(newer)
    assert "a stage of this version" in misfit(str(weights), tmp_path, stage.dataset)
