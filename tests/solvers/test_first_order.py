import math
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, ReduceLROnPlateau, StepLR

from specutils_blase.solvers.first_order import minimize

RNG = np.random.default_rng(11)
DESIGN = torch.as_tensor(RNG.normal(size=(30, 3)))
SIGMA = torch.as_tensor(RNG.uniform(0.5, 2.0, size=30))
FLUX = DESIGN @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + SIGMA * torch.as_tensor(RNG.normal(size=30))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.asked = []

    def forward(self, pixels=None):
        if pixels is not None and torch.is_grad_enabled():
            self.asked.append(pixels.tolist())
        return (DESIGN if pixels is None else DESIGN[pixels]) @ self.coefficients + self.offset


def lbfgs(parameters, lr):
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=20, line_search_fn="strong_wolfe")


def normal_equations(precision=0.0, keep=slice(None)):
    weighted = (DESIGN / SIGMA[:, None])[keep].numpy()
    return np.linalg.solve(weighted.T @ weighted + precision * np.eye(3), weighted.T @ (FLUX / SIGMA)[keep].numpy())


def test_weighted_least_squares():
    model = Linear()
    losses = minimize(model, FLUX, SIGMA, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients]).loss
    expected = normal_equations()
    np.testing.assert_allclose(model.coefficients.detach().numpy(), expected, rtol=1e-6)
    pulls = (FLUX.numpy() - DESIGN.numpy() @ expected) / SIGMA.numpy()
    assert losses[-1] == pytest.approx(0.5 * (pulls**2).sum(), rel=1e-9)
    assert losses[0] == pytest.approx(0.5 * ((FLUX / SIGMA) ** 2).sum().item(), rel=1e-12)


def test_default_optimizer_gets_there_too():
    model = Linear()
    minimize(model, FLUX, SIGMA, steps=600, lr=0.05, parameters=[model.coefficients])
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(), rtol=1e-3)


def test_penalty_is_minus_the_logarithm_of_a_prior():
    model = Linear()

    def ridge(model):
        return 0.5 * 40.0 * (model.coefficients**2).sum()

    minimize(model, FLUX, SIGMA, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients], penalty=ridge)
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(40.0), rtol=1e-6)


def test_bad_pixels_are_as_if_removed():
    flux, sigma = FLUX.clone(), SIGMA.clone()
    flux[3], flux[4], sigma[5], sigma[6], sigma[7], sigma[8] = (
        float(x) for x in ("nan", "inf", "nan", "inf", "0", "-1")
    )
    model = Linear()
    minimize(model, flux, sigma, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients])
    keep = np.delete(np.arange(30), range(3, 9))
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(keep=keep), rtol=1e-5)


def test_only_the_chosen_parameters_move():
    model = Linear()
    minimize(model, FLUX, SIGMA, steps=3, parameters=[model.offset])
    assert (model.coefficients == 0.0).all()
    assert model.coefficients.grad is None
    assert model.offset.item() != 0.0


def test_frozen_parameters_stay_by_default():
    model = Linear()
    model.offset.requires_grad_(False)
    minimize(model, FLUX, SIGMA, steps=3)
    assert model.offset.item() == 0.0
    assert (model.coefficients != 0.0).all()


def test_progress_sees_every_step():
    seen = []
    losses = minimize(Linear(), FLUX, SIGMA, steps=4, progress=lambda step, loss: seen.append((step, loss))).loss
    assert seen == list(enumerate(losses))
    assert len(losses) == 4


def test_divergence_is_said():
    with pytest.raises(FloatingPointError, match="smaller lr"):
        minimize(Linear(), FLUX, SIGMA, steps=500, lr=1e6, optimizer=torch.optim.SGD)


@pytest.mark.parametrize(("flux", "sigma"), [(float("nan"), 1.0), (1.0, float("inf")), (1.0, 0.0)])
def test_nothing_to_fit(flux, sigma):
    with pytest.raises(ValueError, match="at least one pixel"):
        minimize(Linear(), torch.full_like(FLUX, flux), torch.full_like(SIGMA, sigma))


