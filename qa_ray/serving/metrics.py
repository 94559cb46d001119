"""What Prometheus is told of the service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536, 131_072)


class ServiceMetrics:
    """Counters of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self.requests = Counter(
            "qa_ray_requests", "Requests, by path and HTTP status.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "qa_ray_request_seconds",
            "Time from a request to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.refused = Counter(
            "qa_ray_refused", "Requests that were not answered, by reason.", ["reason"], registry=registry
        )
        self.questions = Counter("qa_ray_questions", "Questions that were answered.", registry=registry)
        self.windows = Counter("qa_ray_windows", "Windows that went through the model.", registry=registry)
        self.batch_questions = Histogram(
            "qa_ray_batch_questions", "Questions that were answered together.", buckets=_SIZES, registry=registry
        )
        self.batch_tokens = Histogram(
            "qa_ray_batch_tokens", "Tokens that were answered together.", buckets=_TOKENS, registry=registry
        )
        self.waiting = Gauge("qa_ray_waiting", "Questions that are answered or wait at present.", registry=registry)
        self.retries = Counter(
            "qa_ray_retries", "Questions that were asked again of another replica.", registry=registry
        )

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)
