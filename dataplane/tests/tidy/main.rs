//! The house rules a compiler cannot check, over every file of the repository.
//!
//! Each rule is a pure function from one file to its findings, listed in [`RULES`] beside a text it must catch and one it
//! must let pass. It reads text, not syntax trees: comments and literals are blanked first ([`code::code_of`]), which is all the
//! syntax the rules need. Rules that need types or spans are clippy's and live in the root `Cargo.toml`.

mod code;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use code::{code_of, says_why_it_is_sound, without_tests, words_of};

/// A file of the repository: path relative to its root with `/` between folders, and its text.
struct Source {
    path: String,
    text: String,
}

/// One place where a rule is broken; lines count from 1.
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

struct Rule {
    name: &'static str,
    check: fn(&Source) -> Vec<Finding>,
    /// A path and text the rule must catch.
    bad: (&'static str, &'static str),
    /// A path and text the rule must let pass.
    good: (&'static str, &'static str),
}

const RULES: &[Rule] = &[
    Rule {
        name: "the top level is the list below",
        check: the_top_level_is_fixed,
        bad: ("docs/reference.md", "# Documents\n"),
        good: (".github/workflows/ci.yml", "name: ci\n"),
    },
    Rule {
        name: "the pure crates are no_std and forbid unsafe code",
        check: pure_crates_say_so,
        bad: ("dataplane/policy/src/lib.rs", "//! P.\n#![no_std]\n"),
        good: ("dataplane/policy/src/lib.rs", "//! P.\n#![no_std]\n#![forbid(unsafe_code)]\n"),
    },
    Rule {
        name: "dependency arrows point down",
        check: arrows_point_down,
        bad: ("dataplane/wire/Cargo.toml", "[dependencies]\npolicy.workspace = true\n"),
        good: ("dataplane/policy/Cargo.toml", "[dependencies]\nwire.workspace = true\n"),
    },
    Rule {
        name: "dependency arrows of one target point down, too",
        check: arrows_point_down,
        bad: ("control/Cargo.toml", "[target.'cfg(unix)'.dependencies.dataplane]\npath = \"../dataplane\"\n"),
        good: ("dataplane/Cargo.toml", "[dev-dependencies]\nsim.workspace = true\n"),
    },
    Rule {
        name: "pure crates use only the libraries on their list",
        check: arrows_point_down,
        bad: ("dataplane/wire/Cargo.toml", "[dependencies]\ntokio = \"1\"\n"),
        good: ("dataplane/wire/Cargo.toml", "[dependencies]\nthiserror.workspace = true\n"),
    },
    Rule {
        name: "unsafe code lives in runtime",
        check: unsafe_lives_in_runtime,
        bad: ("dataplane/src/relay.rs", "fn f() { unsafe { g() } }\n"),
        good: ("dataplane/src/relay.rs", "// unsafe is a word here\nconst S: &str = \"unsafe\";\n"),
    },
    Rule {
        name: "unsafe code says why it is sound",
        check: unsafe_lives_in_runtime,
        bad: ("dataplane/runtime/src/fd.rs", "fn f() {\n    // Fast.\n    unsafe { g() }\n}\n"),
        good: (
            "dataplane/runtime/src/fd.rs",
            "fn f() {\n    // SAFETY: the caller owns\n    // the descriptor.\n    let x =\n        unsafe { g() };\n}\n",
        ),
    },
    Rule {
        name: "nothing is left for later",
        check: nothing_is_left_for_later,
        bad: ("README.md", concat!("text\nTO", "DO: more\n")),
        good: ("README.md", "mktemp -d room.XXXXXX\n"),
    },
    Rule {
        name: "the data plane does not panic on what it reads",
        check: no_panicking_shortcuts,
        bad: ("dataplane/wire/src/head.rs", "fn f() -> u8 { g()\n    .unwrap() }\n"),
        good: (
            "dataplane/wire/src/head.rs",
            "fn f() { g().unwrap_or(1); }\n#[cfg(test)]\nmod tests {\n    fn t() { g().unwrap(); }\n}\n",
        ),
    },
    Rule {
        name: "code after a test module is not test code",
        check: no_panicking_shortcuts,
        bad: ("dataplane/src/a.rs", "#[cfg(test)]\nmod tests { fn t() { '{'; } }\nfn f() { todo!() }\n"),
        good: ("control/src/a.rs", "fn f() { panic!() }\n"),
    },
    Rule {
        name: "a long file says why",
        check: long_files_say_why,
        bad: ("control/src/a.rs", LONG),
        good: ("deploy/ringway.service", LONG),
    },
    Rule {
        name: "a source file begins with what it is",
        check: files_say_what_they_are,
        bad: ("control/src/a.rs", "use std::fs;\n"),
        good: ("control/src/a.rs", "//! Reads documents.\n"),
    },
    Rule {
        name: "no path of one machine",
        check: no_machine_paths,
        bad: ("deploy/setup.sh", concat!("cd \"/ro", "ot/ringway\"\n")),
        good: ("deploy/setup.sh", "cd ./root/ringway /tmp https://a.example/home/x\n"),
    },
    Rule {
        name: "no test is switched off",
        check: no_test_is_switched_off,
        bad: ("control/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn t() {}\n"),
        good: ("control/tests/a.rs", "// #[ignore] would hide it\n#[test]\nfn t() {}\n"),
    },
    Rule {
        name: "tests keep the ports they name",
        check: tests_keep_their_ports,
        bad: (
            "control/tests/a.rs",
            "fn free() -> u16 { TcpListener::bind(\"[::1]:0\").unwrap().local_addr().unwrap().port() }\n",
        ),
        good: (
            "control/tests/a.rs",
            "fn f() { let held = TcpListener::bind(\"[::1]:0\").unwrap();\n g(held.local_addr()); }\n",
        ),
    },
    Rule {
        name: "tests wait for events, not for time",
        check: tests_do_not_sleep,
        bad: ("control/src/a.rs", "#[cfg(test)]\nmod tests {\n    fn t() { std::thread::sleep(D); }\n}\n"),
        good: ("bench/src/load.rs", "fn pause() { std::thread::sleep(D); }\n"),
    },
];

