"""One generic handler per verb, for every kind. Each works on dicts and Items and knows nothing of HTTP: `dispatch` and `local` call them."""
