"""Look at the data of a run before it starts: the arguments of jobs/train.py; nothing is trained, no GPU is needed.

python jobs/inspect.py sample
python jobs/inspect.py minilm --data.train train.jsonl --data.validation dev.jsonl --out inspection

Ends with 1 if training would not start.
"""

import importlib
import os
import sys

if __name__ == "inspect":
    # Python looks into a script's own folder first, so whoever imports the standard library's `inspect` while a script
    # of this folder runs, as dataclasses do, comes here. No script needs its folder: it leaves the path, for good.
    _here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [place for place in sys.path if os.path.realpath(place) != _here]
    del sys.modules[__name__]
    # The import that led here returns what is found under the name in the end.
    sys.modules[__name__] = importlib.import_module(__name__)

if __name__ == "__main__":
    from qa_ray.cli.commands import inspect

    sys.exit(inspect(sys.argv[1:]))
