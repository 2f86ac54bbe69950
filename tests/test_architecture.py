"""Holds the picture of the package: who may import whom, and how large things may grow."""

import ast
import itertools
import tokenize
from pathlib import Path

import pytest

import libra_keras

PACKAGE = Path(libra_keras.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# What each part may import of ours, the lowest first. A name with a dot is that module alone.
ALLOWED = {
    "functional": {"functional"},
    "files": {"files"},
    "losses": {"losses"},
    "layers": {"layers", "functional"},
    "samplers": {"samplers", "functional"},
    "backbones": {
        "backbones", "functional.argument_checks", "functional.native",
        "functional.native_gradients", "functional.replicas",
        "layers.channels_last", "files.downloads", "files.weights",
    },
    "data": {"data", "functional", "files"},
    "models": {
        "models", "functional", "layers", "losses", "samplers", "backbones", "data.images",
        "data.batch_values", "files",
    },
    "training": {
        "training", "functional.native", "functional.native_gradients", "functional.replicas",
    },
    "evaluation": {"evaluation", "data", "files", "training.averages"},
    "visualization": {"visualization", "data", "files.reading"},
    "devices": {"devices", "data", "functional.replicas"},
    "convert": {
        "convert", "models", "backbones", "layers", "losses", "samplers", "data.images",
        "data.known_classes", "files",
    },
    "export": {
        "export", "layers", "functional.native", "functional.control_flow", "models", "backbones",
        "data", "evaluation", "files",
    },
    "runs": {
        "runs", "devices", "training", "evaluation", "visualization", "models", "layers", "losses",
        "samplers", "data", "files",
    },
    "cli": {
        "cli", "runs", "devices.hardware", "evaluation", "models", "data", "convert", "export",
        "files",
    },
}  # fmt: skip
FREE = {"__version__", "registration.register_classes", "typing.Tensor"}
# TensorFlow may be imported here; the backbones' block has functions with a faster twin.
TENSORFLOW = {
    "data/pipeline.py", "functional/gathering.py", "functional/native.py",
    "functional/native_gradients.py",
    "functional/replicas.py", "backbones/conv_batch_norm.py",
    "models/distributed.py", "models/ground_truth.py", "models/inputs.py",
    "runs/watching.py",
}  # fmt: skip
TENSORFLOW_FOLDERS = {"export", "training", "devices"}
# What stands against the picture: each waits inside a function, and is a shortcut for users.
EXCEPTIONS = {
    ("models/detector.py", "export.shortcut.export"),  # `model.export`, which Keras has too
    ("models/detector.py", "runs.usual.usual_optimizer"),  # `compile("auto")`, of KerasHub
    ("models/saved.py", "convert.published"),  # `from_preset` of a name
    ("models/saved.py", "convert.published.PUBLISHED"),
}
AT_TOP = {"data/pipeline.py"}  # everywhere else the import waits inside a function
FORBIDDEN_NAMES = {"utils.py", "util.py", "misc.py", "common.py", "helpers.py"}
MAX_FILE, MAX_FUNCTION = 300, 60
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


def relative(file):
    return file.relative_to(PACKAGE).as_posix()


def imports(tree):
    """Yields (dotted name, whether it is at the top of the file) of every import."""
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in top


@pytest.fixture(scope="module")
def trees():
    return {file: ast.parse(file.read_text()) for file in FILES}


def test_no_relative_imports(trees):
    for file, tree in trees.items():
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), relative(file)


def test_dependencies_point_one_way(trees):
    broken = []
    for file, tree in trees.items():
        part = relative(file).split("/")[0]
        for name, is_top in imports(tree):
            if part not in ALLOWED or not name.startswith("libra_keras."):
                continue
            target = name.removeprefix("libra_keras.")
            is_free = target in FREE or target.startswith(("keras_private.", "ranges."))
            if is_free or (not is_top and (relative(file), target) in EXCEPTIONS):
                continue
            allowed = any(target == own or target.startswith(f"{own}.") for own in ALLOWED[part])
            if not allowed:
                broken.append(f"{relative(file)} imports {target}")
    assert broken == []


def test_every_part_is_in_the_picture():
    assert {*libra_keras.__all__, "cli"} == set(ALLOWED)


