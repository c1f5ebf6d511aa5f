//! Reads settings from a TOML file; what is wrong in it is told with its line.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::de::DeserializeOwned;

/// The settings of the file that is named, or else of the `usual` one, or else none.
pub(crate) fn settings<T: DeserializeOwned + Default>(
    named: Option<&Path>,
    usual: &str,
) -> anyhow::Result<T> {
    match named {
        Some(path) => read(path),
        None if Path::new(usual).exists() => read(Path::new(usual)),
        None => Ok(T::default()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("{shown} could not be read"))?;
    toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        anyhow!(
            "{shown}, line {line}: {}",
            error.message().replace('\n', " ")
        )
    })
}
