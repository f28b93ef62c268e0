"""The engine's server as it would be without the mend for tied output heads: run as a module by a test."""

from grpo.rollout.engines import vllm_server
from rewards.workers.process import connect_to_parent


def leave_the_head(model: object) -> None:
    """What `refresh_head` replaces."""


if __name__ == "__main__":
    connection = connect_to_parent()
    vllm_server.refresh_head = leave_the_head
    vllm_server.serve(connection)