/// What a newcomer sees first; tool files go hidden or under `.github/`.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "bench",
    "control",
    "dataplane",
    "deploy",
    "perf",
    "proto",
    "rust-toolchain.toml",
];

/// Longest file that needs no reason, in lines.
const LINES_MAX: usize = 500;
/// What a `//!` line of a longer file says, followed by the reason.
const REASON: &str = "Longer than";
const LONG: &str = match std::str::from_utf8(&[b'\n'; LINES_MAX + 1]) {
    Ok(text) => text,
    Err(_) => "",
};

/// Our crates (their package names, `ringway` is `control/`), and which of ours each may name.
const ARROWS: &[(&str, &[&str])] = &[
    ("dataplane/wire", &[]),
    ("dataplane/policy", &["wire"]),
    ("proto", &[]),
    ("dataplane/translate", &["policy", "wire", "proto"]),
    ("dataplane/runtime", &[]),
    ("dataplane/sim", &["runtime", "wire"]),
    ("dataplane/fuzz", &["translate", "policy", "wire", "proto"]),
    ("dataplane", &["translate", "policy", "wire", "proto", "runtime", "sim"]),
    ("control", &["translate", "policy", "wire", "proto"]),
    ("bench", &["dataplane", "ringway", "translate", "policy", "wire", "proto", "runtime", "sim"]),
];
const OURS: &[&str] =
    &["wire", "policy", "proto", "translate", "runtime", "sim", "fuzz", "dataplane", "ringway", "bench"];
const PURE: &[&str] = &["dataplane/wire", "dataplane/policy"];
/// The libraries of others that the pure crates may use: each is `no_std`.
const PURE_LIBRARIES: &[&str] =
    &["hashbrown", "libm", "memchr", "regex-automata", "thiserror", "xxhash-rust"];
/// Where a panic would be a downstream's or an upstream's to cause.
const DATA_PLANE: &[&str] = &[
    "dataplane/src/",
    "dataplane/wire/src/",
    "dataplane/policy/src/",
    "dataplane/translate/src/",
    "dataplane/runtime/src/",
];

