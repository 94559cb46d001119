"""All that a training loop needs to go on exactly where it stood: taken from one, written, read, and put back.

Numbers travel as safetensors and JSON, which hold data and nothing that could be executed when it is read. Weights
are not here: they are saved as a model folder, from which the resumed loop's model is loaded.
"""

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from qa_ray.config.policies import Precision
from qa_ray.model.compute import precision_of
from qa_ray.model.token_limit import TokenLimit
from qa_ray.schema import Int64s
from qa_ray.training.collectives import gather_on_main
from qa_ray.training.throughput import Meter

Tensors = dict[str, torch.Tensor]

_OPTIMIZER, _RANKS, _STATE = "optimizer.safetensors", "ranks.safetensors", "state.json"


@dataclass(slots=True)
class TrainState:
    """Counted by the loop; the same on every rank."""

    epoch: int = 0
    """Epoch under way, from 0."""
    position: int = 0
    """Batches of that epoch's plan already trained."""
    step: int = 0
    """Optimizer steps made, those skipped by the gradient scaler included."""
    skipped_steps: int = 0
    """Steps that fp16's gradient scaler skipped because a gradient overflowed."""
    skipped_in_a_row: int = 0
    """Those of them since the last step that succeeded."""
    windows: int = 0
    """Windows trained, over all ranks."""
    ledger: str = ""
    """Digest of the window numbers of all batches trained, in their order; see `enter`."""

    def add(self, batch: Int64s) -> None:
        """Count a step that was made of these windows."""
        self.step += 1
        self.position += 1
        self.windows += len(batch)
        self.ledger = enter(self.ledger, batch)


def enter(ledger: str, batch: Int64s) -> str:
    """Digest of a ledger with one more batch: equal ledgers mean that the same batches were trained in one order."""
    return hashlib.sha256(ledger.encode() + batch.tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A training loop's state between two steps."""

    facts: dict[str, Any]
    """What JSON holds: counters, schedule, gradient scaler, the optimizer's settings."""
    optimizer: Tensors
    """The optimizer's running means, by parameter number and name."""
    ranks: list[Tensors]
    """Each rank's random states, what it has counted since the last record, and its device's limit."""

    @property
    def step(self) -> int:
        """Optimizer steps made when it was taken."""
        step: int = self.facts["state"]["step"]
        return step

    @property
    def precision(self) -> Precision | None:
        """What the run computed in; None if that was not noted."""
        name = self.facts.get("precision")
        return None if name is None else Precision(name)

    def write(self, folder: Path) -> None:
        """Write it into `folder`."""
        save_file(self.optimizer, folder / _OPTIMIZER)
        named = {f"{rank}.{name}": tensor for rank, own in enumerate(self.ranks) for name, tensor in own.items()}
        save_file(named, folder / _RANKS)
        (folder / _STATE).write_text(json.dumps(self.facts, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Snapshot":
        """Read what `write` wrote."""
        facts = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        ranks: list[Tensors] = [{} for _ in range(facts["world_size"])]
        for name, tensor in load_file(folder / _RANKS).items():
            rank, _, own = name.partition(".")
            ranks[int(rank)][own] = tensor
        return cls(facts, load_file(folder / _OPTIMIZER), ranks)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a training loop that hold state, besides its model."""

    accelerator: Accelerator
    optimizer: Optimizer
    schedule: LRScheduler
    meter: Meter
    limit: TokenLimit
    seed: int

    def take(self, state: TrainState) -> Snapshot:
        """Take a snapshot; every rank calls it, and the main process holds a whole one."""
        counted = {
            "meter": self.meter.totals().cpu(),
            "seconds": torch.tensor(self.meter.elapsed, dtype=torch.float64),
            "limit": self.limit.state(),
        }
        ranks = gather_on_main(self.accelerator, _random_states(self.accelerator.device) | counted)
        whole = self.optimizer.state_dict()
        facts = {
            "state": asdict(state),
            "schedule": self.schedule.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "param_groups": whole["param_groups"],
            "world_size": self.accelerator.num_processes,
            "precision": precision_of(self.accelerator.mixed_precision),
        }
        return Snapshot(facts, _flat(whole["state"]), ranks)

    def put(self, snapshot: Snapshot) -> TrainState:
        """Put a snapshot back, on any number of ranks; with as many as before the run goes on bit for bit."""
        facts = snapshot.facts
        # Earlier versions had another kind of optimizer under a gradient scaler.
        groups = [
            saved | {"fused": own["fused"]}
            for saved, own in zip(facts["param_groups"], self.optimizer.param_groups, strict=True)
        ]
        self.optimizer.load_state_dict({"state": _nested(snapshot.optimizer), "param_groups": groups})
        self.schedule.load_state_dict(facts["schedule"])
        self._set_rates()
        if facts["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        state = TrainState(**facts["state"])
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        same = len(snapshot.ranks) == world_size
        kept = [snapshot.ranks[rank]] if same else snapshot.ranks
        self.limit.restore([own["limit"] for own in kept if "limit" in own])
        # Ranks take the same time. Checkpoints of earlier versions do not tell it.
        seconds = max(own["seconds"].item() if "seconds" in own else 0.0 for own in snapshot.ranks)
        if same:
            _set_random_states(snapshot.ranks[rank], self.accelerator.device)
            self.meter.restore(snapshot.ranks[rank]["meter"], seconds)
        else:
            # As many new streams as there are ranks now: neither those of the run's start nor any rank's twice.
            torch.manual_seed(int(np.random.SeedSequence((self.seed, state.step, rank)).generate_state(1)[0]))
            counted = torch.stack([own["meter"] for own in snapshot.ranks]).sum(0)
            self.meter.restore(counted if rank == 0 else torch.zeros_like(counted), seconds)
        return state

    def _set_rates(self) -> None:
        """Take the learning rates from the schedule as it is now: with more epochs than before they are others."""
        assert isinstance(self.schedule, LambdaLR)  # a rate follows from the number of steps alone
        rates = [
            base * factor(self.schedule.last_epoch)
            for base, factor in zip(self.schedule.base_lrs, self.schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.schedule._last_lr = rates


def _flat(state: dict[int, Tensors]) -> Tensors:
    return {f"{number}.{name}": tensor for number, own in state.items() for name, tensor in own.items()}


def _nested(flat: Tensors) -> dict[int, Tensors]:
    nested: dict[int, Tensors] = {}
    for key, tensor in flat.items():
        number, _, name = key.partition(".")
        nested.setdefault(int(number), {})[name] = tensor
    return nested


def _random_states(device: torch.device) -> Tensors:
    """Where every generator that a model on `device` may draw from stands."""
    _, numbers, gauss = random.getstate()
    drawn = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(numbers, dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
        "numpy": torch.tensor([*drawn["state"]["key"].tolist(), drawn["state"]["pos"], drawn["has_gauss"]]),
        "numpy_gauss": torch.tensor(drawn["gauss"], dtype=torch.float64),
    }
    # Asking for a GPU's generator where the model is not takes hundreds of megabytes of it.
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: Tensors, device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    gauss = states["python_gauss"].item()
    random.setstate((3, tuple(states["python"].tolist()), None if gauss != gauss else gauss))
    *keys, position, has_gauss = states["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, states["numpy_gauss"].item()))
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
