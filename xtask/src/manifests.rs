//! `cargo xtask manifests`: files that GitHub and Kubernetes read, against the schemas that these publish.

use std::process::Command;

use crate::process;
use crate::python::Python;

/// Schemas of GitHub, by the names that check-jsonschema has for them, and the files that must keep to each.
const GITHUB: [(&str, &[&str]); 4] = [
    ("vendor.github-actions", &["action.yml"]),
    ("vendor.dependabot", &[".github/dependabot.yml"]),
    ("vendor.github-issue-config", &[".github/ISSUE_TEMPLATE/config.yml"]),
    ("vendor.github-issue-forms", &[".github/ISSUE_TEMPLATE/defect.yml", ".github/ISSUE_TEMPLATE/model.yml"]),
];

/// Manifests of Kubernetes.
const KUBERNETES: [&str; 2] = ["docs/examples/kubernetes/job.yaml", "docs/examples/kubernetes/shards.yaml"];

/// Checks them all; nothing is sent anywhere.
pub fn run() -> anyhow::Result<()> {
    let python = Python::of_manifests()?;
    let tool = |name: &str| {
        let mut command = Command::new(python.path().with_file_name(name));
        command.current_dir(process::root());
        command
    };
    for (schema, files) in GITHUB {
        process::run(tool("check-jsonschema").args(["--builtin-schema", schema]).args(files))?;
    }
    process::run(tool("kubernetes-validate").arg("--strict").args(KUBERNETES))
}
