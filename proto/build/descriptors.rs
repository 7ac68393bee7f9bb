//! The descriptors that the bootstrap parser needs: those of the envoy-types package, pruned to `supported.txt`.
//!
//! The whole set takes tens of milliseconds and tens of megabytes to load, the pruned one neither; and what is not
//! in it is refused by the parser itself, with its place in the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::Type,
};

const LIST: &str = "build/supported.txt";

pub(crate) fn prune() {
    println!("cargo:rerun-if-changed=../Cargo.lock");
    let all = envoy_types_package().join("src/generated/types.bin");
    println!("cargo:rerun-if-changed={}", all.display());
    let bytes = fs::read(&all).unwrap_or_else(|error| panic!("cannot read {}: {error}", all.display()));
    let all = FileDescriptorSet::decode(&*bytes).expect("types.bin is a FileDescriptorSet");
    // Cargo compares times, and a build folder that was copied or restored may be younger than a list that it does not
    // know. A test compares this copy with the list (`bootstrap::tests`).
    let text = fs::read_to_string(LIST).unwrap_or_else(|error| panic!("cannot read {LIST}: {error}"));
    let supported = Supported::read(&text);

    let mut pruner = Pruner { supported: &supported, found: BTreeSet::new(), enums: BTreeSet::new() };
    // Options are cut off everywhere, so nothing needs the messages that describe descriptors.
    let files = all.file.iter().filter(|file| file.name() != "google/protobuf/descriptor.proto");
    let mut files: Vec<_> = files.map(|file| pruner.file(file)).collect();
    for name in supported.fields.keys() {
        assert!(pruner.found.contains(name), "{LIST}: there is no message {name}");
    }
    keep_what_is_referred_to(&mut files, &pruner.enums);

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |name: &str, bytes: &[u8]| {
        fs::write(out.join(name), bytes).unwrap_or_else(|error| panic!("cannot write {name}: {error}"));
    };
    write("supported.bin", &FileDescriptorSet { file: files }.encode_to_vec());
    write("supported.txt", text.as_bytes());
    write("extensions.rs", format!("&{:#?}", supported.extensions).as_bytes());
}

/// Where cargo keeps the sources of the very envoy-types that this crate is built with.
fn envoy_types_package() -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    // Offline does when the whole workspace is built. When only a part of it was ever asked for, the others'
    // dependencies may still have to be fetched before cargo describes the workspace.
    let mut failures = String::new();
    for offline in [&["--offline"][..], &[]] {
        let output = Command::new(&cargo)
            .args(["metadata", "--format-version=1", "--locked", "--filter-platform", &target])
            .args(offline)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", Path::new(&cargo).display()));
        if !output.status.success() {
            failures.push_str(&String::from_utf8_lossy(&output.stderr));
            continue;
        }
        let metadata: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON");
        let manifest = metadata["packages"]
            .as_array()
            .and_then(|packages| packages.iter().find(|package| package["name"] == "envoy-types"))
            .and_then(|package| package["manifest_path"].as_str())
            .expect("envoy-types is a dependency of this crate");
        return Path::new(manifest).parent().expect("a manifest lies in a directory").to_owned();
    }
    panic!("cargo metadata does not say where envoy-types is: {failures}");
}

/// `supported.txt`, read.
struct Supported {
    /// Message → its supported fields; `*` alone means all.
    fields: BTreeMap<String, BTreeSet<String>>,
    /// The kind of extension and the message, in the order of the file.
    extensions: Vec<(String, String)>,
}

impl Supported {
    fn read(text: &str) -> Supported {
        let mut supported = Supported { fields: BTreeMap::new(), extensions: Vec::new() };
        let mut current = None;
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if line.starts_with(' ') {
                let message: &String = current.as_ref().expect("fields stand below a message");
                let fields = line.split_whitespace().map(str::to_owned);
                supported.fields.entry(message.clone()).or_default().extend(fields);
                continue;
            }
            let name = match line.strip_prefix('@') {
                None => line.trim().to_owned(),
                Some(extension) => {
                    let (kind, name) = extension.split_once(' ').expect("@KIND is followed by a message");
                    supported.extensions.push((kind.to_owned(), name.trim().to_owned()));
                    name.trim().to_owned()
                }
            };
            let before = supported.fields.insert(name.clone(), BTreeSet::new());
            assert!(before.is_none(), "{LIST}: {name} is listed twice");
            current = Some(name);
        }
        supported
    }
}

struct Pruner<'a> {
    supported: &'a Supported,
    /// Listed messages that exist.
    found: BTreeSet<String>,
    /// Full names (with the leading dot) of the enums that kept fields use.
    enums: BTreeSet<String>,
}

