# The environment of a cluster's node. Every shell that Ray opens there reads it, so Ray, MLflow and trials have it.
# Secrets stand in files of the node alone (~/.ktrain/*.env, readable by their owner), never in a cluster file.
export PATH="$HOME/ktrain/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export KTRAIN_CACHE="$HOME/.cache/ktrain"
set -a
for file in "$HOME"/.ktrain/*.env; do
    [ -r "$file" ] && . "$file"
done
set +a
