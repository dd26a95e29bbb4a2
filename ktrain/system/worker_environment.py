"""The environment of a worker, before it imports any library that trains."""

from ktrain.system import cache_dirs, launchers, loopback


def ready() -> None:
    """Prepares a worker's environment: this machine's caches, no numbers of another launcher, no proxy to itself.

    A worker on another machine does not inherit the driver's environment.
    """
    launchers.forget_launcher()
    loopback.never_proxied()
    cache_dirs.use_machine_caches()
