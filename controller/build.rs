//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A table of a word for many addresses instead of three words for each: 1.5 MB less to read, and to keep.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
