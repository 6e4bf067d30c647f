"""DiffKD: the schedule's numbers, an oracle that denoises exactly, and who learns from which loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gddctl.core.config.methods import DiffKd
from gddctl.distill.diffusion import STRIDE, TIMESTEPS, Schedule
from gddctl.distill.losses import mean_squared_error, pixel_kl
from gddctl.distill.methods.build import build_distiller
from gddctl.distill.methods.diffkd import Denoised, DenoisedPair, DiffKdDistiller, NoiseAdapter, NoisePredictor
from gddctl.models.protocol import Outputs

Layer = tuple[int, int, int] | str
ORACLE = 1e-5  # five float32 steps on values of unit scale


def loop_alpha_bar() -> list[float]:
    """Products of 1 - beta, beta linear from 1e-4 to 0.02 in 1000 steps."""
    found, product = [], 1.0
    for step in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
        found.append(product)
    return found


def pair(kernel: int = 3, latent: int | None = None, seed: int = 0, adapter: bool = True, diffusion: bool = True) -> DenoisedPair:
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    return DenoisedPair(5, 6, 3 if kernel == 3 else 1, latent=latent, adapter=adapter, diffusion=diffusion, generator=random)


def predictor_size(method: DenoisedPair) -> int:
    return sum(parameter.numel() for parameter in method.predictor.parameters())


def maps(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, 4, 6, generator=generator), torch.randn(3, 6, 4, 6, generator=generator)


def slow_layers(x: Tensor, module: nn.Module, said: list[Layer]) -> Tensor:
    """``x`` through the module's weights in their order, by the layers that the method is said to have: convolutions (in, out, kernel),
    ``"bn"``, ``"relu"``. In float64, batch norm by its running statistics, sums over taps instead of a convolution.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))]
    for step in said:
        if step == "relu":
            x = x.clamp(min=0)
            continue
        layer = layers.pop(0)
        if isinstance(step, str):
            assert isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None
            mean, var, weight, bias = (v.double()[:, None, None] for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
            x = (x - mean) / (var + layer.eps).sqrt() * weight + bias
            continue
        assert isinstance(layer, nn.Conv2d)
        inputs, outputs, kernel = step
        assert (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride) == (inputs, outputs, (kernel, kernel), (1, 1))
        padded, found = F.pad(x, (kernel // 2,) * 4), x.new_zeros(x.shape[0], outputs, *x.shape[-2:])
        for dy in range(kernel):
            for dx in range(kernel):
                window = padded[:, :, dy : dy + x.shape[-2], dx : dx + x.shape[-1]]
                found += torch.einsum("bihw,oi->bohw", window, layer.weight[:, :, dy, dx].double())
        x = found if layer.bias is None else found + layer.bias.double()[:, None, None]
    assert not layers
    return x


def bottleneck(channels: int, inner: int) -> list[Layer]:
    return [(channels, inner, 1), "bn", "relu", (inner, inner, 3), "bn", "relu", (inner, channels, 1), "bn"]


def unsettled(module: nn.Module) -> nn.Module:
    """In eval mode, with statistics and affine parameters that are nobody's defaults: a missing batch norm would show."""
    generator = torch.Generator().manual_seed(11)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            for value in (layer.running_mean, layer.bias.data, layer.weight.data, layer.running_var):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return module.eval()


def learners(module: nn.Module) -> set[str]:
    """Parts of the module that a gradient reached."""
    return {name.split(".")[0] for name, parameter in module.named_parameters() if parameter.grad is not None}


def test_the_table_is_the_product_of_a_linear_schedule() -> None:
    table = Schedule().alpha_bar
    assert table.dtype == torch.float32 and table.tolist() == pytest.approx(loop_alpha_bar(), rel=1e-6)
    assert [round(table[t].item(), 5) for t in TIMESTEPS] == [0.19357, 0.39401, 0.65635, 0.89514, 0.99990]
    assert TIMESTEPS == (400, 300, 200, 100, 0)


def test_an_oracle_recovers_the_clean_tensor_from_timestep_400() -> None:
    schedule = Schedule()
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(2))
    asked: list[int] = []

    def oracle(x: Tensor, timesteps: Tensor) -> Tensor:
        asked.extend(set(timesteps.tolist()))
        here = loop_alpha_bar()[int(timesteps[0])]
        return (x - math.sqrt(here) * clean) / math.sqrt(1 - here)

    start = schedule.noised(clean, noise, torch.full((2,), 400))
    assert (start - clean).abs().mean() > 0.5
    for dtype in (None, torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            torch.testing.assert_close(schedule.denoise(start, oracle), clean, rtol=0, atol=1000 * ORACLE)
    # The last step divides the error of the oracle's own float32 by sqrt(1 - alpha_bar_0) = 0.01: told the noise, nothing is lost.
    torch.testing.assert_close(schedule.denoise(start, lambda x, t: noise), clean, rtol=0, atol=ORACLE)
    assert asked[:5] == list(TIMESTEPS)


def test_the_steps_are_the_equation() -> None:
    table = [*loop_alpha_bar()]
    x = expected = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for timestep in TIMESTEPS:
        noise = torch.sin(expected) + timestep / 1000
        here, after = table[timestep], table[timestep - STRIDE] if timestep else 1.0
        clean = (expected - math.sqrt(1 - here) * noise) / math.sqrt(here)
        expected = math.sqrt(after) * clean + math.sqrt(1 - after) * noise
    found = Schedule().denoise(x, lambda x, t: torch.sin(x) + t.view(-1, 1, 1, 1) / 1000)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_table_in_half_precision_would_not_do() -> None:
    # What the float32 table is for: near 1, bfloat16 has no number between 0.996 and 1, and the oracle above divides by zero.
    table = Schedule().alpha_bar
    assert (1 - table.bfloat16()[0]).item() == 0 < (1 - table[0]).item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_table_and_the_sums_stay_float32_under_autocast(dtype: torch.dtype) -> None:
    method = pair(latent=4)
    student, teacher = maps()
    with torch.autocast("cpu", dtype=dtype):
        found: Denoised = method(student.to(dtype), teacher.to(dtype))
        assert method.schedule is not None
        assert method.schedule.noised(teacher.to(dtype), teacher, torch.zeros(3, dtype=torch.int64)).dtype == torch.float32
    assert method.schedule.alpha_bar.dtype == torch.float32
    assert found.refined.dtype == found.target.dtype == found.gamma.dtype == torch.float32
    assert torch.isfinite(found.refined).all()
    assert found.diffusion is not None and torch.isfinite(found.diffusion)


@pytest.mark.parametrize("kernel", [1, 3])
def test_gamma_is_one_share_per_image(kernel: int) -> None:
    gamma = pair(kernel)(*maps()).gamma
    assert gamma.shape == (3,) and gamma.min() > 0 and gamma.max() < 1 and len(set(gamma.tolist())) == 3
    assert pair(kernel, adapter=False)(*maps()).gamma.tolist() == [1, 1, 1]


def test_the_whole_is_the_equation() -> None:
    method = pair()
    assert method.adapter is not None and method.schedule is not None
    method.eval()  # no running statistics move, so that its parts can be asked again
    student, teacher = maps()
    found = method(student, teacher)
    again = torch.Generator().manual_seed(0)
    with torch.no_grad():
        hidden = method.trans(student)
        gamma = method.adapter(hidden)[:, None, None, None]
        noisy = gamma * hidden + (1 - gamma) * torch.randn(hidden.shape, generator=again)
        torch.testing.assert_close(found.refined, method.proj(method.schedule.denoise(noisy, method.predictor)))
        noise = torch.randn(teacher.shape, generator=again)
        timesteps = torch.randint(0, 1000, (3,), generator=again)
        table = torch.tensor(loop_alpha_bar())[timesteps].view(-1, 1, 1, 1)
        predicted = method.predictor(table.sqrt() * teacher + (1 - table).sqrt() * noise, timesteps)
    torch.testing.assert_close(found.diffusion, (predicted - noise).square().mean())
    assert found.autoencoder is None and torch.equal(found.target, teacher)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_control_is_a_projector_of_the_same_size_run_once(kernel: int) -> None:
    control, whole = pair(kernel, diffusion=False).eval(), pair(kernel)
    student, teacher = maps()
    found: Denoised = control(student, teacher)
    with torch.no_grad():
        projected = control.predictor(control.trans(student), torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(found.refined, control.proj(projected))
    assert found.diffusion is None and found.gamma.tolist() == [1, 1, 1]
    assert predictor_size(control) == predictor_size(whole)
    again: Denoised = control(student, teacher)
    assert torch.equal(again.refined, found.refined)  # it draws nothing
    torch.autograd.backward(mean_squared_error(found.refined, found.target))
    assert learners(control) == {"trans", "predictor", "proj"}


def test_each_loss_teaches_its_own_part() -> None:
    student, teacher = maps()
    teacher.requires_grad_()
    expected = {
        "compared": {"trans", "predictor", "adapter", "proj"},
        "diffusion": {"predictor"},
        "autoencoder": {"autoencoder"},
    }
    for name, wanted in expected.items():
        method = pair(latent=4)
        found: Denoised = method(student, teacher)
        loss = mean_squared_error(found.refined, found.target) if name == "compared" else getattr(found, name)
        torch.autograd.backward(loss)
        assert learners(method) == wanted
    assert teacher.grad is None


def test_the_autoencoder_reconstructs_and_its_latent_is_the_target() -> None:
    method = pair(latent=4).eval()
    assert method.autoencoder is not None
    student, teacher = maps()
    found: Denoised = method(student, teacher)
    latent = method.autoencoder.encode(teacher)
    assert torch.equal(found.target, latent) and not found.target.requires_grad
    assert found.autoencoder is not None
    torch.testing.assert_close(found.autoencoder, (method.autoencoder.decode(latent) - teacher).square().mean())


WIDTH = 64  # 64 // 4 and 64 // 8 are no narrower than a bottleneck may be


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_predictor_is_what_it_is_said_to_be(kernel: int) -> None:
    torch.manual_seed(0)
    predictor = unsettled(NoisePredictor(WIDTH, 3 if kernel == 3 else 1))
    assert isinstance(predictor, NoisePredictor)
    x, timesteps = torch.randn(2, WIDTH, 4, 5), torch.tensor([3, 700])
    wanted = (x + predictor.time.weight[timesteps][:, :, None, None]).double()
    if kernel == 3:
        for block in (0, 1):
            wanted = wanted + slow_layers(wanted, predictor.layers[block], bottleneck(WIDTH, WIDTH // 4))  # no ReLU after the sum
        wanted = slow_layers(wanted, predictor.layers[2:], [(WIDTH, WIDTH, 1), "bn"])
    else:
        said: list[Layer] = [(WIDTH, 4 * WIDTH, 1), "bn", "relu", (4 * WIDTH, WIDTH, 1), "bn"]
        wanted = slow_layers(wanted, predictor.layers, [*said, (WIDTH, 4 * WIDTH, 1), "bn", "relu", (4 * WIDTH, WIDTH, 1)])
    with torch.no_grad():
        torch.testing.assert_close(predictor(x, timesteps).double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_adapter_is_what_it_is_said_to_be(kernel: int) -> None:
    torch.manual_seed(0)
    adapter = unsettled(NoiseAdapter(WIDTH, 3 if kernel == 3 else 1))
    assert isinstance(adapter, NoiseAdapter)
    x = torch.randn(2, WIDTH, 4, 5)
    if kernel == 3:
        decided = x.double() + slow_layers(x.double(), adapter.layers, bottleneck(WIDTH, WIDTH // 8))
    else:
        decided = slow_layers(x.double(), adapter.layers, [(WIDTH, 2 * WIDTH, 1), "bn", "relu", (2 * WIDTH, WIDTH, 1), "bn"])
    two = decided.mean((2, 3)) @ adapter.decide.weight.double().T + adapter.decide.bias.double()
    wanted = two.exp()[:, 0] / two.exp().sum(1)
    with torch.no_grad():
        torch.testing.assert_close(adapter(x).double(), wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - 0.5).abs().min() > 0.01  # the other of the two shares would differ


def test_the_ends_are_single_convolutions() -> None:
    method = pair(latent=4)
    assert isinstance(method.trans, nn.Conv2d) and method.trans.bias is not None and method.trans.kernel_size == (1, 1)
    assert method.autoencoder is not None and [type(layer) for layer in method.autoencoder.encode] == [nn.Conv2d, nn.BatchNorm2d]
    assert isinstance(method.autoencoder.decode, nn.Conv2d) and [type(layer) for layer in method.proj] == [nn.Conv2d, nn.BatchNorm2d]


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_predictor_hears_the_timestep(kernel: int) -> None:
    torch.manual_seed(0)
    predictor = NoisePredictor(6, 3 if kernel == 3 else 1).eval()
    x = maps()[1]
    early, late = (predictor(x, torch.full((3,), timestep)) for timestep in (0, 400))
    assert early.shape == x.shape and not torch.allclose(early, late)
    assert predictor.time.num_embeddings == 1280
    biased = [name for name, module in predictor.named_modules() if isinstance(module, nn.Conv2d) and module.bias is not None]
    assert biased == (["layers.8"] if kernel == 1 else [])  # only where no batch norm follows


@pytest.mark.parametrize("kernel", [1, 3])
def test_in_training_the_denoising_steps_cannot_hear_it(kernel: int) -> None:
    # A property of the published form: all images of a step share the timestep, and batch norm removes what all have in common.
    torch.manual_seed(0)
    predictor = NoisePredictor(6, 3 if kernel == 3 else 1).train()
    x = maps()[1]
    early, late, mixed = (predictor(x, torch.tensor(timesteps)) for timesteps in ([0, 0, 0], [400, 400, 400], [0, 400, 900]))
    torch.testing.assert_close(early, late, rtol=0, atol=1e-4)  # float32 batch norm
    assert (mixed - early).abs().max() > 0.1


# The distiller


def built(config: DiffKd, teacher_channels: int = 6) -> DiffKdDistiller:
    torch.manual_seed(0)
    method = build_distiller(config, {"head": 5, "logits": 3}, {"head": teacher_channels, "logits": 3})
    assert isinstance(method, DiffKdDistiller)
    return method


def outputs(channels: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    logits, head = (torch.randn(2, count, 4, 6, generator=generator) for count in (3, channels))
    return Outputs(logits=logits, features={"head": head})


def test_features_are_compared_by_squares_and_logits_by_divergence() -> None:
    method = built(DiffKd(feature_weight=2.0, logits_weight=3.0, diffusion_weight=0.5, autoencoder_weight=0.25, latent=4))
    method.eval()
    student, teacher, labels = outputs(5, 0), outputs(6, 1), torch.zeros(2, 8, 12, dtype=torch.int64)
    torch.manual_seed(7)
    terms = {name: term.item() for name, term in method(student, teacher, labels).items()}
    torch.manual_seed(7)
    feature: Denoised = method.pairs["head"](student.features["head"], teacher.features["head"])
    logits: Denoised = method.pairs["logits"](student.logits, teacher.logits)
    assert feature.autoencoder is not None and feature.diffusion is not None and logits.diffusion is not None
    assert terms == {
        "diffkd.feature": pytest.approx(2 * mean_squared_error(feature.refined, feature.target).item()),
        "diffkd.feature_noise": pytest.approx(0.5 * feature.diffusion.item()),
        "diffkd.feature_autoencoder": pytest.approx(0.25 * feature.autoencoder.item()),
        "diffkd.logits": pytest.approx(3 * pixel_kl(logits.refined, teacher.logits, 1.0).item()),
        "diffkd.logits_noise": pytest.approx(0.5 * logits.diffusion.item()),
    }
    assert method.diagnostics() == {
        "diffkd/head_gamma": pytest.approx(feature.gamma.mean().item()),
        "diffkd/head_std": pytest.approx(feature.target.std().item()),
        "diffkd/logits_gamma": pytest.approx(logits.gamma.mean().item()),
        "diffkd/logits_std": pytest.approx(logits.target.std().item()),
    }


def test_unlabelled_places_are_left_out_only_where_asked_for() -> None:
    labels = torch.zeros(2, 8, 12, dtype=torch.int64)
    labels[:, :, 6:] = 255
    found: dict[bool, list[dict[str, float]]] = {}
    for only in (False, True):
        method = built(DiffKd(denoiser="projector", labelled_only=only)).eval()
        for right in (0.0, 5.0):
            teacher = outputs(6, 1)
            for answer in (teacher.logits, teacher.features["head"]):
                answer[..., 3:] += right * torch.linspace(-1, 1, answer.shape[1])[:, None, None]
            found.setdefault(only, []).append({name: term.item() for name, term in method(outputs(5, 0), teacher, labels).items()})
    assert found[True][0] == found[True][1] and found[True][0].keys() == found[False][0].keys()
    assert all(found[False][0][name] != found[False][1][name] for name in found[False][0])
    method = built(DiffKd(denoiser="projector", labelled_only=True)).eval()
    teacher = outputs(6, 1)
    pairs: Denoised = method.pairs["head"](outputs(5, 0).features["head"], teacher.features["head"])
    left = (pairs.refined - teacher.features["head"])[..., :3].square().mean().item()
    assert method(outputs(5, 0), teacher, labels)["diffkd.feature"].item() == pytest.approx(left)


def test_the_control_has_no_term_for_noise() -> None:
    method = built(DiffKd(denoiser="projector", adapter=True))
    terms = method(outputs(5, 0), outputs(6, 1), torch.zeros(2, 8, 12, dtype=torch.int64))
    assert set(terms) == {"diffkd.feature", "diffkd.logits"}
    assert method.diagnostics()["diffkd/head_gamma"] == 1


@pytest.mark.parametrize(("latent", "channels", "expected"), [("auto", 6, 0), ("auto", 1024, 512), (None, 1024, 0), (16, 6, 16)])
def test_an_autoencoder_stands_where_the_teacher_is_wide(latent: object, channels: int, expected: int) -> None:
    method = built(DiffKd.model_validate({"latent": latent, "logits": False}), channels)
    chosen = method.pairs["head"]
    assert isinstance(chosen, DenoisedPair)
    assert (chosen.autoencoder is None) == (expected == 0)
    assert chosen.trans.out_channels == (expected or channels)