# ----------------------------------------------------------------------------------------------- batches, validation


def half_chi_square(pixels, coefficients=(0.0, 0.0, 0.0)):
    pulls = (FLUX.numpy() - DESIGN.numpy() @ coefficients) / SIGMA.numpy()
    return 0.5 * (pulls[pixels] ** 2).sum()


@settings(max_examples=30)
@given(
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**40),
    validation=st.sampled_from([0.0, 0.01, 0.2, 0.7]),
    bad=st.sets(st.integers(0, 29), max_size=10),
)
def test_a_pass_meets_every_training_pixel_once(batch_size, seed, validation, bad):
    flux = FLUX.clone()
    flux[sorted(bad)] = torch.nan
    good = set(range(30)) - bad
    n_training = len(good) - (max(1, round(validation * len(good))) if validation else 0)
    n_batches = math.ceil(n_training / batch_size)
    model = Linear()
    options = {"lr": 0.0, "optimizer": torch.optim.SGD, "validation": validation, "seed": seed}
    result = minimize(model, flux, SIGMA, steps=2 * n_batches, batch_size=batch_size, **options)
    first, second = model.asked[:n_batches], model.asked[n_batches:]
    for batches in (first, second):
        assert sorted(p for batch in batches for p in batch) == sorted(good - set(result.held_out.tolist()))
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert result.n_ignored == len(bad)
    assert len(result.held_out) == len(good) - n_training
    # the loss of a batch is an unbiased estimate of that of all: the mean over a pass is the loss itself
    estimates = [x * len(b) / n_training for x, b in zip(result.loss, model.asked, strict=True)]
    training = sorted(good - set(result.held_out.tolist()))
    assert sum(estimates[:n_batches]) == pytest.approx(half_chi_square(training), rel=1e-12)
    if validation:
        evaluated = np.arange(2 * n_batches) % n_batches == 0
        expected = np.where(evaluated, half_chi_square(result.held_out), np.nan)
        np.testing.assert_allclose(result.validation_loss, expected, rtol=1e-12)
        assert result.best_loss == pytest.approx(half_chi_square(result.held_out), rel=1e-12)
    else:
        assert np.isnan(result.validation_loss).all()
        assert result.best_loss == pytest.approx(half_chi_square(training), rel=1e-12)


def test_batches_reach_the_least_squares_solution():
    model = Linear()
    decay = {"optimizer": torch.optim.SGD, "lr": 0.02, "schedule": lambda o: ExponentialLR(o, 0.985)}
    result = minimize(model, FLUX, SIGMA, steps=400, batch_size=7, parameters=[model.coefficients], **decay)
    expected = normal_equations()
    # a tenth of the errors of the parameters, which is an excess of the loss of 0.005 each
    assert result.best_loss - half_chi_square(slice(None), expected) < 0.015
    np.testing.assert_allclose(model.coefficients.detach().numpy(), expected, atol=0.03)


def test_penalty_weighs_the_same_in_a_batch():
    model = Linear()
    penalty = minimize(model, FLUX, SIGMA, steps=6, lr=0.0, optimizer=torch.optim.SGD, batch_size=5,
                       penalty=lambda model: model.offset + 100.0).loss
    bare = minimize(model, FLUX, SIGMA, steps=6, lr=0.0, optimizer=torch.optim.SGD, batch_size=5).loss
    np.testing.assert_allclose(penalty - bare, 100.0, rtol=1e-12)


def test_held_out_pixels_do_not_matter_to_the_training():
    keywords = {"steps": 40, "lr": 0.05, "validation": 0.3, "seed": 5}
    models = Linear(), Linear()
    held_out = minimize(models[0], FLUX, SIGMA, **keywords).held_out
    spoiled = FLUX.clone()
    spoiled[held_out] += 100.0
    result = minimize(models[1], spoiled, SIGMA, **keywords)
    np.testing.assert_array_equal(result.held_out, held_out)
    assert len(held_out) == 9
    np.testing.assert_array_equal(minimize(Linear(), FLUX, SIGMA, **keywords).loss, result.loss)
    assert not np.isin(minimize(Linear(), FLUX, SIGMA, **keywords | {"seed": 6}).held_out, held_out).all()


