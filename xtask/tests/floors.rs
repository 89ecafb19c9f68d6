//! The folders of a crate are floors: a file imports files of its own floor and of those below, and no file comes back to
//! itself.

mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use shared::rust_files;

/// The floors of a crate's sources, from the top down; a file that lies in no folder is a floor by itself.
const FLOORS: [(&str, &[&str]); 9] = [
    (
        "onnxquant",
        &[
            "anonymize",
            "given",
            "delivery",
            "folder",
            "forecast",
            "pipeline",
            "bench",
            "report",
            "files",
            "attempt",
            "decide",
            "solve",
            "judge",
            "observe",
            "write",
            "plan",
            "load",
            "config",
            "store",
            "plan_file",
            "accuracy",
            "fingerprint",
            "progress",
            "error",
        ],
    ),
    (
        "cli",
        &[
            "dry_run",
            "shares",
            "quantize",
            "compare",
            "report",
            "inspect",
            "bench",
            "metric",
            "trial",
            "runtime",
            "summary",
            "left_in_float",
            "configuration",
            "answer",
            "options",
            "args",
            "progress",
            "host",
            "signals",
            "child",
            "sink",
            "table",
            "guard",
            "screen",
        ],
    ),
    ("python", &["job"]),
    (
        "xtask",
        &[
            "test",
            "regress",
            "paper",
            "bench",
            "book",
            "codegen",
            "deny",
            "manifests",
            "miri",
            "dist",
            "sbom",
            "faults",
            "fuzz",
            "qemu",
            "wheel",
            "python",
            "process",
        ],
    ),
    ("storage", &["list", "open", "remote", "refused", "address"]),
    ("calib", &["statistics", "stream", "run", "engine", "data", "graph", "error", "tensor"]),
    (
        "ir",
        &[
            "write",
            "body",
            "import",
            "dump",
            "verify",
            "edit",
            "external",
            "sort",
            "subgraph",
            "model",
            "graph",
            "ids",
            "error",
            "violation",
            "tensor",
            "atomic",
            "attribute",
            "domain",
        ],
    ),
    (
        "passes",
        &["integer", "write", "migrate", "find", "decode", "prepare", "raise_opset", "layers", "graph", "runtime"],
    ),
    ("quant", &["choose", "lattice", "walks", "certify", "activations", "layer", "stats", "linalg", "error"]),
];

/// Who imports whom, by module (`layer::grid`), within one crate.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// Where the sources of a crate lie.
fn sources(name: &str) -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = xtask.parent().expect("xtask lies in the repository").join("crates");
    if name == "xtask" { xtask.join("src") } else { crates.join(name).join("src") }
}

/// `layer::grid` for `src/layer/grid.rs`; nothing for the root, and for tests and what only they use.
fn module(src: &Path, file: &Path) -> Option<String> {
    let path = file.strip_prefix(src).ok()?.with_extension("");
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).filter(|part| *part != "mod").collect();
    let of_tests = parts.iter().any(|part| *part == "tests" || part.ends_with("_tests") || part.starts_with("testing"));
    let name = parts.join("::");
    (!name.is_empty() && !["lib", "main"].contains(&name.as_str()) && !of_tests).then_some(name)
}

/// The source without comments and without the tests at its end.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("the file can be read");
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The longest module in `known` that `path` (`layer::grid::Affine`) begins with.
fn imported(path: &str, known: &BTreeSet<String>) -> Option<String> {
    let parts: Vec<&str> = path.split("::").collect();
    (1..=parts.len()).rev().map(|n| parts[..n].join("::")).find(|name| known.contains(name))
}

/// The paths that the module `own` names, from the crate's root: `crate::a` is `a`, `super::a` in `b::c` is `b::a`, and
/// of groups each member is one: `a::{b, c}` are `a::b` and `a::c`.
fn paths(own: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            if !code[..at].ends_with(|c: char| is_of_path(c) || c == '$') {
                let tail = &code[at..];
                let (outer, tail) =
                    tail.strip_prefix("crate::").map_or_else(|| outside(own, tail), |tail| (String::new(), tail));
                spread(&outer, tail, &mut found);
            }
        }
    }
    found
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// The module that the `super::` at the beginning of `path` lead to from `own`, as a prefix, and what follows them.
fn outside<'a>(own: &str, path: &'a str) -> (String, &'a str) {
    let (mut outer, mut rest) = (own, path);
    while let Some(inner) = rest.strip_prefix("super::") {
        outer = outer.rsplit_once("::").map_or("", |(outer, _)| outer);
        rest = inner;
    }
    (if outer.is_empty() { String::new() } else { format!("{outer}::") }, rest)
}

