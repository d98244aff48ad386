"""Building blocks that know nothing of Kubernetes: tasks, lifecycle, queues, clocks, files, processes, logs, metrics, certificates."""
