"""Plug-ins: a file outside the package adds a method, a form of surplus or a model family."""

import json
import os
import re
import subprocess
import sys

import pytest

from harness import config
from harness.commands import launch
from harness.compress.methods import METHODS
from harness.compress.surplus import FORMS
from harness.errors import UserError, command
from harness.paths import ROOT
from harness.plugins import PLUGINS, Registry, load_plugins
from harness.store.store import Store
from harness.sweep.plan import make_plan

GRID = """# Trials of a method, a form and a family that only plug-ins have.
defaults:
  - override /dataset: digits
  - override /model: cifar_resnet
  - override /recipe: quick
dataset: {train_size: 256, validation_size: 128, test_size: 128}
model: {depth: 8, width: 0.25}
recipe: {epochs: 2, batch_size: 32}
run: {engine: ddp}
also:
  - set: {compress.method: stripes, compress.pruning: one_shot, sparsity: 0.5}
    axes: {compress.options.offset: [0, 1]}
  - set: {surplus: helper}
    axes: {surplus.options.side: [2]}
  - set: {model.family: one_conv, model.depth: null, surplus: fuse}
    axes: {width: [0.25, 0.5]}
"""
METHOD = '''
"""Remove weights by their position alone: stripes of four, from `offset` on."""
import torch

from harness.compress import Method, register_method
from harness.fields import Frozen


class StripesOptions(Frozen):
    offset: int


class Stripes(Method):
    name = "stripes"
    options_model = StripesOptions

    def misfits(self, trial, levels):
        return ["compress.sparsity: stripes needs 0.5" for level in levels if level != 0.5]

    def suited(self, model, names, resolution):
        return [name for name in names if name != "conv1.weight"]

    def compress(self, model, request):
        masks = {}
        for name in request.names:
            shape = model.get_parameter(name).shape
            position = torch.arange(shape.numel()).reshape(shape) + request.options.offset
            masks[name] = position % 4 < 2
        return masks


register_method(Stripes())
'''
FAMILY = """
from torch import nn

from harness.models import Family, register_family, scale_channels


def build(depth, width, num_classes, in_channels):
    outputs = scale_channels(8, width)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(in_channels, outputs, 3, padding=1, bias=False))
    model.add_module("norm", nn.BatchNorm2d(outputs))
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("fc", nn.Linear(outputs, num_classes))
    return model


register_family(Family("one_conv", build, classifier="fc", first_conv="conv", conv_norm_pairs=True))
"""
_, FORM = re.findall(r"```python\n(.*?)```", (ROOT / "docs/compress.md").read_text(), re.DOTALL)
"""The example of the page: a linear helper."""


@pytest.mark.slow
def test_a_trial_of_each_kind_trains_in_a_worker_process(add_plugin, tmp_path):
    import torch

    from harness.train import checkpoint

    (tmp_path / "grid.yaml").write_text(GRID)
    files = {"stripes.py": METHOD, "helper.py": FORM, "one_conv.py": FAMILY}
    for name, text in files.items():
        add_plugin(name, text)
    store = Store(tmp_path / "store")
    plan = make_plan(config.load([f"grid={tmp_path}/grid.yaml", f"store={store.root}"]).grid)
    environment = {**os.environ, PLUGINS: ":".join(files), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "harness.launch", "grid=grid.yaml", "store=store"]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, timeout=300)

    pruned = with_surplus = of_plugin_family = 0
    for name, stage in plan.stages.items():
        folder = store.folder(name)
        result = store.result(name)
        assert result["status"] == "done"
        (entry,) = json.loads((folder / "provenance.json").read_text())["records"]
        assert [plugin["file"] for plugin in entry["plugins"]] == list(files)
        if stage.prune is not None:
            pruned += 1
            assert result["sparsity"] == 0.5
            assert result["unpruned"] == ["conv1.weight", "fc.weight"]
            weights = checkpoint.read_final(folder, name)["model"]
            kept = weights["blocks.0.conv1.weight"].flatten() != 0
            position = torch.arange(len(kept)) + stage.prune.options.offset
            assert torch.equal(kept, position % 4 < 2)
        if stage.model.family == "one_conv":
            of_plugin_family += 1
            channels = round(8 * stage.model.width)
            expected = 3 * 9 * channels + 2 * channels + 10 * channels + 10
            assert result["counts"]["params_total"] == expected < result["params_training"]
        elif stage.surplus is not None:
            with_surplus += 1
            parameters, macs = 3 * 2 * 2 * 10 + 10, 3 * 2 * 2 * 10
            counts = result["counts"]
            assert result["params_training"] == counts["params_total"] + parameters
            assert result["train_macs"] == 3 * 16 * 32 * (counts["macs_dense"] + macs)
    assert (pruned, with_surplus, of_plugin_family, len(plan.stages)) == (2, 1, 2, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compress.method=stripe", r"compress.method: there is no method 'stripe' \(did you mean"),
        ("compress.method=stripes", r"compress.options.offset: is missing"),
        ("compress.method=stripes compress.options.ofset=1", r"ofset: no such key .*'offset'"),
        ("compress.method=stripes compress.options.offset=a", r"offset: .*integer, not 'a'"),
        ("compress.method=stripes compress.options.offset=1 compress.pruning=one_shot "
         "compress.sparsity=0.6", r"compress.sparsity: stripes needs 0\.5"),
        ("compress.options.share=0.5", r"magnitude has no options: set compress.options=null"),
        ("compress.options.share=[1]", r"options.share: must be a number, a text, true or false"),
        ("surplus.form=helpers", r"there is no form of surplus 'helpers' \(did you mean"),
        ("surplus.form=helper", "surplus.form: helper surrounds a dense model"),
        ("surplus.form=slice surplus.options.x=1", "surplus.options: slice has no options"),
    ],
)  # fmt: skip
def test_a_grid_that_misuses_a_plugin_is_refused_in_a_sentence(add_plugin, words, message, capsys):
    add_plugin("stripes.py", METHOD)
    add_plugin("helper.py", FORM)
    fixed = ["grid=pruning_schedules", "axes.magnitude=[0.4]", "axes.schedule=[constant]"]
    with pytest.raises(SystemExit) as exit:
        command(lambda _: launch.main([*fixed, "dry_run=true", *words.split(" ")]))
    assert exit.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_family_that_computes_its_weights_is_refused_before_it_is_pruned(add_plugin, tmp_path):
    computed = FAMILY.replace("nn.Conv2d(", "StdConv2d(", 1).replace(
        "from torch", "from timm.layers import StdConv2d\nfrom torch", 1
    )
    add_plugin("computed.py", computed)
    grid = tmp_path / "mine.yaml"
    grid.write_text(GRID.partition("also:")[0] + "axes: {sparsity: [0.5]}\n")
    words = [f"grid={grid}", f"store={tmp_path / 'store'}", "model.family=one_conv"]
    for more in ([], ["dry_run=true"]):
        with pytest.raises(UserError, match=r"compress\.sparsity: .* conv\.weight, as they are"):
            launch.main([*words, "model.depth=null", *more])


