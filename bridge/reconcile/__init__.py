"""Whether archives, state, FHIR servers and lake agree about every study, and what differs."""
