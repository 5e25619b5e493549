"""Reference agents: supervised fine-tuning, then Self-Improvement on the steps-to-go reward. Needs the extra [agents]."""
