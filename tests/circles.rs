//! Promise: no files of the crate import each other in a circle.
//!
//! An import is a `use`, or a path in the code that begins with `crate::` or `super::`. It leads to the file that defines the
//! name: a `pub use` on the way is a re-export, which does not count as an import. The tests in a file are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a module from the root of the crate; empty for the root itself.
type Module = Vec<String>;

/// The code of the crate's files by their modules.
struct Sources {
    code: BTreeMap<Module, String>,
    /// The names that each module re-exports, and where they lead.
    reexports: BTreeMap<Module, BTreeMap<String, Module>>,
}

impl Sources {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        collect(root, &mut files);
        let relative = |file: &PathBuf| file.strip_prefix(root).unwrap().to_owned();
        let code =
            files.iter().map(|file| (module_of(&relative(file)), without_tests(&fs::read_to_string(file).unwrap())));
        Self::of(code.collect())
    }

    fn of(code: BTreeMap<Module, String>) -> Self {
        let mut sources = Self { code, reexports: BTreeMap::new() };
        for module in sources.code.keys().cloned().collect::<Vec<_>>() {
            let uses = statements(&sources.code[&module]).into_iter().filter(|(is_public, _)| *is_public);
            let names = uses.flat_map(|(_, tree)| paths(&tree));
            let targets = names.filter_map(|path| Some((path.last()?.clone(), sources.absolute(&module, &path)?)));
            let reexports = targets.collect();
            sources.reexports.insert(module, reexports);
        }
        sources
    }

    /// Resolves a path that is written in `module`, from the root of the crate; `None` for a path that leaves the crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (mut at, mut rest) = (module.clone(), path);
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    at.pop();
                    rest = &rest[1..];
                }
            }
            first => {
                at.push(first.to_owned());
                let is_child = self.code.contains_key(&at);
                at.pop();
                if !is_child {
                    return None;
                }
            }
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    /// The module that defines what `path` leads to.
    fn defining(&self, path: &Module) -> Module {
        let mut path = path.clone();
        for _ in 0..16 {
            let depth = (0..=path.len()).rev().find(|depth| self.code.contains_key(&path[..*depth])).unwrap();
            let (module, rest) = path.split_at(depth);
            let next = rest.first().and_then(|name| self.reexports.get(module)?.get(name));
            match next {
                Some(next) => path = next.iter().chain(&rest[1..]).cloned().collect(),
                None => return module.to_vec(),
            }
        }
        panic!("{path:?} is handed on for ever");
    }

    /// The modules that `module` imports.
    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let code = &self.code[module];
        let uses = statements(code).into_iter().filter(|(is_public, _)| !is_public).flat_map(|(_, tree)| paths(&tree));
        let all = uses.chain(inline(code)).filter_map(|path| self.absolute(module, &path));
        all.map(|path| self.defining(&path)).filter(|found| found != module).collect()
    }

    /// The circles, each with the files in it.
    fn circles(&self) -> Vec<BTreeSet<Module>> {
        let direct: BTreeMap<&Module, BTreeSet<Module>> =
            self.code.keys().map(|module| (module, self.imports(module))).collect();
        let reached = |from: &Module| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(at) = open.pop() {
                open.extend(direct[&at].iter().filter(|next| seen.insert((*next).clone())).cloned());
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> = self.code.keys().map(|from| (from, reached(from))).collect();
        let circle = |from: &Module| -> BTreeSet<Module> {
            reached[from].iter().filter(|other| reached[other].contains(from)).cloned().collect()
        };
        let circles: BTreeSet<_> = self.code.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
        circles.into_iter().collect()
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") && !name.ends_with("tests.rs") && name != "fixture.rs" {
            files.push(path);
        }
    }
}

fn module_of(relative: &Path) -> Module {
    let mut module: Module = relative.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// The code without comments, up to the tests in the same file.
fn without_tests(code: &str) -> String {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every `use`, and whether it is public.
fn statements(code: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code[..at].rsplit('\n').next().unwrap().trim();
        if before.is_empty() || before.starts_with("pub") {
            let end = code[at..].find(';').unwrap();
            found.push((
                !before.is_empty(),
                code[at + 4..at + end].replace(" as ", "@").replace(char::is_whitespace, ""),
            ));
        }
    }
    found
}

/// The paths of a tree like `a::{b, c::D}`.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let Some((prefix, list)) = tree.split_once('{') else {
        // An alias stands behind the `@`, and leads to the same file.
        let path = tree.split('@').next().unwrap();
        return vec![path.split("::").map(ToOwned::to_owned).collect()];
    };
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in list.trim_end_matches('}').chars() {
        match c {
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            c => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                item.push(c);
            }
        }
    }
    items.push(item);
    let items = items.into_iter().filter(|item| !item.is_empty());
    let close = |item: String| if item.contains('{') && !item.ends_with('}') { format!("{item}}}") } else { item };
    items.flat_map(|item| paths(&format!("{prefix}{}", close(item)))).collect()
}

/// The paths in the code that begin with `crate::` or `super::`.
fn inline(code: &str) -> Vec<Vec<String>> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("use ")).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for head in ["crate::", "super::"] {
        for (at, _) in code.match_indices(head) {
            let is_start = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            let end =
                code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(code.len() - at);
            if is_start {
                found.push(code[at..at + end].trim_end_matches(':').split("::").map(ToOwned::to_owned).collect());
            }
        }
    }
    found
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let circles = Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).circles();
    let described: Vec<String> = circles
        .iter()
        .map(|circle| circle.iter().map(|module| module.join("/")).collect::<Vec<_>>().join(", "))
        .collect();
    assert!(described.is_empty(), "these files import each other:\n  {}", described.join("\n  "));
}

#[test]
fn an_import_circle_is_found_and_a_reexport_is_none() {
    let module =
        |name: &str| name.split('/').filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect::<Module>();
    let circles = |files: &[(&str, &str)]| {
        let code = files.iter().map(|(name, code)| (module(name), without_tests(code))).collect();
        Sources::of(code).circles().len()
    };
    let reexport =
        [("a", "mod b;\nmod c;\npub use b::B;"), ("a/b", "use super::c::C;\npub struct B;"), ("a/c", "pub struct C;")];
    assert_eq!(circles(&reexport), 0);
    // Through the re-export, the two files import each other.
    let through_reexport = [reexport[0], reexport[1], ("a/c", "use super::{\n    B,\n};\npub struct C;")];
    assert_eq!(circles(&through_reexport), 1);
    assert_eq!(circles(&[("a", "fn f() { crate::b::g() }"), ("b", "use crate::a::f;")]), 1);
    assert_eq!(circles(&[("a", "use crate::b::{c::D, E};"), ("b", ""), ("b/c", "use super::super::a::X;")]), 1);
    let tests = "pub struct E;\n#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n";
    assert_eq!(circles(&[("a", "use crate::b::E;"), ("b", tests)]), 0);
}
