"""Teaching by preference, by reward and by example: what comes after fine-tuning.

log_probs       how likely a model finds the answers that somebody gave
preference      DPO: this answer rather than that one
reinforcement   GRPO: answers of one's own, marked by a program
distillation    a teacher's whole distribution instead of one right token

answers         questions and answers as rows of tokens; drawing answers from a model
pairs           preferences as rows, and what the reference thinks of them, computed once
drift           how far a model has moved from its reference
"""
