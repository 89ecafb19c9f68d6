//! The pipeline: configuration, plan, run, report.
