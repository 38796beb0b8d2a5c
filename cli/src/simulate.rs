//! `drover simulate`: what a leader would do with a cluster, from a dump of it.

mod disruptions;
mod document;
mod error;
#[cfg(test)]
mod fuzz;
mod json;
mod object;
mod prune;
mod read;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod workers;
mod yaml;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use drover_common::catalog;
use drover_core::offline::{Answer, Fleet, InstanceTypes, OfflineCluster};
use drover_core::planner::{Plan, RepackPlan, plan};

use crate::args::{OutputFormat, SimulateArgs};
use crate::narration::note;
use error::{InputError, Unreadable};

/// Exit status for input that cannot be read.
const UNREADABLE: u8 = 2;
/// Errors that are told; more of them are counted.
const MOST_ERRORS: usize = 20;

/// Reads, plans and answers.
///
/// # Errors
/// The answer can't be written. Input that can't be read is told and answered with status 2.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<ExitCode> {
    match answer(args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Input(unreadable)) => {
            for error in unreadable.errors.iter().take(MOST_ERRORS) {
                note(&format!("error: {error}"));
            }
            if let Some(more @ 1..) = unreadable.errors.len().checked_sub(MOST_ERRORS) {
                note(&format!("error: {more} more like these"));
            }
            Ok(ExitCode::from(UNREADABLE))
        }
        Err(Failure::Other(error)) => Err(error),
    }
}

enum Failure {
    Input(Unreadable),
    Other(anyhow::Error),
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self::Input(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn answer(args: &SimulateArgs) -> Result<(), Failure> {
    let types = match &args.catalog {
        Some(path) => read_catalog(path)?,
        None => InstanceTypes::built_in(),
    };
    let started = Instant::now();
    let read = read::read(&args.filenames)?;
    let settings = args.settings();
    let mut cluster = read.dump.into_cluster(&types, &args.node_flags(), args.now);
    let seconds_to_read = started.elapsed().as_secs_f64();
    let started = Instant::now();
    cluster.keep_static_pools(&settings);
    for warning in read.ignored.warning().iter().chain(&cluster.warnings) {
        note(&format!("warning: {warning}"));
    }
    let plan = plan(&cluster.plan_input(&settings));
    let repack =
        args.consolidate.then(|| cluster.repack(&settings, &args.repack_settings(), &plan));
    let seconds_to_plan = started.elapsed().as_secs_f64();
    let problems = repack.iter().flat_map(|repack| &repack.report.problems);
    for problem in plan.report.problems.iter().chain(problems) {
        note(&format!("warning: {problem}"));
    }
    let text = render(args.output, &cluster, &plan, repack.as_ref(), seconds_to_plan)?;
    std::io::stdout().lock().write_all(text.as_bytes()).context("cannot write the answer")?;
    note(&format!(
        "read {:.1} MB in {seconds_to_read:.2} s, planned in {seconds_to_plan:.3} s, peak memory {}",
        read.bytes as f64 / 1e6,
        peak_memory().map_or_else(|| "unknown".to_owned(), |mib| format!("{mib} MiB")),
    ));
    Ok(())
}

fn render(
    output: OutputFormat,
    cluster: &OfflineCluster,
    plan: &Plan,
    repack: Option<&RepackPlan>,
    plan_seconds: f64,
) -> anyhow::Result<String> {
    let answer = Answer::of(cluster, plan, repack, plan_seconds);
    Ok(match output {
        OutputFormat::Json => {
            let mut text = serde_json::to_string_pretty(&answer).context("cannot write JSON")?;
            text.push('\n');
            text
        }
        OutputFormat::Yaml => serde_saphyr::to_string(&answer).context("cannot write YAML")?,
        OutputFormat::Table => match repack {
            None => table::table(&Fleet::of(cluster, plan), &answer),
            Some(repack) => {
                let fleet = Fleet::repacked(cluster, plan, repack);
                let mut text = table::table(&fleet, &answer);
                text.push_str(&disruptions::text(repack));
                text
            }
        },
    })
}

fn read_catalog(path: &Path) -> Result<InstanceTypes, Failure> {
    let unreadable = |reason: String| Unreadable {
        errors: vec![InputError { file: path.display().to_string(), document: None, reason }],
    };
    let bytes = source::read_all(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_error| unreadable("it is not UTF-8".into()))?;
    let parsed = catalog::parse(&text).map_err(|error| unreadable(error.to_string()))?;
    Ok(InstanceTypes::File(parsed))
}

/// The most memory this process ever had resident, MiB (`VmHWM` of `/proc/self/status`).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024)
}
