"""The API's rules as pure functions over plain dicts: no asyncio, no I/O, no clock.

A kind is declared in one file of `kinds/` that holds all that is special about it; `catalog.KINDS` is the one list of them.
Generic code (verbs, patch, apply, table, discovery, OpenAPI, caches) never knows a kind's name.
"""
