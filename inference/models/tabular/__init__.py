"""The default tabular network: an ensemble of an online linear model and two MLPs. Its modules import torch."""
