"""What others follow the bridge by: whole exports, and subscriptions with their notifications."""
