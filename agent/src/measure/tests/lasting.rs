//! What measuring keeps over a restart, and a disk that does not answer.

use std::process::Command;

use clap::Parser;
use drover_common::protocol::UsageDigest;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::kubeconfig::Way;
use crate::{Args, Config};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    args: Args,
}

/// An agent's measuring of a made-up machine, as often as a test likes it.
struct Measured {
    measuring: Measuring,
    digests: mpsc::Receiver<Input>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Measured {
    fn start(root: &Path, names: &ContainerNames) -> Self {
        drover_kubernetes::install_crypto_provider();
        let flags = ["drover-agent", "--node-name=n", "--usage-source=cgroup"];
        let config = Config::try_from(Flags::parse_from(flags).args).unwrap();
        let (pod_names, _nobody_answers) = PodNamesQuestion::channel();
        let (containers, mut asked) = ContainersQuestion::channel();
        let names = names.clone();
        let answers = tokio::spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _nobody_asks = answer.send(names.clone());
            }
        });
        let settings = Settings {
            root: root.to_owned(),
            interval: Duration::from_millis(20),
            digest_interval: Duration::from_millis(60),
            source: config.usage_source,
            kubelet: KubeletSettings::of(&config, Way::of(&config), watch::channel(None).1, None),
            gpus: GpuChoice::Off,
            has_gpus: watch::channel(false).1,
            pod_names,
            containers,
        };
        let (inputs, digests) = mpsc::channel(16);
        let (measuring, task) = Measuring::new(settings, state(root), inputs);
        let tasks = [answers, tokio::spawn(task)].map(AbortOnDropHandle::new);
        Self { measuring, digests, _tasks: tasks }
    }

    /// The next digest that knows a container.
    async fn digest(&mut self) -> UsageDigest {
        let next = async {
            while let Some(input) = self.digests.recv().await {
                let Input::Usage(Some(digest)) = input else { continue };
                if digest.pods.iter().any(|pod| !pod.containers.is_empty()) {
                    return digest;
                }
            }
            panic!("nothing is measured any more");
        };
        timeout(Duration::from_secs(10), next).await.unwrap()
    }

    async fn stop(self) {
        timeout(Duration::from_secs(4), self.measuring.finish()).await.unwrap();
    }
}

fn state(root: &Path) -> StateDir {
    StateDir::at(&root.join("state"))
}

/// A machine with one container, which uses so much memory.
fn write_container(root: &Path, bytes: u64) -> ContainerNames {
    write_machine(root);
    let pod = root.join("sys/fs/cgroup/kubepods/podaaaa-1");
    let id = "1".repeat(64);
    for group in [pod.clone(), pod.join(&id)] {
        write_pod(&group, 9);
        write(&group.join("memory.current"), &format!("{}\n", bytes + 1_000));
    }
    let name = ContainerName { name: "web".into(), id: ContainerId::of_hex(&id), lasts: true };
    ContainerNames::from([("aaaa-1".into(), vec![name])])
}

#[tokio::test]
async fn histories_outlive_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let names = write_container(root, 900_000_000);
    let mut first = Measured::start(root, &names);
    assert_eq!(first.digest().await.pods[0].memory_peak, Some(900_000_000));
    first.stop().await;
    // Long before it was time to write.
    assert!(state(root).load_history().await.is_some());
    write_container(root, 5_000_000);
    let mut second = Measured::start(root, &names);
    let digest = second.digest().await;
    assert_eq!(digest.pods[0].memory_working_set, 5_000_000);
    assert_eq!(digest.pods[0].memory_peak, Some(900_000_000));
    second.stop().await;
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_neither_digests_nor_the_end() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let names = write_container(root, 5_000_000);
    fs::create_dir(root.join("state")).unwrap();
    // Who opens one waits for whom it is for at the other end.
    let pipes = ["usage.json", "usage.json.new"].map(|name| root.join("state").join(name));
    for pipe in &pipes {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let mut measured = Measured::start(root, &names);
    assert_eq!(measured.digest().await.pods[0].memory_peak, Some(5_000_000));
    measured.stop().await;
    // Lets the threads go that open them.
    let _ends =
        pipes.map(|pipe| std::fs::File::options().read(true).write(true).open(pipe).unwrap());
}