def test_the_id_of_a_stage_depends_on_the_options_of_its_method(add_plugin):
    """A stage of a method without options has no such key, so its id stays the same."""
    add_plugin("stripes.py", METHOD)

    def stages(*words):
        fixed = ["grid=pruning_schedules", "axes.magnitude=[0.4]", "axes.schedule=[constant]"]
        fixed += ["axes.seed=[0]", "compress.pruning=one_shot", "compress.sparsity=0.5"]
        return make_plan(config.load([*fixed, *words]).grid).stages

    plain = stages()
    assert all("options" not in stage.model_dump_json() for stage in plain.values())
    ids = [*plain]
    for offset in (0, 1):
        made = stages("compress.method=stripes", f"compress.options.offset={offset}")
        dense, pruned = made
        assert dense == ids[0]
        assert made[pruned].model_dump(mode="json")["prune"]["options"] == {"offset": offset}
        ids.append(pruned)
    assert len(set(ids)) == 4


def test_files_are_imported_once_before_a_name_is_looked_up(add_plugin, tmp_path, monkeypatch):
    add_plugin("stripes.py", METHOD)
    add_plugin("helper.py", FORM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLUGINS, f"stripes.py:{tmp_path / 'helper.py'}:stripes.py")
    assert "stripes" in METHODS.names()
    assert FORMS.get("helper").name == "helper"  # a second import would register it again
    one, two = load_plugins()
    assert (one.path, two.path) == (tmp_path / "stripes.py", tmp_path / "helper.py")
    assert one.sha256 != two.sha256


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "gone.py",
            None,
            r"gone.py cannot be read \(No such file or directory\); correct the path",
        ),
        ("text.txt", "x", r"text.txt is not a Python file"),
        ("caf\udce9.py", "x = 1", r"has a name that is not UTF-8; rename the file"),
        ("bad.py", "x = 1\ny = x +\n", r"bad.py failed at line 2 \(SyntaxError: invalid syntax"),
        ("raises.py", "\n\n1 / 0", r"raises.py failed at line 3 \(ZeroDivisionError: division by"),
        ("lacks.py", "import nosuchmodule", r"lacks.py failed at line 1 \(ModuleNotFoundError"),
        ("taken.py", METHOD.replace('"stripes"', '"random"'), r"line 32 \(there is a method 'rand"),
    ],
)
def test_the_error_for_a_file_that_cannot_be_imported_has_the_reason(
    add_plugin, name, text, message
):
    path = add_plugin(name, text)
    with pytest.raises(UserError, match=message) as caught:
        METHODS.names()
    assert str(caught.value).startswith(f"{PLUGINS}: {path} ")
    assert not any(module.startswith(f"harness_plugin_{name[:-3]}_") for module in sys.modules)


def test_the_error_for_an_unknown_name_has_the_nearest_one():
    registry = Registry("thing")
    registry.register("one", 1)
    with pytest.raises(UserError, match=r"no thing 'on' \(did you mean 'one'\?\)"):
        registry.get("on")
    with pytest.raises(UserError, match=rf"no thing 'xyz' \(valid: one\); .* in {PLUGINS}"):
        registry.get("xyz")


def test_slurm_jobs_get_copies_of_the_files(add_plugin, tmp_path):
    from harness.cluster.launch_folder import take_plugins
    from harness.cluster.submission import Submission
    from harness.cluster_schema import ClusterConfig
    from harness.run_schema import RunConfig

    (tmp_path / "other").mkdir()
    original = add_plugin("stripes.py", METHOD)
    add_plugin("other/stripes.py", FORM)
    copies = take_plugins(tmp_path / "launch")
    original.write_text("an edit after the jobs were queued")
    assert [path.read_text() for path in copies] == [METHOD, FORM]
    assert [path.name for path in copies] == ["stripes.py", "stripes.py"]
    submission = Submission(
        store=tmp_path, sweep="sweep", run=RunConfig(), cluster=ClusterConfig(name="c"),
        stages={}, parts=[], plugins=copies,
    )  # fmt: skip
    submission.write(tmp_path / "submission.json")
    assert Submission.read(tmp_path / "submission.json").plugins == copies
