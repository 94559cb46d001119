"""Fault injection: runs that are hit must end as one that was left alone."""
