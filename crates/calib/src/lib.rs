//! Calibration data, inference with tract, and layer statistics.
