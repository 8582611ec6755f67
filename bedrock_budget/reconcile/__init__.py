"""What was metered against what AWS says: readers make records of both, `comparison` compares them, purely.

`metered` reads the store; `invocation_logs`, `cost_report` and `cost_explorer` read what AWS wrote.
"""
