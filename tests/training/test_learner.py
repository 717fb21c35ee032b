"""The learner: exact accumulation, terms, modes, forks, skips."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from rewardkit.needs import Column
from rewardkit.objectives.base import Loss, mean, objective
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Learner, Term
from rewardkit.types import Rollout, Sample


@objective(per="token")
def likelihood(logps: Tensor) -> Loss:
    return Loss(-logps, {"logp": logps})


@objective(per="token")
def surrogate(logps: Tensor, advantages: Tensor, *, scale: float | Tensor = 1.0) -> Loss:
    return Loss(-advantages * logps * scale, {"advantage": advantages})


@objective(per="sample")
def row_loss(logps: Tensor, mask: Tensor) -> Loss:
    total = (logps * mask).sum(-1)
    return Loss(total.square(), {"row": total})


@objective(per="pair")
def pair_loss(logps: Tensor, mask: Tensor, pairs: Tensor) -> Loss:
    total = (logps * mask).sum(-1)
    margin = total[pairs[:, 0]] - total[pairs[:, 1]]
    return Loss(-nn.functional.logsigmoid(margin), {"accuracy": (margin > 0).to(margin.dtype)})


@objective(per="group")
def group_loss(logps: Tensor, mask: Tensor, group: Tensor) -> Loss:
    _, index = torch.unique(group, return_inverse=True)
    total = (logps * mask).sum(-1)
    sums = torch.zeros(int(index.max()) + 1, dtype=total.dtype).index_add(0, index, total)
    return Loss(sums.square(), {"sum": sums})


@objective(per="token", scope="batch")
def batch_loss(logps: Tensor, entropy: Tensor, mask: Tensor) -> Loss:
    centre = (logps * mask).sum() / mask.sum().clamp(min=1)
    return Loss((logps - centre).square() * entropy, {"centred": logps - centre})


@objective(per="sample")
def regression(values: Tensor, mask: Tensor, returns: Tensor) -> Loss:
    return Loss((((values - returns) ** 2) * mask).sum(-1))


HORIZON, ROWS = 3, 8


def ragged(seed: int = 0) -> tuple[TablePolicy, Rollout]:
    """A float64 policy, and 8 rows in 4 groups of 2 with masks of unequal length; one row is fully masked."""
    make = torch.Generator().manual_seed(seed)
    policy = TablePolicy(["x", "y"], ["a", "b"], HORIZON)
    policy.module.double()
    with torch.no_grad():
        policy.logits.copy_(torch.randn(policy.logits.shape, generator=make, dtype=torch.float64))
    outputs = [tuple("ab"[int(i)] for i in torch.randint(2, (HORIZON,), generator=make)) for _ in range(ROWS)]
    rollout = policy.encode([Sample("xy"[i % 2], o) for i, o in enumerate(outputs)])
    lengths = torch.tensor([3, 1, 2, 3, 0, 2, 1, 3])
    rollout.mask = (torch.arange(HORIZON)[None] < lengths[:, None]).double()
    rollout.group = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])
    return policy, rollout.with_tensors(
        rank=torch.tensor([0, 0, 1, 1, 0, 1, 1, 0]),
        advantages=torch.randn(ROWS, HORIZON, generator=make, dtype=torch.float64),
    )


CASES = [
    (likelihood, "tokens"),
    (likelihood, "sequences"),
    (likelihood, "sequence_sums"),
    (likelihood, "constant"),
    (surrogate, "tokens"),
    (row_loss, "tokens"),
    (pair_loss, "tokens"),
    (group_loss, "tokens"),
    (batch_loss, "tokens"),
    (batch_loss, "sequences"),
]


@pytest.mark.parametrize(("loss", "reduce"), CASES)
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
def test_micro_batches_leave_gradient_and_metrics_as_one_big_batch(loss, reduce, micro_batch) -> None:
    """R1, R3, R4, R5, R70: whatever the division, the same gradient and the same logged numbers."""
    policy, data = ragged()
    term = Term(data, loss, reduce=reduce, length=7)
    whole, parts = Learner(policy), Learner(copy.deepcopy(policy), micro_batch=micro_batch)
    torch.testing.assert_close(parts.grads(term), whole.grads(term), rtol=1e-12, atol=1e-14)
    seen, expected = parts.step(term), whole.step(term)
    assert seen.keys() == expected.keys()
    for name in expected:
        assert seen[name] == pytest.approx(expected[name], rel=1e-9), name


@pytest.mark.parametrize(("loss", "reduce"), CASES)
def test_gradient_is_that_of_the_plain_mean(loss, reduce) -> None:
    """The learner computes what ``objectives.base.mean`` defines, by autograd on the whole batch."""
    from rewardkit.needs import call
    from rewardkit.objectives.base import pairs_of

    policy, data = ragged()
    found = Learner(copy.deepcopy(policy), micro_batch=3).grads(Term(data, loss, reduce=reduce, length=7))
    names = policy.evaluate(data, ("logps", "entropy"))
    pairs = pairs_of(data.group, data["rank"])
    names |= {"mask": data.mask, "group": data.group, "pairs": pairs, "advantages": data["advantages"]}
    value = mean(call(loss, names), data.mask, loss, reduce, length=7, pairs=pairs, group=data.group)
    (expected,) = torch.autograd.grad(value, [policy.logits])
    torch.testing.assert_close(found["logits"], expected, rtol=1e-12, atol=1e-14)


def test_masked_rows_are_in_no_denominator() -> None:
    """R2: the mean is over what is trained."""
    policy, data = ragged()
    alive = (data.mask > 0).any(-1).nonzero()[:, 0]
    a = Learner(policy).grads(Term(data, likelihood, reduce="sequences"))
    b = Learner(policy).grads(Term(data.select(alive), likelihood, reduce="sequences"))
    torch.testing.assert_close(a, b)


def counted(policy: TablePolicy) -> list[tuple]:
    """What the policy was asked for, call by call, from now on."""
    calls: list[tuple] = []
    evaluate = policy.evaluate
    policy.evaluate = lambda rollout, want=("logps",): calls.append(want) or evaluate(rollout, want)  # type: ignore[method-assign]
    return calls


def test_terms_have_a_normaliser_each_and_share_one_forward() -> None:
    policy, data = ragged()
    calls = counted(policy)
    learner = Learner(policy)
    both = learner.grads(Term(data, likelihood, coef=0.5), Term(data, row_loss, coef=2.0))
    assert calls == [("logps",)]
    one, two = learner.grads(Term(data, likelihood)), learner.grads(Term(data, row_loss))
    torch.testing.assert_close(both["logits"], 0.5 * one["logits"] + 2.0 * two["logits"])


@pytest.mark.parametrize(("micro_batch", "forwards"), [(None, 1), (ROWS, 1), (4, 4 + 2)])
def test_coupled_loss_takes_two_passes_only_where_the_batch_is_divided(micro_batch, forwards) -> None:
    """In one piece it shares its forward with the other terms."""
    policy, data = ragged()
    whole, parts = Learner(policy), Learner(copy.deepcopy(policy), micro_batch=micro_batch)
    terms = Term(data, batch_loss), Term(data, row_loss, coef=0.5)
    calls = counted(parts.model)
    found = parts.grads(*terms)
    assert len(calls) == forwards
    one, two = (whole.grads(t)["logits"] for t in terms)
    torch.testing.assert_close(found["logits"], one + two, rtol=1e-12, atol=1e-14)


def test_two_terms_of_one_objective_are_logged_apart() -> None:
    policy, data = ragged()
    metrics = Learner(policy).step(Term(data, likelihood), Term(data.select([0, 1]), likelihood, coef=0.1))
    assert metrics["loss"] == pytest.approx(metrics["likelihood/loss"] + 0.1 * metrics["likelihood_2/loss"])


def test_stored_log_probs_never_stand_in_for_live_ones() -> None:
    policy, data = ragged()
    stale = data.with_tensors(logps=torch.zeros(ROWS, HORIZON, dtype=torch.float64))
    learner = Learner(policy)
    torch.testing.assert_close(learner.grads(Term(stale, likelihood)), learner.grads(Term(data, likelihood)))


def test_columns_are_read_from_the_rollout_in_each_micro_batch() -> None:
    policy, data = ragged()
    scale = torch.arange(1.0, 1 + ROWS * HORIZON, dtype=torch.float64).reshape(ROWS, HORIZON)
    by_column = Term(data.with_tensors(scale=scale), partial(surrogate, scale=Column("scale")))
    by_hand = Term(data.with_tensors(advantages=data["advantages"] * scale), surrogate)
    torch.testing.assert_close(
        Learner(policy, micro_batch=3).grads(by_column), Learner(policy).grads(by_hand), rtol=1e-12, atol=1e-14
    )


def test_column_of_a_pair_loss_is_read_at_the_better_row() -> None:
    policy, data = ragged()
    margin = torch.arange(float(ROWS), dtype=torch.float64)

    @objective(per="pair")
    def margins(logps: Tensor, pairs: Tensor, *, margin: Tensor | float = 0.0) -> Loss:
        return Loss(logps[pairs[:, 0], 0] * margin)

    logps = policy.evaluate(data)["logps"].detach()
    metrics = Learner(policy).step(
        Term(data.with_tensors(margin=margin), partial(margins, margin=Column("margin", of="better")))
    )
    better = torch.tensor([0, 1, 7])  # row 4 is fully masked, and its pair with it
    assert metrics["loss"] == pytest.approx(float((logps[better, 0] * margin[better]).mean()))


def test_head_functions_are_evaluated_and_read_by_name() -> None:
    policy, data = ragged()

    def gap(logits: Tensor, targets: Tensor) -> Tensor:
        return logits.max(-1).values - logits.min(-1).values

    @objective(per="token")
    def narrow(gap: Tensor) -> Loss:
        return Loss(gap)

    term = Term(data, narrow, want=(gap,))
    a, b = Learner(policy).grads(term), Learner(policy, micro_batch=2).grads(term)
    assert float(a["logits"].norm()) > 0
    torch.testing.assert_close(a, b)


def test_missing_tensor_is_named_with_the_call_that_attaches_it() -> None:
    policy, data = ragged()
    bare = policy.encode(data.samples)
    with pytest.raises(KeyError, match=r"term 'surrogate'.*\['advantages'\].*credit\.base\.apply"):
        Term(bare, surrogate)
    with pytest.raises(KeyError, match=r"pair_loss.*'rank'"):
        Term(bare, pair_loss)
    with pytest.raises(KeyError, match=r"\['scale'\]"):
        Term(data, partial(surrogate, scale=Column("scale")))


def test_unmarked_function_is_refused() -> None:
    _, data = ragged()
    with pytest.raises(TypeError, match="is not an objective"):
        Term(data, lambda logps: logps)


def test_other_views_receive_the_gradient_only_if_they_are_live() -> None:
    policy, data = ragged()
    with pytest.raises(KeyError, match="no view 'ema'"):
        Learner(policy).grads(Term(data, likelihood, view="ema"))
    with pytest.raises(ValueError, match="no trainable parameter received a gradient"):
        Learner(policy).step(Term(data, likelihood, view="start"))


@pytest.mark.parametrize("loss", [likelihood, pair_loss, batch_loss])
def test_fully_masked_step_is_counted_and_moves_nothing(loss) -> None:
    """R26: zeros and no NaN; AdamW's decay and moments do not move the weights either."""
    policy, data = ragged()
    learner = Learner(policy, lr=0.1, weight_decay=0.1, micro_batch=2)
    learner.step(Term(data, loss))
    before = policy.logits.clone()
    data.mask = torch.zeros_like(data.mask)
    metrics = learner.step(Term(data, loss))
    assert torch.equal(policy.logits, before)
    assert metrics["loss"] == 0.0
    assert metrics[f"{loss.__name__}/empty"] == 1.0
    assert (metrics["skipped"], learner.empty, learner.steps) == (1.0, 1, 2)


