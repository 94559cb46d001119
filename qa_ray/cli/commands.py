"""What each command does. Libraries are imported where they are used: help needs none of them."""

import json
import sys
from collections.abc import Callable, Sequence

from qa_ray.cli.arguments import parse_options, parse_run
from qa_ray.cli.execution import exit_code, set_up
from qa_ray.config.files import json_schema, to_toml
from qa_ray.config.fine_tuning import Config
from qa_ray.errors import UserError

Words = Sequence[str]


def run_configured(
    job: Callable[..., str],
    argv: Words,
    program: str,
    about: str,
    extend: Callable[[Config], Config] = lambda recipe: recipe,
) -> int:
    """Run `job` with the configuration that the words describe, and print what it returns; see `exit_code`."""

    def run() -> None:
        parsed = parse_run(argv, extend, program, about)
        if parsed.dry_run:
            print(to_toml(parsed.config))
            return
        set_up()
        from qa_ray.runs.connection import start_ray

        config = parsed.named()
        start_ray(config.cluster)
        print(job(config))

    return exit_code(run)


def train(argv: Words) -> int:
    """Fine-tune a model and, if a repository is named, publish it."""
    return run_configured(fine_tune, argv, "qa-ray train", "Fine-tune a question-answering model.")


def fine_tune(config: Config) -> str:
    """Train on the cluster that this process is connected to, and publish; returns what is to be shown."""
    from qa_ray.publishing.best_publisher import BestPublisher
    from qa_ray.publishing.publish import publish_after
    from qa_ray.runs.conclusion import summary
    from qa_ray.runs.driver import RunContext, train

    def work() -> tuple[str, str]:
        result = train(config, RunContext(callback=BestPublisher))
        return summary(result), result.folder

    return publish_after(work, config.publish)


def tune(argv: Words) -> int:
    """Search fields of a configuration and, if a repository is named, publish the best model."""
    from qa_ray.tuning.options import SweepConfig, as_sweep

    def job(config: SweepConfig) -> str:
        from qa_ray.publishing.publish import publish_after
        from qa_ray.tuning.driver import search
        from qa_ray.tuning.report import summary

        def work() -> tuple[str, str]:
            result = search(config)
            return summary(result), result.best.folder

        return publish_after(work, config.publish)

    return run_configured(job, argv, "qa-ray tune", "Search hyperparameters.", as_sweep)


def doctor(argv: Words) -> int:
    """Show each check as it ends, and then the sum."""

    def job(config: Config) -> str:
        from qa_ray.doctor.examination import examine
        from qa_ray.doctor.verdict import Status, row, total

        verdicts = []
        for name, verdict in examine(config):
            print(row(name, verdict), flush=True)
            verdicts.append(verdict)
        if any(verdict.status is Status.FAILED for verdict in verdicts):
            raise UserError(total(verdicts))
        return total(verdicts)

    return run_configured(job, argv, "qa-ray doctor", "Look whether a run would fail, before it starts.")


def evaluate(argv: Words) -> int:
    """Measure a model on a data set."""
    from qa_ray.evaluation.options import EvaluationOptions

    def run() -> None:
        options = parse_options(EvaluationOptions, argv, "qa-ray evaluate")
        set_up()
        from qa_ray.evaluation.job import evaluate as measure
        from qa_ray.evaluation.report import summary
        from qa_ray.runs.connection import start_ray

        start_ray(options.cluster)
        print(summary(measure(options)))

    return exit_code(run)


def predict(argv: Words) -> int:
    """Answer many questions."""
    from qa_ray.prediction.options import PredictionOptions

    def run() -> None:
        options = parse_options(PredictionOptions, argv, "qa-ray predict")
        set_up()
        from qa_ray.prediction.job import predict as answer
        from qa_ray.prediction.result import summary
        from qa_ray.runs.connection import start_ray

        start_ray(options.cluster)
        print(summary(answer(options)))

    return exit_code(run)


def ask(argv: Words) -> int:
    """Ask a model about a text."""
    from qa_ray.cli.ask import AskOptions, converse

    def run() -> None:
        options = parse_options(AskOptions, argv, "qa-ray ask")
        set_up()
        converse(options)

    return exit_code(run)


def publish(argv: Words) -> int:
    """Put a run's model on the Hub."""
    from qa_ray.publishing.options import RunPublishOptions

    def run() -> None:
        options = parse_options(RunPublishOptions, argv, "qa-ray publish")
        set_up()
        from qa_ray.publishing.publish import publish as push
        from qa_ray.publishing.publish import run_at

        print(push(run_at(options.run), options))

    return exit_code(run)


def benchmark(argv: Words) -> int:
    """Measure qa_ray against the standard way."""
    from qa_ray.benchmark.options import BenchmarkOptions

    def run() -> None:
        options = parse_options(BenchmarkOptions, argv, "qa-ray benchmark")
        set_up()
        from qa_ray.benchmark.job import benchmark as measure

        print(measure(options))

    return exit_code(run)


def schema(argv: Words) -> int:
    """Print the JSON schema of configuration files."""
    if argv:
        print("usage: qa-ray schema > qa_ray.schema.json", file=sys.stderr)
        return 2
    from qa_ray.tuning.options import SweepConfig

    print(json.dumps(json_schema(SweepConfig), indent=1))
    return 0
