"""Faults by seed: a seed gives a schedule, a schedule is run over real processes, and what holds then is compared with
what the archive holds."""
