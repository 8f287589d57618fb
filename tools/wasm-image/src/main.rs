//! Packs a filter as an OCI image, in the layout that Istio calls `compat`: one layer, tar and gzip,
//! with the file `plugin.wasm`. The same filter gives the same bytes, and so the same digest.
//! I/O: reads the filter and writes an OCI image layout.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use oci_spec::image::{
    Arch, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType,
    OciLayoutBuilder, Os, RootFsBuilder, SCHEMA_VERSION, Sha256Digest,
};
use serde_json::to_vec;
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(wasm), Some(to), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: wasm-image FILTER.wasm DIRECTORY");
    };
    let filter = fs::read(&wasm).with_context(|| wasm.display().to_string())?;
    println!("{}", write_image(&filter, &to)?);
    Ok(())
}

/// Writes the layout into a new directory, and gives the digest of the image.
fn write_image(filter: &[u8], to: &Path) -> Result<String> {
    let tar = tarred(filter)?;
    let layer = gzipped(&tar)?;
    let unpacked = format!("sha256:{}", hex(&tar));
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids([unpacked]).build()?;
    // Wasm runs on any machine, but a registry's clients want one named.
    let config = ImageConfigurationBuilder::default().architecture(Arch::Amd64).os(Os::Linux).rootfs(rootfs).build()?;
    let layout = Layout(to);
    fs::create_dir_all(to.join("blobs/sha256")).with_context(|| to.display().to_string())?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(layout.blob(MediaType::ImageConfig, &to_vec(&config)?)?)
        .layers([layout.blob(MediaType::ImageLayerGzip, &layer)?])
        .build()?;
    let manifest = layout.blob(MediaType::ImageManifest, &to_vec(&manifest)?)?;
    let digest = manifest.digest().to_string();
    let index = ImageIndexBuilder::default().schema_version(SCHEMA_VERSION).manifests([manifest]).build()?;
    fs::write(to.join("index.json"), to_vec(&index)?)?;
    let version = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
    fs::write(to.join("oci-layout"), to_vec(&version)?)?;
    Ok(digest)
}

/// Without time, owner or anything else of this machine.
fn tarred(filter: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(filter.len().try_into()?);
    header.set_mode(0o644);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "plugin.wasm", filter)?;
    Ok(tar.into_inner()?)
}

fn gzipped(tar: &[u8]) -> Result<Vec<u8>> {
    // 255: made by an unknown system. The time is 0 by default.
    let mut gzip = GzBuilder::new().operating_system(255).write(Vec::new(), Compression::best());
    gzip.write_all(tar)?;
    Ok(gzip.finish()?)
}

/// An OCI image layout that is being written.
struct Layout<'a>(&'a Path);

impl Layout<'_> {
    fn blob(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor> {
        let digest = hex(content);
        fs::write(self.0.join("blobs/sha256").join(&digest), content)?;
        let digest: Sha256Digest = digest.parse()?;
        Ok(DescriptorBuilder::default()
            .media_type(media_type)
            .digest(digest)
            .size(u64::try_from(content.len())?)
            .build()?)
    }
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}
