//! The flags of `drover simulate`.

use std::path::PathBuf;

use drover_core::planner::{MinValuesPolicy, PlannerSettings, PreferencePolicy};

/// `drover simulate`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 planned (pods that fit nowhere are an answer), 2 input that cannot be read, \
1 anything else.\n\nA dump of what matters, read from standard input:\n  \
kubectl get pods,nodes,nodepools,nodeclaims,ec2nodeclasses,pdb,daemonsets,replicasets,statefulsets,jobs,\
pvc,pv,storageclasses,csinodes,priorityclasses,namespaces -A -o json | drover simulate -f -"
)]
pub(crate) struct SimulateArgs {
    /// Kubernetes objects as kubectl prints them: JSON or YAML, gzip too; a file, a folder (its
    /// .json, .yaml and .yml files, also with .gz), or - for standard input. May be repeated.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", required = true)]
    pub(crate) filenames: Vec<PathBuf>,
    /// Instance types and prices; by default the built-in table of us-east-1.
    #[arg(long, value_name = "FILE")]
    pub(crate) catalog: Option<PathBuf>,
    /// After the plan for waiting pods, plan which managed nodes would be taken down and where their
    /// pods would go, as if every wait had passed.
    #[arg(long)]
    pub(crate) consolidate: bool,
    /// The time that ages and windows are judged by; by default the newest one in the input.
    #[arg(long, value_name = "RFC3339")]
    pub(crate) now: Option<jiff::Timestamp>,
    /// The largest node, in vCPUs, unless a pod fits on none that is smaller.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_node_vcpus: u32,
    /// Whether pods' preferences count.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    pub(crate) preference_policy: PreferenceChoice,
    /// What happens where minValues can't be met.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    pub(crate) min_values_policy: MinValuesChoice,
    /// How the answer is written.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

impl SimulateArgs {
    /// The planner's settings: those of a leader with the same flags.
    pub(crate) fn settings(&self) -> PlannerSettings {
        PlannerSettings {
            max_node_vcpus: self.max_node_vcpus,
            preference_policy: match self.preference_policy {
                PreferenceChoice::Respect => PreferencePolicy::Respect,
                PreferenceChoice::Ignore => PreferencePolicy::Ignore,
            },
            min_values_policy: match self.min_values_policy {
                MinValuesChoice::Strict => MinValuesPolicy::Strict,
                MinValuesChoice::BestEffort => MinValuesPolicy::BestEffort,
            },
            ..PlannerSettings::default()
        }
    }
}

/// Whether pods' preferences count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum PreferenceChoice {
    /// They are kept where that is possible.
    #[default]
    Respect,
    /// They are passed over.
    Ignore,
}

/// What happens where minValues can't be met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum MinValuesChoice {
    /// Nothing is launched.
    #[default]
    Strict,
    /// As many as there are do.
    BestEffort,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// The stable interface.
    Json,
    /// The same as YAML.
    Yaml,
}
