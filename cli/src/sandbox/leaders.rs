//! The leader group of a sandbox.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use drover_sandbox::world::access::ADMINISTRATOR;
use serde_json::Value;
use tokio::sync::Mutex;

use super::identities::LeaderFiles;
use super::member::Member;
use super::state_dir::StateDir;
use super::{CLUSTER_NAME, REGION};
use crate::args::SandboxArgs;

/// Replicas by id, each running or killed.
pub(crate) struct Leaders {
    replicas: Vec<Replica>,
    api_urls: Vec<String>,
    client: reqwest::Client,
    processes: bool,
    /// How many processes were found to have ended by other hands.
    ended: AtomicU64,
}

struct Replica {
    id: u8,
    arguments: Vec<OsString>,
    log: std::path::PathBuf,
    member: Mutex<Option<Member>>,
}

/// Parses like the `drover-leader` binary does.
#[derive(Debug, Parser)]
struct LeaderCommand {
    #[command(flatten)]
    args: drover_leader::Args,
}

impl Leaders {
    /// Starts every replica; they elect a leader among themselves.
    pub(crate) async fn start(
        args: &SandboxArgs,
        state_dir: &StateDir,
        endpoints: &drover_sandbox::Endpoints,
        files: &LeaderFiles,
    ) -> anyhow::Result<Self> {
        let ports = free_ports(usize::from(args.leaders) * 2)?;
        let addresses: Vec<(u8, SocketAddr, SocketAddr)> = (1..=args.leaders)
            .zip(ports.chunks_exact(2))
            .filter_map(|(id, pair)| match pair {
                [raft, api] => Some((id, *raft, *api)),
                _ => None,
            })
            .collect();
        let peers = addresses
            .iter()
            .map(|(id, raft, api)| format!("{id}={raft}/{api}"))
            .collect::<Vec<_>>()
            .join(",");
        let mut replicas = Vec::new();
        for (id, raft, api) in &addresses {
            let listen = [*raft, *api];
            let arguments = leader_arguments(*id, &peers, listen, state_dir, endpoints, files)?;
            replicas.push(Replica {
                id: *id,
                arguments: with_queue(args, arguments),
                log: state_dir.log_of(&format!("leader-{id}"))?,
                member: Mutex::new(None),
            });
        }
        let api_urls = addresses.iter().map(|(_, _, api)| format!("http://{api}")).collect();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()
            .context("cannot make an HTTP client")?;
        let leaders = Self {
            replicas,
            api_urls,
            client,
            processes: args.processes,
            ended: AtomicU64::new(0),
        };
        for id in 1..=args.leaders {
            leaders.restart(id).await?;
        }
        Ok(leaders)
    }

    /// The HTTP addresses of all replicas, dead ones included.
    pub(crate) fn api_urls(&self) -> &[String] {
        &self.api_urls
    }

    /// Starts a replica that does not run.
    pub(crate) async fn restart(&self, id: u8) -> anyhow::Result<()> {
        let replica = self.replica(id)?;
        let mut member = replica.member.lock().await;
        if member.is_none() {
            *member = Some(replica.spawn(self.processes)?);
        }
        Ok(())
    }

    /// Restarts replicas whose processes have ended, as a StatefulSet would.
    pub(crate) async fn supervise(&self) -> anyhow::Result<()> {
        for replica in &self.replicas {
            let mut member = replica.member.lock().await;
            if member.as_mut().is_some_and(Member::has_ended) {
                tracing::warn!(leader = replica.id, "A leader process ended and is restarted.");
                self.ended.fetch_add(1, Ordering::Relaxed);
                *member = Some(replica.spawn(self.processes)?);
            }
        }
        Ok(())
    }

    /// How many leader processes were seen to end by other hands so far.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Kills a replica without a goodbye.
    pub(crate) async fn kill(&self, id: u8) -> anyhow::Result<()> {
        let replica = self.replica(id)?;
        if let Some(member) = replica.member.lock().await.take() {
            member.kill().await;
        }
        Ok(())
    }

    /// The id and status of the replica that leads, if one says so.
    pub(crate) async fn leading(&self) -> Option<(u8, Value)> {
        for (replica, url) in self.replicas.iter().zip(&self.api_urls) {
            if replica.member.lock().await.is_none() {
                continue;
            }
            if let Some(status) = self.get(url, "/v1/status").await
                && status.get("role").and_then(Value::as_str) == Some("leader")
            {
                return Some((replica.id, status));
            }
        }
        None
    }

    /// Reads `path` from the leading replica.
    pub(crate) async fn ask(&self, path: &str) -> Option<Value> {
        let (id, _) = self.leading().await?;
        let index = self.replicas.iter().position(|replica| replica.id == id)?;
        self.get(self.api_urls.get(index)?, path).await
    }

