"""The architecture is in the imports: they point one way, and two libraries have one home each."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pyro_klmodes"

# each layer may import the ones named, and errors
ALLOWED = {
    "errors": set(),
    "weights": set(),
    "objectives": {"weights"},
    "tracing": set(),
    "estimators": {"objectives", "tracing"},
    "losses": {"weights", "objectives", "tracing", "estimators"},
    "engine": {"tracing", "estimators", "losses"},
    "inference": {
        *("weights", "objectives", "tracing", "estimators", "losses", "guides", "diagnostics"),
        "engine",
    },
    "testing": {"weights", "objectives", "tracing", "estimators", "losses", "inference"},
    "guides": {"tracing"},
    "diagnostics": {"weights"},
    "posteriors": {"tracing", "losses", "guides", "inference"},
    "calibration": {
        *("weights", "diagnostics", "tracing", "losses", "guides", "inference", "posteriors")
    },
    "diagnosis": {"weights", "diagnostics", "tracing", "guides", "inference", "posteriors"},
    "inference_data": set(),
    "conversion": {"weights", "tracing", "inference", "posteriors", "inference_data"},
    "entries": {
        *("diagnostics", "tracing", "inference", "posteriors", "diagnosis"),
        *("inference_data", "conversion"),
    },
    "tables": {"diagnosis", "inference_data", "entries"},
    "plots": {"diagnosis", "inference_data", "entries"},
    "report": {"entries", "tables", "plots"},
    "training": {"tracing", "losses", "inference", "plots"},
    "comparison": {
        *("tracing", "inference", "posteriors", "diagnosis", "inference_data", "conversion"),
        *("entries", "tables", "plots", "report"),
    },
}
THIRD_PARTY_HOMES = {
    "arviz": {"inference_data/versions.py"},
    "matplotlib": {
        *(f"plots/{p.name}" for p in (PACKAGE / "plots").glob("*.py")),
        "comparison/result.py",  # for the type of what it returns
    },
    "zuko": {"guides/flow/zuko_modules.py"},
}


def imported_modules(path):
    """Absolute names of everything a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "pyro_klmodes" and len(parts) > 1 else None


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_a_layer_imports_only_what_is_below_it(layer):
    files = [*PACKAGE.glob(f"{layer}/**/*.py"), *PACKAGE.glob(f"{layer}.py")]
    for path in files:
        for module in imported_modules(path):
            target = layer_of(module)
            if target in ALLOWED and target not in (layer, "errors"):
                assert target in ALLOWED[layer], f"{path.relative_to(PACKAGE)} imports {module}"


def test_every_folder_of_the_package_is_a_layer():
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert folders <= set(ALLOWED)


def test_weights_and_objectives_know_torch_but_not_pyro():
    for layer in ("weights", "objectives"):
        for path in PACKAGE.glob(f"{layer}/*.py"):
            roots = {m.split(".")[0] for m in imported_modules(path)}
            assert roots.isdisjoint({"pyro", "arviz", "matplotlib"}), path


def test_inference_data_knows_neither_torch_nor_pyro():
    # It is tested with ArviZ 1.x by an interpreter that has neither.
    files = list(PACKAGE.glob("inference_data/*.py"))
    assert files
    for path in files:
        roots = {m.split(".")[0] for m in imported_modules(path)}
        assert roots.isdisjoint({"pyro", "torch"}), path


@pytest.mark.parametrize("library", sorted(THIRD_PARTY_HOMES))
def test_a_library_has_one_home(library):
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.glob("**/*.py")
        if any(m.split(".")[0] == library for m in imported_modules(path))
    }
    assert users <= THIRD_PARTY_HOMES[library]


def test_effect_handlers_are_used_in_tracing_and_where_fits_isolate_only():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.glob("**/*.py")
        if any(m.startswith("pyro.poutine") for m in imported_modules(path))
    }
    assert users <= {"tracing", "inference", "engine"}


def test_models_do_not_import_the_package():
    for path in (PACKAGE.parent / "models").glob("*.py"):
        assert all(m.split(".")[0] != "pyro_klmodes" for m in imported_modules(path)), path
