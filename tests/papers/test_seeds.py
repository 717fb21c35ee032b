"""Everything random in an arm derives from the run's seed: what two seeds share, their interval does not see."""

from __future__ import annotations

from rewardkit.papers.recipe import Run
from rewardkit.papers.recipes import prime, soar_teacher
from rewardkit.rewards.learned.implicit_prm import ImplicitPRM


def test_a_frozen_process_reward_is_fitted_to_rollouts_of_its_own_seed(monkeypatch, cache):
    def fitted(seed):
        seen = []
        monkeypatch.setattr(
            ImplicitPRM, "update", lambda _, rows, scores: seen.append([s.prompt for s in rows.samples])
        )
        prime.prime(Run(seed, smoke=True), live=False)
        return seen

    assert fitted(0) != fitted(1)


def test_candidates_of_two_seeds_are_taught_by_other_draws(monkeypatch, cache):
    plain = soar_teacher.study

    def drawn(seed):
        seen = []

        def study(run, learner, prompts, turns, number):
            seen.append(number)
            plain(run, learner, prompts, turns, number)

        monkeypatch.setattr(soar_teacher, "study", study)
        soar_teacher.soar(Run(seed, smoke=True))
        return seen[:-1]  # the last is the final training

    assert not set(drawn(0)) & set(drawn(1))
