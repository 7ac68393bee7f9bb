//! The cases of llhttp: Markdown, where each heading has a block of input and a log of what its parser says of it.
//!
//! A case of one of its lenient modes stands for itself with an error expected: that it takes such lenience is the point of
//! the case. One whose reader leaves out a body that is there says nothing of bytes and is left out.

use std::{collections::BTreeMap, fs, path::Path};

use fuzz::reference::Side;

use crate::case::{Case, Expected, Told};

/// The cases of all files in a folder and in those below.
pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for (part, side) in
        [("url", Side::Requests), ("request", Side::Requests), ("response", Side::Responses(b"GET"))]
    {
        for (file, text) in files(folder, part) {
            for (number, section) in sections(&text).iter().enumerate() {
                cases.extend(section.case(&file, side).filter(|_| number > 0 || !section.heading.is_empty()));
            }
        }
    }
    number_twins(&mut cases);
    cases
}

/// `part.md`, or the files of a folder of that name.
fn files(folder: &Path, part: &str) -> BTreeMap<String, String> {
    let one = folder.join(part).with_extension("md");
    let paths = match one.exists() {
        true => vec![one],
        false => {
            let entries = fs::read_dir(folder.join(part)).expect("a folder");
            entries.map(|entry| entry.expect("a file").path()).collect()
        }
    };
    let name =
        |path: &Path| path.strip_prefix(folder).expect("below it").with_extension("").display().to_string();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).expect("a file"))).collect()
}

fn number_twins(cases: &mut [Case]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for case in cases {
        let count = seen.entry(case.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            case.name = format!("{} #{count}", case.name);
        }
    }
}

/// What stands below a heading.
#[derive(Default)]
struct Section {
    heading: String,
    meta: String,
    /// `http` or `url`.
    kind: String,
    input: String,
    log: String,
}

fn sections(text: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut fence: Option<String> = None;
    for line in text.lines() {
        let section = sections.last_mut().expect("one at least");
        match &fence {
            Some(_) if line == "```" => fence = None,
            Some(kind) => {
                let block = if kind == "log" { &mut section.log } else { &mut section.input };
                block.push_str(line);
                block.push('\n');
            }
            None => {
                if let Some(kind) = line.strip_prefix("```") {
                    if kind != "log" {
                        section.kind = kind.to_owned();
                    }
                    fence = Some(kind.to_owned());
                } else if let Some(meta) = line.strip_prefix("<!-- meta=") {
                    section.meta = meta.to_owned();
                } else if line.starts_with('#') {
                    let heading = line.trim_start_matches('#').trim().to_owned();
                    sections.push(Section { heading, ..Section::default() });
                }
            }
        }
    }
    sections
}

impl Section {
    fn case(&self, file: &str, side: Side<'static>) -> Option<Case> {
        if self.log.is_empty() || self.meta.contains("skipBody") && side == Side::Requests {
            return None;
        }
        let side = if self.meta.contains("skipBody") { Side::Responses(b"HEAD") } else { side };
        let input = unescape(&self.input);
        let (bytes, mut expected) =
            if self.kind == "url" { self.url(&input) } else { self.connection(input, side) };
        expected.is_error |= self.meta.contains("lenient");
        Some(Case { name: format!("{file}: {}", self.heading), side, bytes, expected })
    }

    /// A target by itself, of which we make a request.
    fn url(&self, target: &[u8]) -> (Vec<u8>, Expected) {
        let events: Vec<Event<'_>> = self.log.lines().map(Event::of).collect();
        let part = |name: &str| {
            let of_name = events.iter().find(|event| event.span == Some(name))?;
            Some(escaped(&target[of_name.range()]))
        };
        let host = part("url.host").unwrap_or_else(|| "vectors".to_owned());
        let query = part("url.query").map(|query| format!("?{query}")).unwrap_or_default();
        let told = Told {
            method: "GET".to_owned(),
            target: format!("{}{query}", part("url.path").unwrap_or_default()),
            headers: vec![("Host".to_owned(), host.clone())],
            is_whole: true,
            ..Told::default()
        };
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: ", host.as_bytes(), b"\r\n\r\n"].concat();
        let is_error = events.iter().any(Event::is_error);
        (bytes, Expected { messages: if is_error { Vec::new() } else { vec![told] }, is_error })
    }

    /// Messages one after the other. They mostly lack the header that HTTP/1.1 demands, so it is added.
    fn connection(&self, mut bytes: Vec<u8>, side: Side<'_>) -> (Vec<u8>, Expected) {
        let mut expected = Expected::default();
        let mut messages: Vec<Reading> = Vec::new();
        for event in self.log.lines().map(Event::of) {
            expected.is_error |= event.is_error();
            if event.what == "message begin" {
                messages.push(Reading::default());
            }
            if let Some(message) = messages.last_mut() {
                message.take(&event, &bytes);
            }
        }
        for at in (0..messages.len()).rev().filter(|_| side == Side::Requests) {
            let end = messages.get(at + 1).map_or(bytes.len(), |next| next.begins);
            messages[at].add_host(&mut bytes, end);
        }
        let with_head = messages.into_iter().filter(|message| message.has_head);
        expected.messages = with_head.map(|message| message.told).collect();
        (bytes, expected)
    }
}

