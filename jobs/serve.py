"""Serve a fine-tuned model with Ray Serve: a page to ask it on, and an API, until Ctrl-C or SIGTERM.

python jobs/serve.py runs/squad
python jobs/serve.py models:/qa@champion --replicas 1 4
python jobs/serve.py --help
"""

import sys

from qa_ray.cli.commands import serve

if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:]))
