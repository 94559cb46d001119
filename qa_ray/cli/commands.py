"""What each command does.

Whatever brings Ray, torch or MLflow is imported by the job that needs it, once its words are read: help needs none of
them and is there at once. So is Optuna, which the options of a search bring.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from qa_ray.benchmark.options import BenchmarkOptions
from qa_ray.cli.arguments import parse_options, parse_run
from qa_ray.cli.ask import AskOptions, converse
from qa_ray.cli.execution import end_on_sigterm, exit_code, importing, set_up
from qa_ray.config.files import json_schema, to_toml
from qa_ray.config.fine_tuning import Config
from qa_ray.config.operation import ClusterConfig
from qa_ray.errors import UserError
from qa_ray.evaluation.options import EvaluationOptions
from qa_ray.inspection.options import InspectionConfig, as_inspection
from qa_ray.prediction.options import PredictionOptions
from qa_ray.publishing.options import RunPublishOptions
from qa_ray.serving.options import ServeOptions

T = TypeVar("T")

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
        config = parsed.named()
        _start_ray(config.cluster)
        print(job(config))

    return exit_code(run)


def run_job(job: Callable[[T], str], options: type[T], argv: Words, program: str) -> int:
    """Run a job that has options of its own in place of a recipe, and print what it returns; see `exit_code`."""

    def run() -> None:
        parsed = parse_options(options, argv, program)
        set_up()
        print(job(parsed))

    return exit_code(run)


def _start_ray(cluster: ClusterConfig) -> None:
    """Start Ray, or join it, and import meanwhile what a model needs."""
    from qa_ray.runs.connection import start_ray

    with importing("qa_ray.answers"):
        start_ray(cluster)
    end_on_sigterm()


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

    return publish_after(work, config)


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

        return publish_after(work, config)

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


def inspect(argv: Words) -> int:
    """Show what a run would make of its data; it ends with 1 where training would not start."""

    def job(config: InspectionConfig) -> str:
        from qa_ray.inspection.job import inspect as look
        from qa_ray.inspection.report import save, summary

        found = look(config)
        save(found)
        shown = summary(found)
        if found.refusals:
            print(shown, flush=True)
            raise UserError("training would not start: " + "\n".join(found.refusals))
        return shown

    return run_configured(job, argv, "qa-ray inspect", "Look at the data of a run; nothing is trained.", as_inspection)


def evaluate(argv: Words) -> int:
    """Measure a model on a data set."""

    def job(options: EvaluationOptions) -> str:
        if options.needs_cluster:
            _start_ray(options.cluster)
        from qa_ray.evaluation.job import evaluate as measure
        from qa_ray.evaluation.report import summary

        return summary(measure(options))

    return run_job(job, EvaluationOptions, argv, "qa-ray evaluate")


def predict(argv: Words) -> int:
    """Answer many questions."""

    def job(options: PredictionOptions) -> str:
        _start_ray(options.cluster)
        from qa_ray.prediction.job import predict as answer
        from qa_ray.prediction.result import summary

        return summary(answer(options))

    return run_job(job, PredictionOptions, argv, "qa-ray predict")


def serve(argv: Words) -> int:
    """Serve a model until a signal comes."""

    def job(options: ServeOptions) -> str:
        options.require_guarded()
        _start_ray(ClusterConfig(address=options.address, local_cpus=options.local_cpus))
        from qa_ray.serving.job import serve as run

        return run(options)

    return run_job(job, ServeOptions, argv, "qa-ray serve")


def ask(argv: Words) -> int:
    """Ask a model about a text."""

    def run() -> None:
        options = parse_options(AskOptions, argv, "qa-ray ask")
        set_up()
        converse(options)

    return exit_code(run)


def publish(argv: Words) -> int:
    """Put a run's model on the Hub."""

    def job(options: RunPublishOptions) -> str:
        from qa_ray.publishing.publish import publish as push
        from qa_ray.publishing.publish import run_at

        return push(run_at(options.run), options, trust_remote_code=options.trust_remote_code)

    return run_job(job, RunPublishOptions, argv, "qa-ray publish")


def benchmark(argv: Words) -> int:
    """Measure qa_ray against the standard way."""

    def job(options: BenchmarkOptions) -> str:
        from qa_ray.benchmark.job import benchmark as measure

        return measure(options)

    return run_job(job, BenchmarkOptions, argv, "qa-ray benchmark")


def schema(argv: Words) -> int:
    """Print the JSON schema of configuration files."""
    if argv:
        print("usage: qa-ray schema > qa_ray.schema.json", file=sys.stderr)
        return 2
    from qa_ray.tuning.options import SweepConfig

    print(json.dumps(json_schema(SweepConfig), indent=1))
    return 0
