use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn config(flags: &[&str]) -> Result<Config, ConfigError> {
    let required = ["drover-leader", "--cluster-name=c", "--aws-region=us-east-1"];
    let arguments = required.iter().chain(flags);
    Config::try_from(Command::try_parse_from(arguments).unwrap().args)
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let config = config(&["--leader-election-namespace="]).unwrap();
    assert_eq!(config.group.timings, Timings::default());
    assert_eq!(config.group.replica, 1);
    assert_eq!(config.group.peers.len(), 1);
    assert_eq!(config.control.batch_idle, SignedDuration::from_millis(100));
    assert_eq!(config.control.batch_max, SignedDuration::from_secs(1));
    assert_eq!(config.control.vm_memory_overhead_ppm, 75_000);
    assert_eq!(config.control.lease, Some(LeaseSettings::default()));
    assert_eq!(config.kubernetes_rate, (200, 300));
    assert!(config.aws.ec2_endpoint.is_none() && config.aws.credentials.is_none());
}

#[test]
fn settings_are_taken_over() {
    let config = config(&[
        "--node-id=drover-leader-1",
        "--peers=1=a:1/2, 2=b:3/c:4,drover-leader-2=[::1]:5/6",
        "--raft-cert=crt",
        "--raft-key=key",
        "--raft-ca=ca",
        "--batch-max-duration=1m30s",
        "--preference-policy=Ignore",
        "--min-values-policy=BestEffort",
        "--vm-memory-overhead-percent=0.01",
        "--disable-leader-election",
        "--aws-endpoint-url=http://all",
        "--aws-endpoint-url-ssm=http://ssm",
    ])
    .unwrap();
    assert_eq!(config.group.replica, 2);
    let peer = |raft: &str, api: &str| Peer { raft: raft.to_owned(), api: api.to_owned() };
    let peers = [(1, peer("a:1", "a:2")), (2, peer("b:3", "c:4")), (3, peer("[::1]:5", "[::1]:6"))];
    assert_eq!(config.group.peers, BTreeMap::from(peers));
    assert_eq!(config.control.batch_max, SignedDuration::from_secs(90));
    assert_eq!(config.control.planner.preference_policy, PreferencePolicy::Ignore);
    assert_eq!(config.control.planner.min_values_policy, MinValuesPolicy::BestEffort);
    assert_eq!(config.control.vm_memory_overhead_ppm, 10_000);
    assert_eq!(config.control.lease, None);
    assert_eq!(config.aws.ec2_endpoint.as_deref(), Some("http://all"));
    assert_eq!(config.aws.ssm_endpoint.as_deref(), Some("http://ssm"));
}

#[test]
fn a_log_level_is_one_for_our_own_words_and_directives_are_kept() {
    for (given, filter) in [
        ("INFO", "info,openraft=error,kube_client::client::builder=off"),
        ("error", "error,openraft=error,kube_client::client::builder=off"),
        ("debug", "debug"),
        ("info,openraft=debug", "info,openraft=debug"),
    ] {
        let config = config(&[&format!("--log-level={given}")]).unwrap();
        assert_eq!(config.logging.filter, filter);
    }
}

