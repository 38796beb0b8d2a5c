//! Against a fake bus, on a socket of the tests' own, with a logind and a systemd on it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use tokio::net::UnixListener;
use zbus::connection::{Builder, Connection};
use zbus::{Guid, Message, OwnedFd, fdo, interface};

use super::*;

const LOGIN: &str = "/org/freedesktop/login1";
/// Who owns every name on the fake bus.
const OWNER: &str = ":1.0";

/// What the machine was asked, and how it answers.
#[derive(Debug, Default)]
struct Books {
    /// The other ends of locks; a released one is closed.
    locks: Vec<UnixStream>,
    asked: Vec<String>,
    powered_off: u32,
    denies: bool,
    stopping: bool,
    /// How long locks may delay a shutdown, where that is not 30 s.
    delay: Option<Duration>,
    /// Nobody says how long.
    mute: bool,
}

type Shared = Arc<Mutex<Books>>;

struct Bus;

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> String {
        ":1.7".to_owned()
    }

    fn add_match(&self, _rule: String) {}

    fn remove_match(&self, _rule: String) {}

    fn get_name_owner(&self, _name: String) -> String {
        OWNER.to_owned()
    }
}

struct Logind(Shared);

#[interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn inhibit(
        &self,
        what: String,
        who: String,
        _why: String,
        mode: String,
    ) -> fdo::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut books = self.0.lock().unwrap();
        if books.stopping || books.denies {
            return Err(fdo::Error::Failed("no lock now".to_owned()));
        }
        books.asked.push(format!("{what} {who} {mode}"));
        books.locks.push(ours);
        Ok(OwnedFd::from(std::os::fd::OwnedFd::from(theirs)))
    }

    fn power_off(&self, interactive: bool) -> fdo::Result<()> {
        let mut books = self.0.lock().unwrap();
        if books.denies || interactive {
            return Err(fdo::Error::AccessDenied("polkit says no".to_owned()));
        }
        books.powered_off += 1;
        Ok(())
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        self.0.lock().unwrap().stopping
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> fdo::Result<u64> {
        if self.0.lock().unwrap().mute {
            return Err(fdo::Error::Failed("busy".to_owned()));
        }
        let delay = self.0.lock().unwrap().delay.unwrap_or(Duration::from_secs(30));
        Ok(u64::try_from(delay.as_micros()).unwrap())
    }
}

struct Systemd(Shared);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    #[zbus(property)]
    fn system_state(&self) -> String {
        if self.0.lock().unwrap().stopping { "stopping" } else { "running" }.to_owned()
    }
}

/// A machine with a bus.
pub(crate) struct FakeMachine {
    books: Shared,
    connections: Arc<Mutex<Vec<Connection>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl FakeMachine {
    /// Listens below a host's root.
    pub(crate) fn start(root: &Path) -> Self {
        let socket = root.join(SOCKET);
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _from_before = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let books = Shared::default();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (theirs, kept) = (Arc::clone(&books), Arc::clone(&connections));
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let built = Builder::unix_stream(stream.into_std().unwrap())
                    .server(Guid::generate())
                    .p2p()
                    .serve_at("/org/freedesktop/DBus", Bus)
                    .serve_at(LOGIN, Logind(Arc::clone(&theirs)))
                    .serve_at("/org/freedesktop/systemd1", Systemd(Arc::clone(&theirs)))
                    .build()
                    .await
                    .unwrap();
                kept.lock().unwrap().push(built);
            }
        });
        Self { books, connections, listening }
    }

    pub(crate) fn powered_off(&self) -> u32 {
        self.books.lock().unwrap().powered_off
    }

    fn deny(&self, denies: bool) {
        self.books.lock().unwrap().denies = denies;
    }

    /// Locks that are held.
    pub(crate) fn locks(&self) -> usize {
        let books = self.books.lock().unwrap();
        let held = |lock: &&UnixStream| {
            let mut byte = [0];
            let read = std::io::Read::read(&mut &**lock, &mut byte);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        books.locks.iter().filter(held).count()
    }

    /// Tells everybody that the machine shuts down, or that it does not after all.
    pub(crate) async fn shut_down(&self, begins: bool) {
        self.books.lock().unwrap().stopping = begins;
        let connections = self.connections.lock().unwrap().clone();
        for connection in connections {
            let signal =
                Message::signal(LOGIN, "org.freedesktop.login1.Manager", "PrepareForShutdown")
                    .sender(OWNER)
                    .build(&begins)
                    .unwrap();
            connection.send(&signal).await.unwrap();
        }
    }

    /// Systemd stops its units. Who listens to logind alone hears nothing of it.
    pub(crate) fn stop_units(&self) {
        self.books.lock().unwrap().stopping = true;
    }

    /// The bus goes, and whoever is on it.
    async fn stop(self) {
        self.listening.abort();
        let _aborted = self.listening.await;
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        for connection in connections {
            connection.close().await.unwrap();
        }
    }
}

struct Followed {
    power: Power,
    inputs: mpsc::Receiver<Input>,
    task: tokio::task::JoinHandle<()>,
}

