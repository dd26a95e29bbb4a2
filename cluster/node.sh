# The environment of a cluster's node. Every shell that Ray opens there reads it, so Ray, MLflow and trials have it.
# Secrets that they need, such as keys of the store, stand in secrets.env on the node, readable by its owner alone.
export PATH="$HOME/ktrain/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export KTRAIN_CACHE="$HOME/.cache/ktrain"
set -a
for name in store tracking secrets; do
    if [ -r "$HOME/.config/ktrain/$name.env" ]; then . "$HOME/.config/ktrain/$name.env"; fi
done
set +a
