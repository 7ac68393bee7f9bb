//! The cases of `http_desync_guardian`: request heads in YAML, each in one of four tiers. In its strictest mode only the
//! first one passes.

use std::{fs, path::Path};

use fuzz::reference::Side;
use serde::Deserialize;

use crate::case::{Case, Expected, Told};

#[derive(Deserialize)]
struct Request {
    name: String,
    uri: String,
    method: String,
    version: String,
    #[serde(default)]
    headers: Option<Vec<Header>>,
    expected: Verdict,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Verdict {
    tier: String,
}

/// The cases of all files in a folder.
pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    files.sort();
    files.iter().flat_map(|path| of_file(path)).collect()
}

fn of_file(path: &Path) -> Vec<Case> {
    let file = path.file_stem().expect("a name").to_string_lossy();
    let text = fs::read_to_string(path).expect("a file");
    let requests: Vec<Request> =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut cases: Vec<Case> = Vec::new();
    for request in requests {
        let mut case = request.case(&file);
        let twins = cases.iter().filter(|other| other.name.split(" #").next() == Some(&case.name)).count();
        if twins > 0 {
            case.name = format!("{} #{}", case.name, twins + 1);
        }
        cases.push(case);
    }
    cases
}

impl Request {
    fn case(self, file: &str) -> Case {
        let mut headers: Vec<(String, String)> =
            self.headers.into_iter().flatten().map(|header| (header.name, header.value)).collect();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            headers.push(("Host".to_owned(), "vectors".to_owned()));
        }
        let mut bytes = format!("{} {} {}\r\n", self.method, self.uri, self.version);
        headers.iter().for_each(|(name, value)| bytes.push_str(&format!("{name}: {value}\r\n")));
        bytes.push_str("\r\n");
        // What a body begins with does not matter: of a head that announces one we are told before it comes.
        let escaped = |text: &str| text.as_bytes().escape_ascii().to_string();
        let told = Told {
            method: self.method,
            target: escaped(&self.uri),
            headers: headers
                .iter()
                .map(|(name, value)| (escaped(name), escaped(value.trim_ascii())))
                .collect(),
            is_whole: !headers.iter().any(|(name, value)| announces_a_body(name, value)),
            ..Told::default()
        };
        let is_error = self.expected.tier != "Compliant";
        Case {
            name: format!("{file}: {}", self.name),
            side: Side::Requests,
            bytes: bytes.into_bytes(),
            expected: Expected { messages: if is_error { Vec::new() } else { vec![told] }, is_error },
        }
    }
}

fn announces_a_body(name: &str, value: &str) -> bool {
    match name.to_ascii_lowercase().as_str() {
        "content-length" => value.trim() != "0",
        "transfer-encoding" => true,
        _ => false,
    }
}
