"""The search for system prompts of a reasoner: no weights are trained. Spec: section 11.

The loop is ours: `gepa` 0.1.4 accepts on a plain ">", picks its winner on the pictures that it searched with,
resumes from snapshots that repeat calls, and leaves gates, splits, budgets of pictures and intervals to us.
"""