#[test]
fn bad_settings_are_named_with_their_reason() {
    for (flag, variable, reason) in [
        ("--node-id=0", "DROVER_NODE_ID", "above 0"),
        ("--node-id=-3", "DROVER_NODE_ID", "neither"),
        ("--node-id=x", "DROVER_NODE_ID", "neither"),
        ("--peers=2=a:1/2", "DROVER_PEERS", "replica 1"),
        ("--peers=1=a:1/2,1=b:1/2", "DROVER_PEERS", "twice"),
        ("--peers=a:1/2", "DROVER_PEERS", "no number"),
        ("--peers=1=a/2", "DROVER_PEERS", "no Raft port"),
        ("--peers=1=a:1", "DROVER_PEERS", "no API port"),
        ("--peers=1=a:99999/2", "DROVER_PEERS", "Raft host and port"),
        ("--peers=1=:1/2", "DROVER_PEERS", "Raft host and port"),
        ("--peers=1=a:1/b:", "DROVER_PEERS", "no API port"),
        ("--cluster-name=", "CLUSTER_NAME", "must be set"),
        ("--aws-region=", "AWS_REGION", "must be set"),
        ("--batch-idle-duration=soon", "BATCH_IDLE_DURATION", "no duration"),
        ("--batch-max-duration=-1s", "BATCH_MAX_DURATION", "below zero"),
        ("--batch-max-duration=1ms", "BATCH_MAX_DURATION", "shorter"),
        ("--vm-memory-overhead-percent=7.5", "VM_MEMORY_OVERHEAD_PERCENT", "fraction"),
        ("--preference-policy=respect", "PREFERENCE_POLICY", "neither"),
        ("--min-values-policy=None", "MIN_VALUES_POLICY", "neither"),
        ("--kube-client-qps=0", "KUBE_CLIENT_QPS", "above zero"),
        ("--raft-heartbeat=1s", "DROVER_RAFT_ELECTION_MIN", "longer than the heartbeat"),
        ("--raft-election-max=500ms", "DROVER_RAFT_ELECTION_MAX", "longer"),
        ("--raft-quorum-probe=1999ms", "DROVER_RAFT_QUORUM_PROBE", "twice"),
        ("--aws-access-key-id=x", "", "go together"),
    ] {
        let required = ["--cluster-name=c", "--aws-region=us-east-1"];
        let name = flag.split('=').next().unwrap();
        let others = required.iter().filter(|other| !other.starts_with(name));
        let arguments = ["drover-leader"].iter().chain(others).chain([&flag]);
        let args = Command::try_parse_from(arguments).unwrap().args;
        let error = Config::try_from(args).expect_err(flag);
        assert_eq!(error.variable, variable, "{flag}");
        assert!(error.to_string().contains(reason), "{flag}: {error}");
    }
}

#[test]
fn a_group_needs_certificates_and_one_alone_needs_none() {
    let peers = "--peers=1=a:1/2,2=b:3/4";
    assert_eq!(config(&[]).unwrap().raft_security, RaftSecurity::Alone);
    let refused = config(&[peers]).unwrap_err();
    assert!(refused.to_string().contains("--raft-insecure"), "{refused}");
    assert_eq!(config(&[peers, "--raft-insecure"]).unwrap().raft_security, RaftSecurity::Insecure);
    let files = ["--raft-cert=crt", "--raft-key=key", "--raft-ca=ca"];
    let secured = config(&[&[peers], &files[..]].concat()).unwrap();
    let files_of = |certificate: &str, key: &str| drover_tls::CertificateFiles {
        certificate: certificate.into(),
        key: key.into(),
        authority: "ca".into(),
    };
    assert_eq!(secured.raft_security, RaftSecurity::Mutual(files_of("crt", "key")));
    config(&[&[peers], &files[..2]].concat()).unwrap_err();
    config(&[&[peers, "--raft-insecure"], &files[..]].concat()).unwrap_err();
    let api = config(&[&["--api-cert=a", "--api-key=b"], &files[..]].concat()).unwrap();
    assert_eq!(api.api_certificate, Some(files_of("a", "b")));
    config(&["--api-cert=a", "--api-key=b"]).unwrap_err();
    config(&["--api-cert=a"]).unwrap_err();
}

#[test]
fn agents_are_known_by_an_account_unless_nobody_asks() {
    let account = config(&[]).unwrap().agent_account.unwrap();
    assert_eq!(account.to_string(), "drover-system/drover-agent");
    assert_eq!(config(&["--api-insecure"]).unwrap().agent_account, None);
    for bad in ["", "a", "a/", "/b", "a/b/c"] {
        config(&[&format!("--agent-account={bad}")]).unwrap_err();
    }
}
