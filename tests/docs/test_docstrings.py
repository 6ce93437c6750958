# Copyright 2026 The clarity_hf authors. Licensed under the Apache License, Version 2.0.
"""Docstrings say what the code does: their arguments, defaults, results, errors and links are those that there are.

griffe reads the docstrings, as it does for the site; the imported package gives signatures and defaults. Public is
what no underscore hides, and `__call__`. Each function of `RULES` yields one line a fault.
"""

import ast
import builtins
import dataclasses
import enum
import importlib
import inspect
import logging
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

griffe = pytest.importorskip("griffe")

SOURCE = Path(__file__).parents[2] / "src"

MOST_WITHOUT_ARGS = 4
"""Parameters that the prose of a docstring may tell of without a section for them."""

OTHERWISE_DESCRIBED = {
    "clarity_hf.cli": "the options of a command have their help in the signature",
    "clarity_hf.modeling_clarity": "shapes of `forward` are in the docstring of its class",
}
"""Folders and modules whose functions have their arguments described elsewhere, and where."""

UNTELLING = re.compile(r"^((np\.)?ndarray|(torch\.)?Tensor|tuple)\b")
"""Annotations of results that have a shape, or parts, of which the annotation does not tell."""

BY_LIBRARIES = (OSError, ImportError)
"""Errors that opening a file or importing a library raises, without a `raise` in the package; and `Exception`."""

NOT_FOR_CALLERS = {"NotImplementedError", "typer.Exit"}
"""What is raised for whoever writes a subclass, or is the exit code of a command."""

