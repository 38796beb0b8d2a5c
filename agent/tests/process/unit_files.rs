//! What `systemd/` says of the units: the times and the order that an interruption needs.

use super::*;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All values of a key, in the order of the file.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| *name == key).map(|(_, value)| value.trim()).collect()
}

/// The one value of a key.
#[track_caller]
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let [only] = values(text, key)[..] else { panic!("{key} is not said once") };
    only
}

/// Of whole seconds, which need no unit.
fn time(value: &str) -> Duration {
    let seconds = value.trim_end_matches('s').parse();
    Duration::from_secs(seconds.unwrap_or_else(|_| panic!("{value} are no whole seconds")))
}

/// The units that a key names.
fn units<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    values(text, key).into_iter().flat_map(str::split_whitespace).collect()
}

const AGENT: &str = "drover-agent.service";
const LEADER: &str = "drover-leader.service";

#[test]
fn at_a_shutdown_the_agent_ends_before_what_its_drain_needs() {
    let agent = file(AGENT);
    // Who starts after others stops before them.
    let after = units(&agent, "After");
    for needed in [
        "network-online.target",
        "dbus.service",
        "systemd-logind.service",
        "containerd.service",
        "kubelet.service",
    ] {
        assert!(after.contains(&needed), "the agent has to be after {needed}: {after:?}");
    }
    assert_eq!(units(&agent, "Before"), [] as [&str; 0]);
    // By default a unit ends at a shutdown, and is after the basic ones.
    assert_eq!(values(&agent, "DefaultDependencies"), [] as [&str; 0]);
    for unit in [&agent, &file(LEADER)] {
        let wants = units(unit, "Wants");
        assert!(wants.contains(&"network-online.target"), "nobody else may start it: {wants:?}");
        assert!(units(unit, "After").contains(&"network-online.target"));
        // A kubelet that is restarted, or is none, takes no agent with it.
        for bound in ["Requires", "BindsTo", "PartOf", "Requisite"] {
            assert_eq!(units(unit, bound), [] as [&str; 0], "{bound}");
        }
    }
}

#[test]
fn a_stop_leaves_the_drain_all_of_its_grace() {
    let grace = time(value(&file("drover-agent.default"), "DROVER_STOP_GRACE"));
    let limit = time(value(&file(AGENT), "TimeoutStopSec"));
    // It has yet to see that the time is over, and to write what it keeps.
    assert!(limit >= grace + Duration::from_secs(5), "{limit:?} for a grace of {grace:?}");
    // A spot notice is announced two minutes ahead.
    assert!(grace >= Duration::from_secs(120), "{grace:?}");
    // Systemd asks by SIGTERM, which the agent heeds, and asks the main process.
    for key in ["KillSignal", "KillMode", "ExecStop", "SendSIGKILL"] {
        assert_eq!(values(&file(AGENT), key), [] as [&str; 0], "{key}");
    }
}

#[test]
fn a_process_that_stands_still_is_restarted_and_none_is_given_up() {
    for (name, longest) in [(AGENT, 30), (LEADER, 60)] {
        let unit = file(name);
        assert_eq!(value(&unit, "Type"), "notify", "{name}");
        assert_eq!(value(&unit, "NotifyAccess"), "main", "{name}");
        let watchdog = time(value(&unit, "WatchdogSec"));
        // Fed at each third, by loops that may take seconds over a turn.
        let bounds = Duration::from_secs(15)..=Duration::from_secs(longest);
        assert!(bounds.contains(&watchdog), "{name}: {watchdog:?}");
        assert_eq!(value(&unit, "Restart"), "always", "{name}");
        assert!(time(value(&unit, "RestartSec")) <= Duration::from_secs(1), "{name}");
        assert_eq!(value(&unit, "StartLimitIntervalSec"), "0", "{name}: it would be given up");
        let start = time(value(&unit, "TimeoutStartSec"));
        assert!(start >= Duration::from_secs(30), "{name}: a slow disk and IMDS are waited for");
        let command = format!("/usr/local/bin/{}", name.trim_end_matches(".service"));
        assert_eq!(value(&unit, "ExecStart"), command);
        assert_eq!(value(&unit, "ExecStartPre"), format!("{command} validate"));
    }
}