def test_gradient_that_is_not_finite_is_skipped_then_refused(caplog) -> None:
    policy, data = ragged()
    learner = Learner(policy, lr=0.1)
    before = policy.logits.clone()
    broken = data.with_tensors(advantages=torch.full((ROWS, HORIZON), float("nan"), dtype=torch.float64))
    assert learner.step(Term(broken, surrogate))["skipped"] == 1.0
    assert "not finite" in caplog.text
    assert torch.equal(policy.logits, before)
    learner.step(Term(data, surrogate))
    assert learner.skipped == 1
    for _ in range(9):
        learner.step(Term(broken, surrogate))
    with pytest.raises(FloatingPointError, match="10 updates in a row"):
        learner.step(Term(broken, surrogate))


def test_nan_in_a_masked_position_does_not_reach_the_gradient() -> None:
    """R27."""
    policy, data = ragged()
    holes = data.with_tensors(advantages=torch.where(data.mask > 0, data["advantages"], torch.nan))
    learner = Learner(policy)
    torch.testing.assert_close(learner.grads(Term(holes, surrogate)), learner.grads(Term(data, surrogate)))


def test_gradient_is_clipped_to_the_norm_and_logged_before() -> None:
    policy, data = ragged()
    free = Learner(copy.deepcopy(policy), clip=None, lr=1.0, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    held = Learner(copy.deepcopy(policy), clip=0.01, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    start = policy.logits.detach().clone()
    a, b = free.step(Term(data, likelihood)), held.step(Term(data, likelihood))
    assert a["grad_norm"] == b["grad_norm"] > 0.01
    assert float((free.module.logits - start).detach().norm()) == pytest.approx(a["grad_norm"])
    assert float((held.module.logits - start).detach().norm()) == pytest.approx(0.01, rel=1e-4)


def test_schedule_multiplies_the_rate_of_any_optimiser() -> None:
    policy, data = ragged()
    learner = Learner(
        policy, optimizer=lambda p: torch.optim.SGD(p, lr=0.5), schedule="linear", warmup=2, total_steps=4
    )
    rates = [learner.step(Term(data, likelihood))["lr"] for _ in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.5, 0.25, 0.0])
    with pytest.raises(ValueError, match="needs total_steps"):
        Learner(policy, schedule="cosine").step(Term(data, likelihood))


class Net:
    """A module with dropout and two parts; values are ``[B, 1]``."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def evaluate(self, rollout: Rollout, want=("values",)) -> dict[str, Tensor]:
        return {"values": self.module(rollout.inputs["x"])}


def numbers() -> Rollout:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
    return Rollout([Sample("") for _ in x], torch.ones(6, 1), tensors={"returns": x.sum(-1, True)}, inputs={"x": x})


def test_dropout_is_off_in_a_step_unless_asked_for() -> None:
    """R40."""
    net, data = Net(), numbers()
    net.module.train()
    a, b = (Learner(net).grads(Term(data, regression)) for _ in range(2))
    torch.testing.assert_close(a, b)
    assert not net.module.training
    noisy = Learner(net, dropout=True)
    c, d = (noisy.grads(Term(data, regression)) for _ in range(2))
    assert not torch.equal(c["0.weight"], d["0.weight"])
    assert not net.module.training


@objective(per="sample", scope="batch")
def spread(values: Tensor, returns: Tensor) -> Loss:
    gap = (values - returns)[:, 0]
    return Loss((gap - gap.mean()).square())


@pytest.mark.parametrize("micro_batch", [None, 6])
def test_coupled_loss_in_one_piece_is_exact_with_dropout(micro_batch) -> None:
    """R40: loss and gradient are of one draw of the dropout mask."""
    net, data = Net(), numbers()
    learner = Learner(net, dropout=True, micro_batch=micro_batch)
    torch.manual_seed(7)
    found = learner.grads(Term(data, spread))
    torch.manual_seed(7)
    net.module.train()
    gap = (net.module(data.inputs["x"]) - data["returns"])[:, 0]
    expected = torch.autograd.grad((gap - gap.mean()).square().mean(), list(net.module.parameters()))
    torch.testing.assert_close(list(found.values()), list(expected))


def test_coupled_loss_in_several_pieces_is_refused_with_dropout() -> None:
    net, data = Net(), numbers()
    with pytest.raises(ValueError, match=r"spread couples the whole batch.*dropout=False.*micro_batch=None"):
        Learner(net, dropout=True, micro_batch=3).grads(Term(data, spread))
    ranks = Learner(net, dropout=True)
    ranks.ranks = SimpleNamespace(count=2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="divided among micro-batches or ranks"):
        ranks.grads(Term(data, spread))
    Learner(net, dropout=True, micro_batch=3).grads(Term(data, regression))


def test_only_matching_parameters_are_trained_and_learners_share_a_module() -> None:
    net, data = Net(), numbers()
    first, last = Learner(net, trainable=r"^0\.", lr=0.1), Learner(net, trainable=r"^2\.", lr=0.1)
    before = {n: p.detach().clone() for n, p in net.module.named_parameters()}
    first.step(Term(data, regression))
    after = dict(net.module.named_parameters())
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert torch.equal(after["2.weight"], before["2.weight"])
    last.step(Term(data, regression))
    assert not torch.equal(after["2.weight"], before["2.weight"])
    assert all(p.requires_grad and p.grad is None for p in after.values())
    with pytest.raises(ValueError, match="no parameter matches"):
        Learner(net, trainable="encoder")


def test_two_learners_in_one_process_do_not_touch_each_other() -> None:
    policy, data = ragged()
    net, rows = Net(), numbers()
    actor, critic = Learner(policy, lr=0.1), Learner(net, lr=0.1, mixed_precision="bf16")
    frozen = policy.logits.detach().clone()
    critic.step(Term(rows, regression))
    assert torch.equal(policy.logits, frozen)
    weights = net.module[0].weight.detach().clone()
    actor.step(Term(data, likelihood))
    assert torch.equal(net.module[0].weight, weights)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains_and_keeps_single_precision_weights(precision) -> None:
    net, data = Net(), numbers()
    learner = Learner(net, mixed_precision=precision, lr=0.05)
    losses = [learner.step(Term(data, regression))["loss"] for _ in range(60)]
    assert losses[-1] < 0.1 * losses[0]
    assert net.module[0].weight.dtype == torch.float32


def test_fork_is_deep_and_continues_identically() -> None:
    policy, data = ragged()
    learner = Learner(policy, lr=0.1)
    learner.step(Term(data, likelihood))
    twin = learner.fork()
    a = [learner.step(Term(data, likelihood))["loss"] for _ in range(3)]
    b = [twin.step(Term(data, likelihood))["loss"] for _ in range(3)]
    assert a == b
    assert twin.module is not learner.module
    assert twin.steps == learner.steps == 4


def test_load_takes_weights_and_resets_moments_only_on_request() -> None:
    policy, data = ragged()
    learner, start = Learner(policy, lr=0.1), Learner(copy.deepcopy(policy))
    learner.step(Term(data, likelihood))
    learner.load(start, optimizer="keep")
    assert torch.equal(learner.module.logits, start.module.logits)
    assert learner.optimizer.state_dict()["state"]
    learner.load(start.model, optimizer="reset")
    assert not learner.optimizer.state_dict()["state"]
    learner.step(Term(data, likelihood))
    with pytest.raises(ValueError, match="keep"):
        learner.load(start, optimizer="drop")


def test_lerp_goes_from_own_to_other() -> None:
    policy, _ = ragged()
    other = TablePolicy(["x", "y"], ["a", "b"], HORIZON)
    own = policy.logits.detach().clone()
    Learner(policy).lerp(other, 0.25)
    torch.testing.assert_close(policy.logits.detach(), 0.75 * own)


def test_state_continues_to_the_same_curve_in_a_new_learner() -> None:
    policy, data = ragged()
    made = copy.deepcopy(policy)
    options = {"lr": 0.1, "schedule": "cosine", "warmup": 0.2, "total_steps": 10}
    learner = Learner(policy, **options)
    for _ in range(4):
        learner.step(Term(data, likelihood))
    state = copy.deepcopy(learner.state_dict())
    expected = [learner.step(Term(data, likelihood)) for _ in range(4)]
    resumed = Learner(made, **options)
    resumed.load_state_dict(state)
    assert [resumed.step(Term(data, likelihood)) for _ in range(4)] == expected
    with pytest.raises(ValueError, match="another model"):
        Learner(Net()).load_state_dict(state)


def test_a_step_changes_the_version_of_the_weights() -> None:
    """Fused kernels do not count their writes, and stale log-probs would be taken for those of the new weights."""
    policy = TablePolicy(["x"], ["a", "b"])
    learner, data = Learner(policy, lr=0.1), policy.encode([Sample("x", "a")])
    before, stale = policy.version, learner.attach(data, policy)
    learner.step(Term(data, likelihood))
    assert policy.version != before
    found = learner.attach(stale, policy)["ref_logps"]
    torch.testing.assert_close(found, policy.evaluate(data)["logps"].detach())
    assert not torch.equal(found, stale["ref_logps"])
