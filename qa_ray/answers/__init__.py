"""From logits to spans to answers, and the QuestionAnswerer."""

from qa_ray.answers.answerer import QuestionAnswerer

__all__ = ["QuestionAnswerer"]