#[test]
fn the_repository_keeps_every_rule() {
    let sources = read_repository();
    assert!(sources.iter().any(|s| s.path == "dataplane/tests/tidy/main.rs"), "the walk found no sources");
    let findings: Vec<String> = RULES
        .iter()
        .flat_map(|rule| sources.iter().flat_map(rule.check))
        .map(|finding| finding.to_string())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(findings.is_empty(), "{} untidy places\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_rule_catches_what_it_forbids_and_lets_the_rest_pass() {
    for rule in RULES {
        let of = |(path, text): (&str, &str)| {
            (rule.check)(&Source { path: path.to_owned(), text: text.to_owned() })
        };
        assert!(!of(rule.bad).is_empty(), "{}: missed", rule.name);
        let wrong: Vec<String> = of(rule.good).iter().map(Finding::to_string).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", rule.name);
    }
}

/// Crates that are no members: nothing of ours depends on them, nor waits for what they pull in.
const WORKSPACES_OF_THEIR_OWN: [&str; 2] =
    ["bench/glommio/Cargo.toml", "dataplane/fuzz/libfuzzer/Cargo.toml"];

#[test]
fn every_crate_of_the_workspace_has_its_arrows() {
    let members: Vec<String> = read_repository()
        .into_iter()
        .filter(|s| s.path.ends_with("/Cargo.toml") && !WORKSPACES_OF_THEIR_OWN.contains(&s.path.as_str()))
        .map(|s| s.path.trim_end_matches("/Cargo.toml").to_owned())
        .collect();
    for member in &members {
        assert!(ARROWS.iter().any(|(folder, _)| folder == member), "{member} is not in ARROWS");
    }
    assert_eq!(members.len(), ARROWS.len(), "ARROWS names a crate that is gone");
}

#[test]
fn a_long_file_may_stay_long_when_it_says_why() {
    let text = format!("//! A table.\n//! {REASON} {LINES_MAX} lines: one flat match.\n{LONG}");
    assert!(long_files_say_why(&Source { path: "control/src/a.rs".to_owned(), text }).is_empty());
}

// The rules.

fn the_top_level_is_fixed(source: &Source) -> Vec<Finding> {
    let top = source.path.split('/').next().unwrap_or_default();
    if top.starts_with('.') || TOP_LEVEL.contains(&top) {
        return Vec::new();
    }
    let what = "not on the list of the top level".to_owned();
    vec![Finding { path: top.to_owned(), line: 1, what }]
}

fn pure_crates_say_so(source: &Source) -> Vec<Finding> {
    let Some(folder) = source.path.strip_suffix("/src/lib.rs").filter(|f| PURE.contains(f)) else {
        return Vec::new();
    };
    ["#![no_std]", "#![forbid(unsafe_code)]"]
        .into_iter()
        .filter(|attribute| !source.text.lines().any(|line| line == *attribute))
        .map(|attribute| source.finding(0, format!("{folder} must say {attribute}")))
        .collect()
}

fn arrows_point_down(source: &Source) -> Vec<Finding> {
    let Some((folder, allowed)) =
        ARROWS.iter().find(|(folder, _)| source.path.strip_suffix("/Cargo.toml") == Some(*folder))
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (line, name, is_dev) in dependencies_of(&source.text) {
        let is_ours = OURS.contains(&name.as_str());
        if is_ours && !allowed.contains(&name.as_str()) {
            findings.push(source.finding(line, format!("{folder} must not depend on {name}")));
        }
        if name == "sim" && !is_dev && *folder == "dataplane" {
            findings.push(source.finding(line, "sim is for tests: a dev-dependency".to_owned()));
        }
        if PURE.contains(folder) && !is_dev && !is_ours && !PURE_LIBRARIES.contains(&name.as_str()) {
            findings.push(source.finding(line, format!("{folder} is pure, {name} is not on its list")));
        }
    }
    findings
}

fn unsafe_lives_in_runtime(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let code = code_of(&source.text);
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if !words_of(line).any(|word| word == "unsafe") {
            continue;
        }
        if !source.path.starts_with("dataplane/runtime/") {
            findings.push(source.finding(number, "unsafe code outside dataplane/runtime".to_owned()));
        } else if !line.contains("unsafe fn") && !says_why_it_is_sound(&lines[..=number]) {
            // An unsafe function asks its callers for proof and needs none itself; clippy wants its contract written.
            findings
                .push(source.finding(number, "unsafe code without a SAFETY sentence above it".to_owned()));
        }
    }
    findings
}

fn nothing_is_left_for_later(source: &Source) -> Vec<Finding> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    source.lines_where(|line| words_of(line).any(|word| marks.contains(&word)), "left for later")
}

