//! Rules for the source: which room or folder may import which, no import cycle between the files of a room, what pure
//! rooms may not use, how long a file and how wide a comment may be, which crates are built, and what the top level of
//! the project holds. A room is a top-level module of `src`, a file or a folder.

#[path = "house/imports.rs"] // also found where this file is compiled by itself
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rooms that every room may import.
const IMPORTED_BY_ALL: &[&str] = &["limits", "names", "problem", "secret", "expression"];
/// Which rooms each room may import, beside itself and those of `IMPORTED_BY_ALL`.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("names", &[]),
    ("problem", &[]),
    ("secret", &[]),
    ("expression", &[]),
    ("telemetry", &[]),
    ("access_log", &["flag"]),
    ("clock", &[]),
    ("priority", &[]),
    ("byte_budget", &[]),
    ("slot_file", &[]),
    ("listener", &[]),
    ("transport", &["flag"]),
    ("traces", &["flag", "telemetry", "transport"]),
    ("flag", &[]),
    ("workflow", &[]),
    ("compare", &[]),
    ("exchange", &["flag", "compare", "workflow"]),
    ("egress", &["exchange", "compare", "clock", "traces", "byte_budget"]),
    ("store", &["workflow", "flag", "compare", "clock", "priority"]),
    ("affinity", &["store", "exchange", "flag", "clock", "slot_file"]),
    ("adoption", &["affinity", "store", "engine", "exchange", "flag", "workflow", "clock"]),
    (
        "engine",
        &[
            "workflow",
            "store",
            "exchange",
            "flag",
            "compare",
            "affinity",
            "clock",
            "telemetry",
            "transport",
            "traces",
            "priority",
        ],
    ),
    (
        "proxy",
        &[
            "flag",
            "exchange",
            "compare",
            "workflow",
            "clock",
            "access_log",
            "listener",
            "transport",
            "traces",
            "priority",
        ],
    ),
    ("evidence", &["flag", "compare", "store", "exchange", "clock", "slot_file"]),
    ("record", &["flag", "store", "evidence", "clock"]),
    ("ladder", &["flag", "store", "evidence", "clock"]),
    ("shadow", &["flag", "compare", "exchange", "evidence", "workflow", "clock", "priority", "byte_budget"]),
    ("config", &["flag", "workflow", "compare", "access_log", "listener", "transport", "traces", "egress"]),
    ("docs", &["telemetry"]),
    (
        "admin",
        &[
            "flag", "workflow", "compare", "exchange", "store", "engine", "evidence", "ladder", "config", "docs",
            "egress", "record", "clock",
        ],
    ),
    ("page", &["admin"]),
    ("cli", &["page", "app", "admin", "config", "demo", "docs", "flag", "record", "telemetry"]),
    ("demo", &["admin", "flag", "workflow"]),
    ("main", &["cli"]),
    ("build", &[]), // the build script
];
/// Rooms that may import every room.
const MAY_IMPORT_ALL: &[&str] = &["app", "lib"];
/// Rooms whose files still import each other in a cycle. Do not add any; take a room out when it has no cycle left.
const CYCLES: &[&str] = &[];
/// What folders of a room may not import of their own room.
const NOT_IN_FOLDER: &[(&str, &[&str])] = &[
    ("engine/machine", &["api", "context", "driver", "ports", "scheduler"]),
    ("engine/ports", &["api", "driver"]),
    ("engine/scheduler", &["api", "driver"]),
    ("engine/driver", &["api"]),
];
/// No clock, no IO, no async.
const PURE: &[&str] = &["expression", "flag", "workflow", "compare", "exchange"];
/// Folders of other rooms that have no clock, no IO and no async either.
const PURE_FOLDERS: &[&str] = &["engine/machine"];
/// Files that are tables (the types of the API, the limits, the metrics): they may be longer than others.
const TABLES: &[&str] = &["admin/types.rs", "limits.rs", "telemetry/help.rs"];
/// The most columns of a line, as in `.rustfmt.toml`.
const WIDTH_MAX: usize = 120;
const BANNED_IN_PURE: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "tokio::",
    "async fn",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Uuid::now",
];

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the source tree is readable") {
        let path = entry.expect("the source tree is readable").path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Files of `src` with their room and their text without comments.
fn rooms() -> Vec<(PathBuf, String, String)> {
    let root = source_root();
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    assert!(files.len() > 30, "the source tree was found");
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("a file of src").to_path_buf();
            let first = inside.iter().next().expect("a name").to_string_lossy().into_owned();
            let room = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            let code: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .map(|line| format!("{line}\n"))
                .collect();
            (inside, room, code)
        })
        .collect()
}

