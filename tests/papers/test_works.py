"""The catalogue: every row is valid, and states follow from what resolves, runs and was recorded."""

from __future__ import annotations

import json

import pytest
import yaml

from rewardkit.papers.works import CATALOGUE, RECIPES, RESULTS, CatalogueError, find, load, mark, recipe_file, row

VERDICTS = ("shown", "not shown at this scale", "contrary")


@pytest.fixture(scope="module")
def works():
    return load()


def raw_row():
    return yaml.safe_load((CATALOGUE / "worlds.yaml").read_text(encoding="utf-8"))[0]


def test_there_are_328_works_each_with_its_own_number_and_slug(works):
    assert len(works) == 328
    assert len({w.slug for w in works}) == len({w.n for w in works}) == 328


def test_a_work_is_found_by_slug_and_by_number(works):
    assert find(works, "52") is find(works, "dpo")
    with pytest.raises(KeyError, match=r"near: .*dpo"):
        find(works, "dppo")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": ""}, r"bad.yaml, row 1 \(.*\): title must be a text"),
        ({"n": "7"}, "n must be a whole number"),
        ({"home": "worlds:x"}, "home must be a list of texts"),
        ({"home": ["worlds"]}, "must read 'module:name'"),
        ({"kind": "poem"}, "kind must be one of"),
        ({"colour": "red"}, r"unknown fields \['colour'\]"),
    ],
)
def test_a_bad_row_is_named_with_its_file_row_and_field(tmp_path, change, said):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump([{**raw_row(), **change}]), encoding="utf-8")
    with pytest.raises(CatalogueError, match=said):
        load(tmp_path)


def test_a_slug_used_twice_is_named(tmp_path):
    one, two = raw_row(), {**raw_row(), "n": 999}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump([one, two]), encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"row 2: .* is taken by bad.yaml, row 1"):
        load(tmp_path)


def test_the_state_needs_components_recipe_and_result(tmp_path, works):
    work = find(works, "dpo")
    recipes, results = tmp_path / "recipes", tmp_path / "results"
    recipes.mkdir()
    results.mkdir()

    def state(known):
        found = row(work, known, recipes=recipes, results=results)
        return found.state, found.verdict, found.stale

    assert state(set()) == ("missing", None, False)
    assert state({work.home[0]}) == ("partial", None, False)
    assert state(set(work.home)) == ("partial", None, False)
    (recipes / "dpo.py").touch()
    assert state(set(work.home)) == ("partial", None, False)
    versions = {"rewardkit": "0", "torch": "1", "transformers": "2"}  # not those of today
    recorded = {
        "verdict": "contrary",
        "outcomes": [],
        "versions": versions,
        "recipe": mark(recipes / "dpo.py", versions),
    }
    (results / "dpo.json").write_text(json.dumps(recorded))
    assert state(set(work.home)) == ("done", "contrary", False)
    assert state(set(work.home[1:])) == ("partial", "contrary", False)
    (recipes / "dpo.py").write_text("CHANGED = True\n")
    assert state(set(work.home)) == ("done", "contrary", True)


def test_missing_components_are_named(works):
    work = find(works, "dpo")
    assert row(work, {work.home[1]}).missing_components == (work.home[0], *work.home[2:])


def test_every_recipe_is_of_a_work_and_every_result_of_a_recipe(works):
    slugs = {w.slug for w in works}
    for file in RECIPES.glob("[!_]*.py"):
        assert file.stem in slugs
    for file in RESULTS.glob("*.json"):
        recorded = json.loads(file.read_text(encoding="utf-8"))
        assert recipe_file(file.stem).exists()
        assert recorded["slug"] == file.stem
        assert recorded["verdict"] in VERDICTS
        assert not recorded["smoke"]
        assert {"seeds", "versions", "seconds"} <= set(recorded)


def test_docs_survey_shows_the_same_results():
    survey = CATALOGUE.parents[3] / "docs" / "survey" / "results"
    assert survey.resolve() == RESULTS.resolve()
