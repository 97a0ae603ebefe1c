"""A teacher in training: labels, choice, weights; and teachers that do not fit."""

import json
import re
import shutil

import pytest
import torch
from torch.nn import functional as F

from harness import config
from harness.augment.batch_transform import BatchTransform
from harness.cluster import failure
from harness.commands import difficulty
from harness.data.catalog import CATALOG
from harness.errors import UserError
from harness.files import write_json
from harness.rows import rows_of_grid
from harness.schema import TeacherConfig
from harness.store import provenance
from harness.store.identity import stage_id
from harness.store.records import sealed
from harness.sweep.plan import make_plan
from harness.sweep.teachers import misfit
from harness.train import Member
from harness.train.judge import judge_batch
from harness.train.teacher import Teacher, load_teacher

TRANSFORM = BatchTransform(mean=(0.0,) * 3, std=(1.0,) * 3)
LABELS = torch.tensor([0, 1, 2, 0])


class Flat(torch.nn.Module):
    """Logits are three pixels of the image."""

    def forward(self, x):
        return x[:, 0, 0, :3]


TEACHER = Teacher(Flat(), TRANSFORM)


def drawn(later):
    """Candidate 0 pushes towards the label by 1, later ones by less."""
    push = 1.0 if later == 0 else 1.0 - later / 2**24
    images = torch.zeros(4, 3, 4, 4)
    images[torch.arange(4), :, 0, LABELS] = 2.0 * push
    return images, LABELS


def judge(**settings):
    return judge_batch(TeacherConfig(name="someone", **settings), TEACHER, drawn, LABELS, TRANSFORM)


def test_soft_and_hard_labels_take_their_share_of_the_targets():
    images, targets = judge(labels="soft")
    torch.testing.assert_close(targets, TEACHER.logits(images).softmax(1))
    _, mixed = judge(labels="soft", weight=0.25)
    one_hot = F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(mixed, 0.75 * one_hot + 0.25 * targets)
    _, hard = judge(labels="hard")
    assert torch.equal(hard, one_hot)
    wrong = Teacher(torch.nn.Sequential(Flat(), Roll()), TRANSFORM)
    _, hard = judge_batch(TeacherConfig(name="x", labels="hard"), wrong, drawn, LABELS, TRANSFORM)
    assert torch.equal(hard.argmax(1), (LABELS + 1) % 3)


class Roll(torch.nn.Module):
    def forward(self, x):
        return x.roll(1, 1)


def losses(images):
    return F.cross_entropy(TEACHER.logits(images), LABELS, reduction="none")


def test_of_the_candidates_the_one_nearest_to_the_target_is_taken():
    every = [losses(drawn(number * 2**24)[0])[0] for number in range(4)]
    assert sorted(every) == every  # pushed less, lost more
    for number, loss in enumerate(every):
        images, targets = judge(candidates=4, target=float(loss))
        assert torch.equal(images, drawn(number * 2**24)[0])
        assert torch.equal(targets, LABELS)
    images, _ = judge(candidates=2, target=99.0)
    assert torch.equal(images, drawn(2**24)[0])


def test_beyond_the_cap_images_are_dropped_or_count_less():
    loss = float(losses(drawn(0)[0])[0])
    _, kept = judge(cap=loss + 0.01)
    assert torch.equal(kept, F.one_hot(LABELS, 3).float())
    _, dropped = judge(cap=loss - 0.01)
    assert not dropped.any()
    _, less = judge(cap=loss / 2, beyond="down_weight")
    torch.testing.assert_close(less.sum(1), torch.full((4,), 0.5))


def test_a_teacher_sees_images_normalised_as_it_was_trained():
    own = Teacher(Flat(), BatchTransform(mean=(0.5,) * 3, std=(0.25,) * 3))
    seen = BatchTransform(mean=(0.1,) * 3, std=(0.2,) * 3)
    pixels = torch.rand(4, 3, 4, 4)
    logits = own.logits((pixels - 0.1) / 0.2, seen)
    torch.testing.assert_close(logits, own.logits((pixels - 0.5) / 0.25))


