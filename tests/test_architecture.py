"""The rules of the code that no type checker sees: who may import what, and what is committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from models.machine_faults import MODEL_LIBRARIES

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "streams", "trainer", "deploy")

# Where each heavy library may be imported: a module, or a package with all that is in it.
HOMES = {
    "torch": {
        "models.engines",
        "deploy.vllm_server",
        "deploy.bench.contestants",
        "trainer.learning",
    },
    "transformers": {"models.engines", "deploy.bench.contestants", "trainer.learning"},
    "peft": {"models.engines", "deploy.bench.contestants", "trainer.learning"},
    "trl": {"deploy.bench.contestants"},
    "gguf": {"models.engines"},
    "openai": {"models.engines"},
    "sentence_transformers": {"models.engines.embedder", "trainer.learning"},
    "lancedb": {"models.ranking.lance_index"},
    "scipy": {"models.ranking.cooccurrence_build"},
    "matplotlib": {"trainer.evaluation.plots"},
    "faust": {"streams.tracker.runtime", "deploy.bench.contestants"},
    "rocksdict": {"streams.tracker"},
    "uvloop": {"streams.service", "deploy.bench.contestants"},
    "aiohttp": {"streams.service"},
    "duckdb": {"streams.event_log", "streams.indexer.evidence", "deploy.make_sample"},
}

ADAPTERS = {
    "models.engines.transformers_encoder": "TransformersEncoder",
    "models.engines.openai_encoder": "OpenAIEncoder",
    "models.engines.embedder": "SentenceEmbedder",
    "models.ranking.lance_index": "LanceIndex",
    "models.release.store": "FolderReleaseStore",
}


def modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module of the product."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_import_contracts_are_kept() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_stays_in_its_home(library: str) -> None:
    strays = [
        name
        for name, path in modules()
        if any(within(imported, library) for imported in imports(path))
        and not any(within(name, home) for home in HOMES[library])
    ]

    assert strays == []


@pytest.mark.parametrize(("module", "adapter"), ADAPTERS.items())
def test_only_mains_and_the_command_line_name_adapters(module: str, adapter: str) -> None:
    named = [
        name
        for name, path in modules()
        if f"{module}.{adapter}" in set(imports(path))
        and not name.endswith(".__main__")
        and not within(name, "deploy")
    ]

    assert named == []


@pytest.mark.parametrize(
    ("role", "absent"),
    [
        ("tracker", {"torch", "transformers", "sentence_transformers", "duckdb", "scipy"}),
        ("recorder", {"torch", "transformers", "sentence_transformers", "faust", "lancedb"}),
        ("profiler", {"faust", "rocksdict", "lancedb", "duckdb"}),
    ],
)
def test_a_role_starts_without_the_libraries_of_others(role: str, absent: set[str]) -> None:
    code = f"import sys, streams.{role}.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert absent & set(done.stdout.split()) == set()


def model_libraries() -> set[str]:
    """What the packages of the extra `models` are imported as."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = {re.split(r"[<>=;]", one)[0] for one in project["optional-dependencies"]["models"]}
    return {
        module
        for module, packages in packages_distributions().items()
        if extra & {package.lower() for package in packages}
    }


WITHOUT_MODELS = """
import sys
from importlib import import_module
from pkgutil import iter_modules, walk_packages
sys.modules.update(dict.fromkeys({libraries}))  # importing one raises ModuleNotFoundError
import deploy.commands, streams
for module in walk_packages(streams.__path__, "streams."):
    import_module(module.name)
for module in iter_modules(deploy.commands.__path__, "deploy.commands."):
    import_module(module.name)
"""


def test_streams_and_commands_load_where_no_models_are_installed() -> None:
    """Roles and commands that need models import them when they need them."""
    code = WITHOUT_MODELS.format(libraries=sorted(model_libraries()))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_all_of_the_extra_models_is_missed_with_what_to_install() -> None:
    assert {name for name in HOMES if name in model_libraries()} <= MODEL_LIBRARIES
    assert model_libraries() >= MODEL_LIBRARIES


INDEX_HOSTS = re.compile(
    r"pypi\.org|pythonhosted\.org|pytorch\.org/whl|anaconda\.org"
    r"|repo1?\.maven\.(apache\.)?org|npmjs\.(org|com)|--(extra-)?index-url"
)
HOME_PATHS = re.compile(r"(?<![\w.~-])/(root|home/\w+|Users/\w+)/")


def committed() -> Iterator[tuple[str, str]]:
    """(name, text) of every file under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(errors="ignore")


def test_no_committed_file_names_a_package_index() -> None:
    found = {name: hit[0] for name, text in committed() if (hit := INDEX_HOSTS.search(text))}

    assert found == {}


def test_no_committed_file_names_somebodys_home_or_this_checkout() -> None:
    here = re.compile(rf"(?<![\w.~-]){re.escape(str(ROOT))}\b")

    found = {
        name: hit[0]
        for name, text in committed()
        if (hit := HOME_PATHS.search(text) or here.search(text))
    }

    assert found == {}


def test_a_class_name_has_one_meaning():
    homes: dict[str, set[str]] = {}
    for name, path in modules():
        for node in ast.parse(path.read_text()).body:
            for named in _names_of_types(node):
                homes.setdefault(named, set()).add(name)
    assert {named: found for named, found in homes.items() if len(found) > 1} == {}


def _names_of_types(node: ast.stmt) -> list[str]:
    """Classes, and aliases of types, which begin with a capital too."""
    if isinstance(node, ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if name[0].isupper() and not name.isupper()]
