"""Cluster files, jobs on a cluster's head, and spot-interruption notices."""
