"""Train and evaluate with one, two and three processes, and save what each rank saw: `ranks.py BERT XLNET OUT`."""

import dataclasses
import multiprocessing
import os
import sys
from datetime import timedelta
from itertools import pairwise
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, ClassVar

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.utils import InitProcessGroupKwargs  # noqa: E402
from small_runs import made_passages, make_collator, make_run, tiny_config  # noqa: E402

from qa_ray.config.fine_tuning import Config, ModelConfig  # noqa: E402
from qa_ray.data.collate import Collator  # noqa: E402
from qa_ray.model.folder import save_model  # noqa: E402
from qa_ray.model.loading import load_model, load_tokenizer  # noqa: E402
from qa_ray.tracking.metrics import TRAIN_LOSS  # noqa: E402
from qa_ray.training.evaluator import Evaluator  # noqa: E402
from qa_ray.training.snapshot import Snapshot  # noqa: E402

NUM_WINDOWS = 9
DEVICE_TOKENS = 40
"""What a small device holds: hardly more than one window."""
STOP = 2
"""Steps after which two ranks are stopped: in the middle of the first epoch, and of the first record."""


def main(bert: str, xlnet: str, out: str) -> None:
    for size in (2, 1, 3):  # two ranks write what the others go on with
        # Forked, so that what is imported is imported once.
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=work, args=(rank, size, bert, xlnet, out)) for rank in range(size)]
        for process in ranks:
            process.start()
        wait_for(ranks)


def wait_for(ranks: list[Any]) -> None:
    """Wait until all ranks are done; if one fails, the others would wait for it for ever."""
    running = list(ranks)
    while running:
        wait([process.sentinel for process in running])
        if any(process.exitcode for process in ranks):
            for process in running:
                process.kill()
            sys.exit(f"one of {len(ranks)} processes failed")
        running = [process for process in running if process.exitcode is None]


