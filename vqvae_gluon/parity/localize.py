"""Bisection over truncated graphs, for faults that taps hide (docs/parity.md, "When taps change the result")."""

from collections.abc import Callable

from vqvae_gluon.artifacts.graph import Graph, Output
from vqvae_gluon.artifacts.surgery import ancestors, operator_inputs


def first_wrong(graph: Graph, start: Output, is_wrong: Callable[[Output], bool]) -> Output:
    """A node that is wrong although all its inputs are right, upstream of one that is wrong.

    Every question is asked of the graph truncated behind one output and run without taps, so that an executor fuses
    there what it fuses in the whole graph. A wrong tensor need not stay wrong on its way, and branches run side by
    side, so a bisection alone could stop beside the fault: its result is asked for its inputs, and if one of them is
    wrong, the search goes on from there. It ends, since each step leads to an earlier node.

    Args:
        start: an output that is known to be wrong.
        is_wrong: about an output of the truncated graph.
    """
    asked: dict[Output, bool] = {start: True}

    def ask(output: Output) -> bool:
        if output not in asked:
            asked[output] = is_wrong(output)
        return asked[output]

    while True:
        candidates = [(name, 0) for name in ancestors(graph, [start])[:-1]] + [start]
        right, wrong = -1, len(candidates) - 1
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if ask(candidates[middle]):
                wrong = middle
            else:
                right = middle
        found = candidates[wrong]
        earlier = next((output for output in operator_inputs(graph, found[0]) if ask(output)), None)
        if earlier is None:
            return found
        start = earlier
