//! The filter's configuration as Envoy reads it from a file. I/O: writes it.

use std::path::{Path, PathBuf};

use flag::PROTOCOL;
use flag::config::{Config, FlagService};
use flag::record::Record;
use serde_json::json;

use super::file::FilterConfig;
use super::store::write_atomically;

/// The text of the file.
pub fn render(filter: &FilterConfig, header: &str, record: &Record) -> Result<String, serde_json::Error> {
    let config = Config {
        protocol: PROTOCOL,
        role: filter.role,
        header: header.to_owned(),
        workload: None,
        service: Some(FlagService { cluster: filter.cluster.clone(), authority: "versionflag".to_owned() }),
        first_answer_ms: 500,
        flags: vec![record.clone()],
    };
    let resource = json!({
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "versionflag",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "versionflag",
                "root_id": "versionflag",
                "fail_open": true,
                "vm_config": {
                    "vm_id": "versionflag",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": filter.wasm } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": serde_json::to_string(&config)?,
                },
            },
        },
    });
    let response = json!({ "version_info": format!("{}-{}", record.epoch, record.hash), "resources": [resource] });
    serde_json::to_string_pretty(&response)
}

/// Writes the file when it has to change.
#[derive(Debug, Default)]
pub struct Writer {
    last: Option<(PathBuf, String)>,
}

impl Writer {
    /// Has the file say what the record says. Whether it had to be written.
    pub fn write(&mut self, filter: &FilterConfig, header: &str, record: &Record) -> std::io::Result<bool> {
        let text = render(filter, header, record).map_err(std::io::Error::from)?;
        let same = |(path, last): &(PathBuf, String)| *path == filter.path && *last == text && path.exists();
        if self.last.as_ref().is_some_and(same) {
            return Ok(false);
        }
        let written = !has(&filter.path, &text);
        if written {
            if let Some(parent) = filter.path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            write_atomically(&filter.path, text.as_bytes())?;
        }
        self.last = Some((filter.path.clone(), text));
        Ok(written)
    }
}

fn has(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|found| found == text)
}
