"""The loops that make the cluster what its objects say.

A controller is one file: it names the kinds that wake it, gets only a key, reads the shared cache, decides with a pure `plan_*` and
writes through a client of its own identity. The runner owns everything else: queues, workers, back-off, deadlines, metrics, and waiting
until the cache shows the controller's own last writes, so that no decision is made on a picture older than one's own deeds.
"""
