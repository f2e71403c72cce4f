"""The one exception that says: the input is wrong, and here is the remedy."""


class FewshotError(ValueError):
    """Wrong input from the user: a value, a file, a config or a checkpoint.

    The message is one line that names the value and the remedy. The command line prints it without a
    traceback (set ``FEWSHOT_DEBUG=1`` to see one) and exits with status 2.
    """
