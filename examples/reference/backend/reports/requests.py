"""Checks what a client sends before anything is stored."""

MOST_VALUES = 100_000
LONGEST_TITLE = 200
# Larger ones, the infinities and NaN among them, have no sum to speak of.
LARGEST_VALUE = 1e100


class Invalid(ValueError):
    """The request, and what is wrong with it in the message."""


def is_number(value):
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= LARGEST_VALUE
    )


def parse(document):
    """Title, values as floats, and the address for the mail or None."""
    if not isinstance(document, dict):
        raise Invalid("a JSON object is expected")
    unknown = sorted(set(document) - {"title", "values", "mail"})
    if unknown:
        raise Invalid(f"unknown: {', '.join(unknown)}")
    title = document.get("title")
    if not isinstance(title, str) or not 0 < len(title) <= LONGEST_TITLE or not title.isprintable():
        raise Invalid(f"title: one line of 1 to {LONGEST_TITLE} characters is expected")
    values = document.get("values")
    if not isinstance(values, list) or not 0 < len(values) <= MOST_VALUES:
        raise Invalid(f"values: a list of 1 to {MOST_VALUES} numbers is expected")
    if not all(is_number(value) for value in values):
        raise Invalid("values: every element must be a finite number")
    mail = document.get("mail")
    if mail is not None:
        if not isinstance(mail, str) or not mail.isprintable() or " " in mail:
            raise Invalid("mail: an address is expected")
        name, at, host = mail.partition("@")
        if not (name and at and host) or "@" in host:
            raise Invalid("mail: an address is expected")
    return title, [float(value) for value in values], mail