/// Every `crate::name` in a piece of code, also inside `use crate::{a, b}`.
fn imported_rooms(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut item = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => names.push(std::mem::take(&mut item)),
                    _ if depth == 1 => item.push(c),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            names.push(item);
        } else {
            names.push(rest.to_owned());
        }
    }
    names
        .into_iter()
        .map(|n| n.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn rooms_import_only_the_rooms_in_the_table() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let known_rooms: Vec<&str> =
        MAY_IMPORT.iter().map(|(room, _)| *room).chain(MAY_IMPORT_ALL.iter().copied()).collect();
    let mut wrong = Vec::new();
    for (path, room, code) in rooms() {
        if MAY_IMPORT_ALL.contains(&room.as_str()) {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!("{}: the room `{room}` is not in the table MAY_IMPORT", path.display()));
            continue;
        };
        // Tests of a room may use the memory store and types of other rooms.
        let is_test =
            path.iter().any(|p| p == "tests" || p == "tests.rs" || p.to_string_lossy().ends_with("_tests.rs"));
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in imported_rooms(code) {
            let fine = is_test
                || name == room
                || IMPORTED_BY_ALL.contains(&name.as_str())
                || allowed.contains(&name.as_str())
                || !known_rooms.contains(&name.as_str());
            if !fine {
                wrong.push(format!("{}: `{room}` may not import `{name}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn no_two_files_of_a_room_import_each_other_in_a_cycle() {
    let root = source_root();
    let (mut files, mut sources) = (Vec::new(), imports::Sources::default());
    rust_files(&root, &mut files);
    for file in files {
        let inside = file.strip_prefix(&root).expect("a file of src");
        if !inside.iter().any(|part| part == "tests" || part == "tests.rs") {
            sources.add(inside, &fs::read_to_string(&file).expect("source is UTF-8"));
        }
    }
    let cycles = sources.cycles();
    let mut wrong = Vec::new();
    for (room, cycles) in &cycles {
        for cycle in cycles.iter().filter(|_| !CYCLES.contains(&room.as_str())) {
            wrong.push(format!("`{room}`: these import each other in a cycle; move what two of them need to a file"));
            wrong.extend(sources.within(cycle).into_iter().map(|import| format!("    {import}")));
        }
    }
    for room in CYCLES.iter().filter(|room| !cycles.contains_key(**room)) {
        wrong.push(format!("`{room}` has no import cycle any more: take it out of CYCLES in tests/it/house.rs"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn folders_of_a_room_import_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (folder, forbidden) in NOT_IN_FOLDER {
        let (room, _) = folder.split_once('/').expect("a folder of a room");
        let files: Vec<_> = rooms().into_iter().filter(|(path, ..)| path.starts_with(folder)).collect();
        assert!(!files.is_empty(), "there is no folder {folder}");
        for (path, _, code) in files {
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for name in forbidden.iter().filter(|name| code.contains(&format!("crate::{room}::{name}"))) {
                wrong.push(format!("{}: {folder} may not import {room}::{name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn every_form_of_import_is_found() {
    assert_eq!(imported_rooms("use crate::flag::State;"), ["flag"]);
    assert_eq!(imported_rooms("use crate::{flag::{A, B}, store, names::X};"), ["flag", "store", "names"]);
    assert_eq!(imported_rooms("let x = crate::engine::run();"), ["engine"]);
}

#[test]
fn pure_rooms_use_no_clock_no_io_no_async() {
    let mut wrong = Vec::new();
    for (path, room, code) in rooms() {
        let is_test =
            path.iter().any(|p| p == "tests" || p == "tests.rs" || p.to_string_lossy().ends_with("_tests.rs"));
        let is_pure = PURE.contains(&room.as_str()) || PURE_FOLDERS.iter().any(|folder| path.starts_with(folder));
        if !is_pure || is_test {
            continue;
        }
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        for banned in BANNED_IN_PURE {
            if code.contains(banned) {
                wrong.push(format!("{}: `{banned}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = rooms()
        .into_iter()
        .map(|(path, _, _)| {
            let lines = fs::read_to_string(source_root().join(&path)).expect("readable").lines().count();
            (path, lines)
        })
        .filter(|(path, lines)| {
            // Tables and lists of cases may be longer.
            let is_list = TABLES.iter().any(|table| path == Path::new(table)) || path.ends_with("tests.rs");
            *lines > if is_list { 600 } else { 400 }
        })
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "files that are too long:\n{}", long.join("\n"));
}

/// `rustfmt` leaves comments as they are.
#[test]
fn no_comment_is_wider_than_the_code() {
    let is_wide = |line: &str| line.trim_start().starts_with("//") && line.chars().count() > WIDTH_MAX;
    let wide: Vec<String> = rooms()
        .into_iter()
        .flat_map(|(path, _, _)| {
            let text = fs::read_to_string(source_root().join(&path)).expect("readable");
            let lines = text.lines().enumerate().filter(|(_, line)| is_wide(line));
            lines.map(|(index, _)| format!("{}:{}", path.display(), index + 1)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wide.is_empty(), "comments of more than {WIDTH_MAX} columns:\n{}", wide.join("\n"));
}

#[test]
fn one_copy_of_each_crate_and_no_banned_one() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).expect("Cargo.lock");
    let mut copies: BTreeMap<&str, u32> = BTreeMap::new();
    for line in lock.lines() {
        if let Some(name) = line.strip_prefix("name = \"").and_then(|n| n.strip_suffix('"')) {
            *copies.entry(name).or_default() += 1;
        }
    }
    let deny = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml")).expect(".deny.toml");
    let banned: Vec<&str> =
        deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect();
    assert!(banned.len() >= 5, "the bans were read");
    let built = built();
    assert!(built.len() > 100 && built.contains("sqlx"), "the tree was read");
    for name in banned {
        assert!(!built.contains(name), "`{name}` is banned in .deny.toml and is built");
    }
    for name in ["hyper", "hyper-util", "http", "tokio", "tower", "sqlx", "rustls", "serde_json", "metrics", "cel"] {
        assert_eq!(copies.get(name), Some(&1), "one copy of {name}");
    }
}

/// The crates that are built. Cargo.lock also lists dependencies of features that are not enabled.
fn built() -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--edges", "normal,build,dev"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).expect("names are text");
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_top_level_has_only_the_agreed_entries() {
    const AGREED: &[&str] = &["Cargo.lock", "Cargo.toml", "README.md", "dashboards", "deploy", "flags", "src", "tests"];
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let there = fs::read_dir(top).expect("the project's folder").filter_map(Result::ok);
    let names = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Cargo makes `target` here unless it is told otherwise.
    let extra: Vec<_> =
        names.filter(|name| !name.starts_with('.') && name != "target" && !AGREED.contains(&name.as_str())).collect();
    assert!(extra.is_empty(), "the top level holds only {AGREED:?}, not {extra:?}");
}
