"""The benchmark: what a bundle costs here, in C++ and in Python, beside what a user would pick instead.

Nothing imports this room but the command line. Every peer is measured in a process of its own, and its libraries are
the extra ``bench``, which nothing else needs.
"""