impl Pruner<'_> {
    /// The file with its supported messages; google.protobuf's stay whole, they have a JSON form of their own.
    fn file(&mut self, file: &FileDescriptorProto) -> FileDescriptorProto {
        let mut kept = FileDescriptorProto {
            name: file.name.clone(),
            package: file.package.clone(),
            dependency: file.dependency.clone(),
            syntax: file.syntax.clone(),
            enum_type: file.enum_type.iter().map(without_options).collect(),
            ..FileDescriptorProto::default()
        };
        if file.package() == "google.protobuf" {
            kept.message_type = file.message_type.clone();
            kept.message_type.iter_mut().for_each(strip_options);
            return kept;
        }
        let messages = file.message_type.iter();
        kept.message_type = messages.filter_map(|message| self.message(file.package(), message)).collect();
        kept
    }

    /// The message with its supported fields; `None` if it is not supported.
    fn message(&mut self, scope: &str, message: &DescriptorProto) -> Option<DescriptorProto> {
        let name = format!("{scope}.{}", message.name());
        let nested: Vec<_> =
            message.nested_type.iter().filter_map(|inner| self.message(&name, inner)).collect();
        let Some(listed) = self.supported.fields.get(&name) else {
            assert!(nested.is_empty(), "{LIST}: {name} must be listed, since a message in it is");
            return None;
        };
        self.found.insert(name.clone());
        let all = listed.contains("*");
        for field in listed.iter().filter(|field| *field != "*") {
            assert!(message.field.iter().any(|f| f.name() == field), "{LIST}: {name} has no field {field}");
        }
        let (kept, cut): (Vec<_>, Vec<_>) =
            message.field.iter().partition(|field| all || listed.contains(field.name()));
        let mut pruned = DescriptorProto {
            name: message.name.clone(),
            enum_type: message.enum_type.iter().map(without_options).collect(),
            nested_type: nested,
            reserved_name: cut.iter().map(|field| field.name().to_owned()).collect(),
            ..DescriptorProto::default()
        };
        // Oneofs that lost all their fields must go, and the others' numbers move.
        let mut oneofs = BTreeMap::new();
        for field in kept {
            let mut field = FieldDescriptorProto { options: None, ..field.clone() };
            if let Some(old) = field.oneof_index {
                let next = oneofs.len() as i32;
                field.oneof_index = Some(*oneofs.entry(old).or_insert_with(|| {
                    let mut oneof = message.oneof_decl[old as usize].clone();
                    oneof.options = None;
                    pruned.oneof_decl.push(oneof);
                    next
                }));
            }
            self.check_type(&name, &field, message, &mut pruned);
            pruned.field.push(field);
        }
        Some(pruned)
    }

    /// A kept field's type must be kept as well; a map's entry type comes along by itself.
    fn check_type(
        &mut self,
        name: &str,
        field: &FieldDescriptorProto,
        message: &DescriptorProto,
        pruned: &mut DescriptorProto,
    ) {
        let type_name = field.type_name();
        match field.r#type() {
            Type::Enum => {
                self.enums.insert(type_name.to_owned());
            }
            Type::Message if type_name.starts_with(".google.protobuf.") => {}
            Type::Message => {
                let entry = message.nested_type.iter().find(|inner| {
                    inner.options.as_ref().is_some_and(|options| options.map_entry())
                        && type_name == format!(".{name}.{}", inner.name())
                });
                match entry {
                    Some(entry) => {
                        for part in &entry.field {
                            self.check_type(name, part, entry, &mut DescriptorProto::default());
                        }
                        let mut entry = entry.clone();
                        strip_options(&mut entry);
                        pruned.nested_type.push(entry);
                    }
                    None => assert!(
                        self.supported.fields.contains_key(&type_name[1..]),
                        "{LIST}: the type of {name}.{}, {type_name}, is not listed",
                        field.name()
                    ),
                }
            }
            _ => {}
        }
    }
}

/// Everything of a message but what customizes code generation; that a map entry is one stays.
fn strip_options(message: &mut DescriptorProto) {
    message.field.iter_mut().for_each(|field| field.options = None);
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message.nested_type.iter_mut().for_each(strip_options);
}

fn without_options(decl: &EnumDescriptorProto) -> EnumDescriptorProto {
    let mut decl = EnumDescriptorProto { options: None, ..decl.clone() };
    decl.value.iter_mut().for_each(|value| value.options = None);
    decl
}

/// Drops enums that no kept field uses, files that became empty, and the imports of those.
fn keep_what_is_referred_to(files: &mut Vec<FileDescriptorProto>, enums: &BTreeSet<String>) {
    fn prune_enums(message: &mut DescriptorProto, scope: &str, enums: &BTreeSet<String>) {
        let name = format!("{scope}.{}", message.name());
        message.enum_type.retain(|decl| enums.contains(&format!("{name}.{}", decl.name())));
        for inner in &mut message.nested_type {
            prune_enums(inner, &name, enums);
        }
    }
    for file in files.iter_mut().filter(|file| file.package() != "google.protobuf") {
        let scope = format!(".{}", file.package());
        file.enum_type.retain(|decl| enums.contains(&format!("{scope}.{}", decl.name())));
        for message in &mut file.message_type {
            prune_enums(message, &scope, enums);
        }
    }
    files.retain(|file| !file.message_type.is_empty() || !file.enum_type.is_empty());
    let names: BTreeSet<_> = files.iter().map(|file| file.name().to_owned()).collect();
    for file in files {
        file.dependency.retain(|dependency| names.contains(dependency));
    }
}
