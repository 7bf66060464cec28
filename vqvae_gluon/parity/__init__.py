"""The judgement of two runs: preflight, comparison, report."""
