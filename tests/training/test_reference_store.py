"""Reference log-probs on disk: computed once, never stale, whole whatever happens to a process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit.policies.language import LanguagePolicy, train_tokenizer
from rewardkit.policies.table import TablePolicy
from rewardkit.training.learner import Learner
from rewardkit.training.reference import Remembered, attach_reference
from rewardkit.training.reference_store import ReferenceStore, row_keys, store_file
from rewardkit.types import Rollout, Sample

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = ["yes please", "go away", "no"]


def policy(seed: int = 0, **options: Any) -> LanguagePolicy:
    tokenizer = train_tokenizer(["yes please go away 0123456789: "] * 5, vocab_size=300)
    return LanguagePolicy.scratch(tokenizer, {**SIZE, **options.pop("size", {})}, length=64, seed=seed, **options)


def rollout(made: LanguagePolicy, texts: list[str] = TEXTS) -> Rollout:
    return made.encode([Sample("0: ", text) for text in texts])


class Counted:
    """How many rows the weights are asked for."""

    def __init__(self, made: LanguagePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = 0
        evaluate = LanguagePolicy.evaluate

        def counting(policy: Any, rollout: Rollout, want: Any = ("logps",)) -> Any:
            self.rows += len(rollout) * (policy.view == made.view and policy.module is made.module)
            return evaluate(policy, rollout, want)

        monkeypatch.setattr(LanguagePolicy, "evaluate", counting)

    def take(self) -> int:
        rows, self.rows = self.rows, 0
        return rows


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with ReferenceStore(tmp_path / "pairs.reference.sqlite") as made:
        yield made


def test_only_rows_that_are_not_stored_go_through_the_model(
    store: ReferenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = policy()
    start = made.at("start")
    plain = attach_reference(rollout(made), start)["ref_logps"]
    counted = Counted(start, monkeypatch)
    assert torch.equal(attach_reference(rollout(made), start, store=store)["ref_logps"], plain)
    assert counted.take() == 3
    mixed = attach_reference(rollout(made, ["no", "yes", "no", "yes", "go away"]), start, store=store)
    assert counted.take() == 1  # "yes" is new and stands twice
    expected = attach_reference(rollout(made, ["no", "yes", "no", "yes", "go away"]), start)["ref_logps"]
    torch.testing.assert_close(mixed["ref_logps"], expected, atol=1e-6, rtol=0)
    assert (store.found, store.computed) == (4, 4)
    counted.take()
    with ReferenceStore(tmp_path / "pairs.reference.sqlite") as again:
        assert torch.equal(attach_reference(rollout(made), policy().at("start"), store=again)["ref_logps"], plain)
    assert counted.take() == 0


def test_micro_batches_and_learners_read_the_same_rows(store: ReferenceStore) -> None:
    made = policy()
    by_one = attach_reference(rollout(made), made.at("start"), micro_batch=1, store=store)
    assert torch.equal(attach_reference(rollout(made), made.at("start"), store=store)["ref_logps"], by_one["ref_logps"])
    assert by_one["ref_logps"].device == by_one.mask.device


def test_whatever_changes_the_numbers_changes_the_key() -> None:
    made = policy()
    rows = rollout(made, ["yes please"])
    image = {"pixel_values": torch.zeros(1, 3, 2, 2)}

    def shown(pixels: dict[str, torch.Tensor]) -> Rollout:
        return replace(rows, inputs={**rows.inputs, "media": [pixels]})

    ids = rows.inputs["prompt_ids"][0], rows.inputs["output_ids"][0]
    moved = {"prompt_ids": [ids[0] + ids[1][:1]], "output_ids": [ids[1][1:]]}
    keys = [
        row_keys(rows, made, "no"),
        row_keys(rows, policy(1), "no"),
        row_keys(rows, policy(size={"rope_theta": 500.0}), "no"),
        row_keys(rows, made, "bf16"),
        row_keys(replace(rows, how={"temperature": 0.7}), made, "no"),
        row_keys(Rollout(rows.samples, rows.mask[:, 1:], inputs=moved), made, "no"),
        row_keys(shown(image), made, "no"),
        row_keys(shown({"pixel_values": torch.ones(1, 3, 2, 2)}), made, "no"),
        row_keys(shown({"pixel_values": torch.zeros(1, 3, 4, 1)}), made, "no"),
    ]
    assert len({key for (key,) in keys}) == len(keys)
    assert keys[0] == row_keys(replace(rows, how={"drawn": {"seed": 3}, "temperature": 1}), policy(), "no")


def test_a_changed_weight_is_never_read_from(store: ReferenceStore) -> None:
    made = policy()
    attach_reference(rollout(made), made, store=store)
    with torch.no_grad():
        next(made.module.parameters()).view(-1)[0] += 0.5
    found = attach_reference(rollout(made), made, store=store)["ref_logps"]
    assert torch.equal(found, attach_reference(rollout(made), made)["ref_logps"])
    assert store.computed == 6


def test_a_fresh_adapters_start_is_one_whatever_its_rank(store: ReferenceStore) -> None:
    """Another rank is another hyper-parameter; another scale of a trained adapter is another model."""
    one, other = (policy(lora={"r": r, "target_modules": ["q_proj"]}) for r in (2, 4))
    rows = rollout(one)
    assert row_keys(rows, one.at("start"), "no") == row_keys(rows, other.at("start"), "no")
    loud = policy(lora={"r": 2, "lora_alpha": 99, "target_modules": ["q_proj"]})
    assert one.version == loud.version
    assert row_keys(rows, one, "no") != row_keys(rows, loud, "no")


def test_keys_are_the_same_in_another_process(tmp_path: Path) -> None:
    policy().save(tmp_path)
    code = f"""
