"""Where the processes of a launch find each other, anew in every attempt.

`accelerate launch --max_restarts` starts lost processes again, with the addresses in the store of
the attempt before: torch's static rendezvous keeps one store for all of them, while `env://` counts
on a new one. A process may then read the address of one that is gone, and wait for it for ever.
Here the keys of each attempt are its own.
"""

import os
from collections.abc import Iterator
from typing import Any

from torch.distributed import PrefixStore, Store
from torch.distributed.rendezvous import register_rendezvous_handler, rendezvous

# For `init_process_group`, in the place of env://.
THIS_ATTEMPT = "attempt://"


def _this_attempt(url: str, **options: Any) -> Iterator[tuple[Store, int, int]]:
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    # The url may have come to be attempt:?rank=… on its way.
    for store, rank, count in rendezvous(url.replace("attempt:", "env:", 1), **options):
        yield PrefixStore(f"attempt_{attempt}", store), rank, count


register_rendezvous_handler("attempt", _this_attempt)
