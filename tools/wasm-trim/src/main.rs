//! Keeps only the function exports of a filter that Envoy has to call.
//!
//! The proxy-wasm SDK exports a function for every callback there is, and Envoy calls into the VM
//! for each one that exists, needed or not. Without its export a callback costs nothing, and
//! `wasm-opt` can drop the code behind it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};
use wasm_encoder::{ExportKind, ExportSection, Module, RawSection};
use wasmparser::{ExternalKind, Parser, Payload};

const USAGE: &str = "usage: wasm-trim [--keep EXPORT[,EXPORT…]]… [--rename FROM=TO]… IN.wasm OUT.wasm";

fn main() -> Result<()> {
    let args = Args::parse(env::args().skip(1))?;
    let wasm = fs::read(&args.input).with_context(|| show(&args.input))?;
    let trimmed = trim(&wasm, &args.edit).with_context(|| show(&args.input))?;
    fs::write(&args.output, trimmed).with_context(|| show(&args.output))
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

struct Args {
    edit: Edit,
    input: PathBuf,
    output: PathBuf,
}

/// What is to become of the exports.
#[derive(Default)]
struct Edit {
    /// Function exports to keep, by the name they have after renaming; `None` keeps them all.
    keep: Option<BTreeSet<String>>,
    /// `(from, to)`, done first. What was renamed is kept.
    rename: Vec<(String, String)>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut edit = Edit::default();
        let mut paths = Vec::new();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| anyhow!("{arg} needs a value"));
            match arg.as_str() {
                "--keep" => {
                    let names = value()?;
                    let names = names.split(',').map(str::trim).filter(|n| !n.is_empty());
                    let keep = edit.keep.get_or_insert_default();
                    keep.extend(names.map(str::to_owned));
                }
                "--rename" => {
                    let value = value()?;
                    let (from, to) = value
                        .split_once('=')
                        .filter(|(from, to)| !from.is_empty() && !to.is_empty())
                        .ok_or_else(|| anyhow!("--rename {value}: expected FROM=TO"))?;
                    edit.rename.push((from.to_owned(), to.to_owned()));
                }
                option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
                path => paths.push(PathBuf::from(path)),
            }
        }
        let [input, output] = <[_; 2]>::try_from(paths).map_err(|_| anyhow!(USAGE))?;
        Ok(Self { edit, input, output })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Target {
    kind: ExternalKind,
    index: u32,
}

fn trim(wasm: &[u8], edit: &Edit) -> Result<Vec<u8>> {
    ensure!(Parser::is_core_wasm(wasm), "not a core WebAssembly module (wrong magic number or version)");
    let mut module = Module::new();
    let mut seen_exports = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("malformed module")?;
        if let Payload::ExportSection(section) = &payload {
            seen_exports = true;
            let exports = section
                .clone()
                .into_iter()
                .map(|export| {
                    export.map(|e| {
                        let (kind, index) = (e.kind, e.index);
                        (e.name.to_owned(), Target { kind, index })
                    })
                })
                .collect::<Result<Vec<_>, _>>()
                .context("malformed export section")?;
            module.section(&encode(&select(exports, edit)?));
        } else if let Some((id, range)) = payload.as_section() {
            // Everything else is copied byte for byte: function indexes do not change.
            let data = wasm
                .get(usize::try_from(range.start)?..usize::try_from(range.end)?)
                .context("section beyond the end of the file")?;
            module.section(&RawSection { id, data });
        }
    }
    if !seen_exports {
        // Asked for anything at all, this says what is missing.
        select(Vec::new(), edit)?;
    }
    Ok(module.finish())
}

fn select(mut exports: Vec<(String, Target)>, edit: &Edit) -> Result<Vec<(String, Target)>> {
    let mut renamed = BTreeSet::new();
    for (from, to) in &edit.rename {
        let target = exports
            .iter()
            .find(|(name, _)| name == from)
            .map(|(_, target)| *target)
            .ok_or_else(|| anyhow!("--rename {from}={to}: there is no export {from}"))?;
        exports.retain(|(name, _)| name != from && name != to);
        exports.push((to.clone(), target));
        renamed.insert(to.as_str());
    }
    let Some(keep) = &edit.keep else {
        return Ok(exports);
    };
    let unknown: Vec<_> =
        keep.iter().filter(|name| !exports.iter().any(|(export, _)| export == *name)).map(String::as_str).collect();
    ensure!(unknown.is_empty(), "--keep: there is no export {}", unknown.join(", "));
    exports.retain(|(name, target)| {
        let function = matches!(target.kind, ExternalKind::Func | ExternalKind::FuncExact);
        !function || keep.contains(name) || renamed.contains(name.as_str())
    });
    Ok(exports)
}

