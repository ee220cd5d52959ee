"""The lab in one thread and on a virtual clock: every fault, every delay and every choice is drawn from a seed.

The nodes are the real ones, as are the scripts of the log and the SQLite files; what lies below is simulated.

- time and threads: ``scheduler``, ``threads``, ``replaced``
- servers: ``log_server``, ``log_session``, ``sentinel``
- links: ``network``, ``log_connections``, ``http_connections``
- a lab: ``disk``, ``node``, ``world``, and its users, ``workload``
- what goes wrong: ``schedule``, ``acts``, ``node_faults``, ``log_faults``, ``faults``
- what is judged: ``model``, ``log_judge``, ``judges``
- a run: ``run``, ``trace``, ``shrink``, ``branches``, ``report``
"""
