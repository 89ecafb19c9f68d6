"""Keywords are the options of the command."""

import pathlib
import re
import subprocess
import sys
import unittest

import onnxquant
from onnxquant import _settings
from shared import ROOT, calib, command, model


class Keywords(unittest.TestCase):
    def test_every_option_of_the_help_is_a_keyword(self):
        for subcommand in (None, "compare", "bench", "inspect"):
            words = [subcommand] if subcommand else []
            # What the help says of them stands further to the right.
            listed = set(re.findall(r"^ {2,6}(?:-\w, )?--([a-z0-9-]+)", command(*words, "--help").stdout, re.MULTILINE))
            listed -= _settings._ELSEWHERE | {"help", "version", "max-memory", "print-config", "config-schema"}
            self.assertEqual({name.replace("_", "-") for name in _settings.table(subcommand)}, listed)

    def test_an_unknown_one_is_an_error_with_the_nearest(self):
        for name, near in [("sheme", "scheme"), ("min_sqnr_db", "min_sqnr"), ("qqqqq", None)]:
            with self.assertRaises(onnxquant.InputError) as raised:
                onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), **{name: 1})
            said = str(raised.exception)
            self.assertIn(f"no setting `{name}`", said)
            self.assertIn("average_bits", said)
            self.assertEqual(f"`{near}` is near" in said, near is not None)

    def test_values_become_words(self):
        table = {
            "--scheme=w4": {"scheme": "w4"},
            "--min-sqnr=-3.5": {"min_sqnr": -3.5},
            "--allow-float": {"allow_float": True},
            "": {"allow_float": False},
            " ": {"scheme": None},
            "--include=a* --include=b": {"include": ["a*", "b"]},
            "--exclude=a*": {"exclude": "a*"},
            "--mean=0.5,0.25,1": {"mean": (0.5, 0.25, 1)},
            "--image-size=480x640": {"image_size": (480, 640)},
            "--image-size=224": {"image_size": 224},
            "--embeddings=off": {"embeddings": False},
            "--state=some/where": {"state": pathlib.Path("some/where")},
        }
        for words, settings in table.items():
            self.assertEqual(_settings.arguments(settings), words.split(), settings)
        self.assertEqual(_settings.arguments({"dim": {"batch": 8, "n": 2}}, "bench"), ["--dim=batch=8", "--dim=n=2"])
        with self.assertRaisesRegex(onnxquant.InputError, "expected True or False, found 'yes'"):
            _settings.arguments({"allow_float": "yes"})

    def test_the_types_that_are_committed_are_those_of_the_command(self):
        script = ROOT / "tests/python/make_keywords.py"
        found = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
        self.assertEqual(found.returncode, 0, found.stderr)
