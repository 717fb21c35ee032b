"""``rewardkit worlds build NAME``: trains what an embedded testbed needs, once, into the user's cache."""

from __future__ import annotations

import argparse
import importlib
import time

NAME = "worlds"
HELP = "Build the embedded testbeds: a world's base policy is trained once and kept in the user's cache folder."
WORLDS = {
    "assistant": ("rewardkit.worlds.assistant", "AssistantWorld"),
    "agents": ("rewardkit.worlds.agents", "Agents"),
    "arithmetic": ("rewardkit.worlds.arithmetic", "Arithmetic"),
    "control": ("rewardkit.worlds.control", "Control"),
    "driving": ("rewardkit.worlds.driving", "Driving"),
    "captions": ("rewardkit.worlds.captions", "Captions"),
    "motifs": ("rewardkit.worlds.motifs", "Motifs"),
    "moving_shapes": ("rewardkit.worlds.moving_shapes", "MovingShapes"),
    "shapes": ("rewardkit.worlds.shapes", "Shapes"),
}
"""Module and class of each world with a base policy to build."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``rewardkit worlds``."""
    parser.add_argument("action", choices=["build"], help="build: train the world's base policy where it is missing")
    parser.add_argument("world", choices=WORLDS, help="which world")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world (default 0)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps, instead of the world's own number")
    parser.add_argument("--force", action="store_true", help="train anew even where the cache has it")


def run(args: argparse.Namespace) -> int:
    """Build one world and print where its base policy lies."""
    module, name = WORLDS[args.world]
    world = getattr(importlib.import_module(module), name)(seed=args.seed)
    began = time.monotonic()
    options = {} if args.steps is None else {"steps": args.steps}
    folder = world.build(force=args.force, **options)
    print(f"{folder}  ({time.monotonic() - began:.0f} s)")
    return 0


def saved(args: argparse.Namespace) -> str:
    """What an interrupted build leaves behind."""
    return "nothing was saved: a build is kept when it is complete"
