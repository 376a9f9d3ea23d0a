"""Training runs: the loop, its optimizer and objective, and the processes it runs in. Most modules import torch."""
