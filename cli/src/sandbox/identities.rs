//! Who leaders and agents are in a sandbox: the accounts, roles and policies of `deploy/manifests`,
//! tokens as kubelets would mount them, and certificates.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use drover_common::call::{Kind, Target};
use drover_common::cluster::ObjectKey;
use drover_sandbox::{Authority, SharedWorld};
use serde_json::{Value, json};

use super::{in_world, manifests};

/// Drover's own manifests, those of the leaders' workload aside: the replicas run on this machine.
const MANIFESTS: [(&str, &str); 5] = [
    ("00-namespace.yaml", include_str!("../../../deploy/manifests/00-namespace.yaml")),
    ("10-agent-rbac.yaml", include_str!("../../../deploy/manifests/10-agent-rbac.yaml")),
    ("11-agent-admission.yaml", include_str!("../../../deploy/manifests/11-agent-admission.yaml")),
    ("12-agent.yaml", include_str!("../../../deploy/manifests/12-agent.yaml")),
    ("20-leader-rbac.yaml", include_str!("../../../deploy/manifests/20-leader-rbac.yaml")),
];

const NAMESPACE: &str = "drover-system";
const AGENT: &str = "drover-agent";
const LEADER: &str = "drover-leader";

/// How long an agent's tokens live, seconds, and when they are renewed, as a kubelet does.
const AGENT_TOKEN_LIFE: i64 = 3600;
const AGENT_TOKEN_RENEWAL: Duration = Duration::from_secs(48 * 60);
/// A replica's token is made once.
const LEADER_TOKEN_LIFE: i64 = 30 * 24 * 3600;

/// Installs what Drover needs in the cluster.
pub(crate) async fn install(client: &kube::Client) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    let documents: Vec<_> = MANIFESTS
        .iter()
        .flat_map(|(file, text)| manifests::parse(file, text, &mut errors))
        .collect();
    let applied = manifests::apply(client, &documents).await;
    errors.extend(applied.errors);
    anyhow::ensure!(errors.is_empty(), "Drover's own manifests: {}", errors.join("; "));
    Ok(())
}

/// The files that a replica is started with.
pub(crate) struct LeaderFiles {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) authority: PathBuf,
    certificates: PathBuf,
}

impl LeaderFiles {
    /// Makes an authority, a certificate for each replica, and the replicas' kubeconfig.
    pub(crate) fn write(
        folder: &Path,
        server: &str,
        world: &SharedWorld,
        replicas: u8,
    ) -> anyhow::Result<Self> {
        let certificates = folder.join("certificates");
        std::fs::create_dir_all(&certificates).context("cannot make a folder")?;
        let authority = Authority::new()?;
        let files = Self {
            kubeconfig: folder.join("leader.kubeconfig"),
            authority: certificates.join("ca.crt"),
            certificates,
        };
        write(&files.authority, &authority.certificate())?;
        for id in 1..=replicas {
            let issued = authority.issue(&format!("leader-{id}"), &["127.0.0.1"])?;
            write(&files.certificate(id), &issued.certificate)?;
            write(&files.key(id), &issued.key)?;
        }
        let token = folder.join("leader.token");
        write(&token, &issue(world, LEADER, &json!({ "expirationSeconds": LEADER_TOKEN_LIFE }))?)?;
        write(&files.kubeconfig, &kubeconfig(server, &token))?;
        Ok(files)
    }

    pub(crate) fn certificate(&self, id: u8) -> PathBuf {
        self.certificates.join(format!("leader-{id}.crt"))
    }

    pub(crate) fn key(&self, id: u8) -> PathBuf {
        self.certificates.join(format!("leader-{id}.key"))
    }
}

/// An agent's pod on a node, as its DaemonSet has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPod {
    name: String,
    uid: String,
}

