"""Paper C's network: counts, shapes, any subset of tasks, the patch head's middle."""

import pytest
import torch

from wsi_ml.errors import BadRequestError
from wsi_ml.models import build, parameter_count, weightless
from wsi_ml.models.cerberus import Cerberus, CerberusConfig

SIX = {"gland": 3, "lumen": 3, "nuclei": 3, "nuclei_type": 7, "gland_type": 3}


def test_the_network_has_the_published_parts():
    with weightless():
        model = build("cerberus")
    gland = model.decoders["gland"]
    parts = [model.encoder, model.conv_map, gland.steps, gland.head, model.patch]
    assert [parameter_count(part) for part in parts] == [21_284_672, 131_072, 1_255_872, 6_723, 135_177]
    assert parameter_count(model) == 25_338_706


@pytest.mark.parametrize(("tasks", "count"), [(dict.fromkeys(("a", "b", "c"), 2), 25_338_415), (SIX, 27_864_284)])
def test_counts_of_the_other_published_forms(tasks, count):
    with weightless():
        assert parameter_count(build("cerberus", tasks=tasks)) == count


def test_levels_of_features_and_outputs():
    torch.manual_seed(0)
    model = build("cerberus", tasks={"nuclei": 3, "nuclei_type": 7}).eval()
    rgb = torch.rand(1, 3, 32, 48)
    with torch.inference_mode():
        levels, told = model.encoder(rgb), model(rgb)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)
    ]  # fmt: skip
    assert {name: tuple(logits.shape) for name, logits in told.items()} == {
        "nuclei": (1, 3, 32, 48), "nuclei_type": (1, 7, 32, 48), "patch": (1, 9)
    }  # fmt: skip


def test_a_task_asked_for_alone_is_the_same_and_the_others_are_not_computed():
    torch.manual_seed(0)
    model = build("cerberus", tasks={"gland": 3, "nuclei": 3}).eval()
    rgb = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        whole, alone = model(rgb), model(rgb, ["nuclei"])
    assert list(alone) == ["nuclei"] and torch.equal(alone["nuclei"], whole["nuclei"])
    with pytest.raises(BadRequestError, match="no task 'lumen'"):
        model(rgb, ["lumen"])


def test_only_decoders_of_tasks_in_the_batch_get_gradients():
    model = build("cerberus", tasks={"gland": 2, "nuclei": 2})
    model(torch.rand(2, 3, 32, 32), ["gland"])["gland"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.decoders["gland"].parameters())
    assert all(parameter.grad is None for parameter in model.decoders["nuclei"].parameters())
    assert all(parameter.grad is None for parameter in model.patch.parameters())
    assert model.encoder.conv1.weight.grad.abs().sum() > 0


def test_the_patch_head_reads_the_middle_nine_cells():
    torch.manual_seed(0)
    model = build("cerberus", tasks={}).eval()
    deepest = torch.rand(1, 512, 28, 28)
    changed = deepest.clone()
    changed[:, :, :9] = 0
    changed[:, :, :, 18:] = 0  # rows and columns 9…17 stay
    with torch.inference_mode():
        assert torch.equal(model.classify(deepest), model.classify(changed))
        middle = deepest[:, :, 9:18, 9:18]
        assert torch.allclose(model.classify(deepest), model.classify(middle), atol=1e-6)


@pytest.mark.parametrize("size", [(40, 32), (8, 16)])
def test_other_sizes_are_refused(size):
    with weightless():
        model = build("cerberus", tasks={"nuclei": 2}, patch_classes=0)
    with pytest.raises(BadRequestError, match="multiples of 16"):
        model(torch.rand(1, 3, *size))


@pytest.mark.parametrize(
    "config", [{"tasks": {"patch": 3}}, {"tasks": {"gland": 1}}, {"tasks": {}, "patch_classes": 0}]
)
def test_shapes_without_sense_are_refused(config):
    with pytest.raises(BadRequestError, match="cerberus"):
        CerberusConfig(**config)


@torch.inference_mode()
def test_what_is_told_without_a_halo_is_what_the_whole_has_there():
    torch.manual_seed(4)
    model = Cerberus(CerberusConfig({"nuclei": 3}, 0, 4, (1, 1, 1, 1)))
    rgb = torch.rand(2, 3, 160, 176)
    with torch.no_grad():
        model.train()(rgb)
    whole = model.eval()(rgb)["nuclei"]
    for halo in (1, 16, 45, 64):
        assert torch.allclose(model(rgb, None, halo)["nuclei"], whole[:, :, halo:-halo, halo:-halo], atol=1e-5)