fn no_panicking_shortcuts(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.is_test() || !DATA_PLANE.iter().any(|f| source.path.starts_with(f)) {
        return Vec::new();
    }
    let shortcuts = [".unwrap()", ".expect(", "panic!", "todo!", "unimplemented!"];
    Source { path: source.path.clone(), text: without_tests(&code_of(&source.text)) }
        .lines_where(|line| shortcuts.iter().any(|s| line.contains(s)), "panics on the data plane")
}

fn long_files_say_why(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    let says_why = source.text.lines().any(|line| line.starts_with("//!") && line.contains(REASON));
    if !source.is_rust() || lines <= LINES_MAX || says_why {
        return Vec::new();
    }
    vec![source.finding(
        0,
        format!("{lines} lines: split it, or a line `//! {REASON} {LINES_MAX} lines: why` at its top"),
    )]
}

fn files_say_what_they_are(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.finding(0, "the first line must be `//! what this file is`".to_owned())]
}

fn no_machine_paths(source: &Source) -> Vec<Finding> {
    let roots = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/wo", "rk/"),
        concat!("/Us", "ers/"),
        concat!("/var/", "tmp/"),
    ];
    let starts_here = |line: &str, at: usize| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || "./_-}~*$".contains(c))
    };
    let names_one =
        |line: &str| roots.iter().any(|root| line.match_indices(root).any(|(at, _)| starts_here(line, at)));
    source.lines_where(names_one, "a path of one machine")
}

fn no_test_is_switched_off(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    Source { path: source.path.clone(), text: code_of(&source.text) }
        .lines_where(|line| line.contains("#[ignore"), "a test that does not run")
}

fn tests_do_not_sleep(source: &Source) -> Vec<Finding> {
    let sleeps = |line: &str| line.contains("thread::sleep(");
    source.lines_of_tests_where(sleeps, "a test sleeps: wait for the event itself")
}

fn tests_keep_their_ports(source: &Source) -> Vec<Finding> {
    let gives_back = |line: &str| line.contains("TcpListener::bind(") && line.contains(".local_addr()");
    source
        .lines_of_tests_where(gives_back, "a port that is given back at once may be another test's: keep it")
}

// What the rules read with.

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of the file is test code.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.starts_with("dataplane/sim/")
    }

    /// A finding at a line that counts from 0.
    fn finding(&self, line: usize, what: String) -> Finding {
        Finding { path: self.path.clone(), line: line + 1, what }
    }

    fn lines_of_tests_where(&self, is_broken: impl Fn(&str) -> bool, what: &str) -> Vec<Finding> {
        if !self.is_rust() {
            return Vec::new();
        }
        let code = code_of(&self.text);
        let outside = if self.is_test() { String::new() } else { without_tests(&code) };
        code.lines()
            .enumerate()
            .filter(|(number, line)| is_broken(line) && !outside.lines().nth(*number).is_some_and(&is_broken))
            .map(|(number, _)| self.finding(number, what.to_owned()))
            .collect()
    }

    fn lines_where(&self, is_broken: impl Fn(&str) -> bool, what: &str) -> Vec<Finding> {
        let broken = self.text.lines().enumerate().filter(|(_, line)| is_broken(line));
        broken.map(|(number, line)| self.finding(number, format!("{what}: {}", line.trim()))).collect()
    }
}

/// `(line from 0, package name, is it a dev-dependency)` of every dependency a manifest names.
fn dependencies_of(manifest: &str) -> Vec<(usize, String, bool)> {
    let mut found = Vec::new();
    let mut section = String::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            if let Some((table, name)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.push((number, name.to_owned(), table.ends_with("dev-dependencies")));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if !name.is_empty() {
                found.push((number, name.to_owned(), section.ends_with("dev-dependencies")));
            }
        }
    }
    found
}

/// Every text file of the repository but the generated ones.
fn read_repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("dataplane/ lies in the repository");
    let skipped =
        [".git", ".cache", "target", "node_modules", "dist", "Cargo.lock", "package-lock.json", "LICENSE"];
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let entry = entry.expect("a folder of the repository can be read");
            let path = entry.path();
            if skipped.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path =
                    path.strip_prefix(root).expect("it lies below the root").to_string_lossy().into_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources
}
