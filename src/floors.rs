//! Which way imports go: a room knows those on its left and none on its right, and no two files of different folders know
//! each other, directly or by way of others. (Files of one folder may: a module and its parts.)
//!
//! It reads the text of `src/`: `use` with its braces, and paths that begin with `crate`, `self` or `super`, followed through
//! `pub use` to the file that has the name. It does not see what a macro writes, a path that begins with a name that was
//! imported, and what tests import.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From left to right; what is new here is put where what it needs stands on its left.
const ROOMS: [&str; 23] = [
    "causes",
    "plain",
    "bounds",
    "quantity",
    "shell",
    "listen",
    "proxy",
    "token",
    "kubeconfig",
    "evidence",
    "names",
    "api",
    "advice",
    "kernel",
    "attribution",
    "birth",
    "signals",
    "sinks",
    "config",
    "agent",
    "reconciler",
    "ui",
    "top",
];
/// For tests, and what brings all together.
const APART: [&str; 4] = ["", "floors", "testfuzz", "testlog"];

/// What begins a definition.
const KINDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "union"];

/// The path of a module, or of something in it, from the crate's root.
type Name = Vec<String>;

/// What a module imports, what it hands on by `pub use`, and what it defines.
#[derive(Default)]
struct File {
    text: String,
    imports: BTreeSet<Name>,
    handed_on: BTreeSet<Name>,
    defines: BTreeSet<String>,
}

fn files(dir: &Path, module: &Name, into: &mut BTreeMap<Name, File>) {
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_stem().and_then(|stem| stem.to_str()).expect("UTF-8").to_owned();
        if name.starts_with("test") || name == "main" {
            continue;
        }
        if entry.is_dir() {
            files(&entry, &[module.as_slice(), &[name]].concat(), into);
        } else {
            let own = if ["mod", "lib"].contains(&&*name) { None } else { Some(name) };
            let module = module.iter().cloned().chain(own).collect();
            into.insert(
                module,
                File { text: code(&fs::read_to_string(&entry).expect("text")), ..File::default() },
            );
        }
    }
}

/// Without comments and tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter_map(|line| line.split("//").next()).flat_map(|line| [line, "\n"]).collect()
}

/// The paths in a tree such as `a::{b, c::{d, e}}`.
fn paths(tree: &str) -> Vec<Name> {
    let (head, rest) = tree.split_once('{').unwrap_or((tree, ""));
    let head: Name = head.split("::").map(str::trim).filter(|s| !s.is_empty()).map(first_word).collect();
    let Some((inner, _)) = rest.rsplit_once('}') else { return vec![head] };
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in inner.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(String::new())
        } else {
            parts.last_mut().expect("one").push(c)
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| paths(part));
    parts.map(|part| [head.as_slice(), &part].concat()).collect()
}

/// Without `as …`.
fn first_word(segment: &str) -> String {
    segment.split_whitespace().next().unwrap_or_default().to_owned()
}

/// From the crate's root; `None` for another crate's.
fn absolute(module: &Name, path: &[String], all: &BTreeSet<Name>) -> Option<Name> {
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let child = || [module.as_slice(), &path[..1]].concat();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module.as_slice(), &path[1..]].concat()),
        "super" => Some([&module[..module.len().checked_sub(supers)?], &path[supers..]].concat()),
        _ => all.contains(&child()).then(|| [module.as_slice(), path].concat()),
    }
}