# --------------------------------------------------------------------------------------------- schedules, early stop


def test_schedule_advances_every_step():
    schedule = {"schedule": lambda o: StepLR(o, step_size=7, gamma=0.5), "lr": 0.2, "steps": 30}
    for batch_size in (None, 8):
        rates = minimize(Linear(), FLUX, SIGMA, batch_size=batch_size, **schedule).learning_rate
        np.testing.assert_allclose(rates, 0.2 * 0.5 ** (np.arange(30) // 7), rtol=1e-14)


@pytest.mark.parametrize(("options", "error", "message"), [
    ({"lr": None}, ValueError, "lr must be a finite number, not negative, got None"),
    ({"lr": math.nan}, ValueError, "lr must .*nan"),
    ({"lr": -0.1}, ValueError, "lr must .*-0.1"),
    ({"rtol": -1.0}, ValueError, "rtol must be a finite number, not negative, got -1.0"),
    ({"optimizer": "adam"}, TypeError, "optimizer must be a function or a class, got 'adam'"),
    ({"optimizer": lambda parameters, lr: 3}, TypeError, "optimizer must return a torch.optim.Optimizer, got int"),
    ({"schedule": "cosine"}, TypeError, "schedule must be a function or a class, got 'cosine'"),
    ({"schedule": lambda o: 3}, TypeError, "schedule must return a scheduler of torch.optim.lr_scheduler, got 3"),
    ({"validation": "a"}, ValueError, "validation must be a fraction of the pixels, .* got 'a'"),
    ({"checkpoint": 3}, TypeError, "checkpoint must be the name of a file, got 3"),
    ({"parameters": 3}, TypeError, "parameters must be a list of parameters of the model, got 3"),
    ({"parameters": []}, ValueError, "parameters must hold something to train, got none"),
    ({"steps": None}, ValueError, "steps must be a whole number of at least 0, got None"),
    ({"checkpoint_every": None}, ValueError, "checkpoint_every must be a whole number of at least 1, got None"),
    ({"batch_size": True}, ValueError, "batch_size must be a whole number of at least 1, or None .*, got True"),
    ({"seed": 2**70}, ValueError, "seed must have at most 64 bits, got 1180591620717411303424"),
    ({"checkpoint": "/no/such/run.pt"}, FileNotFoundError, "checkpoint must lie in a folder that exists, got '/no"),
    ({"checkpoint": ""}, IsADirectoryError, "checkpoint must be the name of a file, got a folder, ''"),
    ({"penalty": lambda model: None}, TypeError, "penalty must return a scalar, got None"),
    ({"penalty": lambda model: torch.ones(2)}, TypeError, "penalty must return a scalar, got tensor"),
    ({"penalty": 3}, TypeError, "penalty must be a function or a class, got 3"),
    ({"seed": "a"}, TypeError, "seed must be a whole number, got 'a'"),
    ({"model": len}, TypeError, "model must be a Module, got builtin_function_or_method"),
    ({"flux": FLUX.numpy()}, TypeError, "flux must be a Tensor, got ndarray; use torch.as_tensor"),
], ids=str)  # fmt: skip
def test_arguments_of_the_wrong_kind(options, error, message):
    arguments = {"model": Linear(), "flux": FLUX, "sigma": SIGMA, **options}
    with pytest.raises(error, match=message):
        minimize(arguments.pop("model"), arguments.pop("flux"), arguments.pop("sigma"), **arguments)


@pytest.mark.parametrize(("answer", "error", "message"), [
    (lambda flux: None, TypeError, "model must return a Tensor, got NoneType"),
    (lambda flux: (flux, flux), TypeError, "model must return a Tensor, got tuple"),
    (lambda flux: flux.detach(), ValueError, "model must depend on its parameters, got a flux without gradient"),
])  # fmt: skip
def test_models_that_give_no_flux(answer, error, message):
    class Broken(Linear):
        def forward(self, pixels=None):
            return answer(super().forward())

    with pytest.raises(error, match=message):
        minimize(Broken(), FLUX, SIGMA)


@pytest.mark.parametrize(("batch_size", "pass_length"), [(None, 1), (10, 3)])
def test_plateau(batch_size, pass_length):
    # Nothing to gain, so that the rate falls after every fourth evaluation, the first one being the best so far.
    flux = torch.zeros(30, dtype=torch.float64)
    rates = minimize(Linear(), flux, SIGMA, steps=60, lr=0.5, batch_size=batch_size,
                     schedule=lambda o: ReduceLROnPlateau(o, factor=0.1, patience=3, eps=0.0)).learning_rate
    evaluations = np.ceil(np.arange(60) / pass_length)  # before each step
    np.testing.assert_allclose(rates, 0.5 * 0.1 ** (np.maximum(evaluations - 1, 0) // 4), rtol=1e-12)


class Level(nn.Module):
    def __init__(self, start=0.0):
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(start), dtype=torch.float64))

    def forward(self):
        return self.level.expand(4)


@pytest.mark.parametrize(("patience", "rtol"), [(1, 0.1), (3, 0.1), (5, 1e-3), (1, 0.0)])
def test_stops_where_the_formula_says(patience, rtol):
    # Steepest descent on a parabola: the deviation shrinks by 1 - 4 lr in every step; the noise leaves a loss of 2.
    flux = torch.tensor([9.0, 9.0, 11.0, 11.0], dtype=torch.float64)
    losses = 2.0 + 0.5 * 4.0 * (10.0 * 0.6 ** np.arange(200)) ** 2
    reference = stop = 0
    for stop, loss in enumerate(losses):
        if loss < losses[reference] * (1.0 - rtol) - 1e-13:
            reference = stop
        if stop - reference >= patience:
            break
    result = minimize(Level(), flux, torch.ones(4), lr=0.1, optimizer=torch.optim.SGD, patience=patience, rtol=rtol)
    assert result.status == "converged"
    if rtol:  # without it the end is a matter of rounding
        assert result.n_steps == stop + 1
    assert 30 < result.n_steps < 60 or rtol
    np.testing.assert_allclose(result.loss, losses[: result.n_steps], rtol=1e-12)
    assert minimize(Level(), flux, torch.ones(4), steps=3, patience=5).status == "not_converged"
    assert minimize(Level(), flux, torch.ones(4), steps=3).status == "not_converged"


class Wiggles(nn.Module):
    """As many parameters as there are pixels: it will fit the noise."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(30, dtype=torch.float64))
        order = torch.arange(30.0, dtype=torch.float64)
        self.basis = torch.cos(math.pi * (order[:, None] + 0.5) * order / 30)

    def forward(self):
        return self.basis @ self.values


def test_early_stop_keeps_the_best_state():
    model, states = Wiggles(), [torch.zeros(30, dtype=torch.float64)]
    options = {"steps": 400, "lr": 0.02, "validation": 0.3, "patience": 15, "rtol": 1e-3}
    result = minimize(model, FLUX, SIGMA, progress=lambda *_: states.append(model.values.detach().clone()), **options)
    pulls = [((FLUX - model.basis @ values) / SIGMA)[result.held_out].numpy() for values in states]
    validation = 0.5 * (np.array(pulls) ** 2).sum(axis=1)
    np.testing.assert_allclose(result.validation_loss, validation[:-1], rtol=1e-10)
    assert result.status == "stopped"
    assert 0 < result.best_step < result.n_steps < 400
    assert result.best_step == validation.argmin()
    assert result.best_loss == pytest.approx(validation.min(), rel=1e-10)
    assert torch.equal(model.values, states[result.best_step])
    assert result.loss[-1] < result.loss[result.best_step]  # over-fitting had begun
    assert f"after {result.best_step} of {result.n_steps} steps" in result.message


def test_best_state_of_an_overshooting_run():
    model, states = Level(3.0), [3.0]
    result = minimize(model, torch.full((4,), 5.0), torch.ones(4), steps=20, lr=1.0,
                      optimizer=lambda p, lr: torch.optim.SGD(p, lr=0.3, momentum=0.9),
                      progress=lambda *_: states.append(model.level.item()))
    best = np.abs(np.array(states) - 5.0).argmin()
    assert result.best_step == best
    assert model.level.item() == states[best] != states[-1]


# ------------------------------------------------------------------------------------------------ seeds, checkpoints

RUNS = {
    "adam": {"lr": 0.1, "batch_size": 4, "validation": 0.2, "schedule": lambda o: StepLR(o, 5, 0.7), "seed": 3},
    "lbfgs": {"lr": 0.3, "optimizer": lambda p, lr: torch.optim.LBFGS(p, lr=lr, max_iter=2, history_size=5)},
    "plateau": {"lr": 0.2, "optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr * 1e-3, momentum=0.9, nesterov=True),
                "batch_size": 13, "schedule": lambda o: ReduceLROnPlateau(o, patience=2)},
    "all pixels": {"lr": 0.3, "validation": 0.4, "patience": 12, "rtol": 0.01},
}


def outcome(model, result):
    """All that must be the same, to the last bit."""
    histories = [a.tobytes() for a in (result.loss, result.validation_loss, result.learning_rate, result.held_out)]
    numbers = result.status, result.message, result.n_steps, result.best_step, result.best_loss
    return model.coefficients.tolist(), model.offset.tolist(), histories, numbers


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_is_resumed_exactly(name, tmp_path):
    path = tmp_path / "run.pt"
    code = f"""
import importlib.util, os, signal
spec = importlib.util.spec_from_file_location("killed", {__file__!r})
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
def kill(step, loss):
    if step == 23:
        os.kill(os.getpid(), signal.SIGKILL)
tests.minimize(tests.Linear(), tests.FLUX, tests.SIGMA, steps=40, checkpoint={str(path)!r}, checkpoint_every=7,
               progress=kill, **tests.RUNS[{name!r}])
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(torch.load(path, weights_only=True)["loss"]) == 21
    whole, resumed, seen = Linear(), Linear(), []
    expected = minimize(whole, FLUX, SIGMA, steps=40, **RUNS[name])
    result = minimize(
        resumed, FLUX, SIGMA, steps=40, checkpoint=path, progress=lambda k, _: seen.append(k), **RUNS[name]
    )
    assert seen == list(range(21, expected.n_steps))
    assert outcome(resumed, result) == outcome(whole, expected)
    if "batch_size" in RUNS[name]:
        assert resumed.asked == whole.asked[21:]
    assert os.listdir(tmp_path) == ["run.pt"]


class Interrupted(Linear):
    """Ctrl-C in the middle of a step, at the given call of the model."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def forward(self, pixels=None):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().forward(pixels)


@settings(max_examples=15)
@given(name=st.sampled_from(list(RUNS)), at=st.integers(0, 60), every=st.integers(1, 50))
def test_an_interrupted_run_is_resumed_exactly(name, at, every, tmp_path_factory):
    path = tmp_path_factory.mktemp("interrupted") / "run.pt"
    whole, first, resumed, states = Linear(), Interrupted(at), Linear(), [[0.0, 0.0, 0.0]]
    expected = minimize(
        whole, FLUX, SIGMA, steps=25, progress=lambda *_: states.append(whole.coefficients.tolist()), **RUNS[name]
    )
    try:
        minimize(first, FLUX, SIGMA, steps=25, checkpoint=path, checkpoint_every=every, **RUNS[name])
    except KeyboardInterrupt:
        # the model is left in the state after some whole step
        assert first.coefficients.tolist() in states
    result = minimize(resumed, FLUX, SIGMA, steps=25, checkpoint=path, **RUNS[name])
    assert outcome(resumed, result) == outcome(whole, expected)


def test_more_steps_go_on_from_a_finished_run(tmp_path):
    whole, model = Linear(), Linear()
    expected = minimize(whole, FLUX, SIGMA, steps=40, **RUNS["adam"])
    first = minimize(model, FLUX, SIGMA, steps=15, checkpoint=tmp_path / "run.pt", **RUNS["adam"])
    again = minimize(Linear(), FLUX, SIGMA, steps=15, checkpoint=tmp_path / "run.pt", **RUNS["adam"])
    np.testing.assert_array_equal(again.loss, first.loss)
    assert again.best_loss == first.best_loss
    result = minimize(model, FLUX, SIGMA, steps=40, checkpoint=str(tmp_path / "run.pt"), **RUNS["adam"])
    assert outcome(model, result) == outcome(whole, expected)


def test_interrupt_between_steps_leaves_the_best_state(tmp_path):
    model = Level(3.0)

    def interrupt(step, loss):
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(model, torch.full((4,), 5.0), torch.ones(4), lr=1.0, progress=interrupt, checkpoint=tmp_path / "a")
    state = torch.load(tmp_path / "a", weights_only=True)
    assert len(state["loss"]) == 10
    assert model.level == state["best_state"]["level"]
    assert 0.5 * 4.0 * (model.level.item() - 5.0) ** 2 == pytest.approx(min(state["loss"]), abs=1e-12)


class Larger(Linear):
    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, pixels=None):
        return super().forward(pixels) + self.slope.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": Larger()}, r"model slope \(absent in the file, shape \(2,\), .*, trained as number 2 now"),
        ({"flux": FLUX + 1e-12}, "differs in flux"),
        ({"sigma": SIGMA * 2.0}, "differs in sigma"),
        ({"flux": FLUX[:20], "sigma": SIGMA[:20]}, r"number of pixels \(30 in the file, 20 now\), flux .*, sigma"),
        ({"batch_size": 5}, r"batch_size \(4 in the file, 5 now\)"),
        ({"seed": 4}, r"seed \(3 in the file, 4 now\)"),
        ({"validation": 0.3}, r"validation \(0.2 in the file, 0.3 now\)"),
        ({"lr": 0.2}, r"optimizer lr 0 \(0.1 in the file, 0.2 now\)"),
        ({"optimizer": torch.optim.AdamW}, r"optimizer \(Adam in the file, AdamW now\)"),
        ({"schedule": None}, r"schedule \(StepLR in the file, NoneType now\).* and [0-9]+ more"),
        ({"schedule": lambda o: StepLR(o, 5, 0.8)}, r"schedule gamma \(0.7 in the file, 0.8 now\)"),
    ],
)
def test_checkpoint_of_another_run(change, message, tmp_path):
    path = tmp_path / "run.pt"
    arguments = {"model": Linear(), "flux": FLUX, "sigma": SIGMA, "steps": 3, "checkpoint": path, **RUNS["adam"]}
    minimize(**arguments)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"must belong to this run.*{message}"):
        minimize(**arguments | change)
    assert path.read_bytes() == before


def test_frozen_is_another_model(tmp_path):
    model = Linear()
    minimize(model, FLUX, SIGMA, steps=2, checkpoint=tmp_path / "a")
    model.offset.requires_grad_(False)
    with pytest.raises(ValueError, match=r"model offset \(.*trained as number 1 in the file, .* not trained now"):
        minimize(model, FLUX, SIGMA, steps=2, checkpoint=tmp_path / "a")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB"],)


@pytest.mark.parametrize("content", [b"", b"SIMPLE  =                    T", "pickle", "zip", "list", "truncated"])
def test_not_a_checkpoint(content, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    if content == "pickle":
        path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    elif content in ("zip", "list"):
        torch.save({"identity": Bomb()} if content == "zip" else [1, 2], path)
    elif content == "truncated":
        minimize(Linear(), FLUX, SIGMA, steps=2, checkpoint=path)
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint must be a file that such a run wrote"):
        minimize(Linear(), FLUX, SIGMA, checkpoint=path)
    assert os.listdir(tmp_path) == ["run.pt"]


def test_state_that_could_not_be_read_back_is_refused_at_once(tmp_path):
    class Custom(LRScheduler):
        def __init__(self, optimizer):
            self.shape = {"of time": math.cos}
            super().__init__(optimizer)

        def get_lr(self):
            return self.base_lrs

    with pytest.raises(TypeError, match="schedule.shape.of time = <built-in function cos>"):
        minimize(Linear(), FLUX, SIGMA, schedule=Custom, checkpoint=tmp_path / "run.pt")
    assert os.listdir(tmp_path) == []
    assert minimize(Linear(), FLUX, SIGMA, steps=2, schedule=Custom).n_steps == 2


def test_checkpoint_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    minimize(Linear(), FLUX, SIGMA, steps=2, checkpoint=path)
    before = path.read_bytes()

    def full_disc(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full_disc)
    with pytest.raises(OSError, match="no space left"):
        minimize(Linear(), FLUX, SIGMA, steps=4, checkpoint=path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.pt"]


def test_no_place_for_the_checkpoint_is_said_before_the_first_step(tmp_path):
    model = Linear()
    for path in (tmp_path, tmp_path / "missing" / "run.pt"):
        with pytest.raises(OSError):
            minimize(model, FLUX, SIGMA, checkpoint=path)
    assert (model.coefficients == 0.0).all()


def test_global_random_numbers_are_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = Linear(), Linear()
    minimize(first, FLUX, SIGMA, steps=20, **RUNS["adam"])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    minimize(second, FLUX, SIGMA, steps=20, **RUNS["adam"])
    assert first.asked == second.asked
    assert torch.equal(first.coefficients, second.coefficients)
    third = Linear()
    minimize(third, FLUX, SIGMA, steps=20, **RUNS["adam"] | {"seed": 4})
    assert third.asked != first.asked


# -------------------------------------------------------------------------------------------------- what goes wrong


class Root(Level):
    def forward(self, pixels=None):
        return self.level.sqrt().expand(4 if pixels is None else len(pixels))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_step_too_far_leaves_the_last_good_state(batch_size):
    # The first step leads below zero, where there is no root.
    model, flux = Root(4.0), torch.ones(4, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match="nan at step 1; use a smaller lr than 50"):
        minimize(model, flux, torch.ones(4), lr=50.0, optimizer=torch.optim.SGD, batch_size=batch_size)
    assert model.level.item() == 4.0


def test_last_step_too_far_is_seen_as_well():
    model = Root(4.0)
    with pytest.raises(FloatingPointError, match="nan at step 1; use a smaller lr"):
        minimize(model, torch.ones(4).double(), torch.ones(4), steps=1, lr=50.0, optimizer=torch.optim.SGD)
    assert model.level.item() == 4.0


def test_impossible_start():
    with pytest.raises(FloatingPointError, match="nan at step 0; start where model and penalty are finite"):
        minimize(Root(-1.0), torch.ones(4), torch.ones(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": torch.optim.LBFGS, "batch_size": 5}, "LBFGS with batch_size"),
        ({"parameters": [nn.Parameter(torch.zeros(2))]}, "parameters of the model"),
        ({"steps": -1}, "steps must be a whole number of at least 0, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"patience": 0}, "patience must"),
        ({"checkpoint_every": 0}, "checkpoint_every must"),
        ({"rtol": -1e-3}, "rtol must be a finite number, not negative"),
        ({"validation": 1.0}, "validation must be a fraction"),
        ({"validation": math.nan}, "validation must be a fraction"),
        ({"validation": 0.99}, "leave a pixel to train on"),
        ({"flux": FLUX[:5]}, r"must both have shape \(n_pix,\), got \(5,\) and \(30,\)"),
        ({"flux": FLUX * math.nan}, "at least one pixel with .* got 0 finite fluxes and 30 positive sigmas of 30"),
        ({"model": Level()}, r"model must return shape \(30,\), a flux for each pixel, got \(4,\)"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        minimize(**{"model": Linear(), "flux": FLUX, "sigma": SIGMA} | options)
