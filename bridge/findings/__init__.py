"""Results of AI on images, and what readers say of them: one model, whatever door they come in by. Pure."""