from rewardkit.policies.language import LanguagePolicy
from rewardkit.training.reference_store import row_keys
from rewardkit.types import Sample
made = LanguagePolicy.load({str(tmp_path)!r}, lora={{"r": 2, "target_modules": ["q_proj", "v_proj"]}}, seed=0)
for view in ("start", "live"):
    print(row_keys(made.encode([Sample("0: ", "no")]), made.at(view), "no")[0].hex())
"""
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout}
    loaded = LanguagePolicy.load(tmp_path, lora={"r": 2, "target_modules": ["q_proj", "v_proj"]}, seed=0)
    rows = rollout(loaded, ["no"])
    # Evaluating leaves no trace in the config.
    loaded.evaluate(rows)
    keys = [row_keys(rows, loaded.at(view), "no")[0].hex() for view in ("start", "live")]
    assert said == {"\n".join(keys) + "\n"}


def test_rows_and_weights_that_cannot_be_known_again_are_refused(store: ReferenceStore) -> None:
    table = TablePolicy(["x"], ["a", "b"])
    with pytest.raises(ValueError, match="without a store"):
        attach_reference(table.encode([Sample("x", "a")]), table, store=store)
    made = policy()
    with pytest.raises(ValueError, match="fingerprint of its weights"):
        attach_reference(rollout(made), table, store=store)


def test_what_is_not_finite_is_not_kept(store: ReferenceStore) -> None:
    made = policy()
    rows = rollout(made, ["no"])
    keys = row_keys(rows, made, "no")
    store.logps(rows, made, "no", lambda some: torch.full(some.mask.shape, torch.nan))
    assert store.read(keys) == {}


def test_a_remembered_policy_is_the_policy(store: ReferenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy()
    start = made.at("start")
    remembered = Remembered(start, store)
    counted = Counted(start, monkeypatch)
    first, second = (remembered.evaluate(rollout(made))["logps"] for _ in range(2))
    assert counted.take() == 3
    assert torch.equal(first, second)
    assert set(remembered.evaluate(rollout(made), want=("logps", "entropy"))) == {"logps", "entropy"}
    assert remembered.version == start.version


@pytest.mark.parametrize("wrong", ["text", "cut", "other", "version", "row", "short row"])
def test_a_wrong_file_is_named_with_the_mend_and_left_alone(wrong: str, tmp_path: Path) -> None:
    path, made = tmp_path / "pairs.reference.sqlite", policy()
    with ReferenceStore(path) as store:
        attach_reference(rollout(made), made, store=store)
    base = sqlite3.connect(path)
    if wrong == "text":
        path.write_text("prompt,chosen,rejected\n" * 100)
    elif wrong == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif wrong == "other":
        base.execute("PRAGMA application_id = 7")
    elif wrong == "version":
        base.execute("PRAGMA user_version = 99")
    else:
        base.execute(f"UPDATE logps SET value = x'{'00' * (3 if wrong == 'row' else 4)}'")
    base.commit()
    base.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"pairs\.reference\.sqlite: .*remove"), ReferenceStore(path) as store:
        attach_reference(rollout(made), made, store=store)
    assert path.read_bytes() == before


def test_a_killed_process_leaves_the_file_whole(tmp_path: Path) -> None:
    """It dies while it writes, again and again; what it said was kept can be read, and others go on writing."""
    path = tmp_path / "pairs.reference.sqlite"
    code = f"""
