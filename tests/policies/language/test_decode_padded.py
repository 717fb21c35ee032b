"""The cache layer of models that take no packed rows."""

from __future__ import annotations

import torch

from rewardkit.policies.language.decode_padded import RoomyLayer


def test_a_cache_with_spare_room_holds_what_transformers_own_does() -> None:
    from transformers.cache_utils import DynamicLayer

    plain = DynamicLayer()
    plain.update(torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5))
    roomy = RoomyLayer.of(plain)
    for step in range(30):
        key, value = torch.randn(len(plain.keys), 2, 1, 5), torch.randn(len(plain.keys), 2, 1, 5)
        for mine, theirs in zip(roomy.update(key, value), plain.update(key, value), strict=True):
            assert torch.equal(mine, theirs)
        assert roomy.get_seq_length() == plain.get_seq_length()
        if step in (4, 5, 17):
            rows = torch.tensor({4: [2, 0, 0], 5: [1, 0], 17: [1]}[step])
            roomy.reorder_cache(rows)
            plain.reorder_cache(rows)