impl File {
    fn read(&mut self, module: &Name, all: &BTreeSet<Name>) {
        let text = &self.text;
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
        let words: Vec<&str> = words.collect();
        let defined = words.windows(2).filter(|pair| KINDS.contains(&pair[0]));
        self.defines = defined.map(|pair| pair[1].to_owned()).collect();
        let here = |path: Name| absolute(module, &path, all);
        for (at, _) in
            text.match_indices("use ").filter(|(at, _)| text[..*at].ends_with(['\n', ' ', ')']) || *at == 0)
        {
            let tree = text[at + 4..].split(';').next().unwrap_or_default();
            let line = text[..at].rsplit('\n').next().unwrap_or_default().trim_start();
            let into = if line.starts_with("pub") { &mut self.handed_on } else { &mut self.imports };
            into.extend(paths(tree).into_iter().filter_map(here));
        }
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in text
                .match_indices(start)
                .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == ':'))
            {
                let path = text[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
                self.imports.extend(path.into_iter().flat_map(paths).filter_map(here));
            }
        }
    }
}

/// The module that has what is named.
fn owner(name: &Name, all: &BTreeMap<Name, File>, steps: usize) -> Option<Name> {
    let module =
        (0..=name.len()).rev().map(|n| name[..n].to_vec()).find(|module| all.contains_key(module))?;
    let Some(item) = name.get(module.len()).filter(|item| *item != "*" && steps < 8) else {
        return Some(module);
    };
    let file = &all[&module];
    if file.defines.contains(item) {
        return Some(module);
    }
    let handed_on = file.handed_on.iter().find(|path| path.last() == Some(item));
    let whole = || {
        let globs = file.handed_on.iter().filter(|path| path.last().is_some_and(|last| last == "*"));
        let modules = globs.map(|path| path[..path.len() - 1].to_vec());
        modules.into_iter().find(|module| all.get(module).is_some_and(|file| file.defines.contains(item)))
    };
    match handed_on {
        Some(path) => owner(&[path.as_slice(), &name[module.len() + 1..]].concat(), all, steps + 1),
        None => Some(whole().unwrap_or(module)),
    }
}

/// Who imports whom.
fn graph() -> BTreeMap<Name, BTreeSet<Name>> {
    let mut all = BTreeMap::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Vec::new(), &mut all);
    let names: BTreeSet<Name> = all.keys().cloned().collect();
    all.iter_mut().for_each(|(module, file)| file.read(module, &names));
    let imports = |module: &Name| {
        let owners = all[module].imports.iter().filter_map(|name| owner(name, &all, 0));
        owners.filter(|owner| owner != module).collect()
    };
    names.iter().map(|module| (module.clone(), imports(module))).collect()
}

fn room(module: &Name) -> &str {
    module.first().map_or("", String::as_str)
}

#[test]
fn a_room_knows_those_on_its_left_alone() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    for (module, imports) in graph().iter().filter(|(module, _)| !APART.contains(&room(module))) {
        let own = place(room(module));
        assert!(own.is_some(), "a new room: place {} among ROOMS", room(module));
        for import in imports.iter().filter(|import| !APART.contains(&room(import))) {
            assert!(place(room(import)) <= own, "{} is left of {}", module.join("/"), import.join("/"));
        }
    }
}

#[test]
fn files_of_different_folders_do_not_know_each_other() {
    let graph = graph();
    let folder = |module: &Name| {
        let has_parts = graph.keys().any(|other| other.len() > module.len() && other.starts_with(module));
        module[..module.len() - usize::from(!has_parts && !module.is_empty())].to_vec()
    };
    for module in graph.keys() {
        // All that it knows, and from whom.
        let mut known = BTreeMap::new();
        let mut next = vec![module];
        while let Some(of) = next.pop() {
            for import in &graph[of] {
                if known.insert(import, of).is_none() {
                    next.push(import);
                }
            }
        }
        let mut circle = vec![module];
        while let Some(from) =
            circle.last().and_then(|last| known.get(last)).filter(|from| !circle[1..].contains(from))
        {
            circle.push(from);
            if *from == module {
                break;
            }
        }
        let closed = circle.len() > 1 && circle.last() == Some(&module);
        let one_folder = circle.iter().all(|part| folder(part) == folder(module));
        let told: Vec<_> = circle.iter().rev().map(|part| part.join("/")).collect();
        assert!(!closed || one_folder, "a circle: {}", told.join(" -> "));
    }
}
