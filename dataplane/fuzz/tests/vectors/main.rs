//! The public test files of two foreign parsers, read by ours: llhttp's (Node.js) and those of `http_desync_guardian`.
//!
//! What their strict mode calls an error is one for us, and what they take we read as they do, unless we mean to differ:
//! [`on_purpose`] lists each such case with its reason, and one that is listed and no longer differs fails as well. Every case
//! is read at once, one byte at a time and in two parts wherever it may be cut, with the same outcome.
//!
//! `deploy/setup.sh test` fetches the files into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If that
//! fails, so do the tests.

mod case;
mod desync_guardian;
mod llhttp;
mod on_purpose;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use case::{Case, Judgement};
use on_purpose::OnPurpose;

#[test]
fn llhttp_and_we_differ_only_where_we_mean_to() {
    judge(&llhttp::cases(&fetched("llhttp")), &on_purpose::LLHTTP, 230);
}

#[test]
fn the_desync_guardian_and_we_differ_only_where_we_mean_to() {
    let cases = desync_guardian::cases(&fetched("http_desync_guardian"));
    judge(&cases, &on_purpose::DESYNC_GUARDIAN, 150);
}

/// Judges at least so many cases.
fn judge(cases: &[Case], on_purpose: &OnPurpose, at_least: usize) {
    assert!(cases.len() >= at_least, "only {} cases were found", cases.len());
    let mut listed: BTreeMap<(&str, bool), &str> = BTreeMap::new();
    for (list, is_taken) in [(on_purpose.refused, false), (on_purpose.taken, true)] {
        for (reason, names) in list {
            for name in *names {
                assert!(listed.insert((name, is_taken), reason).is_none(), "{name} is listed twice");
            }
        }
    }
    let (mut wrong, mut same, mut refused, mut taken) = (Vec::new(), 0, 0, 0);
    for case in cases {
        match case.judge() {
            Judgement::Same => same += 1,
            Judgement::Stricter(_) if listed.remove(&(&*case.name, false)).is_some() => refused += 1,
            Judgement::Stricter(how) => wrong.push(format!("we refuse, or read otherwise: {case}{how}")),
            Judgement::Weaker(_) if listed.remove(&(&*case.name, true)).is_some() => taken += 1,
            Judgement::Weaker(how) => wrong.push(format!("we take what is an error: {case}{how}")),
        }
    }
    for ((name, _), reason) in listed {
        wrong.push(format!("listed, and it is not so, or not there: {name} ({reason})"));
    }
    println!("{} cases: {same} the same, {refused} refused and {taken} taken on purpose", cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The folder of fetched test files.
fn fetched(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root of the repository");
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let folder = cache.join("vectors").join(name);
    if !folder.exists() {
        let setup = Command::new(root.join("deploy/setup.sh")).arg("test").status().expect("a shell");
        assert!(setup.success(), "the test files of {name} could not be fetched: is there a network?");
    }
    folder
}
