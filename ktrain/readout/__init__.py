"""What is asked of a pretrained network: QA finetuning, P- and Q-probes, plain evaluation (paper, sections 2 to 4)."""
