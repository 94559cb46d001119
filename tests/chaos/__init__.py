"""Fault injection: runs whose workers, jobs and nodes are killed must end as one that was left alone."""
