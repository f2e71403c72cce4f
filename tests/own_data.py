"""What a message about data of one's own says."""

import re


def what_works(message: str, nouns: str) -> list[str] | None:
    """The options that a message gives; None where it asks for more examples."""
    assert "\n" not in message
    found = re.search(r"what works: add (.*) to the command$", message)
    if found is None:
        assert message.endswith(
            f"to train add {nouns}, until 6 classes have 2 or more each, or 2 classes 6"
        )
        return None
    return found[1].split()