/// Adds the path with which `tail` begins, behind `prefix`; where it ends in a group, one for each of its members.
/// Returns what follows.
fn spread<'a>(prefix: &str, tail: &'a str, found: &mut Vec<String>) -> &'a str {
    let (own, rest) = tail.split_at(tail.find(|c| !is_of_path(c)).unwrap_or(tail.len()));
    let path = format!("{prefix}{own}");
    let Some(mut rest) = rest.strip_prefix('{') else {
        found.push(path);
        return rest;
    };
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
        if !rest.starts_with(is_of_path) {
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        // Behind a member may stand `as` and another name.
        rest = spread(&path, rest, found).trim_start_matches(|c| c != ',' && c != '}');
    }
}

fn imports(src: &Path) -> Imports {
    let files = rust_files(src);
    let known: BTreeSet<String> = files.iter().filter_map(|file| module(src, file)).collect();
    let of_file = |file: &PathBuf| {
        let own = module(src, file)?;
        let all = paths(&own, &code(file)).iter().filter_map(|path| imported(path, &known)).collect::<BTreeSet<_>>();
        Some((own.clone(), all.into_iter().filter(|name| *name != own).collect()))
    };
    files.iter().filter_map(of_file).collect()
}

/// A way from `module` back to it, if there is one.
fn circle(module: &str, imports: &Imports) -> Option<Vec<String>> {
    let mut ways: Vec<Vec<String>> = vec![vec![module.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in imports.get(way.last()?).into_iter().flatten() {
            if next == module {
                return Some(way.into_iter().chain([next.clone()]).collect());
            }
            if seen.insert(next.clone()) {
                ways.push(way.iter().chain([next]).cloned().collect());
            }
        }
    }
    None
}

#[test]
fn imports_only_run_down_the_floors() {
    let mut found = Vec::new();
    for (name, floors) in FLOORS {
        let floor_of = |module: &str| {
            let first = module.split("::").next().unwrap_or_default();
            floors.iter().position(|floor| *floor == first)
        };
        let imports = imports(&sources(name));
        assert!(imports.len() >= floors.len(), "{name} has only {} files", imports.len());
        for (own, others) in &imports {
            let Some(floor) = floor_of(own) else {
                found.push(format!("crates/{name}/src/{own}.rs is on no floor"));
                continue;
            };
            for other in others.iter().filter(|other| floor_of(other).is_some_and(|other| other < floor)) {
                let floor = floors[floor];
                found.push(format!("crates/{name}: `{own}`, on the floor `{floor}`, imports `{other}` from above"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_comes_back_to_itself() {
    let mut found = Vec::new();
    for (name, _) in FLOORS {
        let imports = imports(&sources(name));
        found.extend(imports.keys().filter_map(|module| circle(module, &imports)).map(|way| way.join(" -> ")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn groups_of_imports_are_spread_out_and_outer_modules_are_found() {
    let code = "use crate::layer::{grid, view::MatrixView};\nlet x = crate::linalg::cholesky(a);";
    assert_eq!(paths("walks", code), ["layer::grid", "layer::view::MatrixView", "linalg::cholesky"]);
    let nested = "use crate::{a::{b, c::{self, D}}, e as f};";
    assert_eq!(paths("walks", nested), ["a::b", "a::c::self", "a::c::D", "e"]);
    let outer = "use super::npz;\nuse super::super::{graph, Engine};\npub(super) fn f() {}";
    assert_eq!(paths("engine::tract::plan", outer), ["engine::tract::npz", "engine::graph", "engine::Engine"]);
    assert_eq!(paths("engine", "use super::data;\n$crate::Tensor"), ["data"]);
}

#[test]
fn the_longest_module_of_a_path_is_imported_and_circles_are_found() {
    let known = ["layer::grid", "layer"].map(str::to_owned).into();
    assert_eq!(imported("layer::grid::Affine", &known).as_deref(), Some("layer::grid"));
    let looped: Imports =
        [("a", "b"), ("b", "c"), ("c", "a")].map(|(a, b)| (a.to_owned(), [b.to_owned()].into())).into();
    assert_eq!(circle("a", &looped).map(|way| way.len()), Some(4));
}