class Named:
    """Stages laid out as in a store, so that a teacher can be named by its id."""

    def __init__(self, stages, root):
        self.stages, self.root = stages, root
        stages.member, self.trains, stages.train = self.member, stages.train, self.train

    def train(self, *configs, **run):
        outcomes = self.trains(*configs, **run)
        for stage, outcome in zip(map(stage_id, configs), outcomes, strict=True):
            if outcome.result is not None:
                result = {"stage": stage, "status": outcome.status, **outcome.result}
                write_json(self.folder(stage) / "result.json", sealed(result))
        return outcomes

    def member(self, config):
        name = stage_id(config)
        folder = self.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config.model_dump(mode="json"))
        parent = self.folder(config.parent) if config.parent else None
        return Member(name, config, folder, parent)

    def folder(self, name):
        return self.root / "stages" / name[:2] / name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "settings"),
    [("ddp", {"labels": "soft"}), ("deepspeed", {"candidates": 3, "target": 1.0, "cap": 2.0})],
)
def test_a_stage_with_a_teacher_differs_and_resumes_to_the_same_bits(
    stages, tmp_path, engine, settings
):
    Named(stages, tmp_path / "store")
    teacher = stages.toy({"model.width": 0.5})
    stages.train(teacher)
    plain = stages.toy({"recipe.label_smoothing": 0.0})
    values = {**plain.model_dump(mode="json"), "teacher": {"name": stage_id(teacher), **settings}}
    config = type(plain).model_validate(values)
    (outcome,), (without,) = stages.train(config, engine=engine), stages.train(plain, engine=engine)
    assert outcome.result["weights_sha256"] != without.result["weights_sha256"]
    assert outcome.result["train_macs"] > without.result["train_macs"]
    expected = stages.record(config, outcome)
    for path in stages.folder(config).rglob("*.*"):
        path.unlink()
    stages.train_for(4, config, engine=engine)
    stages.train_for(5, config, engine=engine)
    (again,) = stages.train(config, engine=engine)
    assert stages.record(config, again) == expected


def test_a_cap_that_drops_every_image_is_refused(stages, tmp_path):
    Named(stages, tmp_path / "store")
    teacher = stages.toy()
    stages.train(teacher)
    values = stages.toy({"recipe.label_smoothing": 0.0}).model_dump(mode="json")
    values["teacher"] = {"name": stage_id(teacher), "cap": 1e-9}
    capped = type(teacher).model_validate(values)
    with pytest.raises(UserError, match=r"on every image of epoch 1 is above 1e-09"):
        stages.train(capped)
    assert "teacher" not in provenance.records(stages.folder(teacher))[-1]
    info = CATALOG["digits"]
    assert provenance.records(stages.folder(capped))[-1]["teacher"] == {
        "mean": list(info.mean),
        "std": list(info.std),
    }


GRID = """defaults:
  - override /dataset: {dataset}
  - override /recipe: quick
dataset: {{validation_size: 100}}
model: {{depth: 8}}
teacher: {{name: {name}, {rest}}}
axes: {{seed: [0]}}
"""


def planned(tmp_path, store, name, rest="labels: soft", dataset="digits", words=()):
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.format(dataset=dataset, name=name, rest=rest))
    return config.load([f"grid={path}", f"store={store}", *words], trains=True)


@pytest.mark.slow
def test_a_teacher_that_does_not_fit_is_named_before_anything_is_queued(stages, tmp_path):
    store = tmp_path / "store"
    Named(stages, store)
    teacher = stages.toy()
    name = stage_id(teacher)
    with pytest.raises(UserError, match=f"has no stage {name}"):
        planned(tmp_path, store, name)
    stages.train_for(3, teacher)
    with pytest.raises(UserError, match="has no result: it is not finished"):
        planned(tmp_path, store, name)
    stages.train(teacher)
    planned(tmp_path, store, name)
    for key, value in (("dataset.validation_size", 150), ("dataset.split_seed", 1)):
        with pytest.raises(
            UserError, match=f"{key} .* it is {value}, .*images that are validation images here"
        ):
            planned(tmp_path, store, name, words=[f"{key}={value}"])
    weights = stages.folder(teacher) / "checkpoint" / "final.pt"
    hidden = weights.rename(weights.with_name("hidden.txt"))
    with pytest.raises(UserError, match="no final weights"):
        planned(tmp_path, store, name)
    path = tmp_path / "grid.yaml"
    assert config.load([f"grid={path}", f"store={store}"]).grid.trials  # to look, they can be gone
    assert "is not a file checkpoint/final.pt" in misfit(str(hidden), store, teacher.dataset)
    hidden.rename(weights)
    path = stages.folder(teacher) / "result.json"
    result = json.loads(path.read_text())
    del result["sha256"]
    write_json(path, sealed({**result, "status": "diverged"}))
    with pytest.raises(UserError, match="diverged: choose another"):
        planned(tmp_path, store, name)
    write_json(path, sealed(result))
    with pytest.raises(
        UserError, match=r"trained on digits with 8 pixels and fashion_mnist has 28"
    ):
        planned(tmp_path, store, name, dataset="fashion_mnist")
    with pytest.raises(UserError, match=r"100 classes|10 classes"):
        planned(tmp_path, store, name, dataset="cifar100")
    for message, rest, name_of_teacher in (
        ("has no stage 0123456789abcdef", "labels: soft", "0123456789abcdef"),
        (r"did you mean 'resnet50'", "labels: soft", "timm:resnet5o"),
        (
            r"resnet50\.a1_in1k have 1,000 classes .* digits has 10",
            "labels: soft",
            "timm:resnet50.a1_in1k",
        ),
        ("it does nothing", "labels: 'true'", name),
        ("is missing: labels, target and cap need a teacher", "labels: hard", "null"),
        ("set both a target and teacher.candidates > 1", "target: 1.0", name),
        ("set both a target and teacher.candidates > 1", "candidates: 4", name),
        ("is below the target 2", "target: 2.0, candidates: 4, cap: 1.0", name),
        ("give the id of a stage, or timm:NAME", "labels: soft", "some/final.pt"),
    ):
        with pytest.raises(UserError, match=message):
            planned(tmp_path, store, name_of_teacher, rest)


