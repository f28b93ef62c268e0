"""Ranks, threads and devices. The only room that talks to torch.distributed."""
