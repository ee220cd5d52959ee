"""Text that comes from elsewhere, before a terminal shows it."""


def plain(text: str, keep: str = "\n\t") -> str:
    """Text with a dot for every character that does not print: a name must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character in keep else "·" for character in text)
