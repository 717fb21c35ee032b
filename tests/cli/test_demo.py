"""The demo end to end on next to no data: the files, their fields, and what they may claim."""

import json
import re

import pytest

from rewardkit.cli.demo.pipeline import SMOKE, Budget
from rewardkit.cli.demo.report import _lead, verdict
from rewardkit.cli.demo.results import Track, over_seeds, summary
from rewardkit.cli.demo.stages import _fresh
from rewardkit.cli.main import main
from rewardkit.evals.overoptimization import Point
from rewardkit.worlds.assistant import AssistantWorld

FIELDS = ("gold_before", "gold_after", "gold_peak", "gold_winrate_vs_sft", "kl_at_peak", "seconds")


def point(step, gold, kl=None, preferred=0.6):
    kl = step / 10 if kl is None else kl
    return Point(step, kl, gold, gold, 0.5, 9.0, 200, preferred=preferred, asked=200)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDKIT_CACHE", str(out / "cache"))
        assert main(["demo", "--smoke", "--seeds", "2", "--out", str(out / "run")]) == 0
    return out / "run"


def test_summary_has_the_promised_fields_for_every_method(demo):
    summary = json.loads((demo / "summary.json").read_text())
    assert {"rm_accuracy", "rm_accuracy_ceiling", "seeds", *FIELDS} <= set(summary)
    assert summary["seeds"] == [0, 1]
    for method in ("dpo", "best_of_n"):
        assert set(FIELDS) <= set(summary[method])
        assert set(summary[method]["intervals"]) >= set(FIELDS)
    assert summary["gold_peak"] >= summary["gold_before"]


def test_a_smoke_run_says_that_its_figures_mean_nothing(demo):
    assert json.loads((demo / "summary.json").read_text())["smoke"] is True
    assert "the figures below mean nothing" in (demo / "report.html").read_text()


def test_report_needs_no_network(demo):
    page = (demo / "report.html").read_text()
    fetched = re.findall(r"""(?:src|href)\s*=\s*["'](?!#)([^"']+)|url\((?!["']?#)([^)]+)\)|@import""", page)
    assert fetched == []
    assert "<script" not in page
    assert page.count("<svg") == 4


def test_checkpoints_load_without_rewardkit(demo):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    assert AutoModelForSequenceClassification.from_pretrained(demo / "reward_model").config.num_labels == 1
    assert AutoModelForCausalLM.from_pretrained(demo / "policy-0").num_parameters() > 1_000_000


def test_metrics_of_every_stage_are_logged(demo):
    stages = {p.parent.name for p in (demo / "logs").glob("*/metrics.jsonl")}
    assert stages == {"reward_model", "grpo-0", "grpo-1", "dpo-0", "dpo-1"}


def test_test_prompts_are_never_trained_on_or_chosen_by():
    world = AssistantWorld()
    train, validation, test = ({s.prompt for s in world.prompts(x)} for x in ("train", "validation", "test"))
    assert not train & test
    assert not validation & test
    assert not train & validation
    assert Budget().test >= 200
    assert len(test) >= Budget().test
    assert SMOKE.test < Budget().test


def test_a_run_without_a_fall_says_so():
    track = Track([point(0, 0.0), point(8, 0.5), point(16, 0.8)], noise=0.1, seconds=1.0, outputs=10)
    text = verdict([track], over_seeds([track]))
    assert text.startswith("No peak within the run")
    assert over_seeds([track])["gold_peak"] == 0.8


def test_a_fall_beyond_the_noise_is_reported_with_its_place():
    points = [point(0, 0.0), point(8, 0.9), point(16, 0.2)]
    track = Track(points, noise=0.1, seconds=1.0, outputs=10)
    assert verdict([track], over_seeds([track])).startswith("Gold peaked at 0.90 around update 8")
    assert over_seeds([track])["kl_at_peak"] == pytest.approx(0.8)


RISES = Track([point(0, 0.0), point(8, 0.5), point(16, 0.8)], noise=0.1, seconds=1.0, outputs=10)
FALLS = Track([point(0, 0.0), point(8, 0.9), point(16, 0.2)], noise=0.1, seconds=1.0, outputs=10)


def test_a_peak_is_what_most_seeds_had_and_is_averaged_over_those():
    tracks = [FALLS, RISES, FALLS]
    text = verdict(tracks, over_seeds(tracks))
    assert text.startswith("Gold peaked at 0.90 around update 8, 0.8 nats from the SFT model, and fell to 0.20")
    assert "means over the 2 of 3 seeds in which it fell" in text
    assert "gold peaks (2 of 3 seeds)" in _lead(tracks, {"proxy": 1.0, "gold": 1.0})


@pytest.mark.parametrize(("tracks", "count"), [([FALLS, RISES, RISES], "1 of 3"), ([FALLS, RISES], "1 of 2")])
def test_a_fall_in_few_seeds_is_no_peak_and_is_said(tracks, count):
    text = verdict(tracks, over_seeds(tracks))
    assert text.startswith("No peak within the run")
    assert f"it fell in {count} seeds" in text
    assert "no peak within the run" in _lead(tracks, {"proxy": 1.0, "gold": 1.0})


def test_the_seconds_of_the_whole_have_no_interval():
    found = summary(
        {method: [RISES, FALLS] for method in ("grpo", "dpo", "best_of_n")},
        {"accuracy": 0.6, "ceiling": 0.7},
        seeds=[0, 1],
        seconds=100.0,
    )
    assert found["seconds"] == 100.0
    assert "seconds" not in found["intervals"]
    assert {"gold_after", "kl_at_peak"} <= set(found["intervals"])
    assert "seconds" in found["grpo"]["intervals"]


def test_logs_of_an_earlier_run_are_removed_and_other_files_stay(tmp_path):
    for name in ("reward_model", "grpo-0", "dpo-7", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("{}")
    assert [p.name for p in _fresh(tmp_path).iterdir()] == ["mine"]
    assert not list(_fresh(tmp_path / "absent").glob("*"))


def test_the_stop_does_not_look_at_gold():
    preferred = [0.5, 0.8, 0.6]
    chosen = {
        Track(
            [point(8 * i, g, preferred=p) for i, (g, p) in enumerate(zip(gold, preferred, strict=True))], 0.1, 1.0, 1
        ).stop
        for gold in ([0.0, 1.0, 2.0], [5.0, 1.0, 0.0], [0.0, 0.0, 0.0])
    }
    assert chosen == {1}
