"""The epoch's batch plan: which windows form which optimizer step, the same on every machine.

A plan follows from the windows' lengths, the seed and the epoch alone, not from the number of workers: every rank
computes it by itself and takes its share of each batch. So all ranks make the same number of steps, no window is
lost or seen twice, and training can go on from any place in the plan on any number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from qa_ray.config.fine_tuning import BatchConfig, Config
from qa_ray.schema import Int64s


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An epoch's global batches in the order in which they are trained."""

    order: Int64s
    """Window numbers, batch after batch, [num_windows]."""
    size: int
    """Windows per batch; the last batch may hold fewer."""

    @property
    def num_batches(self) -> int:
        """Optimizer steps of the epoch."""
        return steps_per_epoch(len(self.order), self.size)

    def batches(self, start: int = 0) -> Iterator[Int64s]:
        """Yield the window numbers of each global batch, from batch `start` on."""
        for position in range(start, self.num_batches):
            yield self.order[position * self.size : (position + 1) * self.size]


def plan_epoch(lengths: Int64s, config: BatchConfig, *, seed: int, epoch: int) -> BatchPlan:
    """Shuffle windows, group them by similar length and cut them into global batches.

    Windows are drawn at random into pools of `config.length_pool` batches; a pool is sorted by padded length, and the
    batches cut from all pools are shuffled again. Windows of equal padded length within a pool stay in random order.
    Batches that are packed are drawn at random.

    Args:
        lengths: tokens of each window, [num_windows].
        config: batch size, pool size and the multiple to which lengths are padded.
        seed: the run's seed.
        epoch: number of the epoch; each has an order of its own.
    """
    rng = np.random.default_rng((seed, epoch))
    shuffled = rng.permutation(len(lengths))
    if config.packing:
        # Nothing is padded, so lengths may be mixed: then all batches hold about as many tokens.
        return BatchPlan(shuffled, config.size)
    num_full = len(lengths) // config.size
    pooled, rest = np.split(shuffled, [num_full * config.size])
    pool = np.arange(len(pooled)) // (config.size * config.length_pool)
    # Finer than this the order would save no padding, and a small corpus would form the same batches in every epoch.
    padded = -(-lengths[pooled] // config.pad_to_multiple_of)
    full = pooled[np.lexsort((padded, pool))].reshape(num_full, config.size)
    # The short batch stays last: a step that is smaller than the others belongs where the learning rate is lowest.
    order = np.concatenate([full[rng.permutation(num_full)].ravel(), rest])
    return BatchPlan(order, config.size)


def steps_per_epoch(num_windows: int, size: int) -> int:
    """Optimizer steps of an epoch, in batches of `size` windows."""
    return -(-num_windows // size)


def num_steps(num_windows: int, config: Config) -> int:
    """Optimizer steps of a whole run."""
    steps = config.train.epochs * steps_per_epoch(num_windows, config.batch.size)
    return min(steps, config.train.max_steps or steps)


def share_of_rank(items: Int64s, lengths: Int64s, rank: int, world_size: int) -> Int64s:
    """The items that one rank takes, so that all ranks hold about as many tokens.

    Items are dealt longest first, in turns that run to and fro over the ranks. Shares differ by one item at most.

    Args:
        items: numbers to share out, windows or examples.
        lengths: tokens of each item, indexed by its number.
        rank: the rank whose share is returned.
        world_size: number of ranks.
    """
    longest_first = items[np.argsort(-lengths[items], kind="stable")]
    turn, seat = np.divmod(np.arange(len(items)), world_size)
    share: Int64s = longest_first[np.where(turn % 2 == 0, seat, world_size - 1 - seat) == rank]
    return share


def padded_length(length: int, pad_to_multiple_of: int, max_length: int) -> int:
    """The length to which a batch is padded: `length` rounded up, but never past `max_length`.

    Rounding bounds the number of distinct shapes, and with it the kernels and graphs that are kept for each.
    """
    return max(length, min(-(-length // pad_to_multiple_of) * pad_to_multiple_of, max_length))


def micro_batches(
    items: Int64s, lengths: Int64s, *, max_tokens: int | None, multiple: int, max_length: int
) -> list[Int64s]:
    """Split `items` into groups that each hold at most `max_tokens` tokens after padding; a single item always fits.

    Args:
        items: window numbers.
        lengths: tokens of each window, indexed by its number.
        max_tokens: limit per group; None keeps all items in one.
        multiple: padded lengths are rounded up to a multiple of this.
        max_length: padded lengths are never rounded past this.
    """
    if max_tokens is None or len(items) == 0:
        return [items] if len(items) else []
    longest_first = items[np.argsort(-lengths[items], kind="stable")]
    groups, begin = [], 0
    while begin < len(longest_first):
        width = padded_length(int(lengths[longest_first[begin]]), multiple, max_length)
        end = begin + max(1, max_tokens // width)
        groups.append(longest_first[begin:end])
        begin = end
    return groups


def packed_micro_batches(items: Int64s, lengths: Int64s, max_tokens: int | None) -> list[Int64s]:
    """Split `items` into groups that each hold at most `max_tokens` tokens, without padding; as `micro_batches`."""
    if max_tokens is None or len(items) == 0:
        return [items] if len(items) else []
    groups, begin, tokens = [], 0, 0
    for place, length in enumerate(lengths[items].tolist()):
        if place > begin and tokens + length > max_tokens:
            groups.append(items[begin:place])
            begin, tokens = place, 0
        tokens += length
    return [*groups, items[begin:]]


def padded_tokens(plan: BatchPlan, lengths: Int64s, *, max_tokens: int | None, multiple: int, max_length: int) -> int:
    """Tokens that go through the model in an epoch on one device, padding included.

    They are those of each batch's `micro_batches`, whose arguments these are; counted for all batches at once.
    """
    if not len(plan.order):
        return 0
    places = np.arange(plan.num_batches * plan.size)
    # Rows are batches, longest window first; the last one may have zeros at its end, which stand for no window.
    ordered = np.where(places < len(plan.order), lengths[plan.order[np.minimum(places, len(plan.order) - 1)]], 0)
    ordered = -np.sort(-ordered.reshape(plan.num_batches, plan.size), axis=1)
    kinds, place = np.unique(ordered, return_inverse=True)
    padded = np.array([padded_length(kind, multiple, max_length) for kind in kinds.tolist()])
    widths = padded[place.reshape(ordered.shape)]
    total, width, left = 0, widths[:, 0], np.zeros(plan.num_batches, np.int64)
    for column in range(plan.size):
        opens = left == 0
        width = np.where(opens, widths[:, column], width)
        room = plan.size if max_tokens is None else np.maximum(1, max_tokens // np.maximum(width, 1))
        left = np.where(opens, room, left) - 1
        total += int(width[ordered[:, column] > 0].sum())
    return total
