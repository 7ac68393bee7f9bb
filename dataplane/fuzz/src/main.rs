//! Kept inputs between their file and the folders of the guided engine, which wants one file for each input.
//!
//!   fuzz targets               the names of all targets
//!   fuzz words TARGET          its words, as the engine's dictionary
//!   fuzz unpack TARGET FOLDER  puts the kept inputs into a folder
//!   fuzz pack TARGET FOLDER    keeps what is in a folder instead
//!   fuzz hash TARGET           tells the kept inputs from others

use std::{fs, io, path::Path, process::ExitCode};

use fuzz::{
    corpus,
    targets::{TARGETS, Target},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["targets"] => Ok(TARGETS.iter().map(|target| format!("{}\n", target.name)).collect()),
        ["words", name] => named(name).map(dictionary),
        ["unpack", name, folder] => named(name).and_then(|target| unpack(target, Path::new(folder))),
        ["pack", name, folder] => named(name).and_then(|target| pack(target, Path::new(folder))),
        ["hash", name] => named(name).and_then(kept).map(|file| format!("{}\n", corpus::hash(&file))),
        _ => Err(io::Error::other("usage: fuzz targets | words|hash TARGET | unpack|pack TARGET FOLDER")),
    };
    match said {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> io::Result<&'static Target> {
    Target::named(name).ok_or_else(|| io::Error::other(format!("no target {name}")))
}

/// As `-dict` of the engine wants it: one quoted word on each line, odd bytes in hex.
fn dictionary(target: &Target) -> String {
    let escaped = |word: &str| -> String {
        word.chars()
            .map(|c| {
                if c.is_ascii_graphic() && !"\"\\".contains(c) {
                    c.to_string()
                } else {
                    format!("\\x{:02x}", c as u8)
                }
            })
            .collect()
    };
    target.words.iter().map(|word| format!("\"{}\"\n", escaped(word))).collect()
}

fn file_of(target: &Target) -> String {
    format!("{}/corpus/{}.txt", env!("CARGO_MANIFEST_DIR"), target.name)
}

fn kept(target: &Target) -> io::Result<String> {
    fs::read_to_string(file_of(target))
}

fn unpack(target: &Target, folder: &Path) -> io::Result<String> {
    fs::create_dir_all(folder)?;
    let inputs = corpus::inputs(&kept(target)?);
    for input in &inputs {
        fs::write(folder.join(corpus::hash(&input.escape_ascii().to_string())), input)?;
    }
    Ok(format!("{} inputs\n", inputs.len()))
}

fn pack(target: &Target, folder: &Path) -> io::Result<String> {
    let inputs: io::Result<Vec<Vec<u8>>> =
        fs::read_dir(folder)?.map(|entry| fs::read(entry?.path())).collect();
    let file = corpus::file(inputs?);
    fs::write(file_of(target), &file)?;
    Ok(format!("{} inputs, {} bytes\n", file.lines().count(), file.len()))
}
