"""The client's problem details for an exception."""

import nodes.client.app  # noqa: F401 - maps exceptions to problems
from nodes.http.problem import Problem, problem_of


def answered(error: Exception) -> Problem:
    found = problem_of(error)
    assert found is not None
    return found
