"""What the commands do; cli.py only says how they are written. Each file is imported when its command runs."""