@pytest.mark.slow
def test_targets_of_each_size_come_from_a_table(stages, tmp_path):
    store = tmp_path / "store"
    Named(stages, store)
    teacher = stages.toy()
    stages.train(teacher)
    table = tmp_path / "targets.csv"
    table.write_text("width,target\n0.5,0.7\n1,1.25\n")
    path = tmp_path / "grid.yaml"
    path.write_text(
        "defaults: [{override /dataset: digits}, {override /recipe: quick}]\n"
        "dataset: {validation_size: 100}\n"
        f"model: {{depth: 8}}\nteacher: {{name: {stage_id(teacher)}, candidates: 2}}\n"
    )

    def stages_of(*words):
        launch = config.load([f"grid={path}", f"store={store}", *words], trains=True)
        return make_plan(launch.grid).stages

    words = ("axes.width=[0.5,1]", f"teacher.target_table={table}")
    made = stages_of(*words)
    assert {s.model.width: s.teacher.target for s in made.values()} == {0.5: 0.7, 1.0: 1.25}
    table.rename(tmp_path / "moved.csv")
    with pytest.raises(UserError, match="there is no table"):
        stages_of(*words)
    # by the number, not by the table's name
    assert stages_of(words[0], f"teacher.target_table={tmp_path}/moved.csv").keys() == made.keys()
    zipped = ["zip=[{width: [0.5, 1], teacher.target: [0.7, 1.25]}]"]
    assert stages_of(*zipped).keys() == made.keys()
    for text, wrong in (
        ("width,target\n0.5,0.7\n", r"lacks .*width 1\.0"),
        ("width,target\n0.5,0.7\n1,1\n1,2\n", "has several targets"),
        ("width,target\n0.5,0.7\n1,-1\n", "is not a loss of 0 or more"),
        ("width,target\n0.5,0.7\n1,much\n", "'much', which is not a loss"),
    ):
        table.write_text(text)
        with pytest.raises(UserError, match=wrong):
            stages_of(*words)
    with pytest.raises(UserError, match=r"set teacher\.target=null"):
        stages_of(*words, "teacher.target=1.0")


def test_a_damaged_teacher_is_the_user_s_to_mend_and_its_folder_may_have_any_name(
    stages, tmp_path, capsys
):
    Named(stages, tmp_path / "store")
    teacher = stages.toy()
    stages.train(teacher)
    device = torch.device("cpu")
    elsewhere = shutil.copytree(stages.folder(teacher), tmp_path / "my teacher")
    copy = elsewhere / "checkpoint" / "final.pt"
    same = load_teacher(str(copy), tmp_path, teacher.dataset, device)
    original = load_teacher(stage_id(teacher), tmp_path / "store", teacher.dataset, device)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(same.logits(images), original.logits(images))
    copy.write_bytes(copy.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"final\.pt is damaged.*name another teacher") as caught:
        load_teacher(str(copy), tmp_path, teacher.dataset, device)
    assert failure.classify(caught.value) == "config"


