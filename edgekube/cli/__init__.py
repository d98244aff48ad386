"""The command line: one module per command, imported only when chosen, because start-up time on a small machine is a feature.

Exit codes: 0 ok; 1 failed, with one clear line on stderr and no traceback; 2 wrong usage.
"""
