"""compare, bench and inspect."""

import json

import onnx

import onnxquant
from shared import InFolder, calib, command, model, samples


class Commands(InFolder):
    def test_compare_tells_what_the_command_tells(self):
        small = onnxquant.quantize(model("digits_mlp"), self.folder / "s.onnx", calibration=calib("digits_mlp"), progress=False)
        said = command("compare", model("digits_mlp"), small.path, "--data", calib("digits_mlp"), "--json")
        wanted = json.loads(said.stdout)
        for first, data in [(model("digits_mlp"), calib("digits_mlp")), (onnx.load(model("digits_mlp")), samples("digits_mlp"))]:
            found = onnxquant.compare(first, small.model, data, progress=False)
            self.assertEqual(found.to_dict(), wanted)
        self.assertGreater(found.outputs[0].sqnr_db, 20)
        self.assertEqual(found.outputs[0].name, "logits")

    def test_inspect_tells_what_would_be_done(self):
        said = json.loads(command("inspect", model("mnist_cnn"), "--json", "--scheme", "w4").stdout)
        self.assertEqual(onnxquant.inspect(model("mnist_cnn"), scheme="w4").to_dict(), said)

    def test_bench_measures(self):
        found = onnxquant.bench(model("digits_mlp"), dim={"batch": 4}, threads=1)
        self.assertEqual([timing.threads for timing in found.timings], [1])
        self.assertGreater(found.timings[0].median_ms, 0)
        with self.assertRaisesRegex(onnxquant.InputError, "no symbolic dimension `rows`"):
            onnxquant.bench(model("digits_mlp"), dim={"rows": 4})
