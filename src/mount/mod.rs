//! The kernel's door. Placeholder of this branch, replaced at merge.

use crate::backend::dir::Folder;
use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How a folder is mounted.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct MountOptions {
    pub read_only: bool,
    pub allow_other: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub umask: Option<u32>,
    pub ttl: Option<Duration>,
    pub default_store: Option<String>,
    pub stores: Vec<String>,
    pub input_key: Option<String>,
    pub passthrough: bool,
    pub source_label: String,
}

/// A live mount.
#[derive(Debug)]
pub struct Mounted {}

#[allow(missing_docs)]
impl Mounted {
    pub fn start(_: Arc<Folder>, mountpoint: &Path, _: MountOptions) -> Result<Self> {
        Err(Error::new(
            "mount",
            mountpoint.display().to_string(),
            Kind::Unsupported,
        ))
    }
    pub fn settle(&self, _: Option<&str>) -> Result<()> {
        Ok(())
    }
    pub fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    pub fn unmount(&self, _lazy: bool) -> Result<()> {
        Ok(())
    }
    pub fn wait(&self) -> Result<()> {
        Ok(())
    }
}