impl AgentPod {
    /// The running agent pod of a node.
    pub(crate) fn on(world: &SharedWorld, node: &str) -> Option<Self> {
        let text = |pod: &Value, pointer: &str| {
            pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        world.with(|world, _| {
            let pods = drover_sandbox::world::resource::PODS;
            let found = world.store.iter_namespace(&pods, NAMESPACE).find(|(_, pod)| {
                text(pod, "/spec/nodeName") == node
                    && text(pod, "/spec/serviceAccountName") == AGENT
                    && text(pod, "/status/phase") == "Running"
            });
            found.map(|(key, pod)| Self {
                name: key.name.to_string(),
                uid: text(pod, "/metadata/uid"),
            })
        })
    }
}

/// The tokens and the kubeconfig of one agent, as its pod would find them mounted.
pub(crate) struct AgentFiles {
    folder: PathBuf,
    pod: AgentPod,
    renewed: Instant,
}

impl AgentFiles {
    /// Writes the files of an agent's pod.
    pub(crate) fn write(
        folder: &Path,
        server: &str,
        world: &SharedWorld,
        pod: AgentPod,
    ) -> anyhow::Result<Self> {
        let files = Self { folder: folder.to_owned(), pod, renewed: Instant::now() };
        files.write_tokens(world)?;
        write(&files.kubeconfig(), &kubeconfig(server, &files.api_token()))?;
        Ok(files)
    }

    /// Renews the tokens when they have lived most of their life.
    pub(crate) fn renew(&mut self, world: &SharedWorld) -> anyhow::Result<()> {
        if self.renewed.elapsed() >= AGENT_TOKEN_RENEWAL {
            self.write_tokens(world)?;
            self.renewed = Instant::now();
        }
        Ok(())
    }

    /// Whether the files are those of this pod.
    pub(crate) fn are_of(&self, pod: &AgentPod) -> bool {
        self.pod == *pod
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// The token for leaders.
    pub(crate) fn token(&self) -> PathBuf {
        self.folder.join("drover.token")
    }

    fn api_token(&self) -> PathBuf {
        self.folder.join("api.token")
    }

    fn write_tokens(&self, world: &SharedWorld) -> anyhow::Result<()> {
        let bound = json!({ "kind": "Pod", "name": self.pod.name, "uid": self.pod.uid });
        for (file, audiences) in [(self.api_token(), json!([])), (self.token(), json!(["drover"]))]
        {
            let spec = json!({
                "audiences": audiences, "boundObjectRef": bound,
                "expirationSeconds": AGENT_TOKEN_LIFE,
            });
            write(&file, &issue(world, AGENT, &spec)?)?;
        }
        Ok(())
    }
}

/// Makes an agent's pod on a node that no kubelet looks after; returns its token for the leaders.
pub(crate) fn agent_token(world: &SharedWorld, node: &str) -> anyhow::Result<String> {
    let name = format!("agent-on-{node}");
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "app": "made-up" } },
        "spec": {
            "nodeName": node, "serviceAccountName": AGENT,
            "containers": [{ "name": "agent", "image": "registry.example/agent:1" }],
        },
    });
    let target = Target::namespaced(Kind::Pod, NAMESPACE, name.as_str());
    let made = in_world::create(world, target, object)?;
    let uid = made.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
    let spec = json!({
        "audiences": ["drover"], "boundObjectRef": { "kind": "Pod", "name": name, "uid": uid },
        "expirationSeconds": AGENT_TOKEN_LIFE,
    });
    issue(world, AGENT, &spec)
}

/// Takes the agents' DaemonSet away, for those who make agents of their own.
pub(crate) fn remove_agents(world: &SharedWorld) -> anyhow::Result<()> {
    in_world::delete(world, Target::namespaced(Kind::DaemonSet, NAMESPACE, AGENT))
}

fn issue(world: &SharedWorld, account: &str, spec: &Value) -> anyhow::Result<String> {
    let key = ObjectKey::new(NAMESPACE, account);
    world
        .with(|world, now| world.tokens.issue(&world.store, &key, spec, now))
        .map(|(token, _)| token)
        .with_context(|| format!("no token for {account}"))
}

/// Writes a file whole or not at all: it may be read at any moment.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig(server: &str, token: &Path) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "sandbox",
        "clusters": [{ "name": "sandbox", "cluster": { "server": server } }],
        "contexts": [{ "name": "sandbox", "context": { "cluster": "sandbox", "user": "sandbox" } }],
        "users": [{ "name": "sandbox", "user": { "tokenFile": token } }],
    })
    .to_string()
}