    /// The process ids of the replicas that are processes.
    pub(crate) async fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for replica in &self.replicas {
            pids.extend(replica.member.lock().await.as_ref().and_then(Member::pid));
        }
        pids
    }

    /// Stops all replicas.
    pub(crate) async fn stop(&self) {
        for replica in &self.replicas {
            if let Some(member) = replica.member.lock().await.take() {
                member.stop().await;
            }
        }
    }

    async fn get(&self, url: &str, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{url}{path}")).bearer_auth(ADMINISTRATOR);
        let answer = request.send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }

    fn replica(&self, id: u8) -> anyhow::Result<&Replica> {
        self.replicas
            .iter()
            .find(|replica| replica.id == id)
            .with_context(|| format!("there is no leader {id}"))
    }
}

impl Replica {
    fn spawn(&self, processes: bool) -> anyhow::Result<Member> {
        if processes {
            let mut arguments = vec![OsString::from("leader")];
            arguments.extend(self.arguments.iter().cloned());
            return Member::process(&arguments, &[], &self.log);
        }
        let command =
            std::iter::once(OsString::from("drover-leader")).chain(self.arguments.iter().cloned());
        let args = LeaderCommand::try_parse_from(command).context("leader arguments")?.args;
        let config = drover_leader::Config::try_from(args).context("leader configuration")?;
        let id = self.id;
        Member::task(&format!("leader-{id}"), 1, move |shutdown| async move {
            if let Err(error) = drover_leader::run(config, shutdown).await {
                tracing::error!(leader = id, %error, "A leader ended.");
            }
        })
    }
}

/// The sandbox's queue is named after the cluster.
fn with_queue(args: &SandboxArgs, mut arguments: Vec<OsString>) -> Vec<OsString> {
    if args.interruption_queue {
        arguments.extend(["--interruption-queue".into(), CLUSTER_NAME.into()]);
    }
    arguments
}

fn leader_arguments(
    id: u8,
    peers: &str,
    [raft, api]: [SocketAddr; 2],
    state_dir: &StateDir,
    endpoints: &drover_sandbox::Endpoints,
    files: &LeaderFiles,
) -> anyhow::Result<Vec<OsString>> {
    let text = [
        ("--node-id", id.to_string()),
        ("--peers", peers.to_owned()),
        ("--raft-listen", raft.to_string()),
        ("--api-listen", api.to_string()),
        ("--cluster-name", CLUSTER_NAME.to_owned()),
        ("--cluster-endpoint", endpoints.kubernetes.clone()),
        ("--aws-region", REGION.to_owned()),
        ("--aws-endpoint-url-ec2", endpoints.ec2.clone()),
        ("--aws-endpoint-url-ssm", endpoints.ssm.clone()),
        ("--aws-endpoint-url-pricing", endpoints.pricing.clone()),
        ("--aws-endpoint-url-sqs", endpoints.sqs.clone()),
        ("--aws-access-key-id", "sandbox".to_owned()),
        ("--aws-secret-access-key", "sandbox".to_owned()),
        // Nobody waits ten minutes for a tour.
        ("--consolidation-min-node-age", "15s".to_owned()),
        ("--consolidation-period", "2s".to_owned()),
    ];
    let mut arguments: Vec<OsString> =
        text.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
    for (flag, path) in [
        ("--kubeconfig", files.kubeconfig.clone()),
        ("--data-dir", state_dir.leader_data(id)?),
        ("--raft-cert", files.certificate(id)),
        ("--raft-key", files.key(id)),
        ("--raft-ca", files.authority.clone()),
    ] {
        arguments.extend([flag.into(), path.into_os_string()]);
    }
    Ok(arguments)
}

/// Loopback ports that were free a moment ago; all are held open until the last is known. They lie
/// below those that Linux gives to outgoing connections (32768 and up), so that a replica that is
/// down for a while finds its ports free when it comes back.
fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    const FIRST: u32 = 12_000;
    const PORTS: u32 = 18_000;
    // Sandboxes that start at the same time look in different places first.
    let offset = std::process::id().wrapping_mul(97);
    let listeners: Vec<TcpListener> = (0..PORTS)
        .map(|step| FIRST + offset.wrapping_add(step) % PORTS)
        .filter_map(|port| u16::try_from(port).ok())
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    anyhow::ensure!(listeners.len() == count, "cannot find {count} free ports");
    listeners.iter().map(|listener| listener.local_addr().context("no local address")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_distinct_and_below_the_ephemeral_range() {
        let ports = free_ports(10).unwrap();
        let distinct: std::collections::BTreeSet<u16> =
            ports.iter().map(SocketAddr::port).collect();
        assert_eq!(distinct.len(), 10);
        assert!(distinct.iter().all(|port| (12_000..30_000).contains(port)), "{distinct:?}");
        TcpListener::bind(ports[0]).unwrap();
    }
}
