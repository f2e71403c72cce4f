"""What becomes of memory that was freed."""

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 2**25  # that glibc takes


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for what comes next, for the life of this process.

    False where it cannot.

    It gives large blocks back to the system, and each training step asks for the same ones again:
    the system then clears their pages one by one, which on a CPU took a quarter of MAML's step on
    Omniglot. Blocks above 32 MiB are still given back. Nothing changes where the user has set how
    memory is kept, or where the C library is not glibc.
    """
    chosen = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys()
    if sys.platform != "linux" or chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # musl
        return False
    return bool(
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        and library.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    )