fn follow_root(root: &Path, may_power_off: bool) -> Followed {
    let (power, asked) = Power::new();
    let (sender, inputs) = mpsc::channel(16);
    let stop_grace = Duration::from_secs(140);
    let looks_every = Duration::from_millis(50);
    let settings = Settings { socket: root.join(SOCKET), may_power_off, stop_grace, looks_every };
    let task = tokio::spawn(follow(settings, sender, asked));
    Followed { power, inputs, task }
}

/// A machine with a bus, and a follower that has found it.
async fn on_a_bus() -> (tempfile::TempDir, FakeMachine, Followed) {
    let root = tempfile::tempdir().unwrap();
    let machine = FakeMachine::start(root.path());
    let mut followed = follow_root(root.path(), true);
    followed.arrive().await;
    (root, machine, followed)
}

impl Followed {
    /// What is heard first on a bus: the machine can be powered off, and does not shut down.
    async fn arrive(&mut self) {
        assert!(matches!(self.next().await, Input::PowerOff(grace) if grace == seconds(30)));
        assert!(matches!(self.next().await, Input::Shutdown(None)));
    }

    async fn next(&mut self) -> Input {
        let next = tokio::time::timeout(Duration::from_secs(20), self.inputs.recv()).await;
        next.expect("something is heard").expect("it goes on")
    }
}

fn seconds(seconds: i64) -> Option<SignedDuration> {
    Some(SignedDuration::from_secs(seconds))
}

#[tokio::test]
async fn a_shutdown_waits_for_the_lock_and_a_cancelled_one_is_delayed_again() {
    let (_root, machine, mut followed) = on_a_bus().await;
    assert_eq!(machine.books.lock().unwrap().asked, ["shutdown drover-agent delay"]);
    assert_eq!(machine.locks(), 1);
    assert!(!followed.power.is_shutting_down().await);

    machine.shut_down(true).await;
    assert!(matches!(followed.next().await, Input::Shutdown(waits) if waits == seconds(170)));
    assert!(followed.power.is_shutting_down().await);
    assert_eq!(machine.locks(), 1, "the agent has not said that it may go on");
    followed.power.allow_shutdown();
    while machine.locks() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    machine.shut_down(false).await;
    assert!(matches!(followed.next().await, Input::Shutdown(None)));
    assert_eq!(machine.locks(), 1);
    followed.task.abort();
}

#[tokio::test]
async fn the_machine_is_powered_off_or_it_is_said_why_not() {
    let (_root, machine, mut followed) = on_a_bus().await;
    followed.power.power_off(1).unwrap();
    assert!(matches!(followed.next().await, Input::PoweredOff(1, Ok(()))));
    assert_eq!(machine.powered_off(), 1);
    machine.deny(true);
    followed.power.power_off(2).unwrap();
    let Input::PoweredOff(2, Err(reason)) = followed.next().await else { panic!("it was denied") };
    assert!(reason.contains("polkit says no"), "{reason}");

    machine.stop().await;
    assert!(matches!(followed.next().await, Input::PowerOff(None)));
    followed.power.power_off(3).unwrap();
    assert!(matches!(followed.next().await, Input::PoweredOff(3, Err(_))));
    assert!(!followed.power.is_shutting_down().await);
    followed.task.abort();
}

#[tokio::test]
async fn a_machine_without_a_bus_is_said_to_have_none_and_one_that_may_not_is_left_on() {
    let root = tempfile::tempdir().unwrap();
    let mut followed = follow_root(root.path(), true);
    assert!(matches!(followed.next().await, Input::PowerOff(None)));
    followed.power.power_off(1).unwrap();
    assert!(matches!(followed.next().await, Input::PoweredOff(1, Err(_))));
    followed.task.abort();

    let machine = FakeMachine::start(root.path());
    machine.shut_down(true).await;
    let mut followed = follow_root(root.path(), false);
    assert!(matches!(followed.next().await, Input::PowerOff(None)));
    assert!(matches!(followed.next().await, Input::Shutdown(Some(_))), "it began before the agent");
    assert_eq!(machine.locks(), 0, "it is too late for one");
    followed.task.abort();
}

#[tokio::test]
async fn a_delay_raised_later_and_a_lock_given_later_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let machine = FakeMachine::start(root.path());
    machine.deny(true);
    let mut followed = follow_root(root.path(), true);
    followed.arrive().await;
    assert_eq!(machine.locks(), 0);
    machine.deny(false);
    machine.books.lock().unwrap().delay = Some(Duration::from_secs(90));
    assert!(matches!(followed.next().await, Input::PowerOff(grace) if grace == seconds(90)));
    while machine.locks() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What can't be read for a while costs nobody the lock.
    machine.books.lock().unwrap().mute = true;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(machine.locks(), 1);
    machine.shut_down(true).await;
    assert!(matches!(followed.next().await, Input::Shutdown(waits) if waits == seconds(230)));
    followed.task.abort();
}

#[tokio::test]
async fn a_shutdown_called_off_while_the_bus_was_away_is_over() {
    let (root, machine, mut followed) = on_a_bus().await;
    machine.shut_down(true).await;
    assert!(matches!(followed.next().await, Input::Shutdown(Some(_))));
    machine.stop().await;
    assert!(matches!(followed.next().await, Input::PowerOff(None)));
    let _back = FakeMachine::start(root.path());
    followed.arrive().await;
    followed.task.abort();
}