@pytest.mark.slow
def test_the_command_writes_what_rows_and_grids_then_take(stages, tmp_path, capsys):
    store = tmp_path / "store"
    Named(stages, store)
    teacher = stages.toy({"augment.policy": "none", "recipe.epochs": 6})
    stages.train(teacher)
    path = tmp_path / "asked.yaml"
    path.write_text(
        "defaults: [{override /dataset: digits}, {override /recipe: quick}]\n"
        "dataset: {validation_size: 100}\n"
        "model: {depth: 8}\naxes: {magnitude: [none, 0.2, 1.0]}\n"
    )
    made = tmp_path / "calibrated.yaml"
    words = [f"grid={path}", f"store={store}", f"teacher={stage_id(teacher)}", "images=60"]
    difficulty.main([*words, f"out={tmp_path}", f"calibrated={made}"])
    assert "affinity" in capsys.readouterr().out
    assert (tmp_path / "heatmap.png").stat().st_size > 1000
    lines = (tmp_path / "ops.csv").read_text().splitlines()
    assert len(lines) == 1 + 13 * 11
    assert {"affinity", "loss_half", "spread_half"} < set(lines[0].split(","))
    record = store / "sweeps" / "asked" / "difficulty.json"
    written = json.loads(record.read_text())
    assert (written["images"], written["draws"], written["dataset"]) == (60, 1, "digits")
    assert re.fullmatch("[0-9a-f]{16}", written["split_hash"])
    rows = {row["magnitude"]: row for row in rows_of_grid([f"grid={path}", f"store={store}"])}
    losses = [rows[m]["difficulty"] for m in ("none", 0.2, 1.0)]
    assert losses == sorted(losses)
    assert losses[2] > losses[0] + 0.1
    assert not any(row["calibrated"] for row in rows.values())
    policy = f"augment.policy='{made}(n=2)'"
    again = rows_of_grid([f"grid={path}", f"store={store}", policy])
    assert all(row["calibrated"] for row in again)
    assert {row["difficulty"] for row in again} == {losses[0], None}  # only `none` was measured
    # it speaks of no other data set, and of no images that a teacher chose among
    other = rows_of_grid([f"grid={path}", f"store={store}", "dataset.name=fashion_mnist"])
    assert {row["difficulty"] for row in other} == {None}
    chosen = [f"teacher.name='{stage_id(teacher)}'", "teacher.cap=9", "recipe.label_smoothing=0"]
    assert {r["difficulty"] for r in rows_of_grid([*words[:2], *chosen])} == {None}
    soft = [chosen[0], "teacher.labels=soft"]
    assert [r["difficulty"] for r in rows_of_grid([*words[:2], *soft])] == losses
    whole = record.read_text()
    for broken in (whole[:-30], '{"policies": []}', "[]", '{"policies": {"none": {}}}'):
        record.write_text(broken)
        assert "difficulty" not in rows_of_grid(words[:2])[0]
        assert "run harness.difficulty again" in capsys.readouterr().err
    record.write_text(whole)
    both = "axes={dataset.name: [digits, fashion_mnist]}"
    difficulty.main([*words, both, "where=dataset.name == 'digits'"])
    for wrong, message in (
        ([*words, "where=magnitude == 7"], "holds for none of the"),
        (words[:2], "teacher is missing: add teacher="),
        ([*words[:3], "images=1"], "images=1 is out of range: 2 to"),
        ([*words, "draws=0"], "draws=0 is out of range: 1 to"),
        ([*words, f"out={path}"], "cannot write .*asked.yaml"),
        ([*words, f"calibrated={path}/x.yaml"], "cannot write .*asked.yaml"),
        (
            [*words[:2], "policy=augmix", "calibrated=x.yaml", "teacher=0123456789abcdef"],
            "no stage",
        ),
        ([*words, "policy=autoaugment_cifar10", "calibrated=x.yaml"], "made of chains"),
        ([*words, f"calibrated={tmp_path}/x.txt"], "a space is a YAML file"),
        ([*words, "policy=none"], "there is no op whose difficulty"),
        ([*words, "policy=randaug(n=2, m=0.1)"], "already has a magnitude"),
        ([*words, "policy=randog"], "did you mean 'randaug'"),
        (
            [words[0], *words[1:], "axes={dataset.name: [digits, fashion_mnist]}"],
            r"several data sets .*where=\"dataset\.name == 'digits'",
        ),
    ):
        with pytest.raises(UserError, match=message):
            difficulty.main(wrong)
