"""The API server: one generic handler per verb for every kind, a list of filters and admission plugins in one readable order.

    front (HTTP, TLS) ──┐                                            ┌── verbs/ ── registry ── store
                        ├── chain: identify > authorize > dispatch ──┼── subresources/
    local (in process) ─┘                                            └── routes (discovery, OpenAPI, health, metrics)

`front` turns aiohttp's requests into `request.Request` and back; nothing below it knows aiohttp. `local.LocalClient` calls the same chain
without HTTP or JSON. Authorization and admission cannot be bypassed by either.
Nodes, how they join and what a stolen one can do: the threat model in edgekube.agent.
"""
