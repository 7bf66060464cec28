"""The files that pass between the parts: bundle, graph, parameters, trace."""