/// A message, as the log tells of it bit by bit.
#[derive(Default)]
struct Reading {
    told: Told,
    begins: usize,
    /// Where the first line ends, if it says HTTP/1.1.
    line_end: Option<usize>,
    /// What the target names.
    host: Option<String>,
    has_head: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Reading {
    fn take(&mut self, event: &Event<'_>, bytes: &[u8]) {
        let span = || &bytes[event.range()];
        match event.span {
            Some("method") => self.told.method.push_str(&escaped(span())),
            Some("url") => self.told.target.push_str(&escaped(span())),
            Some("status") => self.told.reason.push_str(&escaped(span())),
            Some("version") if span() == b"1.1" => self.line_end = Some(event.range().end),
            Some("body") => self.told.body.push_str(&escaped(span())),
            // Those of a trailer section go further or not by rules of our own.
            Some("header_field") if !self.has_head => self.name.extend_from_slice(span()),
            Some("header_value") if !self.has_head => self.value.extend_from_slice(span()),
            _ => {}
        }
        match event.what {
            "message begin" => self.begins = event.at,
            "url complete" => {
                (self.host, self.told.target) = split_target(&self.told.method, &self.told.target);
            }
            "message complete" => self.told.is_whole = true,
            "header_value complete" if !self.has_head => {
                let (name, value) = (std::mem::take(&mut self.name), std::mem::take(&mut self.value));
                self.told.headers.push((escaped(&name), escaped(value.trim_ascii())));
            }
            what if what.starts_with("headers complete") => {
                self.has_head = true;
                let status = what.split("status=").nth(1).and_then(|rest| rest.split(' ').next());
                self.told.status = status.and_then(|status| status.parse().ok()).unwrap_or_default();
            }
            _ => {}
        }
    }

    /// To a message that goes up to `end`, unless it has one.
    fn add_host(&mut self, bytes: &mut Vec<u8>, end: usize) {
        let Some(at) = self.line_end.filter(|at| bytes[*at..].starts_with(b"\r\n")) else { return };
        let has_host = bytes[at..end].to_ascii_lowercase().windows(7).any(|window| window == b"\r\nhost:");
        if !has_host {
            let host = self.host.as_deref().unwrap_or("vectors");
            bytes.splice(at..at, format!("\r\nHost: {host}").into_bytes());
            self.told.headers.insert(0, ("Host".to_owned(), host.to_owned()));
        }
    }
}

/// The host that a target names, and what we tell of it: path and query.
fn split_target(method: &str, target: &str) -> (Option<String>, String) {
    match target.split_once("://") {
        _ if method == "CONNECT" => (Some(target.to_owned()), String::new()),
        _ if target == "*" => (None, String::new()),
        Some((scheme, rest)) if !scheme.contains('/') => {
            let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            (Some(host.to_owned()), path)
        }
        _ => (None, target.to_owned()),
    }
}

/// One line of a log: `off=4 len=4 span[url]="/url"` or `off=9 url complete`.
struct Event<'a> {
    at: usize,
    len: usize,
    span: Option<&'a str>,
    what: &'a str,
}

impl<'a> Event<'a> {
    fn of(line: &'a str) -> Event<'a> {
        let (at, rest) = line.strip_prefix("off=").and_then(|rest| rest.split_once(' ')).expect("an offset");
        let number = |text: &str| text.parse().unwrap_or_default();
        let (len, what) = match rest.strip_prefix("len=").and_then(|rest| rest.split_once(' ')) {
            Some((len, what)) => (number(len), what),
            None => (0, rest),
        };
        let span = what.strip_prefix("span[").and_then(|rest| rest.split_once(']'));
        Event { at: number(at), len, span: span.map(|(name, _)| name), what }
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.len
    }

    /// A pause, of which there are three kinds, is none.
    fn is_error(&self) -> bool {
        let code = self.what.strip_prefix("error code=").and_then(|rest| rest.split(' ').next());
        code.is_some_and(|code| !matches!(code, "21" | "22" | "23"))
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// As its own test runner does it.
fn unescape(block: &str) -> Vec<u8> {
    let text = block.strip_suffix('\n').unwrap_or(block).replace("\\\n", "").replace('\n', "\r\n");
    assert!(!text.contains("${"), "a case that is a program");
    let mut bytes = Vec::new();
    let mut rest = &*text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let digits = |skip: usize, radix, most: usize| {
            let digits: usize = after[skip..].chars().take(most).take_while(|c| c.is_digit(radix)).count();
            (digits > 0).then(|| {
                let code = u32::from_str_radix(&after[skip..skip + digits], radix).expect("digits");
                (char::from_u32(code).expect("a character"), skip + digits)
            })
        };
        let escape = match (first, after.chars().next()) {
            ('\\', Some('r')) => Some(('\r', 1)),
            ('\\', Some('n')) => Some(('\n', 1)),
            ('\\', Some('t')) => Some(('\t', 1)),
            ('\\', Some('f')) => Some(('\x0c', 1)),
            ('\\', Some('x')) => digits(1, 16, usize::MAX),
            ('\\', Some('0'..='7')) => digits(0, 8, 3),
            _ => None,
        };
        let (decoded, taken) = escape.unwrap_or((first, 0));
        bytes.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &after[taken..];
    }
    bytes
}
