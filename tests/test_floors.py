"""The floor plan of the library, held by its imports; and the rules of its style."""

import ast
import functools
import pathlib
import warnings

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = ROOT / "rlcd_jax"


def read_plan() -> list[tuple[str, ...]]:
    """Return the rooms of each floor, the lowest first, from the library's docstring."""
    text = ast.get_docstring(ast.parse((LIBRARY / "__init__.py").read_text()))
    lines = [line for line in text.splitlines() if line.startswith("    ")]
    rooms = [line.partition(":")[0].split(",") for line in lines]
    return [tuple(name.strip() for name in names) for names in reversed(rooms)]


FLOORS = read_plan()
NO_JAX = (
    "records",
    "record_files",
    "jsonl",
    "tasks",
    "text",
    "datasets",
    "pairs",
    "judging",
    "statistics",
    "paper.appendix_n",
    "decode.scheduler",
)
# Where to look twice, with a warning; and what is refused.
LOOK_TWICE = {"file": 350, "function": 60}
REFUSED = {"file": 600, "function": 120}


def module_name(path: pathlib.Path) -> str:
    """Return a module's dotted name below the library: "models.llama"."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path for path in LIBRARY.rglob("*.py") if module_name(path)
}


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return every module parsed: when a test asks, not when each worker collects."""
    return {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


@functools.cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Return every node of every module."""
    return [(name, node) for name, tree in trees().items() for node in ast.walk(tree)]


def floor_of(name: str) -> int | None:
    """Return the floor of a module: its own entry, else that of its package.

    "stages" is the table in the package's `__init__`, "stages.*" are its modules.
    """
    package, dot, _ = name.partition(".")
    for candidate in (name, f"{package}.*" if dot else name, package):
        for number, names in enumerate(FLOORS):
            if candidate in names:
                return number
    return None


def imported(name: str) -> set[str]:
    """Return every module that a module imports, dotted and absolute."""
    found = set()
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(node.module)
    return found


def own_imports(name: str) -> set[str]:
    """Return the modules of the library that a module imports."""
    prefix = "rlcd_jax."
    below = {i.removeprefix(prefix) for i in imported(name) if i.startswith(prefix)}
    below &= MODULES.keys()
    inner = {i.rpartition(".")[0] for i in below}
    # "from rlcd_jax.models import llama" names the package on its way to the module.
    return {i for i in below if i not in inner and i != name}


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    return {name: own_imports(name) for name in MODULES}


def reached(name: str) -> set[str]:
    """Return all modules that importing a module brings with it, itself too."""
    seen, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting += graph()[current]
    return seen


def test_every_module_has_a_floor_and_every_floor_is_real():
    homeless = [name for name in MODULES if floor_of(name) is None]
    assert not homeless, f"add {homeless} to FLOORS"
    rooms = [name.removesuffix(".*") for names in FLOORS for name in names]
    invented = [name for name in rooms if name not in MODULES]
    assert not invented, f"FLOORS has {invented}, which are no modules"


def test_imports_go_down():
    up = [
        f"{name} (floor {floor_of(name)}) imports {other} (floor {floor_of(other)})"
        for name in MODULES
        for other in graph()[name]
        if (floor_of(other) or 0) > (floor_of(name) or 0)
    ]
    assert not up


def test_imports_have_no_cycle():
    in_a_cycle = [
        name
        for name in MODULES
        if name in set().union(*(reached(other) for other in graph()[name]))
    ]
    assert not in_a_cycle


def test_text_modules_import_no_jax():
    for name in NO_JAX:
        inside = [n for n in MODULES if n == name or n.startswith(f"{name}.")]
        for module in set().union(*map(reached, inside)):
            roots = {i.partition(".")[0] for i in imported(module)}
            assert not roots & {"jax", "flax", "optax"}, f"{name} gets jax by {module}"


def test_losses_import_masked_alone():
    for name in ("losses", "preferences"):
        assert graph()[f"training.{name}"] == {"training.masked"}


def test_library_imports_nothing_from_above_and_no_other_framework():
    barred = {"configs", "experiments", "tests", "torch", "tensorflow"}
    for name in MODULES:
        roots = {i.partition(".")[0] for i in imported(name)}
        assert not roots & barred, name


def test_configs_import_configdict_and_common_alone():
    for path in (ROOT / "configs").glob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert modules <= {"ml_collections", "configs"}, path
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import)], path


def test_library_has_no_print_argv_environment_or_global():
    found = []
    for name, node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("print", "input", "exit"):
                found.append(f"{name}:{node.lineno} calls {node.func.id}")
        if isinstance(node, ast.Attribute) and node.attr in (
            "argv",
            "environ",
            "getenv",
        ):
            found.append(f"{name}:{node.lineno} reads {node.attr}")
        if isinstance(node, ast.Global):
            found.append(f"{name}:{node.lineno} is global")
    assert not found


# What takes long to import and most commands never use, imported where it is used.
LATE = {
    ("datasets.prompt_rows", "tensorflow_datasets"),
    ("job.prompt_parts", "rlcd_jax.datasets"),  # hh_rlhf, and with it TFDS
    ("models.quantized", "qwix"),
    ("models.few_rows", "jax.experimental"),  # kernels, of TPUs and GPUs alone
    ("models.one_query", "jax.experimental"),
    ("models.pallas_triton", "jax.experimental.pallas"),
    ("models.splash", "jax.experimental.pallas.ops.tpu"),
    ("preference.data", "rlcd_jax.datasets"),
    ("report.canvas", "matplotlib"),
    ("report.canvas", "matplotlib.backends"),
    ("report.plots", "matplotlib"),  # names of types alone
    ("text.rendering", "transformers.utils"),
    ("text.tokenizer_files", "transformers"),
}


def test_imports_stand_at_the_top():
    found, late = [], set()
    for name, node in nodes():
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        if node in trees()[name].body:
            continue
        if (name, module) in LATE:
            late.add((name, module))
        else:
            found.append(f"{name}:{node.lineno} imports {module} inside")
    assert not found
    assert late == LATE


COMPILES = (
    "decode",
    "scoring",
    "preference",
    "ppo",
    "job",
    "stages",
    "planning",
    "bench",
    "fingerprints",  # of arrays as they lie: no shardings of its own
    "weights",  # one text on one device, read from files that were written
)


def test_jit_is_in_rooms_that_compile_alone():
    found = [
        f"{name}:{node.lineno}"
        for name, node in nodes()
        if isinstance(node, ast.Attribute) and node.attr in ("jit", "pjit")
        if name.partition(".")[0] not in COMPILES
    ]
    assert not found


def test_private_names_stay_in_their_modules():
    found = []
    for name, node in nodes():
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
            continue
        modules = {inner.rpartition(".")[2] for inner in graph()[name]}
        if node.value.id in modules and node.attr.startswith("_"):
            found.append(f"{name}:{node.lineno} uses {node.value.id}.{node.attr}")
    assert not found


def test_every_package_says_what_lives_in_it():
    for path in LIBRARY.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert len(text.splitlines()) >= 3, f"{path.parent.name}: {text!r}"


def lengths() -> list[tuple[str, str, int]]:
    """Return (what, "file" or "function", lines) of all code that is shipped."""
    found = []
    for folder in ("rlcd_jax", "configs", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text, short = path.read_text(), str(path.relative_to(ROOT))
            found.append((short, "file", len(text.splitlines())))
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    count = node.end_lineno - node.lineno + 1
                    found.append((f"{short}: {node.name}", "function", count))
    return found


def test_files_and_functions_are_not_far_too_long():
    long = [one for one in lengths() if one[2] > LOOK_TWICE[one[1]]]
    for what, _, count in long:
        warnings.warn(f"look twice: {what} has {count} lines", stacklevel=1)
    assert not [one for one in long if one[2] > REFUSED[one[1]]]