EMPTY, VARIADIC = inspect.Parameter.empty, (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Package:
    """A package as griffe reads it and as Python imports it."""

    def __init__(self, name, folder):
        logging.getLogger("griffe").setLevel(logging.CRITICAL)
        self.root = griffe.load(name, search_paths=[str(folder)], docstring_parser="google")
        self.objects = list(self._inside(self.root))
        self.modules = [item for item in [self.root, *self.objects] if item.is_module]
        self._said = {}
        self.nodes = {}  # syntax trees of functions and classes by their dotted path
        for module in self.modules:
            self._visit(ast.parse(Path(module.filepath).read_text("utf-8")), module.path)
        self.nodes_by_name = defaultdict(list)
        for path, node in self.nodes.items():
            self.nodes_by_name[path.rpartition(".")[2]].append(node)
        paths = [item.path.split(".") for item in self.objects]
        self.names = {".".join(parts[start:]) for parts in paths for start in range(len(parts))}

    def _inside(self, item):
        for member in item.members.values():
            if not member.is_alias:
                yield member
                if member.is_module or member.is_class:
                    yield from self._inside(member)

    def _visit(self, node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                path = f"{prefix}.{child.name}"
                self.nodes[path] = child
                if isinstance(child, ast.ClassDef):
                    self._visit(child, path)
            elif isinstance(child, ast.If | ast.Try | ast.With):
                self._visit(child, prefix)

    def public(self):
        """Functions, methods, properties and classes that no underscore hides."""
        for item in self.objects:
            hidden = any(part.startswith("_") and part != "__call__" for part in item.path.split("."))
            if not hidden and (item.is_function or item.is_class or "property" in item.labels):
                yield item

    def said_by(self, node):
        """Names after `raise` in a function or class, and all names that it mentions."""
        if node not in self._said:
            inside = list(ast.walk(node))
            errors = [child.exc for child in inside if isinstance(child, ast.Raise) and child.exc is not None]
            raised = {ast.unparse(error.func if isinstance(error, ast.Call) else error) for error in errors}
            names = {child.id for child in inside if isinstance(child, ast.Name)}
            self._said[node] = raised, names | {child.attr for child in inside if isinstance(child, ast.Attribute)}
        return self._said[node]

    def value(self, item):
        """What Python has where griffe found an object."""
        found = importlib.import_module(item.module.path)
        for part in item.path.removeprefix(f"{item.module.path}.").split("."):
            found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
        return getattr(found, "__func__", found)


@pytest.fixture(scope="module")
def clarity():
    return Package("clarity_hf", SOURCE)


def section(item, *kinds):
    """What a docstring's sections of these kinds hold, or None where it has none of them."""
    found = [part.value for part in item.docstring.parsed if part.kind.value in kinds] if item.docstring else []
    return [entry for entries in found for entry in entries] if found else None


def described(item):
    """Names and types under Args or Attributes; a line may describe several names."""
    entries = section(item, "parameters", "attributes")
    if entries is None:
        return None
    return {name.strip().lstrip("*"): str(entry.annotation) for entry in entries for name in entry.name.split(",")}


# What a function is given --------------------------------------------------------------------------------------------


def given(package, item):
    """Parameters of a function or a class, and fields of a record: name → `inspect.Parameter`.

    None where a class adds nothing of its own: an enum, an error, or what its base's docstring tells.
    """
    value = package.value(item)
    if not item.is_class:
        parameters = list(inspect.signature(value).parameters.values())
        bound = item.parent.is_class and "staticmethod" not in item.labels
        return {parameter.name: parameter for parameter in parameters[1 if bound else 0 :]}
    if issubclass(value, enum.Enum | BaseException | dict):
        return None
    fields = own_fields(value)
    if fields:
        return {field.name: field.parameter for field in fields}
    if value.__init__ is object.__init__ or (described(item) is None and "__init__" not in vars(value)):
        return None
    return dict(list(inspect.signature(value.__init__).parameters.items())[1:])


@dataclasses.dataclass
class Field:
    """A field of a record, and whether it says itself what it is."""

    name: str
    parameter: inspect.Parameter
    has_help: bool = False


def own_fields(cls):
    """Fields that a data class, a named tuple or a protocol declares itself; its base describes the others."""
    declared = vars(cls).get("__annotations__", {})
    if dataclasses.is_dataclass(cls):
        return [
            Field(field.name, _parameter(field.name, _default(field)), "help" in field.metadata)
            for field in dataclasses.fields(cls)
            if field.name in declared
        ]
    if issubclass(cls, tuple):
        return [Field(name, _parameter(name, cls._field_defaults.get(name, EMPTY))) for name in cls._fields]
    if getattr(cls, "_is_protocol", False):
        return [Field(name, _parameter(name, EMPTY)) for name in vars(cls).get("__annotations__", {})]
    return []


def _parameter(name, default):
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)


def _default(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return EMPTY if field.default is dataclasses.MISSING else field.default


def passed_on(package, item):
    """Keywords that `**kwargs` takes: those of a typed dict, of a base's method, and of a pipeline's sanitizer."""
    value = package.value(item)
    found = {}
    cls = value if item.is_class else package.value(item.parent) if item.parent.is_class else None
    if cls is not None:
        for base in cls.__mro__[1:]:
            if not item.is_class and item.name in vars(base):
                method = vars(base)[item.name]
                found.update(inspect.signature(getattr(method, "__func__", method)).parameters)
        if item.name == "__call__" and hasattr(cls, "_sanitize_parameters"):
            for step in (cls._sanitize_parameters, cls.preprocess, cls.postprocess):
                found.update(inspect.signature(step).parameters)
        if item.is_class and hasattr(cls, "valid_kwargs"):
            keywords = cls.valid_kwargs.__annotations__
            found.update({name: _parameter(name, getattr(cls, name, None)) for name in keywords})
    return found


def is_elsewhere(item):
    return any(item.path.startswith(f"{name}.") for name in OTHERWISE_DESCRIBED)


def linked(package, item):
    """Functions and classes that a docstring names in [`…`]: it is as theirs."""
    names = re.findall(r"\[`([\w.]+)`\]", item.docstring.value if item.docstring else "")
    return [other for other in package.public() if any(f".{other.path}".endswith(f".{name}") for name in names)]


# Rules ---------------------------------------------------------------------------------------------------------------


def undocumented(package):
    """A public function, method, property or class has a docstring; `forward` is explained by its class."""
    for item in package.public():
        if item.docstring is None and item.name != "forward":
            yield f"{item.path} has no docstring"


def wrong_names(package):
    """Args, or a record's Attributes, name what there is, all of it, in its order."""
    for item in package.public():
        if "property" in item.labels:
            continue
        names, parameters = described(item), given(package, item)
        if names is None or parameters is None:
            if names and not own_members(package, item).issuperset(names):
                yield f"{item.path} describes {list(names)}, takes nothing"
            continue
        if section(item, "parameters") is None and not own_fields(package.value(item)):
            parameters = {name: parameters[name] for name in names if name in parameters}  # what an object has
        variadic = [name for name, parameter in parameters.items() if parameter.kind in VARIADIC]
        wanted = [name for name in parameters if name not in variadic]
        extra = [name for name in names if name not in parameters]
        if extra and set(extra) <= {*passed_on(package, item), *own_members(package, item)}:
            names = {name: kind for name, kind in names.items() if name not in extra}
        elif any(name not in names for name in variadic):
            wanted += variadic
        if [name for name in names if name not in variadic or name in wanted] != wanted:
            yield f"{item.path} describes {list(names)}, takes {wanted}"


def own_members(package, item):
    """What an Attributes section may name beside fields: properties, and what a constructor sets."""
    if not item.is_class:
        return set()
    members = {name for name, member in item.all_members.items() if not member.is_function}
    stored = (node for node in ast.walk(package.nodes[item.path]) if isinstance(node, ast.Attribute))
    return members | {node.attr for node in stored if isinstance(node.ctx, ast.Store)}


def untold_arguments(package):
    """A record describes its fields, or each says itself what it is; nor does prose tell of many parameters."""
    for item in package.public():
        if described(item) is not None or is_elsewhere(item) or "property" in item.labels:
            continue
        parameters = given(package, item) or {}
        fields = own_fields(package.value(item)) if item.is_class else []
        if fields and all(field.has_help for field in fields):
            continue
        if len(parameters) > MOST_WITHOUT_ARGS:
            told = {name for other in linked(package, item) for name in given(package, other) or {}}
            if not told.issuperset(parameters):
                yield f"{item.path} does not describe {list(parameters)}"


def wrong_defaults(package):
    """What is said to be a default is the default, and what is said to be optional has one."""
    for item in package.public():
        names = described(item)
        if names is None or "property" in item.labels:
            continue
        parameters = {**passed_on(package, item), **(given(package, item) or {})}
        for name, kind in names.items():
            default = parameters[name].default if name in parameters else EMPTY
            stated = re.search(r"\bdefaults? to (.+)$", kind)
            if "*optional*" in kind and default is EMPTY:
                yield f"{item.path}: `{name}` is said to be optional"
            if stated and not same_default(stated[1], default):
                yield f"{item.path}: `{name}` is said to be {stated[1]}, is {default!r}"


def same_default(text, default):
    """Whether the words of a docstring are a value: a literal, a fraction, or the name of an enum's member."""
    text = text.strip("`")
    fraction = re.fullmatch(r"(\d+)/(\d+)", text)
    if fraction:
        return default == int(fraction[1]) / int(fraction[2])
    if isinstance(default, enum.Enum) and text == default.name:
        return True
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def untold_results(package):
    """Returns, or Yields, is there for arrays and tuples, and not where nothing is returned.

    A summary may give the shape, and a docstring without Args tells in its sentences.
    """
    for item in package.public():
        if not item.is_function or is_elsewhere(item):
            continue
        told = section(item, "returns", "yields") is not None
        in_summary = re.search(r"`\([^`]*\)`", item.docstring.value.partition("\n\n")[0]) if item.docstring else None
        returned = str(item.returns)
        if returned == "None" and told:
            yield f"{item.path} returns nothing"
        elif described(item) is not None and UNTELLING.match(returned) and not (told or in_summary):
            yield f"{item.path} does not describe its {returned}"


def unlisted_errors(package):
    """An error that a function raises itself is listed under Raises, or at least named."""
    for item in package.public():
        if "property" in item.labels or item.docstring is None:
            continue
        listed, untold = set(errors_of(item)), []
        for name in raised_by(package.nodes[item.path]) - NOT_FOR_CALLERS:
            helper = name.rpartition(".")[2].lstrip("_")[0].islower()  # a function that makes the error
            if not (name in item.docstring.value or (helper and listed)):
                untold.append(name)
        of_others = {name for other in linked(package, item) for name in errors_of(other)} if untold else set()
        for name in set(untold) - of_others:
            yield f"{item.path} raises {name}, lists {sorted(listed)}"


def unraised_errors(package):
    """An error under Raises is one, and is raised there or by what is called from there, or by a library."""
    for item in package.public():
        if not errors_of(item) or "property" in item.labels:
            continue
        reached = errors_reached(package, item)
        for name in errors_of(item):
            error = error_named(package, item, name)
            if error is None:
                yield f"{item.path} lists {name}, which is not an error"
            elif not (name in reached or is_by_libraries(package, error)):
                yield f"{item.path} lists {name}, which nothing there raises"


def errors_of(item):
    entries = section(item, "raises") or []
    return [name for entry in entries for name in re.findall(r"[\w.]+", str(entry.annotation))]


def error_named(package, item, name):
    """The class of an error by the name that a docstring gives it, or None."""
    module = sys.modules[item.module.path]
    found = getattr(builtins, name, getattr(module, name, None))
    if found is None and "." in name:
        library, _, inside = name.rpartition(".")
        found = getattr(importlib.import_module(library), inside, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def is_by_libraries(package, error):
    """Whether a library may raise it, without a word in the package."""
    own = error.__module__.split(".")[0] in ("builtins", package.root.name)
    return not own or error is Exception or issubclass(error, BY_LIBRARIES)


def raised_by(node):
    """Names after `raise` in a function, or in what makes an object of a class, functions inside left out."""
    if isinstance(node, ast.ClassDef):
        makers = [child for child in node.body if getattr(child, "name", "") in ("__init__", "__post_init__")]
        return set().union(*map(raised_by, makers))
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            found.add(ast.unparse(child.exc.func if isinstance(child.exc, ast.Call) else child.exc))
        found |= raised_by(child)
    return found


def errors_reached(package, item):
    """Names after `raise` in a function or class and in all of the package that it may call, found by name."""
    waiting, seen, found = [package.nodes[item.path]], set(), set()
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            raised, named = package.said_by(node)
            found |= raised
            waiting += [other for name in named for other in package.nodes_by_name.get(name, [])]
    return found


def dead_links(package):
    """What stands in [`…`] is a name of the package or of a library."""
    for item in [package.root, *package.objects]:
        for name in re.findall(r"\[`([\w.]+)`\]", item.docstring.value if item.docstring else ""):
            if name.removeprefix(f"{package.root.name}.") not in package.names and not is_of_a_library(name):
                yield f"{item.path} links [`{name}`], which is nowhere"


def is_of_a_library(name):
    library, _, inside = name.rpartition(".")
    return bool(library) and importlib.util.find_spec(library.split(".")[0]) is not None and hasattr(
        importlib.import_module(library), inside
    )


RULES = {
    rule.__name__: rule
    for rule in (
        undocumented,
        wrong_names,
        untold_arguments,
        wrong_defaults,
        untold_results,
        unlisted_errors,
        unraised_errors,
        dead_links,
    )
}


@pytest.mark.parametrize("rule", RULES)
def test_docstrings_say_what_the_code_does(rule, clarity):
    assert list(RULES[rule](clarity)) == []


def test_the_whole_package_is_read(clarity):
    files = {path for path in (SOURCE / "clarity_hf").rglob("*.py")}
    assert {Path(module.filepath) for module in clarity.modules} == files
    assert len(list(clarity.public())) > 500
    assert sum(described(item) is not None for item in clarity.public()) > 250


# The rules themselves ------------------------------------------------------------------------------------------------

FAULTS = """
from dataclasses import dataclass
import numpy as np
import torch
from torch import Tensor


def bare(): ...


def renamed(one, two=1):
    '''Add.

    Args:
        one: A number.
        other: Another.
    '''


def swapped(one, two):
    '''Add.

    Args:
        two: A number.
        one: Another.
    '''


def crowded(a, b, c, d, e):
    '''Add.'''


def defaulted(one=1, two=True, three="a", four=0.5):
    '''Add.

    Args:
        one (`int`, defaults to 2): Wrong.
        two (`bool`, defaults to 1): Wrong.
        three (`str`, defaults to `"a"`): Right.
        four (`float`, defaults to 1/2): Right.
    '''


def required(one):
    '''Add.

    Args:
        one (`int`, *optional*): Wrong.
    '''


def shapeless(one) -> np.ndarray:
    '''Add.

    Args:
        one: A number.
    '''


def shaped(one) -> Tensor:
    '''Add to `(B, F)`.

    Args:
        one: A number.
    '''


def nothing() -> None:
    '''Add.

    Returns:
        A sum.
    '''


def raising(one):
    '''Add.'''
    raise ValueError(one)


def inventing():
    '''Add.

    Raises:
        KeyError: Never.
        NoError: Never.
        OSError: Of a library.
    '''


def calling(one):
    '''Add, see [`raising`], [`gone`] and [`torch.nn.Linear`].

    Raises:
        ValueError: From there.
    '''
    raising(one)


@dataclass
class Record:
    '''Two numbers.

    Attributes:
        one: The first.
    '''

    one: int
    two: int = 0


class Whole:
    '''Right.

    Args:
        one: The first.
        kwargs: The rest.

    Raises:
        ValueError: Always.
    '''

    def __init__(self, one, **kwargs):
        raise ValueError(one)

    @property
    def undocumented(self):
        return 1
"""


def test_the_rules_see_their_faults(tmp_path, monkeypatch):
    (tmp_path / "faulty_package").mkdir()
    (tmp_path / "faulty_package" / "__init__.py").write_text(FAULTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    package = Package("faulty_package", tmp_path)
    found = {name: [line.removeprefix("faulty_package.") for line in rule(package)] for name, rule in RULES.items()}
    assert found == {
        "undocumented": ["bare has no docstring", "Whole.undocumented has no docstring"],
        "wrong_names": [
            "renamed describes ['one', 'other'], takes ['one', 'two']",
            "swapped describes ['two', 'one'], takes ['one', 'two']",
            "Record describes ['one'], takes ['one', 'two']",
        ],
        "untold_arguments": ["crowded does not describe ['a', 'b', 'c', 'd', 'e']"],
        "wrong_defaults": [
            "defaulted: `one` is said to be 2, is 1",
            "defaulted: `two` is said to be 1, is True",
            "required: `one` is said to be optional",
        ],
        "untold_results": ["shapeless does not describe its np.ndarray", "nothing returns nothing"],
        "unlisted_errors": ["raising raises ValueError, lists []"],
        "unraised_errors": [
            "inventing lists KeyError, which nothing there raises",
            "inventing lists NoError, which is not an error",
        ],
        "dead_links": ["calling links [`gone`], which is nowhere"],
    }
