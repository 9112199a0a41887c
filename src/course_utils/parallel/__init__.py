"""Distributed training: many ranks that train one model.

link            what a rank sends and receives with
simulate        ranks as threads of this process: for checks, and for looking closely
launch          ranks as processes that talk over gloo: the real thing, from a notebook too
collectives     broadcast, reduce, reduce-scatter, all-gather, all-reduce

buckets         gradient buckets, the last layers' first
data_parallel   a model whose gradients are averaged while they are still being computed
timeline        when each rank computes and communicates

zero            an optimizer of which every rank keeps a shard
memory          bytes per rank, counted before anything is trained
census          the same, counted in a process that trains
labs            `accelerate launch` from a notebook
"""
