"""A question's way to a replica: asked again where one dies, given up in time, and refused while the service stops."""

import asyncio

import pytest
from direct_service import CONTEXT, QUESTION, options_for
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import DeploymentUnavailableError

from qa_ray.serving.gateway import Gateway
from qa_ray.serving.service import Asked, Refused, Reply

ASKED = Asked(QUESTION, CONTEXT, {}, windows=False)
REPLY = Reply([], "model", "1", 1, None, None)


class Response:
    """What a call of a replica comes to: a result, an error, or nothing ever."""

    def __init__(self, outcome):
        self.outcome, self.cancelled = outcome, False

    def __await__(self):
        return self._come().__await__()

    async def _come(self):
        if self.outcome is None:
            await asyncio.Event().wait()
        if isinstance(self.outcome, Exception) and not isinstance(self.outcome, Refused):
            raise self.outcome
        return self.outcome

    def cancel(self):
        self.cancelled = True


class Replicas:
    """Gives the outcomes of its calls one after another."""

    def __init__(self, *outcomes):
        self.made = []
        self._outcomes = list(outcomes)
        self.answer = self.describe = self

    def remote(self, *args):
        self.made.append(Response(self._outcomes.pop(0)))
        return self.made[-1]


def gateway(*outcomes, timeout_s=60.0):
    replicas = Replicas(*outcomes)
    return Gateway(replicas, options_for("model", timeout_s=timeout_s), None), replicas


def refused(call):
    with pytest.raises(Refused) as error:
        asyncio.run(call)
    return error.value.status, error.value.message


def test_a_question_that_dies_with_its_replica_is_asked_again():
    made, replicas = gateway(ActorDiedError(), ActorDiedError(), REPLY)
    assert asyncio.run(made.ask(ASKED)) is REPLY
    assert len(replicas.made) == 3
    assert made._metrics.text().count(b"qa_ray_retries_total 2.0") == 1


def test_what_takes_too_long_is_given_up_and_cancelled():
    made, replicas = gateway(None, timeout_s=0.05)
    assert refused(made.ask(ASKED)) == (504, "there was no answer within 0.05 s")
    assert replicas.made[0].cancelled


def test_refusals_of_a_replica_and_the_lack_of_any_are_told():
    made, _ = gateway(Refused(422, "invalid", "too short"))
    assert refused(made.ask(ASKED)) == (422, "too short")
    made, _ = gateway(DeploymentUnavailableError("model"))
    assert refused(made.describe()) == (503, "no replica of the model runs")


def test_at_the_end_questions_are_refused_and_those_before_are_answered():
    made, _ = gateway(REPLY, REPLY)

    async def ended():
        first = asyncio.ensure_future(made.ask(ASKED))
        await asyncio.sleep(0)
        await made.drain()
        assert first.done()
        with pytest.raises(Refused, match="the service is being stopped"):
            await made.ask(ASKED)
        return await first

    assert asyncio.run(ended()) is REPLY