def test_the_command_is_imported_by_nobody(trees):
    recipes = (PACKAGE.parent / "recipes").rglob("*.py")
    others = {file: tree for file, tree in trees.items() if relative(file) != "__main__.py"}
    others |= {file: ast.parse(file.read_text()) for file in recipes}
    found = [
        str(file)
        for file, tree in others.items()
        if "cli" not in file.parts
        for name, _ in imports(tree)
        if f"{name}.".startswith("libra_keras.cli.")
    ]
    assert found == []


def test_the_namespace_of_options_ends_in_the_command(trees):
    """argparse is known there alone, and its namespace is passed to functions there alone."""
    own = {file: tree for file, tree in trees.items() if relative(file).startswith("cli/")}
    knowing = [
        relative(file) for file, tree in trees.items()
        if file not in own and "argparse" in {name for name, _ in imports(tree)}
    ]  # fmt: skip
    assert knowing == []
    defined = {
        node.name for tree in own.values() for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip
    passed = {
        ast.unparse(call.func)
        for tree in own.values()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        if isinstance(argument, ast.Name) and argument.id in ("options", "namespace")
    }
    assert passed <= defined | {"vars", "getattr", "hasattr", "setattr", "options.run"}, (
        passed - defined
    )


def test_tensorflow_is_imported_lazily_in_few_places(trees):
    broken = []
    for file, tree in trees.items():
        for name, is_top in imports(tree):
            if name.split(".")[0] != "tensorflow":
                continue
            place = relative(file)
            if place not in TENSORFLOW and place.split("/")[0] not in TENSORFLOW_FOLDERS:
                broken.append(f"{place} imports TensorFlow")
            if is_top and place not in AT_TOP:
                broken.append(f"{place} imports TensorFlow at its top")
    assert broken == []


def test_sizes(trees):
    large = []
    for file, tree in trees.items():
        lines = code_lines(file, tree)
        if lines > MAX_FILE:
            large.append(f"{relative(file)}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
                if length > MAX_FUNCTION:
                    large.append(f"{relative(file)}, {node.name}: {length} lines")
    assert large == []


def test_a_config_enters_few_files_and_stays_in_its_room(trees):
    """`runs` is imported by the command alone, so no config ever reaches what lies below."""
    entered = {
        relative(file)
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.arg) and node.annotation is not None
        if "Config" in ast.unparse(node.annotation)
    }
    assert {"runs/training.py", "runs/defaults.py"} <= entered and len(entered) <= 20
    assert all(name.startswith(("runs/", "cli/")) for name in entered)


def test_sizes_of_rooms(trees):
    """The command is thin, and the flow of a run can be read at once."""
    own = [file for file in trees if relative(file).startswith("cli/")]
    assert sum(len(file.read_text().splitlines()) for file in own) < 1500
    assert len((PACKAGE / "runs" / "training.py").read_text().splitlines()) < 150


def test_sizes_of_tests_and_recipes():
    folders = Path(__file__).parent, PACKAGE.parent / "recipes"
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 150
    lengths = {str(file): code_lines(file, ast.parse(file.read_text())) for file in files}
    assert {file: lines for file, lines in lengths.items() if lines > MAX_FILE} == {}


def code_lines(file, tree):
    """Lines of a file without comments, docstrings and blank ones."""
    with tokenize.open(file) as opened:
        tokens = [t for t in tokenize.generate_tokens(opened.readline) if t.type not in NO_CODE]
    code = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code)


def docstring_lines(node):
    if ast.get_docstring(node) is None:
        return 0
    return node.body[0].end_lineno - node.body[0].lineno + 1


def test_no_assert_statements(trees):
    asserting = [
        relative(file)
        for file, tree in trees.items()
        if any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    ]
    assert asserting == []


def test_no_files_without_a_subject():
    names = [relative(file) for file in FILES if file.name in FORBIDDEN_NAMES]
    assert names == []


def test_top_level_holds_only_what_it_should():
    root = Path(__file__).parents[1]
    allowed = {"libra_keras", "recipes", "tests", "pyproject.toml", "README.md", "LICENSE"}
    generated = {"runs", "build", "dist"}  # git ignores them
    found = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    assert found - generated <= allowed


def test_no_two_modules_import_each_other(trees):
    """A cycle between files of one subpackage would make the order of reading arbitrary."""
    graph = {}
    for file, tree in trees.items():
        module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
        graph[module] = {
            name for full, top in imports(tree) if top
            for name in (full, full.rpartition(".")[0]) if name.startswith("libra_keras.")
        }  # fmt: skip
    pairs = itertools.combinations(graph, 2)
    assert [(a, b) for a, b in pairs if b in graph[a] and a in graph[b]] == []
