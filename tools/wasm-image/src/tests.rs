//! What a registry and Istio will find in the image.

use std::io::Read;

use flate2::read::GzDecoder;
use oci_spec::image::{ImageIndex, ImageManifest};
use tempfile::TempDir;

use super::*;

const FILTER: &[u8] = b"\0asm\x01\0\0\0";

fn blob(dir: &Path, digest: &str) -> Vec<u8> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let content = fs::read(dir.join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(super::hex(&content), hex, "a blob is named by its content");
    content
}

#[test]
fn the_last_layer_has_the_filter() {
    let dir = TempDir::new().unwrap();
    let digest = write_image(FILTER, dir.path()).unwrap();
    let index = ImageIndex::from_file(dir.path().join("index.json")).unwrap();
    assert_eq!(index.manifests()[0].digest().to_string(), digest);
    let manifest = ImageManifest::from_reader(blob(dir.path(), &digest).as_slice()).unwrap();
    let layer = manifest.layers().last().unwrap();
    assert_eq!(layer.media_type().to_string(), "application/vnd.oci.image.layer.v1.tar+gzip");
    let bytes = blob(dir.path(), layer.digest().as_ref());
    assert_eq!(layer.size(), bytes.len() as u64);
    let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
    let mut entries = archive.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("plugin.wasm"));
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    assert_eq!(content, FILTER);
    assert!(entries.next().is_none());
}

#[test]
fn the_digest_follows_the_filter_alone() {
    let write = |filter: &[u8]| write_image(filter, TempDir::new().unwrap().path()).unwrap();
    assert_eq!(write(FILTER), write(FILTER));
    assert_ne!(write(FILTER), write(b"another"));
}
