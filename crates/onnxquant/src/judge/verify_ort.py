"""Loads the model argv[1] at every optimization level; saves what level EXTENDED makes of it in the folder argv[2]."""
import os, sys
try:
    import onnxruntime as ort
except ImportError as error:
    sys.exit(f"no onnxruntime: {error}")
model, folder = sys.argv[1:]
print(ort.__version__, flush=True)
for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, "ORT_" + level)
    if level == "ENABLE_EXTENDED":
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.data")
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        sys.exit(f"at level {level}: " + " ".join(str(error).split()))
