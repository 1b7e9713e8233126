"""Documents of results stored in archives, by STOW-RS or C-STORE."""
