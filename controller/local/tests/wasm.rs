//! Files that an operator may name as the filter, and what is said about each. T10.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use local::wasm::{WasmError, check, outdated, read};
use proptest::prelude::*;
use rstest::rstest;

/// The build of level 1, which is kept for tests.
fn first_build() -> Vec<u8> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/filters/level-1/versionflag.wasm")).unwrap()
}

fn said(bytes: &[u8]) -> String {
    check(Path::new("f.wasm"), bytes).unwrap_err().to_string()
}

/// A build that says something else wherever it says this.
fn saying(this: &[u8], other: &[u8]) -> Vec<u8> {
    assert_eq!(this.len(), other.len());
    let mut bytes = first_build();
    let found: Vec<usize> =
        bytes.windows(this.len()).enumerate().filter(|(_, window)| *window == this).map(|(at, _)| at).collect();
    assert!(!found.is_empty());
    found.into_iter().for_each(|at| bytes[at..at + other.len()].copy_from_slice(other));
    bytes
}

#[test]
fn a_filter_is_known_with_its_level() {
    assert_eq!(check(Path::new("f.wasm"), &first_build()), Ok(1));
    assert_eq!(outdated(Path::new("f.wasm"), 2), None);
    let older = outdated(Path::new("f.wasm"), 1).unwrap();
    assert!(older.contains("older than this controller") && older.contains("coexistence.probe.mode"), "{older}");
    let second = saying(b"versionflag.1/registryve", b"versionflag.1/snapshot/2");
    assert_eq!(check(Path::new("f.wasm"), &second), Ok(2));
}

#[rstest]
#[case::empty(vec![], "f.wasm is empty: copy")]
#[case::text(b"hello".to_vec(), "f.wasm is no WebAssembly module")]
#[case::component(b"\0asm\x0d\0\x01\0".to_vec(), "f.wasm is no WebAssembly module")]
#[case::no_sections(b"\0asm\x01\0\0\0".to_vec(), "f.wasm is not the filter of versionflag: it has no export memory")]
#[case::of_somebody_else(saying(b"versionflag", b"versionflap"), "nothing in it has its name")]
#[case::another_callback(saying(b"proxy_on_queue_ready", b"proxy_on_queue_reedy"), "no export proxy_on_queue_ready")]
#[case::another_protocol(
    saying(b"versionflag.1/", b"versionflag.7/"),
    "speaks protocol 7, and this controller speaks 1"
)]
#[case::cut_off(first_build()[..60_000].to_vec(), "f.wasm is damaged: ")]
fn what_is_no_filter_is_said(#[case] bytes: Vec<u8>, #[case] why: &str) {
    let said = said(&bytes);
    assert!(said.contains(why), "{said}");
}

#[test]
fn what_cannot_be_read_is_said() {
    assert_eq!(read(Path::new("/no/such.wasm")), Err(WasmError::Missing(PathBuf::from("/no/such.wasm"))));
    let directory = read(Path::new("/")).unwrap_err().to_string();
    assert!(directory.starts_with("/ cannot be read: ") && directory.ends_with("Proxies have to read it, too"));
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len((16 << 20) + 1).unwrap();
    assert_eq!(read(file.path()), Err(WasmError::TooLarge(file.path().to_owned())));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Wherever it was cut off, it is no filter.
    #[test]
    fn a_filter_that_was_cut_off_anywhere_is_none(length in 0..152_000_usize) {
        let whole = first_build();
        let cut = &whole[..length.min(whole.len() - 130)];
        prop_assert!(check(Path::new("f.wasm"), cut).is_err());
    }

    /// Whatever the bytes are, there is an answer.
    #[test]
    fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let module: Vec<u8> = b"\0asm\x01\0\0\0".iter().copied().chain(bytes).collect();
        prop_assert!(check(Path::new("f.wasm"), &module).is_err());
    }
}
