"""One generic handler per verb, for every kind, on dicts and Items: `dispatch` (HTTP) and `local` (in process) call the same."""
