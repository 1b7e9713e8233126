"""What is seen of a running bridge from outside: metrics, health, logs, traces."""
