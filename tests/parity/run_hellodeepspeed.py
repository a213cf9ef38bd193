"""Runs HelloDeepSpeed's train_bert.py unchanged on a text file, not on wikitext.

usage: python4 run_hellodeepspeed.py TRAIN_BERT.py TEXT [flags of train_bert.py]
"""
import runpy
import sys
from pathlib import Path

import datasets

script, text, *flags = sys.argv[1:]
lines = [line for line in Path(text).read_text().split("\n") if line]
datasets.load_dataset = lambda *_, **__: datasets.Dataset.from_dict({"text": lines})
sys.argv = [script, *flags]
sys.path.insert(0, str(Path(script).parent))
runpy.run_path(script, run_name="__main__")
