"""Every recipe runs at its smallest size, says what it is, and its parts resolve."""

from __future__ import annotations

import ast
import json

import pytest

from rewardkit.papers.runner import get, reproduce
from rewardkit.papers.works import RECIPES

SLUGS = sorted(p.stem for p in RECIPES.glob("[!_]*.py"))


@pytest.mark.parametrize("slug", SLUGS)
def test_a_smoke_run_goes_through_every_arm(slug, tmp_path, monkeypatch):
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    recipe = get(slug)
    result = reproduce(recipe, smoke=True)
    assert set(result["arms"]) == set(recipe.arms)
    assert len(result["outcomes"]) == len(recipe.expectations)
    json.dumps(result)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_recipe_opens_with_what_it_does_and_leaves_out(slug):
    text = ast.get_docstring(ast.parse((RECIPES / f"{slug}.py").read_text(encoding="utf-8"))) or ""
    assert len(text.split()) > 60
    assert "left out" in " ".join(text.lower().split())
