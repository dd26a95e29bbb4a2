"""Services of the machine: device, processes, file systems, caches, atomic writes, collectives and retries."""
