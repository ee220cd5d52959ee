"""Measures a replicated store of any kind: how stale are reads of its replicas?"""