fn encode(exports: &[(String, Target)]) -> ExportSection {
    let mut section = ExportSection::new();
    for (name, target) in exports {
        let kind = match target.kind {
            ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Func,
            ExternalKind::Table => ExportKind::Table,
            ExternalKind::Memory => ExportKind::Memory,
            ExternalKind::Global => ExportKind::Global,
            ExternalKind::Tag => ExportKind::Tag,
        };
        section.export(name, kind, target.index);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{CodeSection, CustomSection, Function, FunctionSection, MemorySection, MemoryType, TypeSection};

    /// Three functions, `a`, `b` and `c`, a memory, and a custom section at the end.
    fn sample() -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        let mut exports = ExportSection::new();
        for (index, name) in ["a", "b", "c"].into_iter().enumerate() {
            functions.function(0);
            let mut body = Function::new([]);
            body.instructions().end();
            code.function(&body);
            exports.export(name, ExportKind::Func, index as u32);
        }
        let mut memories = MemorySection::new();
        memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
        exports.export("memory", ExportKind::Memory, 0);
        let mut module = Module::new();
        module
            .section(&types)
            .section(&functions)
            .section(&memories)
            .section(&exports)
            .section(&code)
            .section(&CustomSection { name: "note".into(), data: b"kept".as_slice().into() });
        module.finish()
    }

    /// Name and index of each export; the module must be valid.
    fn exports(wasm: &[u8]) -> Vec<(String, u32)> {
        wasmparser::validate(wasm).unwrap();
        Parser::new(0)
            .parse_all(wasm)
            .filter_map(|payload| match payload.unwrap() {
                Payload::ExportSection(section) => Some(section),
                _ => None,
            })
            .flatten()
            .map(|e| e.map(|e| (e.name.to_owned(), e.index)).unwrap())
            .collect()
    }

    fn edit(args: &[&str]) -> Edit {
        let paths = ["in.wasm", "out.wasm"];
        Args::parse(args.iter().chain(&paths).map(ToString::to_string)).unwrap().edit
    }

    fn names(args: &[&str]) -> Vec<(String, u32)> {
        exports(&trim(&sample(), &edit(args)).unwrap())
    }

    fn list(pairs: &[(&str, u32)]) -> Vec<(String, u32)> {
        pairs.iter().map(|(n, i)| (n.to_string(), *i)).collect()
    }

    #[test]
    fn only_the_listed_functions_and_the_memory_stay() {
        assert_eq!(names(&["--keep", "b"]), list(&[("b", 1), ("memory", 0)]));
        assert_eq!(names(&["--keep", "a", "--keep", "c"]), list(&[("a", 0), ("c", 2), ("memory", 0)]));
    }

    #[test]
    fn without_keep_nothing_changes() {
        assert_eq!(trim(&sample(), &edit(&[])).unwrap(), sample());
    }

    #[test]
    fn a_renamed_export_takes_the_place_of_the_other() {
        assert_eq!(names(&["--keep", "c", "--rename", "b=a"]), list(&[("c", 2), ("memory", 0), ("a", 1)]));
    }

    #[test]
    fn what_is_not_an_export_is_copied() {
        let trimmed = trim(&sample(), &edit(&["--keep", "a"])).unwrap();
        assert!(trimmed.ends_with(b"notekept"));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let failed = |wasm: &[u8], args: &[&str]| trim(wasm, &edit(args)).unwrap_err().to_string();
        assert_eq!(failed(&sample(), &["--keep", "a,x,y"]), "--keep: there is no export x, y");
        assert_eq!(failed(&Module::new().finish(), &["--keep", "x"]), "--keep: there is no export x");
        assert_eq!(failed(&sample(), &["--rename", "x=a"]), "--rename x=a: there is no export x");
        assert!(failed(b"text", &[]).starts_with("not a core WebAssembly module"));
        assert_eq!(failed(&sample()[..sample().len() - 3], &[]), "malformed module");
    }

    #[test]
    fn arguments_are_checked() {
        let failed = |args: &[&str]| Args::parse(args.iter().map(ToString::to_string)).err().unwrap().to_string();
        assert_eq!(failed(&["in.wasm"]), USAGE);
        assert_eq!(failed(&["--keep"]), "--keep needs a value");
        assert_eq!(failed(&["--rename", "a=", "i", "o"]), "--rename a=: expected FROM=TO");
        assert!(failed(&["--kep", "a", "i", "o"]).starts_with("unknown option --kep"));
    }
}
