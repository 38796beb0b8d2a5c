//! A world in real time behind loopback listeners.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::faces::{admin, ec2, imds, kubelet, kubernetes, pricing, sqs, ssm};
use crate::host_tree::HostTrees;
use crate::shared::SharedWorld;
use crate::world::WorldOptions;

/// How often a running sandbox looks whether something is due.
const TICK: Duration = Duration::from_millis(50);

/// How often the files of simulated machines are written, at most.
const HOSTS: Duration = Duration::from_millis(500);

/// Time that each of them takes its turn in.
const HOST_FILE: Duration = Duration::from_micros(500);

/// How a sandbox is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The world in it.
    pub world: WorldOptions,
    /// Where the kernel's files of each instance are kept, for agents that measure: the folder
    /// `<hosts>/<instance id>` stands for its `/`. Nowhere if `None`.
    pub hosts: Option<PathBuf>,
}

/// Why a sandbox did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A loopback port could not be had.
    #[error("cannot listen on a loopback port for {face}: {source}")]
    Listen {
        /// For which face.
        face: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Base URLs of the faces, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The Kubernetes API.
    pub kubernetes: String,
    /// EC2's query protocol.
    pub ec2: String,
    /// SSM.
    pub ssm: String,
    /// Pricing.
    pub pricing: String,
    /// SQS, with a queue of the cluster's name.
    pub sqs: String,
    /// Commands to the sandbox itself.
    pub admin: String,
    /// The metadata service of instance `i` is at `<imds>/i`.
    pub imds: String,
    /// The kubelet of node `n` is at `<kubelet>/n`.
    pub kubelet: String,
}

/// A running sandbox. Its faces stop when it is dropped or [`Sandbox::shutdown`].
#[derive(Debug)]
pub struct Sandbox {
    world: SharedWorld,
    endpoints: Endpoints,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Binds the listeners and starts the world.
    ///
    /// # Errors
    /// When a loopback port cannot be had.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let world = SharedWorld::new(options.world);
        let stop = CancellationToken::new();
        let mut faces = Faces { stop: stop.clone(), tasks: Vec::new() };
        let endpoints = Endpoints {
            kubernetes: faces.serve("kubernetes", kubernetes::router(world.clone())).await?,
            ec2: faces.serve("ec2", ec2::router(world.clone())).await?,
            ssm: faces.serve("ssm", ssm::router(world.clone())).await?,
            pricing: faces.serve("pricing", pricing::router(world.clone())).await?,
            sqs: faces.serve("sqs", sqs::router(world.clone())).await?,
            admin: faces.serve("admin", admin::router(world.clone())).await?,
            imds: faces.serve("imds", imds::router(world.clone())).await?,
            kubelet: faces.serve("kubelet", kubelet::router(world.clone())).await?,
        };
        let mut tasks = faces.tasks;
        tasks.push(tokio::spawn(keep_ticking(world.clone(), stop.clone())));
        if let Some(hosts) = options.hosts {
            tasks.push(tokio::spawn(keep_hosts(
                world.clone(),
                HostTrees::new(hosts),
                stop.clone(),
            )));
        }
        Ok(Self { world, endpoints, stop, tasks })
    }

    /// Where the faces are.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The world, for those in the same process.
    pub fn world(&self) -> &SharedWorld {
        &self.world
    }

    /// A kubeconfig that leads to the sandbox.
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: sandbox\nclusters:\n- name: sandbox\n  cluster:\n    server: {}\ncontexts:\n- name: sandbox\n  context:\n    cluster: sandbox\n    user: sandbox\n    namespace: default\nusers:\n- name: sandbox\n  user:\n    token: sandbox-admin\n",
            self.endpoints.kubernetes
        )
    }

    /// Stops the faces and the world's time.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            // A task that panicked has told so itself; there is nothing left to wait for.
            let _ = task.await;
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn keep_ticking(world: SharedWorld, stop: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => world.tick(),
        }
    }
}

/// Writes the files of simulated machines; the more there are, the more rarely.
async fn keep_hosts(world: SharedWorld, mut trees: HostTrees, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let pause = HOSTS.max(HOST_FILE * u32::try_from(trees.files()).unwrap_or(u32::MAX));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let (usage, now) = world.with(|world, now| (world.cluster.usage(&world.cloud, now), now));
        let written = tokio::task::spawn_blocking(move || {
            let result = trees.write(&usage, now);
            (trees, result)
        });
        let Ok((returned, result)) = written.await else { return };
        trees = returned;
        let failed = result.is_err();
        if let Err(error) = result
            && !failing
        {
            tracing::warn!(%error, "Files of simulated machines are not kept.");
        }
        failing = failed;
    }
}

struct Faces {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Faces {
    async fn serve(&mut self, face: &'static str, router: Router) -> Result<String, StartError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let refused = |source| StartError::Listen { face, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let stop = self.stop.clone();
        self.tasks.push(tokio::spawn(async move {
            // Watches never end by themselves, so that connections are cut when the sandbox stops.
            tokio::select! {
                served = axum::serve(listener, router).into_future() => {
                    if let Err(error) = served {
                        tracing::error!(face, %error, "A face stopped serving.");
                    }
                }
                () = stop.cancelled() => {}
            }
        }));
        Ok(format!("http://{address}"))
    }
}
