//! The flags of `drover simulate`.

use std::path::PathBuf;

use drover_core::offline::NodeFlags;
use drover_core::planner::{MinValuesPolicy, PlannerSettings, PreferencePolicy, RepackSettings};

/// `drover simulate`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 planned (pods that fit nowhere are an answer), 2 input that cannot be read, \
1 anything else.\n\nA dump of what matters, read from standard input:\n  \
kubectl get pods,nodes,nodepools,nodeclaims,ec2nodeclasses,pdb,daemonsets,replicasets,statefulsets,jobs,\
pvc,pv,storageclasses,csinodes,priorityclasses,namespaces,podtemplates -A -o json | drover simulate -f -\n\n\
Leave out kinds that the cluster does not have, or kubectl gets nothing; add nodeoverlays and capacitybuffers \
where it has them."
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
    #[arg(long, env = "DROVER_MAX_NODE_VCPUS", default_value_t = 32, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_node_vcpus: u32,
    /// Whether pods' preferences count.
    #[arg(long, env = "PREFERENCE_POLICY", value_enum, ignore_case = true, default_value_t)]
    pub(crate) preference_policy: PreferenceChoice,
    /// What happens where minValues can't be met.
    #[arg(long, env = "MIN_VALUES_POLICY", value_enum, ignore_case = true, default_value_t)]
    pub(crate) min_values_policy: MinValuesChoice,
    /// Replacements must save so much of what they replace, in percent, whatever they become.
    #[arg(long, env = "DROVER_CONSOLIDATION_MIN_SAVING_PERCENT", default_value_t = 10, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(..=100))]
    pub(crate) consolidation_min_saving_percent: u32,
    /// Karpenter's feature gates as `Name=true,…`, of which SpotToSpotConsolidation and ReservedCapacity count; both
    /// are true unless said otherwise.
    #[arg(long, env = "FEATURE_GATES", default_value = "", value_name = "GATES", value_parser = gates)]
    pub(crate) feature_gates: Gates,
    /// The fraction of an instance's memory that its hypervisor keeps.
    #[arg(long, env = "VM_MEMORY_OVERHEAD_PERCENT", default_value_t = 0.075, value_name = "FRACTION", value_parser = fraction)]
    pub(crate) vm_memory_overhead_percent: f64,
    /// Network interfaces that are not for pods.
    #[arg(long, env = "RESERVED_ENIS", default_value_t = 0, value_name = "COUNT")]
    pub(crate) reserved_enis: u32,
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

    /// Those of consolidation.
    pub(crate) fn repack_settings(&self) -> RepackSettings {
        RepackSettings {
            min_saving_percent: self.consolidation_min_saving_percent,
            spot_to_spot: self.feature_gates.spot_to_spot,
            ..RepackSettings::default()
        }
    }

    /// What nodes are like to such a leader.
    pub(crate) fn node_flags(&self) -> NodeFlags {
        NodeFlags {
            // A fraction below one is below a million millionths.
            vm_memory_overhead_ppm: (self.vm_memory_overhead_percent * 1e6).round() as u32,
            reserved_enis: self.reserved_enis,
            reserved_capacity: self.feature_gates.reserved_capacity,
        }
    }
}

/// The feature gates that a plan depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gates {
    spot_to_spot: bool,
    reserved_capacity: bool,
}

/// Gates by `Name=true,Other=false`; others than ours are nobody's business here.
fn gates(text: &str) -> Result<Gates, String> {
    let named = drover_leader::config::gates::parse(text)?;
    let is_open = |name: &str| named.get(name).copied().unwrap_or(true);
    Ok(Gates {
        spot_to_spot: is_open("SpotToSpotConsolidation"),
        reserved_capacity: is_open("ReservedCapacity"),
    })
}

fn fraction(text: &str) -> Result<f64, String> {
    let parsed: Option<f64> = text.parse().ok();
    let fraction = parsed.filter(|fraction| (0.0..1.0).contains(fraction));
    fraction.ok_or_else(|| format!("{text:?} is not a fraction from 0 up to 1"))
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

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, Parser as _};
    use drover_core::planner::RepackSettings;

    use super::*;
    use crate::args::Cli;

    fn flags(arguments: &[&str]) -> Result<SimulateArgs, clap::Error> {
        let all = [&["drover", "simulate", "-f", "-"], arguments].concat();
        match Cli::try_parse_from(all)?.command {
            crate::args::Command::Simulate(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_that_leaders_have_too_are_the_same() {
        let own = SimulateArgs::augment_args(Command::new("simulate"));
        let leaders = drover_leader::Args::augment_args(Command::new("leader"));
        let mut shared = Vec::new();
        for flag in own.get_arguments() {
            let Some(theirs) =
                leaders.get_arguments().find(|one| one.get_long() == flag.get_long())
            else {
                continue;
            };
            assert_eq!(flag.get_env(), theirs.get_env(), "{flag}");
            assert_eq!(flag.get_default_values(), theirs.get_default_values(), "{flag}");
            shared.extend(flag.get_long());
        }
        assert_eq!(shared.len(), 7, "{shared:?}");
    }

    #[test]
    fn what_flags_say_is_what_is_planned_with() {
        let usual = flags(&[]).unwrap();
        assert_eq!(usual.settings(), PlannerSettings::default());
        assert_eq!(usual.repack_settings(), RepackSettings::default());
        assert_eq!(usual.node_flags(), NodeFlags::default());
        let set = flags(&[
            "--consolidation-min-saving-percent=25",
            "--feature-gates=SpotToSpotConsolidation=false, ReservedCapacity=f,Other=true",
            "--vm-memory-overhead-percent=0.2",
            "--reserved-enis=1",
        ])
        .unwrap();
        let repack = set.repack_settings();
        assert_eq!((repack.min_saving_percent, repack.spot_to_spot), (25, false));
        let expected = NodeFlags {
            vm_memory_overhead_ppm: 200_000,
            reserved_enis: 1,
            reserved_capacity: false,
        };
        assert_eq!(set.node_flags(), expected);
        for refused in [
            "--consolidation-min-saving-percent=101",
            "--feature-gates=SpotToSpotConsolidation",
            "--feature-gates=SpotToSpotConsolidation=maybe",
            "--vm-memory-overhead-percent=1",
            "--vm-memory-overhead-percent=NaN",
        ] {
            assert!(flags(&[refused]).is_err(), "{refused}");
        }
    }
}
