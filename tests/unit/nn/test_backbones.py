"""Backbones: two steps and a reload, input sizes, stems, attention, pretrained files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from mien.core.artifacts.run import Run
from mien.core.config.train import TrainConfig
from mien.core.config.train_groups import ALIASES
from mien.core.errors import ArtifactError, InputError, UsageError
from mien.nn.inference import settings_of
from mien.nn.models.network import make_network, parameter_count
from mien.nn.models.pretrained import load_pretrained
from mien.nn.training.objective import TrainingObjective
from mien.nn.training.optimizers import make_optimizer

PRIOR = torch.full((7,), 1 / 7)


def settings(name, **changes):
    return TrainConfig(backbone=name, **changes)


def make(name, crop_size=48, **changes):
    return make_network(settings(name, **changes), crop_size=crop_size, color="rgb")


def two_steps_and_a_reload(chosen, size, tmp_path):
    torch.manual_seed(0)
    network = make_network(chosen, crop_size=size, color="rgb")
    objective = TrainingObjective(network, chosen, PRIOR).train()
    optimizer = make_optimizer(objective, TrainConfig(lr=1e-3))
    x, y = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8), torch.eye(7)[:4]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    for _ in range(2):
        optimizer.zero_grad()
        objective(x, y, 0.1, None)[0].backward()
        assert all(p.grad is not None for p in objective.parameters())
        optimizer.step()
    assert any(not torch.equal(before[k], v) for k, v in network.state_dict().items())
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    other = make_network(chosen, crop_size=size, color="rgb")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in network.state_dict().items())
    with torch.inference_mode():
        assert torch.allclose(network.eval()(x), other.eval()(x), rtol=1e-4, atol=1e-4)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ALIASES)
def test_every_backbone_takes_two_steps_and_reloads(backbone, tmp_path):
    network = two_steps_and_a_reload(settings(backbone), 48, tmp_path)
    assert parameter_count(network) > 50_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["resnet18", "efficientnet_b0", "convnext_atto", "mobilenetv3_small", "regnetx_002", "cnn", "hybrid"]
)
def test_attention_on_any_cnn_starts_as_the_identity_and_learns(backbone, tmp_path):
    chosen = settings(backbone, attention="cbam", head="linear")
    torch.manual_seed(0)
    with_it = make_network(chosen, crop_size=48, color="rgb").eval()
    plain = make(backbone, head="linear").eval()
    weights = with_it.state_dict()
    added = [key for key in weights if ".cbam." in key]
    assert added
    plain.load_state_dict({key.replace(".stage.", "."): value for key, value in weights.items() if key not in added})
    x = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.allclose(with_it(x), plain(x), rtol=1e-4, atol=1e-4)  # another layout may take other kernels
    two_steps_and_a_reload(chosen, 48, tmp_path)


def test_attention_needs_a_cnn():
    with pytest.raises(UsageError, match="feature maps"):
        make("vit_tiny", attention="cbam")


@pytest.mark.parametrize("head", ["linear", "arcface", "cosface", "subcenter", "joint"])
def test_every_head_takes_two_steps_and_reloads(head, tmp_path):
    two_steps_and_a_reload(settings("cnn", head=head), 32, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [40, 48, 64, 112, 224, 384])
@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenetv3_small", "convnext_atto", "vit_tiny", "hybrid", "efficientnet_b0"]
)
def test_input_sizes_leave_something_to_pool(backbone, size):
    network = make(backbone, img_size=size).eval()
    shapes = []
    if hasattr(network.backbone, "forward_features"):
        forward = network.backbone.forward_features
        network.backbone.forward_features = lambda x, **rest: (
            shapes.append(forward(x, **rest).shape) or forward(x, **rest)
        )
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 48, 48, dtype=torch.uint8)).shape == (1, 7)
    last = shapes[0]
    assert min(last[2:]) >= 2 if len(last) == 4 else last[1] >= 4


@pytest.mark.slow
def test_the_automatic_stem_is_small_only_where_it_must_be():
    assert isinstance(make("convnext_atto", img_size=48).backbone.stem[0], torch.nn.Conv2d)
    assert make("convnext_atto", img_size=48).backbone.stem[0].stride == (2, 2)
    assert make("convnext_atto", img_size=64).backbone.stem[0].stride == (4, 4)
    assert make("resnet18", img_size=48).backbone.conv1.kernel_size == (7, 7)
    assert make("resnet18", img_size=48, stem="small").backbone.conv1.kernel_size == (3, 3)


def test_a_smaller_kernel_answers_a_plain_surface_alike():
    torch.manual_seed(0)
    native, small = (make("resnet18", img_size=64, stem=stem) for stem in ("native", "small"))
    torch.manual_seed(0)
    native = make("resnet18", img_size=64, stem="native")
    torch.manual_seed(0)
    small = make("resnet18", img_size=64, stem="small")
    x = torch.ones(1, 3, 32, 32)
    with torch.inference_mode():
        a, b = native.backbone.conv1(x)[0, :, 8, 8], small.backbone.conv1(x)[0, :, 8, 8]
    assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("resnet_18", {}, "Did you mean 'resnet18"),
        ("vit_tiny", {"stem": "small"}, "No small stem"),
        ("vit_tiny", {"img_size": 50}, "--img-size 48"),
        ("resnet18", {"stem": "native", "img_size": 32}, "--img-size 40 or --stem small"),
        ("convnext_tiny", {"stem": "native", "img_size": 48}, "would see 1x1"),
        ("resnet18", {"patch_size": 8}, "ViTs alone"),
        ("cnn", {"pretrained": "timm"}, "no weights of it"),
    ],
)
def test_what_a_backbone_cannot_take(name, changes, expected):
    def ask():
        load_pretrained(settings(name, **changes))
        make(name, **changes)

    with pytest.raises(UsageError, match=expected):
        ask()


def saved(tmp_path, network, prefix=""):
    path = tmp_path / "weights.safetensors"
    save_file({prefix + key: value for key, value in network.state_dict().items()}, path)
    return path


def started(name, path, size=48, **changes):
    chosen = settings(name, pretrained=str(path), **changes)
    start = load_pretrained(chosen)
    return make_network(chosen, crop_size=size, color="rgb", start=start), start.origin


@pytest.mark.slow
def test_pretrained_files_are_loaded_with_their_terms(tmp_path):
    source = make("resnet18").backbone
    network, origin = started("resnet18", saved(tmp_path, source), pretrained_license="apache-2.0")
    assert torch.equal(network.backbone.layer3[0].conv1.weight, source.layer3[0].conv1.weight)
    assert origin["license"] == "apache-2.0"
    assert len(origin["sha256"]) == 64
    assert "unknown" in started("resnet18", saved(tmp_path, source))[1]["license"]


@pytest.mark.parametrize(
    ("name", "changes"), [("resnet18", {"stem": "small"}), ("convnext_atto", {}), ("cnn", {"attention": "cbam"})]
)
def test_weights_of_ours_come_with_stem_and_attention(tmp_path, name, changes):
    source = make(name, **changes)
    network, _ = started(name, saved(tmp_path, source), **changes)
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.backbone.state_dict().values(), source.backbone.state_dict().values(), strict=True)
    )
    if changes:
        with pytest.raises(InputError, match="--stem, --attention"):
            started(
                name,
                saved(tmp_path, source),
                **({"stem": "native"} if "stem" in changes else {"attention": "none"}),
                size=64,
            )


@pytest.mark.slow
def test_pretrained_weights_bring_their_normalisation(tmp_path):
    import timm

    source = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=48, patch_size=8)
    network, _ = started("vit_tiny", saved(tmp_path, source))
    assert network.preprocess.mean.flatten().tolist() == pytest.approx([127.5] * 3)
    other = make("vit_tiny")
    assert other.preprocess.mean.flatten().tolist() == pytest.approx([255 * v for v in (0.485, 0.456, 0.406)])
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.preprocess.mean, network.preprocess.mean)


@pytest.mark.slow
def test_pretrained_positions_and_patches_are_resampled(tmp_path):
    import timm

    source = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, patch_size=16)
    network, _ = started("vit_tiny", saved(tmp_path, source))
    assert network.backbone.patch_embed.proj.weight.shape[-1] == 8
    assert torch.equal(network.backbone.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)


def test_pretrained_stems_are_resampled(tmp_path):
    source = make("convnext_atto", img_size=64).backbone
    network, _ = started("convnext_atto", saved(tmp_path, source))
    assert network.backbone.stem[0].kernel_size == (2, 2)
    assert torch.equal(network.backbone.stages[1].blocks[0].mlp.fc1.weight, source.stages[1].blocks[0].mlp.fc1.weight)


def test_wrong_pretrained_files_are_refused(tmp_path):
    wrong = saved(tmp_path, make("resnet18").backbone)
    with pytest.raises(InputError, match=r"lacks .* tensors of resnet50"):
        started("resnet50", wrong)
    wide = make("cnn").backbone.state_dict()
    wide["stages.0.0.weight"] = torch.zeros(64, 3, 3, 3)
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"has size \(64, 3, 3, 3\), cnn needs \(32, 3, 3, 3\)"):
        started("cnn", tmp_path / "wide.safetensors")
    bad = make("cnn").backbone.state_dict()
    bad["stages.0.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(bad, tmp_path / "nan.safetensors")
    with pytest.raises(ArtifactError, match="NaN or Inf"):
        started("cnn", tmp_path / "nan.safetensors")
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(UsageError, match="pickled weights"):
        started("cnn", tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="no such file"):
        started("cnn", tmp_path / "none.safetensors")


def test_predictions_assume_the_prior_that_was_asked_for():
    network = make("cnn", head="linear").eval()
    x = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.inference_mode():
        before = network(x)
        network.prior_shift.copy_(torch.arange(7.0))
        assert torch.allclose(network(x), before + torch.arange(7.0), atol=1e-5)


def test_a_run_opens_with_the_settings_that_it_was_made_with(tmp_path):
    kept = {"backbone": "cnn", "head": "linear", "crop_min": 0.05, "mixup": 0.1, "kd_loss": "kl"}  # of older versions
    run = Run(tmp_path, {}, {"settings": {key: {"value": value, "from": "flag"} for key, value in kept.items()}})
    found = settings_of(run)
    assert (found.backbone, found.head, found.crop_min, found.hard_share) == ("cnn", "linear", 0.05, 1.0)
