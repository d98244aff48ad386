"""Which node a pod runs on.

Context: upstream's scheduling framework, one process, few nodes. Decision: one pod at a time, its whole cycle (filter, score, assume)
without an await, so that no snapshot has to be copied and no event can slip in between; only binding and telling people are asynchronous.
Consequences: plugins are pure functions over slim projections of pods and nodes, the queue needs no record of events in flight, and a
placement takes microseconds. Meets the rest of the cluster only through a Client.
"""
