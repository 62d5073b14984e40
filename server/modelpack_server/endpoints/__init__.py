"""What the server answers: the edge of every request, ``/invocations``, and what is told about the model."""
