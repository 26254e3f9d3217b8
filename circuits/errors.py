"""What can go wrong, in words for the person who asked."""


class CircuitError(ValueError):
    """A request the science cannot answer; the message is one sentence that says what to do."""


class ModelError(CircuitError):
    """A model that cannot be found or loaded."""


class ModelFamilyError(ModelError):
    """A model whose architecture the graph does not describe."""


class AttributionError(CircuitError):
    """Scores that cannot be computed as asked."""


class ExtractionError(CircuitError):
    """A circuit that cannot be extracted as asked."""


class EvaluationError(CircuitError):
    """A circuit that cannot be evaluated as asked."""


class DrawingError(CircuitError):
    """A drawing that cannot be made as asked."""


class InterchangeError(CircuitError):
    """A circuit file that cannot be read, or cannot be written as asked."""
