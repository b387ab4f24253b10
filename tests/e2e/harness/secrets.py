"""Values that must never stand in a log. Whoever makes one says so here."""

_secrets: set[str] = set()


def keep_secret(value: str) -> str:
    """Registers a token or a key; the gateways' logs are searched for it when they stop.

    Of a token the signature is searched: header and claims repeat from token to token.
    """
    part = value.rsplit(".", 1)[-1] if value.count(".") == 2 else value
    if len(part) >= 12:
        _secrets.add(part)
    return value


def found_in(text: str) -> list[str]:
    """The registered values that stand in a text, shortened."""
    return [f"{secret[:6]}..." for secret in _secrets if secret in text]
