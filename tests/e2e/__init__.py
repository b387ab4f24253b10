"""The gate in a real Envoy with two workers, attacked and used by real clients."""