import torch
from rewardkit.training.reference_store import ReferenceStore
store, n = ReferenceStore({str(path)!r}), 0
while True:
    store.write({{f"{{n}} {{i}}".encode(): torch.full((50,), float(n)) for i in range(50)}})
    print(n, flush=True)
    n += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(3)]
    with ReferenceStore(path) as other:
        other.write({b"mine": torch.ones(1)})
        writer.kill()
        writer.wait()
        assert other.read([b"mine"])[b"mine"].tolist() == [1.0]
    with ReferenceStore(path) as again:
        for n in map(int, said):
            kept = again.read([f"{n} {i}".encode() for i in range(50)])
            assert len(kept) == 50
            assert all(row.tolist() == [n] * 50 for row in kept.values())
    base = sqlite3.connect(path)
    assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    base.close()


def test_several_writers_share_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.reference.sqlite"

    def write(worker: int) -> None:
        for n in range(10):
            with ReferenceStore(path) as store:
                store.write({f"{n}".encode(): torch.tensor([float(worker)]), f"{worker} {n}".encode(): torch.ones(2)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with ReferenceStore(path) as store:
        assert len(store.read([f"{w} {n}".encode() for w in range(4) for n in range(10)])) == 40
        assert len(store.read([f"{n}".encode() for n in range(10)])) == 10


def test_the_file_lies_beside_local_data_where_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    data.write_text("{}")
    assert store_file(data, out) == tmp_path / "pairs.jsonl.reference.sqlite"
    assert store_file(f"{tmp_path}/", out) == tmp_path.with_name(tmp_path.name + ".reference.sqlite")
    assert store_file("org/name", out) == store_file(None, out) == out / "reference.sqlite"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert store_file(data, out) == out / "reference.sqlite"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.reference.sqlite").mkdir()
    with pytest.raises(ValueError, match=r"folder\.reference\.sqlite: .*name another file"):
        ReferenceStore(tmp_path / "folder.reference.sqlite")


def test_a_rollout_has_the_log_probs_of_equal_weights_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = policy()
    learner = Learner(made, lr=0.1)
    attached = learner.attach(rollout(made), made.at("start"))
    counted = Counted(made, monkeypatch)
    assert learner.attach(attached, made.at("start")) is attached
    both = learner.attach(attached, made, "own_logps")
    assert both["own_logps"] is attached["ref_logps"]
    assert counted.take() == 0
    replaced = attached.with_tensors(ref_logps=torch.zeros_like(attached.mask))
    assert torch.equal(learner.attach(replaced, made, "own_logps")["own_logps"], attached["ref_logps"])
    assert counted.take() == 3
