"""Train and evaluate with one, two and three processes, and save what each rank saw: `ranks.py BERT XLNET OUT`."""

import dataclasses
import multiprocessing
import os
import socket
import sys
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]

import torch  # noqa: E402
from accelerate import Accelerator  # noqa: E402
from accelerate.utils import InitProcessGroupKwargs  # noqa: E402
from runs import made_passages, make_collator, make_run, tiny_config  # noqa: E402

from qa_ray.data.collate import Collator  # noqa: E402
from qa_ray.evaluation.evaluator import Evaluator  # noqa: E402
from qa_ray.tracking import TRAIN_LOSS  # noqa: E402

NUM_WINDOWS = 9


def main(bert: str, xlnet: str, out: str) -> None:
    for size in (1, 2, 3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Forked, so that what is imported is imported once.
        context = multiprocessing.get_context("fork")
        ranks = [context.Process(target=work, args=(rank, size, port, bert, xlnet, out)) for rank in range(size)]
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


def work(rank: int, size: int, port: int, bert: str, xlnet: str, out: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    # Ranks that make different steps would otherwise wait for each other for half an hour.
    accelerator = Accelerator(cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=10))])
    assert (accelerator.process_index, accelerator.num_processes) == (rank, size)
    seen = {
        "bert": train(bert, accelerator, None),
        "bert-micro-batches": train(bert, accelerator, 33),
        "xlnet": train(xlnet, accelerator, None),
        "evaluation": evaluate(bert, accelerator),
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
    run = make_run(config, [], accelerator=accelerator, collator=collator)
    before = weights(run.model)
    windows = record_windows(run.loop, accelerator)
    run.train()
    del accelerator.backward  # the recorder
    return {
        "losses": run.metric(TRAIN_LOSS),
        "weights": weights(run.model),
        "weights_before": before,
        "windows": windows,
    }


def record_windows(loop: Any, accelerator: Accelerator) -> list[int]:
    """The windows that a gradient other than zero comes from, as they are trained."""
    collate: Collator = loop._collate
    backward, trained, last = accelerator.backward, [], []

    class RecordingCollator(Collator):
        def __call__(self, items: Any) -> Any:
            last[:] = items.tolist()
            return collate(items)

    def recording_backward(loss: torch.Tensor) -> None:
        trained.extend(last if loss.item() else [])
        backward(loss)

    loop._collate = RecordingCollator(*(getattr(collate, field.name) for field in dataclasses.fields(collate)))
    accelerator.backward = recording_backward
    return trained


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
