"""A model folder that brings Python code of its own, and leaves a file where that code was run."""

import json
from pathlib import Path

from families import FAMILIES

_CODE = """
from pathlib import Path

from transformers import BertConfig, BertForQuestionAnswering, BertModel, PreTrainedTokenizerFast

Path({canary!r}).touch()


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertForQuestionAnswering):
    config_class = {config}


class OwnBody(BertModel):
    config_class = {config}


class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def bring_code(folder: Path, canary: Path, *, model_type: str = "own") -> Path:
    """Give a folder with a tiny BERT code of its own for everything in it, which makes the file `canary` when it runs.

    With the type "bert" transformers has classes of its own for it, and needs none of the folder's.
    """
    if not (folder / "config.json").exists():
        FAMILIES["bert"].save(folder)
    classes = {"AutoModel": "own.OwnBody", "AutoModelForQuestionAnswering": "own.OwnModel"}
    if model_type == "own":
        classes["AutoConfig"] = "own.OwnConfig"
    _change(folder / "config.json", model_type=model_type, auto_map=classes)
    own_name = {"tokenizer_class": "OwnTokenizer"} if model_type == "own" else {}
    _change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]}, **own_name)
    own_type = {"own": "OwnConfig", "bert": "BertConfig"}[model_type]
    (folder / "own.py").write_text(_CODE.format(canary=str(canary), config=own_type))
    return folder


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
