//! `drover crds`: the custom resource definitions, made from the Rust types.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::Value;

use crate::args::CrdsArgs;

/// Prints the definitions, or writes one file for each.
///
/// # Errors
/// Output or a file can't be written.
pub(crate) fn run(args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    match &args.write {
        Some(folder) => write(folder)?,
        None => print(&mut std::io::stdout().lock())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the definitions as one YAML stream.
///
/// # Errors
/// `out` can't be written to.
pub(crate) fn print(out: &mut impl Write) -> anyhow::Result<()> {
    for definition in drover_common::crd::values() {
        writeln!(out, "---")?;
        out.write_all(yaml(&definition)?.as_bytes())?;
    }
    Ok(())
}

/// Writes `<group>_<plural>.yaml` for each definition.
fn write(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("can't create the folder {}", folder.display()))?;
    for definition in drover_common::crd::values() {
        let path = folder.join(file_name(&definition));
        std::fs::write(&path, format!("---\n{}", yaml(&definition)?))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn file_name(definition: &Value) -> String {
    let text = |pointer| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    format!("{}_{}.yaml", text("/spec/group"), text("/spec/names/plural"))
}

fn yaml(definition: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(definition).context("can't write a definition as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_deploy_are_up_to_date() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds");
        for definition in drover_common::crd::values() {
            let path = folder.join(file_name(&definition));
            let stored = std::fs::read_to_string(&path).unwrap();
            let fresh = format!("---\n{}", yaml(&definition).unwrap());
            assert!(
                stored == fresh,
                "{} is stale: run `cargo run -- crds --write deploy/crds`",
                path.display()
            );
        }
    }

    #[test]
    fn yaml_says_what_the_definitions_say() {
        for definition in drover_common::crd::values() {
            let read: Value = serde_saphyr::from_str(&yaml(&definition).unwrap()).unwrap();
            assert_eq!(read, definition);
        }
    }
}
