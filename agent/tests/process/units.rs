//! What a unit of systemd sees of an agent: what it says of itself, and whether it would start.

use std::os::unix::net::UnixDatagram;

use super::*;

/// As often as a third of this the watchdog is to be fed.
const WATCHDOG: Duration = Duration::from_secs(3);

/// A socket as systemd has one for its units.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(world: &World) -> (Self, PathBuf) {
        let path = world.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        // Whoever the agent runs as.
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        (Self(socket), path)
    }

    /// What was said within a time, and how long after its begin.
    fn hear(&self, time: Duration) -> Vec<(Duration, String)> {
        let began = Instant::now();
        let mut said = Vec::new();
        loop {
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return said;
            }
            self.0.set_read_timeout(Some(left)).unwrap();
            let mut bytes = [0; 4096];
            if let Ok(count) = self.0.recv(&mut bytes) {
                said.push((began.elapsed(), String::from_utf8_lossy(&bytes[..count]).into_owned()));
            }
        }
    }

    /// When the watchdog was fed within a time.
    async fn fed(self: &Arc<Self>, time: Duration) -> Vec<Duration> {
        let own = Arc::clone(self);
        let said = tokio::task::spawn_blocking(move || own.hear(time)).await.unwrap();
        said.into_iter().filter(|(_, text)| text.contains("WATCHDOG=1")).map(|(at, _)| at).collect()
    }
}

/// The longest time without.
fn longest_gap(fed: &[Duration], whole: Duration) -> Duration {
    let ends = fed.iter().copied().chain([whole]);
    let begins = [Duration::ZERO].into_iter().chain(fed.iter().copied());
    ends.zip(begins).map(|(end, begin)| end - begin).max().unwrap()
}

fn signal(process: &Process, name: &str) {
    let _alone = forks();
    let id = process.0.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_ready_and_its_watchdog_fed_while_its_loops_turn() {
    let world = World::new().await;
    let (systemd, path) = Systemd::listen(&world);
    let systemd = Arc::new(systemd);
    let microseconds = WATCHDOG.as_micros().to_string();
    let more =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", microseconds.as_str())];
    let agent = world.start(&more);
    let own = Arc::clone(&systemd);
    let said = tokio::task::spawn_blocking(move || own.hear(Duration::from_secs(4))).await.unwrap();
    let ready = said.iter().position(|(_, text)| text.contains("READY=1")).unwrap();
    assert_eq!(ready, 0, "{said:?}");
    let fed = |(_, text): &&(Duration, String)| text.contains("WATCHDOG=1");
    assert!(said.iter().filter(fed).count() >= 2, "{said:?}");

    // A metadata service that hangs makes no agent that does.
    world.state.lock().unwrap().imds_hangs = true;
    let time = Duration::from_secs(12);
    let fed = systemd.fed(time).await;
    assert!(longest_gap(&fed, time) < WATCHDOG, "{fed:?}");
    world.state.lock().unwrap().imds_hangs = false;

    // One that stands still is seen to.
    signal(&agent, "-STOP");
    let _sent_before = systemd.fed(Duration::from_millis(100)).await;
    assert_eq!(systemd.fed(WATCHDOG).await, [], "nobody else feeds it");
    signal(&agent, "-CONT");
    assert!(!systemd.fed(WATCHDOG).await.is_empty());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_not_ready_before_the_metadata_service_was_asked() {
    let world = World::new().await;
    world.state.lock().unwrap().imds_hangs = true;
    let (systemd, path) = Systemd::listen(&world);
    let agent = world.start(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let said =
        tokio::task::spawn_blocking(move || systemd.hear(Duration::from_secs(5))).await.unwrap();
    let [(at, text)] = said.as_slice() else { panic!("{said:?}") };
    assert!(text.contains("READY=1"), "{text}");
    assert!(*at > Duration::from_secs(1), "after {at:?}: no question had been given up by then");
    agent.stop().await;
}

/// What `validate` says, and whether a unit would start after it.
pub(super) fn validate(world: &World, more: &[(&str, &str)]) -> (bool, String) {
    let _alone = forks();
    let mut command = world.command(more);
    let output = command.arg("validate").stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_unit_is_started_by_settings_that_can_be_used_alone() {
    let world = World::new().await;
    let state = world.path("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
    let state = ("DROVER_STATE_DIR", state.to_str().unwrap());
    let (good, said) = validate(&world, &[state]);
    assert!(good && said.contains("valid: guards node n"), "{said}");
    assert!(!said.contains("warning"), "{said}");
    // What may come later is warned of, and keeps no agent from guarding its node.
    let missing = world.path("none");
    for variable in ["DROVER_LEADERS_CA", "KUBECONFIG", "DROVER_STATE_DIR"] {
        let named =
            if variable == "DROVER_STATE_DIR" { "/proc/none" } else { missing.to_str().unwrap() };
        let (good, said) = validate(&world, &[state, (variable, named)]);
        assert!(good && said.contains("warning:"), "{variable}: {said}");
    }
    for (variable, value) in [
        ("NODE_NAME", ""),
        ("DROVER_LEADERS", "leaders:7946"),
        ("DROVER_STOP_GRACE", "soon"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "nowhere"),
    ] {
        let (good, said) = validate(&world, &[state, (variable, value)]);
        assert!(!good && !said.contains("valid: guards"), "{variable}={value}: {said}");
    }
    assert_eq!(world.state.lock().unwrap().cordons, 0);
}
