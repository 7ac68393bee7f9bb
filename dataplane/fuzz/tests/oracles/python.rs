//! The process that runs the libraries: one line of hex for a case, one line for what they say.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

struct Oracle {
    child: Child,
    asked: ChildStdin,
    said: BufReader<ChildStdout>,
}

thread_local! {
    static ORACLE: RefCell<Oracle> = RefCell::new(Oracle::start());
}

/// What a library says of each part, up to the first that is an error.
pub(crate) fn ask(library: &str, parts: &[Vec<u8>]) -> Vec<String> {
    let mut line = library.to_owned();
    for part in parts {
        line.push(' ');
        part.iter().for_each(|byte| write!(line, "{byte:02x}").expect("memory"));
    }
    line.push('\n');
    ORACLE.with_borrow_mut(|oracle| {
        oracle.asked.write_all(line.as_bytes()).expect("it listens");
        let mut said = String::new();
        oracle.said.read_line(&mut said).expect("it speaks");
        let said = said.strip_suffix('\n').expect("it lives");
        said.split(' ').map(str::to_owned).collect()
    })
}

/// The bytes that are written in hex.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("hex") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

impl Oracle {
    fn start() -> Oracle {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracles/oracle.py");
        let mut child = Command::new(fetched())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python of deploy/setup.sh test");
        let asked = child.stdin.take().expect("piped");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Oracle { child, asked, said }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that has them.
fn fetched() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the root of the repository");
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin/http2-python");
    if !program.exists() {
        let setup = Command::new(root.join("deploy/setup.sh")).arg("test").status().expect("a shell");
        assert!(setup.success(), "h2 of PyPI could not be fetched: is there a network?");
    }
    program
}
