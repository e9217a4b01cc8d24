"""Imports between the rooms of the package point one way (docs/architecture.md)."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_khyper"
# From the bottom up: a room imports rooms that stand above its own line here, and of
# those no others than its line names. So there are no circles.
ALLOWED = {
    "checks": "",
    "pickles": "",
    "backend": "",
    "gpu": "backend",
    "spaces": "checks",
    "architectures": "checks spaces",
    "layers": "checks backend spaces",
    "generators": "checks backend spaces layers",
    "routes": "checks backend spaces architectures layers generators",
    "operations": "backend layers generators routes",
    "cells": "backend spaces layers generators routes operations",
    "profiling": "checks backend spaces",
    "search": "checks spaces",
    "data": "checks pickles backend",
    "training": "checks backend spaces architectures layers generators routes "
    "profiling data",
    "models": "checks spaces architectures layers generators routes cells profiling "
    "data training",
    "presets": "checks spaces data training models",
    "evaluation": "checks backend spaces data training models presets",
    "export": "checks backend profiling data models",
    "visualization": "checks spaces profiling search data training models evaluation",
    "experiments": "checks backend spaces architectures layers generators profiling "
    "search data training models presets evaluation export visualization",
    "cli": "checks spaces profiling search data training models presets evaluation "
    "export visualization experiments",
}
# `Supernet.from_preset` reads what stands above it, when it is called.
DEFERRED = {("training", "models"), ("training", "presets")}
FRAMEWORKS = {"tensorflow", "jax", "torch"}
# What an architecture is and how it is searched needs no network.
WITHOUT_KERAS = {"checks", "spaces", "search"}


def imports(tree, top_level_only=False):
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ([*node.module.split("."), alias.name] for alias in node.names)


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":  # which lists the rooms
            yield room, path, ast.parse(path.read_text())


def test_rooms_import_only_rooms_below_them():
    order, wrong = list(ALLOWED), []
    for room, names in ALLOWED.items():
        assert all(order.index(name) < order.index(room) for name in names.split())
    for room, path, tree in modules():
        top = list(imports(tree, top_level_only=True))
        for name in imports(tree):
            target = name[1] if name[0] == PACKAGE.name else room
            deferred = (room, target) in DEFERRED and name not in top
            if target not in {room, *ALLOWED[room].split()} and not deferred:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("room", sorted(WITHOUT_KERAS))
def test_rooms_without_keras(room):
    found = {name[0] for r, _, tree in modules() if r == room for name in imports(tree)}
    assert not found & {"keras", *FRAMEWORKS}


def test_a_framework_is_imported_where_it_is_used():
    """At the top of a module it would be a cost, or an error, for every backend."""
    for room, path, tree in modules():
        if room != "backend":
            names = {name[0] for name in imports(tree, top_level_only=True)}
            assert not names & FRAMEWORKS, path


def test_the_picture_of_rooms_shows_allowed_edges():
    page = PACKAGE.parent / "docs" / "architecture.md"
    edges = re.findall(r"^  (\w+) --> (\w+)$", page.read_text(), re.MULTILINE)
    assert len(edges) > 10
    assert [edge for edge in edges if edge[1] not in ALLOWED[edge[0]].split()] == []