def work(rank: int, size: int, bert: str, xlnet: str, out: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        for scope in ("", "LOCAL_"):
            os.environ |= {f"{scope}RANK": str(rank), f"{scope}WORLD_SIZE": str(size)}
    # They meet at a file: a port that is free now may be taken when they use it. Ranks that make different steps
    # would otherwise wait for each other for half an hour.
    meeting = InitProcessGroupKwargs(init_method=f"file://{out}/meeting-{size}", timeout=timedelta(minutes=10))
    accelerator = Accelerator(cpu=True, kwargs_handlers=[meeting])
    assert (accelerator.process_index, accelerator.num_processes) == (rank, size)
    seen = {
        "bert": train(bert, accelerator, None),
        "bert-micro-batches": train(bert, accelerator, 33),
        "xlnet": train(xlnet, accelerator, None),
        "small-devices": train_on_small_devices(bert, accelerator),
        "evaluation": evaluate(bert, accelerator),
    }
    for name, dropout in (("resumed", 0.0), ("resumed-dropout", 0.3)):
        place = Path(out) / name
        undisturbed = train_parts(bert, accelerator, dropout, place, stopped=False) if size == 2 else None
        stopped = train_parts(bert, accelerator, dropout, place, stopped=True) if size == 2 else None
        seen[name] = {
            "undisturbed": undisturbed,
            "stopped": stopped,
            "resumed": resume(bert, accelerator, dropout, place),
        }
    torch.save(seen, Path(out) / f"{size}-{rank}.pt")
    accelerator.end_training()


def train(folder: str, accelerator: Accelerator, max_tokens: int | None) -> dict[str, Any]:
    """Two epochs of nine windows in batches of four: the last batch has fewer windows than there are ranks."""
    # Adam turns a gradient of nothing but rounding into a whole step, unless eps is far above the rounding.
    config = tiny_config(
        Path(folder),
        window={"max_length": 128},
        batch={"max_tokens_per_device": max_tokens},
        optim={"eps": 1e-2, "learning_rate": 1e-2},
    )
    collator = make_collator(config, made_passages(NUM_WINDOWS, num_words=(5, 12)))
    assert len(collator.windows) == NUM_WINDOWS
    run = make_run(config, [], accelerator=accelerator, collator=recording(collator, accelerator))
    before = weights(run.model)
    run.train()
    del accelerator.backward  # the recorder
    return {
        "losses": run.metric(TRAIN_LOSS),
        "weights": weights(run.model),
        "weights_before": before,
        "windows": run.collator.trained,
    }


def train_on_small_devices(folder: str, accelerator: Accelerator) -> dict[str, Any]:
    """The same on devices that hold little; and with the limits that they then have, on devices that hold all."""
    config = tiny_config(
        Path(folder), model={"dropout": 0.3}, window={"max_length": 128}, optim={"eps": 1e-2, "learning_rate": 1e-2}
    )
    collator = make_collator(config, made_passages(NUM_WINDOWS, num_words=(5, 12)))
    seen: dict[str, Any] = {}
    limits: list[int | None] = []
    for name in ("met", "foreseen"):
        run = make_run(config, [], accelerator=accelerator, collator=collator)
        limit = run.loop._add_gradient.limit
        if name == "met":
            run.model.register_forward_pre_hook(
                lambda module, arguments, inputs: run_out(inputs["input_ids"].numel() > DEVICE_TOKENS),
                with_kwargs=True,
            )
        else:
            limit.tokens = limits.pop(0)

        def after_step(met: bool = name == "met", limit: Any = limit) -> bool:
            if met:
                limits.append(limit.tokens)
            elif limits:
                limit.tokens = limits.pop(0)
            return False

        while not run.loop.finished:
            run.loop.train_epoch(after_step)
        seen[name] = {"weights": weights(run.model), "ledger": run.loop.state.ledger, "limit": limit.tokens}
    return seen


def run_out(really: bool) -> None:
    if really:
        raise torch.OutOfMemoryError


def recorded_run(folder: str, accelerator: Accelerator, dropout: float, model: Any = None) -> tuple[Any, Config]:
    """A run like that of `train`, in which one record covers all steps of an epoch."""
    config = tiny_config(
        Path(folder),
        model={"dropout": dropout},
        window={"max_length": 128},
        optim={"eps": 1e-2, "learning_rate": 1e-2},
        train={"log_every": 3},
    )
    collator = make_collator(config, made_passages(NUM_WINDOWS, num_words=(5, 12)))
    collator = recording(collator, accelerator)
    return make_run(config, [], accelerator=accelerator, collator=collator, model=model), config


def train_steps(run: Any, accelerator: Accelerator, stop: int | None) -> dict[str, Any]:
    """Train until `stop` steps are made, or to the end, and keep what each step trained."""
    windows, ends = run.collator.trained, [0]

    def pause() -> bool:
        ends.append(len(windows))
        return run.loop.state.step == stop

    while not run.loop.finished and run.loop.train_epoch(pause):
        pass
    del accelerator.backward  # the recorder
    return {
        "losses": [record.metrics[TRAIN_LOSS] for record in run.records if record.metrics],
        "weights": weights(run.model),
        "steps": [windows[begin:end] for begin, end in pairwise(ends)],
        "ledger": run.loop.state.ledger,
        "lengths": run.collator.windows.length,
    }


def train_parts(folder: str, accelerator: Accelerator, dropout: float, place: Path, *, stopped: bool) -> dict[str, Any]:
    """Train to the end, or stop and save into `place`."""
    run, config = recorded_run(folder, accelerator, dropout)
    seen = train_steps(run, accelerator, STOP if stopped else None)
    if stopped:
        snapshot = run.loop.snapshot()
        if accelerator.is_main_process:
            save_model(place / "model", run.model, load_tokenizer(config.model), config, None)
            snapshot.write(place)
        accelerator.wait_for_everyone()
    return seen


def resume(folder: str, accelerator: Accelerator, dropout: float, place: Path) -> dict[str, Any]:
    """Go on with what is saved in `place`."""
    model = load_model(ModelConfig(name=str(place / "model"), dropout=dropout))
    run, _ = recorded_run(folder, accelerator, dropout, model)
    run.loop.restore(Snapshot.read(place))
    random_state = torch.get_rng_state().numpy().tobytes()
    return {"random_state": random_state, **train_steps(run, accelerator, None)}


def recording(collate: Collator, accelerator: Accelerator) -> Any:
    """A collator whose `trained` are the windows that a gradient other than zero comes from, as they are trained."""
    backward, last = accelerator.backward, []

    class RecordingCollator(Collator):
        trained: ClassVar[list[int]] = []

        def __call__(self, items: Any) -> Any:
            last[:] = items.tolist()
            return collate(items)

    def recording_backward(loss: torch.Tensor) -> None:
        RecordingCollator.trained.extend(last if loss.item() else [])
        backward(loss)

    accelerator.backward = recording_backward
    return RecordingCollator(*(getattr(collate, field.name) for field in dataclasses.fields(collate)))


def evaluate(folder: str, accelerator: Accelerator) -> Any:
    """Two questions of several windows each, one of them without an answer."""
    config = tiny_config(Path(folder))
    # The longer one is last, and goes to the first rank: what is gathered is not in order.
    passages = sorted(made_passages(2, unanswerable=1, num_words=(60, 90)), key=lambda passage: len(passage.context))
    collator = make_collator(config, passages)
    run = make_run(config, [], accelerator=accelerator, collator=collator)
    with torch.no_grad():
        run.model.qa_outputs.weight *= 50
    return Evaluator(collator, config.evaluate, no_answer=True)(run.loop.model, accelerator)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]).clone()


if __name__ == "__main__":
    main(*sys.argv[1:])
