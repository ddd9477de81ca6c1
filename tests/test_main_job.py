"""``klmodes compare`` from the command line to the files it leaves."""

import csv
import json
import math
import sys

import numpy as np
import pytest
import torch

from pyro_klmodes import inference_data
from pyro_klmodes.__main__ import main
from pyro_klmodes.comparison import fit_pairs
from pyro_klmodes.entries import Failed, Fitted, Moments
from pyro_klmodes.errors import InvalidArgument
from pyro_klmodes.model_spec import Target, load_target
from pyro_klmodes.named_choices import guides_named, known_guides, known_losses, losses_named
from pyro_klmodes.tables import MANIFEST
from pyro_klmodes.weights import pareto_khat

# z ~ N(0, 1), x ~ N(z, 1), x = 1: the posterior is N(1/2, 1/2), the evidence N(1; 0, 2).
POSTERIOR_MEAN, POSTERIOR_SD = 0.5, math.sqrt(0.5)
LOG_EVIDENCE = -0.5 * math.log(4 * math.pi) - 0.25

MODEL_FILE = """
from types import SimpleNamespace

import pyro
import pyro.distributions as dist
import torch


def model(x=1.0, breaks=None):
    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    pyro.deterministic("twice", 2 * z)
    pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(x))


def problem():
    half = torch.tensor(0.5)
    return SimpleNamespace(
        name="conjugate normal, one datum",
        model=model,
        args=(1.0,),
        kwargs={},
        reference={
            "z": SimpleNamespace(mean=half, sd=half.sqrt()),
            "twice": SimpleNamespace(mean=2 * half, sd=2 * half.sqrt()),
        },
        log_evidence=-0.5 * torch.log(torch.tensor(4 * torch.pi)).item() - 0.25,
        guides=("AutoNormal",),
        how="closed form",
        source="made up",
    )


def two_dimensional():
    pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))


def not_a_problem():
    return None


def broken_problem():
    raise KeyError("no data")


def empty_problem():
    return SimpleNamespace(name="empty")


def regression(x, y=None):
    pyro.sample("b", dist.Normal(0.0, 1.0))


def unlucky():
    z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    raise ValueError("the data\\nare missing")


NUMBER = 3.0
"""


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "conjugate.py"
    path.write_text(MODEL_FILE, encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command line; return exit code, stdout, stderr and the output folder."""

    def run_with(*arguments, out=None):
        folder = out or tmp_path / "out"
        code = main(["compare", *map(str, arguments), "--out", str(folder)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, folder

    return run_with


@pytest.fixture
def no_page(monkeypatch):
    """Most of the time of a short run goes into its page, where some tests do not look."""
    monkeypatch.setattr("pyro_klmodes.report.write_page", lambda folder, _: folder / "index.html")


def table_of(folder, name="parameters"):
    with (folder / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_from_a_model_to_tables_draws_figures_and_a_page(run, model_file):
    code, out, err, folder = run(model_file, "--steps", 400, "--draws", 4000)

    assert (code, err) == (0, "")
    assert str(folder / "index.html") in out
    assert {path.name for path in folder.iterdir()} == {
        "AutoNormal-reverse_kl.nc",
        "AutoNormal-forward_kl.nc",
        "index.html",
        "fits.csv",
        "parameters.csv",
        "results.json",
        "evidence.png",
        "forest.png",
        "density.png",
        "pair.png",
        "khat.png",
        "training.png",
        MANIFEST,
    }
    rows = table_of(folder)
    reverse, forward = "AutoNormal · reverse_kl", "AutoNormal · forward_kl"
    assert [(row["parameter"], row["fit"]) for row in rows] == [
        ("z", reverse),
        ("z", forward),
        ("twice", reverse),
        ("twice", forward),
    ]
    for row in rows:
        factor = 2.0 if row["parameter"] == "twice" else 1.0
        assert float(row["reference_mean"]) == pytest.approx(POSTERIOR_MEAN * factor)
        # The guide starts at mean 0 and sd 1, five times further off than these tolerances, which
        # are four standard errors of 4000 draws and more.
        assert float(row["mean"]) == pytest.approx(POSTERIOR_MEAN * factor, abs=0.1 * factor)
        assert float(row["sd"]) == pytest.approx(POSTERIOR_SD * factor, abs=0.05 * factor)
    for row in table_of(folder, "fits"):
        assert row["verdict"] == "reliable"
        error = float(row["log_evidence_error"])
        assert 0.0 < error < 0.01
        assert float(row["log_evidence"]) == pytest.approx(LOG_EVIDENCE, abs=4 * error)
    assert "All fits can be believed." in out


def test_the_output_says_how_each_fit_was_trained(run, model_file, no_page):
    _, out, _, folder = run(model_file, "--steps", 5, "--draws", 200)

    by = "ClippedAdam (lr=0.1, lrd=0.5493, betas=(0.8, 0.95)), learning rate 0.005 at the end"
    shown = " ".join(out.split())
    assert f"fit 1: 5 steps of 8 particles by {by}" in shown
    assert f"fit 2: 5 steps of 128 particles by {by}" in shown
    reverse, forward = table_of(folder, "fits")
    assert (reverse["steps"], reverse["particles"], reverse["optimizer"]) == ("5", "8", by)
    assert forward["particles"] == "128"
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))["fits"]
    assert found[0]["recipe"] == {"steps": 5, "particles": 8, "optimizer": by}


def test_a_second_run_replaces_the_files_of_the_first_and_no_others(run, model_file, no_page):
    few = (model_file, "--steps", 5, "--draws", 200, "--losses")
    _, _, _, folder = run(*few, "reverse_kl,forward_kl")
    (folder / "mine.nc").write_text("of the user")
    _, _, _, again = run(*few, "iwae")

    assert again == folder
    assert {path.name for path in folder.iterdir()} == {
        "AutoNormal-iwae.nc",
        "fits.csv",
        "parameters.csv",
        "results.json",
        "mine.nc",
        MANIFEST,
    }
    assert (folder / "mine.nc").read_text() == "of the user"


def test_a_run_that_never_comes_to_a_fit_leaves_the_earlier_one(run, model_file, no_page):
    _, _, _, folder = run(model_file, "--steps", 5, "--draws", 200)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, _, _ = run(model_file, "--losses", "no_such_loss")

    assert code == 2
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_draws_on_disk_are_those_of_the_table(run, model_file, no_page):
    _, _, _, folder = run(
        model_file, "--steps", 5, "--draws", 200, "--seed", 3, "--losses", "reverse_kl"
    )

    data = inference_data.read(folder / "AutoNormal-reverse_kl.nc")

    z = data.posterior["z"].values
    assert z.shape == (1, 200)
    np.testing.assert_allclose(data.posterior["twice"].values, 2 * z, rtol=1e-6)
    row = table_of(folder)[0]
    assert float(row["mean"]) == pytest.approx(z.mean(), rel=1e-6)
    assert float(row["sd"]) == pytest.approx(z.std(ddof=1), rel=1e-6)
    # log p(x, z) is known, so the model's half of the log-weights can be checked draw by draw.
    log_p = -0.5 * (z**2 + (1.0 - z) ** 2) - math.log(2 * math.pi)
    np.testing.assert_allclose(data.sample_stats["log_p"].values, log_p, atol=1e-5)
    log_weight = data.sample_stats["log_p"].values - data.sample_stats["log_q"].values
    np.testing.assert_allclose(data.sample_stats["log_weight"].values, log_weight, atol=1e-5)
    known = {"guide": "AutoNormal", "loss": "ReverseKL", "seed": 3, "steps": 5}
    assert {name: data.attrs[name] for name in known} == known
    k_hat = float(pareto_khat(torch.as_tensor(data.sample_stats["log_weight"].values[0])))
    assert data.attrs["khat"] == pytest.approx(k_hat, rel=1e-6)
    assert "torch" in json.loads(data.attrs["versions"])


def test_the_same_seed_gives_the_same_table(run, model_file, tmp_path, no_page):
    def numbers(out, seed):
        _, _, _, folder = run(
            model_file, "--steps", 5, "--draws", 200, "--seed", seed, out=tmp_path / out
        )
        fits = [{**row, "seconds": None} for row in table_of(folder, "fits")]
        return [*table_of(folder), *fits]

    first = numbers("first", 1)
    assert numbers("second", 1) == first
    assert numbers("third", 2) != first


def test_a_plain_model_has_no_reference(run, model_file):
    code, _, _, folder = run(
        f"{model_file}:two_dimensional", "--steps", 5, "--draws", 200, "--losses", "reverse_kl"
    )

    assert code == 0
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["name"] == "two_dimensional"
    assert results["reference"] == {}
    assert [fit["guide"] for fit in results["fits"]] == ["AutoNormal", "AutoMultivariateNormal"]
    data = inference_data.read(folder / "AutoMultivariateNormal-reverse_kl.nc")
    assert list(data.posterior.data_vars) == ["z"]
    assert data.posterior["z"].dims == ("chain", "draw", "z_dim_0")


def test_a_failed_fit_is_reported_and_the_others_go_on(run, model_file):
    code, out, err, folder = run(
        model_file,
        *("--guides", "AutoDelta,AutoNormal", "--losses", "reverse_kl,forward_kl"),
        *("--steps", 5, "--draws", 200),
    )

    assert (code, err) == (0, "")
    fits = json.loads((folder / "results.json").read_text(encoding="utf-8"))["fits"]
    assert [(fit["guide"], fit["loss"], fit["status"] == "failed") for fit in fits] == [
        ("AutoDelta", "reverse_kl", False),
        ("AutoDelta", "forward_kl", True),
        ("AutoNormal", "reverse_kl", False),
        ("AutoNormal", "forward_kl", False),
    ]
    # A point can be fitted, but nothing can be said about it.
    assert fits[0]["status"] == "unknown"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "AutoDelta · forward_kl failed: NoDensity" in page
    assert "NoDensity" in out


def test_exit_code_one_when_every_fit_fails(run, model_file):
    code, out, err, folder = run(f"{model_file}:unlucky", "--steps", 5)

    assert (code, err) == (1, "")
    assert "ValueError: the data are missing" in out
    assert [row["verdict"] for row in table_of(folder, "fits")] == ["failed"] * 4
    assert "the data are missing" in (folder / "index.html").read_text(encoding="utf-8")


def test_finished_fits_are_on_disk_before_the_next_one_starts(
    run, model_file, tmp_path, monkeypatch
):
    finished = {}

    def interrupted():
        finished.update({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
        raise KeyboardInterrupt

    first = known_losses()["reverse_kl"]
    monkeypatch.setattr(
        "pyro_klmodes.__main__.losses_named",
        lambda names: {"reverse_kl": first, "forward_kl": interrupted},
    )

    code, _, err, folder = run(model_file, "--steps", 5, "--draws", 200)

    assert code == 130
    assert err.strip() == "klmodes: interrupted; what was finished is on disk"
    assert set(finished) == {
        "AutoNormal-reverse_kl.nc",
        "fits.csv",
        "parameters.csv",
        "results.json",
        MANIFEST,
    }
    assert {path.name for path in folder.iterdir()} == set(finished)
    assert [row["parameter"] for row in table_of(folder)] == ["z", "twice"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module"], "there is no module 'no_such_module'"),
        (["models.eight_school"], "did you mean models.eight_schools?"),
        (["no_such_package.module"], "there is no package 'no_such_package'"),
        (["no/such/file.py"], "there is no file no/such/file.py"),
        (["{file}:modle"], "has no 'modle'; did you mean model?"),
        (["{file}:NUMBER"], "is a float and cannot be called"),
        (["{file}:regression"], "is missing a required argument: 'x'; name a function"),
        (["{file}:broken_problem"], "KeyError: 'no data'"),
        (["{file}:empty_problem"], "without model"),
        (["{file}", "--losses", "reverse_lk"], "did you mean reverse_kl?"),
        (["{file}", "--losses", "reverse_lk"], "known: reverse_kl, forward_kl,"),
        (["{file}", "--losses", "renyi_half"], "after 'renyi_' comes a number"),
        (["{file}", "--losses", ","], "no loss is named"),
        (["{file}", "--guides", "AutoNormale"], "did you mean AutoNormal?"),
        (["{file}", "--guides", "AutoGuideList"], "there is no guide 'AutoGuideList'"),
        (["{file}", "--steps", "-1"], "-1 is not in the range x>=1"),
        (["{file}", "--steps", "many"], "'many' is not a valid integer"),
        (["{file}", "--speed", "9"], "--speed"),
        ([], "MODEL"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_on_stderr(run, model_file, arguments, message):
    code, out, err, folder = run(*(a.format(file=model_file) for a in arguments))

    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("klmodes: ")
    assert err.count("\n") == 1
    assert not folder.exists()


def test_an_error_inside_the_users_file_is_one_line(run, tmp_path):
    path = tmp_path / "unfinished.py"
    path.write_text("import no_such_dependency\n", encoding="utf-8")

    code, out, err, _ = run(path)

    assert (code, out) == (2, "")
    assert "No module named 'no_such_dependency'" in err
    assert err.count("\n") == 1


def test_an_output_folder_that_cannot_be_written_is_found_before_training(
    run, model_file, tmp_path, monkeypatch
):
    def never(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr("pyro_klmodes.__main__.fit_pairs", never)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")

    code, out, err, _ = run(model_file, out=tmp_path / "file" / "out")

    assert (code, out) == (2, "")
    assert "cannot write to the output folder" in err
    assert err.count("\n") == 1


def test_help_is_not_an_error(capsys):
    assert main(["compare", "--help"]) == 0
    assert "--losses" in capsys.readouterr().out


def test_a_module_of_the_working_directory_is_found(model_file, monkeypatch):
    monkeypatch.chdir(model_file.parent)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "conjugate", raising=False)

    target = load_target("conjugate")

    assert target.name == "conjugate normal, one datum"
    assert target.args == (1.0,)
    assert target.guides == ("AutoNormal",)
    assert target.reference["twice"].mean == pytest.approx(1.0)
    assert target.log_evidence == pytest.approx(LOG_EVIDENCE)
    monkeypatch.delitem(sys.modules, "conjugate")


def test_a_file_does_not_take_the_place_of_a_module_of_the_same_name(tmp_path):
    path = tmp_path / "json.py"
    path.write_text("def model():\n    pass\n", encoding="utf-8")

    load_target(f"{path}:model")

    assert sys.modules["json"] is json


def test_every_loss_can_be_named_and_made():
    names = [*known_losses(), "renyi_0.5"]

    chosen = losses_named(names)

    assert list(chosen) == names
    assert all(hasattr(make(), "loss_and_grads") for make in chosen.values())


def test_the_alpha_of_renyi_is_that_of_the_name():
    assert losses_named(["renyi_0.25"])["renyi_0.25"]().objective.alpha == 0.25


def test_guides_are_those_that_a_model_is_enough_for(model_file):
    model = load_target(f"{model_file}:two_dimensional").model

    names = set(known_guides())

    assert {"AutoNormal", "AutoMultivariateNormal", "AutoIAFNormal", "AutoDelta"} <= names
    assert not {"AutoGuide", "AutoCallable", "AutoGuideList", "AutoNormalizingFlow"} & names
    for name, build in guides_named(sorted(names)).items():
        assert callable(build(model)), name


def test_a_reference_that_does_not_fit_the_model_fails_that_fit():
    def outcomes(reference):
        target = Target(name="t", model=load_target("models.bimodal").model, reference=reference)
        target = Target(**{**vars(target), "args": (torch.tensor(-3.0),)})
        return list(
            fit_pairs(
                target,
                losses_named(["reverse_kl"]),
                guides_named(["AutoNormal"]),
                steps=2,
                num_draws=100,
            )
        )

    (missing,) = outcomes({"w": Moments(np.zeros(()), np.ones(()))})
    (misshapen,) = outcomes({"z": Moments(np.zeros(3), np.ones(3))})
    (right,) = outcomes({"z": Moments(np.zeros(()), np.ones(()))})

    assert isinstance(missing, Failed)
    assert "'w'" in missing.message
    assert isinstance(misshapen, Failed)
    assert "(3,)" in misshapen.message
    assert isinstance(right, Fitted)


def test_an_unknown_name_is_an_argument_error():
    with pytest.raises(InvalidArgument, match="reverse_kl"):
        losses_named(["kl"])


ENUMERATED_FILE = """
import pyro
import pyro.distributions as dist
import torch


def enumerated():
    c = pyro.sample("c", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(z + c, 1.0), obs=torch.tensor(0.7))


def confused():
    pyro.sample("z", dist.Normal(0.0, 1.0))
    raise TypeError("no such thing")
"""


@pytest.fixture
def enumerated_file(tmp_path):
    path = tmp_path / "enumerated.py"
    path.write_text(ENUMERATED_FILE)
    return path


def test_enumerated_sites_are_hidden_from_autoguides(enumerated_file, tmp_path):
    arguments = ["compare", f"{enumerated_file}:enumerated", "--guides", "AutoNormal"]
    folder = tmp_path / "out"
    assert main([*arguments, "--steps", "5", "--draws", "100", "--out", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text())
    # The posterior has the site that was summed out again, drawn given all others.
    assert [set(fit["posterior"]) for fit in results["fits"]] == [{"c", "z"}] * 2


def test_a_model_that_raises_anything_is_a_failed_fit(enumerated_file, tmp_path, capsys):
    arguments = ["compare", f"{enumerated_file}:confused", "--guides", "AutoNormal"]
    assert main([*arguments, "--steps", "5", "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert "no such thing" in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_the_guide_that_comes_with_a_model_is_called_own(tmp_path, no_page):
    folder = tmp_path / "out"
    arguments = ["compare", "models.discrete_noisy_or", "--steps", "5", "--draws", "100"]
    assert main([*arguments, "--out", str(folder)]) == 0
    results = json.loads((folder / "results.json").read_text())
    assert {fit["guide"] for fit in results["fits"]} == {"own"}
