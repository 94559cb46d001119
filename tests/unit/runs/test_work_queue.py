"""What workers that stay are given, as far as it needs no Ray."""

from qa_ray.runs.work_queue import WorkQueue

work = object()


def test_each_worker_is_given_each_work_once():
    queue = WorkQueue()
    assert queue.take(0) == (0, None, False)
    queue.put((work,))
    assert queue.take(0) == queue.take(0) == (1, work, False)
    assert queue.take(1) == (1, None, False), "this rank has done it, and waits for the others"
    assert queue.outcome() is None


def test_work_that_its_group_has_not_ended_is_given_to_the_next_group():
    queue = WorkQueue()
    queue.put((work,))
    queue.take(0)
    queue.join()
    assert queue.take(0) == (1, work, False)
    assert queue.groups() == 1


def test_a_new_group_is_not_given_what_is_done():
    queue, outcome = WorkQueue(), object()
    queue.put((work,))
    queue.finish(outcome)
    assert queue.outcome() is outcome
    assert queue.take(0) == (1, None, False)
    queue.put((work,))
    assert queue.outcome() is None
    assert queue.take(1) == (2, work, False)


def test_workers_are_told_of_the_end():
    queue = WorkQueue()
    queue.close()
    assert queue.take(0) == (0, None, True)
