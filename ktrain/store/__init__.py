"""Stores results of stages in a folder or in object storage, with leases, checkpoints and damage checks."""
